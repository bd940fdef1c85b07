"""Whether TensorRT starts on this machine, found out in a child process.

With a driver that is too old for it the library ends the process that makes its first ``Runtime`` (10.6: SIGSEGV on
x86-64, ``std::terminate`` on aarch64): the daemon would die of asking, and again after each restart.

A ``Builder`` takes seconds and gigabytes to make, so that of it only the library is tried that it loads: many releases
of that ask for an executable stack (10.6 for x86-64), which a sandbox or the C library may refuse.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading

from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.errors import BackendUnavailable
from vajra_edge.wording import Command, Text, say

SCRIPT = """
import ctypes, importlib, pathlib, sys
trt = importlib.import_module(sys.argv[1])
runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
for loaded in {line.split()[-1] for line in maps if "/libnvinfer.so" in line}:
    for resource in pathlib.Path(loaded).parent.glob("libnvinfer_builder_resource.so*"):
        ctypes.CDLL(str(resource))
sys.exit(runtime is None)
"""

TIMEOUT_S = 60.0
"""An Orin that has just booted reads a gigabyte of libraries from its card first."""

OLD_DRIVER = re.compile(r"error: 3[56]\b|driver version is insufficient|not supported in the installed CUDA driver")
"""What TensorRT says of a driver that is older than it needs, or lacks a call that it makes."""
NO_STACK = re.compile(r"cannot enable executable stack")
"""What the C library says of the builder's library where memory may not become a program."""
PREFIX = re.compile(r"^(\[[^\]]*\]\s*)+")
"""Date and severity of a line: with them the same failure would be another one each time."""
TOLD_CHARACTERS = 300

_LOCK = threading.Lock()
_STARTED: set[str] = set()


def refusal(library: Library) -> BackendUnavailable | None:
    """Why the library does not start here; None if it does, which is found out once a process.

    A failure is looked into anew each time: a driver comes up late. Ask ``cuda.absence`` first, which costs less.
    """
    with _LOCK:
        if str(library) in _STARTED:
            return None
        error, killed = _tried(library)
        if error is None and not killed:
            _STARTED.add(str(library))
        return error


def _tried(library: Library) -> tuple[BackendUnavailable | None, bool]:
    """Why it does not start; and whether somebody killed the child, which says nothing of the library.

    Want of memory is what the kernel kills for: a plan that serves well must not give way to the CPU's for that.
    """
    try:
        child = subprocess.run(
            (sys.executable, "-c", SCRIPT, vars(library.trt)["__name__"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",  # nothing is imported from wherever the daemon was started
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return BackendUnavailable(f"whether {library} starts cannot be told: {error}", remedy=_remedy("")), False
    if child.returncode in {0, -signal.SIGKILL}:
        return None, child.returncode != 0
    output = f"{child.stderr}\n{child.stdout}"
    ended = "does not start"
    if child.returncode < 0:
        ended = f"ends its process when it starts ({signal.Signals(-child.returncode).name})"
    return BackendUnavailable(f"{library} {ended}: {_told(output)}", remedy=_remedy(output)), False


def _told(output: str) -> str:
    """The first line that the library logged as an error, else the first that speaks of one, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    logged = [line for line in lines if "[E]" in line]
    speaking = [line for line in lines if "error" in line.lower()]
    found = (logged or speaking or lines[-1:] or ["the library gave no reason"])[0]
    return PREFIX.sub("", found)[:TOLD_CHARACTERS]


def _remedy(output: str) -> Text:
    if OLD_DRIVER.search(output):
        return (
            "this TensorRT is built for a newer CUDA than the driver takes: install the TensorRT of this JetPack or "
            "driver, or a newer driver"
        )
    if NO_STACK.search(output):
        return (
            "no engine can be built like this: take MemoryDenyWriteExecute= out of the unit's drop-ins, or install a "
            "TensorRT whose builder needs no executable stack"
        )
    return say("reinstall TensorRT for this JetPack or driver; '", Command.DOCTOR, "' lists the versions")
