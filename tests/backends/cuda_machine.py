"""Machines with any driver, CUDA runtime and TensorRT: child processes whose loader finds compiled stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("cuda_fake.c")
PACKAGE = Path(__file__).resolve().parents[2]

PROLOGUE = """
import json, sys
def told(error):
    return None if error is None else {"message": str(error.message), "remedy": str(error.remedy),
                                       "kind": type(error).__name__, **error.values}
"""
NO_CUDA_PYTHON = "sys.modules['cuda'] = None\n"

TENSORRT = """
import ctypes, os, sys
__version__ = "10.6.0"
class Logger:
    ERROR = 1
    def __init__(self, severity): pass
class ILogger: pass
class Runtime:
    '''Ends its process as the real one does.'''
    def __init__(self, logger):
        try:
            ctypes.CDLL("libcuda.so.1")
            driver = int(os.environ.get("FAKE_CUDA_DRIVER", "12060"))
        except OSError:
            driver = 0
        if driver < int(os.environ.get("FAKE_TENSORRT_NEEDS", "12060")):
            said = "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: 35)"
            print(f"[11/28/2026-07:05:33] [TRT] [E] {said}", flush=True)
            print("terminate called after throwing an instance of 'nvinfer1::APIUsageError'", file=sys.stderr)
            os.abort()
"""


def compiled(folder: Path, name: str, *flags: str) -> Path:
    """A stand-in as a shared library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("absent here: a C compiler")
    path = folder / name
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *flags, "-o", str(path), str(SOURCE)]
    subprocess.run(command, check=True)
    return path


@dataclass
class Machine:
    """One machine; what is not put into it, it has not.

    Attributes:
        folder: its libraries and packages.
        cuda_python: the cuda-python of this environment is seen.
        environment: of its processes, besides this process's.
    """

    folder: Path
    cuda_python: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "libcuda.so.1").touch()  # hides the one of the machine that runs the test, and does not load

    def driver(self, takes: int = 12060) -> Machine:
        compiled(self.folder, "libcuda.so.1", "-DDRIVER")
        self.environment["FAKE_CUDA_DRIVER"] = str(takes)
        return self

    def runtime(self, version: int = 12060) -> Machine:
        compiled(self.folder, f"libcudart.so.{version // 1000}", f"-DRUNTIME={version}")
        return self

    def tensorrt(self, content: str = TENSORRT) -> Machine:
        (self.folder / "tensorrt").mkdir(exist_ok=True)
        (self.folder / "tensorrt" / "__init__.py").write_text(content)
        return self

    def run(self, code: str) -> Any:
        """What ``code`` puts into ``answer``; ``told`` makes plain values of an error."""
        hidden = "" if self.cuda_python else NO_CUDA_PYTHON
        return self.process(f"{PROLOGUE}{hidden}{code}\nprint(json.dumps(answer))")

    def process(self, code: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=self._variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    @contextmanager
    def program(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The product itself on this machine; killed at the end, should it still run."""
        command = [sys.executable, "-m", "vajra_edge", *arguments]
        log = (self.folder / "log").open("a")
        with (
            log,
            subprocess.Popen(
                command, env=self._variables(), cwd=self.folder, stdout=subprocess.PIPE, stderr=log, text=True
            ) as running,
        ):
            try:
                yield running
            finally:
                running.kill()

    def _variables(self) -> dict[str, str]:
        paths = {"PYTHONPATH": f"{self.folder}:{PACKAGE}", "LD_LIBRARY_PATH": str(self.folder)}
        return {**os.environ, **paths, **self.environment}
