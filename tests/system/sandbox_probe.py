"""What a process may do where this runs: prints a JSON object, from each attempt to what came of it.

It stands alone, with nothing but the standard library, because it is started in the place of the daemon: in the unit's
sandbox, or in a drop-in's. Every attempt is undone or harmless. ``allowed`` or ``refused: WHY``.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PROGRAM = "/usr/bin/true"
LIBRARY = next(Path("/usr/lib").glob("*-linux-gnu/libz.so.1"), Path("/nonexistent"))
WRITABLE = ("/var/lib/vajra-edge", "/run/vajra-edge", "/tmp", "/var/tmp", "/dev/shm")
CLONE_NEWUSER, PTRACE_ATTACH, PERSONA_NO_RANDOMIZE = 0x10000000, 16, 0x0040000
NETLINK, VSOCK = 16, 40
ADJ_TICK = 0x4000


def call(name: str, *arguments: object) -> None:
    """A function of the C library; raises what errno says."""
    if getattr(LIBC, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def write(folder: str) -> None:
    path = Path(folder) / f".probe-{os.getpid()}"
    path.write_bytes(b"x")
    path.unlink()


def execute(folder: str) -> None:
    path = Path(folder) / f".probe-{os.getpid()}"
    try:
        shutil.copy(PROGRAM, path)
        path.chmod(0o755)
        subprocess.run([path], check=True)
    finally:
        path.unlink(missing_ok=True)


def load_library(folder: str) -> None:
    path = Path(folder) / f".probe-{os.getpid()}.so"
    try:
        shutil.copy(LIBRARY, path)
        ctypes.CDLL(str(path))
    finally:
        path.unlink(missing_ok=True)


def execute_from_memory() -> None:
    file = os.memfd_create("probe", 0)
    os.write(file, Path(PROGRAM).read_bytes())
    subprocess.run([f"/proc/self/fd/{file}"], check=True, pass_fds=[file])


def frames_in_memory() -> None:
    """What the cameras' children need: shared memory without a name."""
    file = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.truncate(file, 4096)
    mmap.mmap(file, 4096).close()


def writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def listen(address: str, port: int) -> None:
    with socket.socket() as sock:
        sock.bind((address, port))
        sock.listen()


def receive_datagrams() -> None:
    """RTSP over UDP: FFmpeg binds ports of its own choice."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 15_004))


def dial_like_paho() -> None:
    """Paho names a source address without a port, which makes Python bind before it connects."""
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1.0, source_address=("", 0)).close()
    except ConnectionRefusedError:
        return


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def trace_child() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(5)
        os._exit(0)
    try:
        call("ptrace", PTRACE_ATTACH, child, 0, 0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def adjust_time(modes: int) -> None:
    """adjtimex(2); what it does, if anything, is to set the length of a tick to what it has."""
    timex = ctypes.create_string_buffer(256)
    call("adjtimex", timex)
    timex[0:4] = modes.to_bytes(4, sys.byteorder)
    call("adjtimex", timex)


def set_user_id_bit() -> None:
    path = Path(f"/var/lib/vajra-edge/.probe-{os.getpid()}")
    try:
        path.write_bytes(b"x")
        path.chmod(0o4755)
    finally:
        path.unlink(missing_ok=True)


def read(path: str) -> None:
    with Path(path).open("rb") as file:
        file.read(64)


def start_child_like_a_camera() -> None:
    """What a camera's child does to itself first, and that it runs at all."""
    code = (
        "import ctypes, os, resource; os.nice(5); "
        "assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0; "
        "assert ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) == 0; "
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)); "
        "open('/proc/self/oom_score_adj', 'w').write('500'); "
        "os.sched_setaffinity(0, os.sched_getaffinity(0))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def attempts() -> dict[str, Callable[[], object]]:
    tried: dict[str, Callable[[], object]] = {}
    outside = ("/etc", "/usr", "/opt", "/boot", "/var", "/var/log", "/dev", "/run", "/home", "/root", "/sys/fs/cgroup")
    for folder in (*WRITABLE, *outside):
        tried[f"write {folder}"] = lambda folder=folder: write(folder)
    for folder in WRITABLE:
        tried[f"execute {folder}"] = lambda folder=folder: execute(folder)
        tried[f"load library {folder}"] = lambda folder=folder: load_library(folder)
    tried |= {
        "execute memfd": execute_from_memory,
        "memfd": frames_in_memory,
        "writable code": writable_code,
        "listen 0.0.0.0:8080": lambda: listen("0.0.0.0", 8080),
        "listen 127.0.0.1:9464": lambda: listen("127.0.0.1", 9464),
        "datagrams": receive_datagrams,
        "dial": dial_like_paho,
        "connect /run/dbus/system_bus_socket": lambda: connect("/run/dbus/system_bus_socket"),
        "argus": lambda: connect("/tmp/argus_socket"),
        "connect /run/systemd/private": lambda: connect("/run/systemd/private"),
        "ptrace": trace_child,
        "camera child": start_child_like_a_camera,
        "user namespace": lambda: call("unshare", CLONE_NEWUSER),
        "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "load module": lambda: call("syscall", 313 if os.uname().machine == "x86_64" else 273, -1, b"", 0),
        "chroot": lambda: os.chroot("/tmp"),
        "read the clock's state": lambda: adjust_time(0),
        "adjust time": lambda: adjust_time(ADJ_TICK),
        "set time": lambda: time.clock_settime(time.CLOCK_REALTIME, 1.0),
        "become root": lambda: os.setuid(0),
        "set-user-id bit": set_user_id_bit,
        "personality": lambda: call("personality", PERSONA_NO_RANDOMIZE),
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "netlink socket": lambda: socket.socket(NETLINK, socket.SOCK_RAW).close(),
        "vsock socket": lambda: socket.socket(VSOCK, socket.SOCK_STREAM).close(),
        "other processes": lambda: os.kill(1, 0),
    }
    files = ("/home/alice/secret", "/root/.profile", "/etc/shadow", "/proc/1/environ", "/proc/kcore", "/dev/mem")
    wanted = ("/proc/meminfo", "/proc/cpuinfo", "/proc/devices", "/proc/modules", "/proc/sys/kernel/random/boot_id")
    for path in (*files, *wanted, "/run/systemd/timesync/synchronized"):
        tried[f"read {path}"] = lambda path=path: read(path)
    return tried


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        return f"refused: {type(error).__name__} {error}"
    return "allowed"


if __name__ == "__main__":
    print(json.dumps({name: outcome(attempt) for name, attempt in attempts().items()}, indent=1))
