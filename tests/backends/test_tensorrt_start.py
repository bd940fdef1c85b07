"""Whether TensorRT starts is asked of a child, and remembered only where that says something."""

from __future__ import annotations

import _ctypes
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from vajra_edge.backends.tensorrt import start
from vajra_edge.backends.tensorrt.library import Library


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.CompletedProcess[str] | Exception]:
    """How the next children end; the first is taken first."""
    ends: list[subprocess.CompletedProcess[str] | Exception] = []

    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        end = ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(start.subprocess, "run", run)
    monkeypatch.setattr(start, "_STARTED", set())
    return ends


def ended(code: int, stdout: str = "", stderr: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess((), code, stdout, stderr)


PT_GNU_STACK = 0x6474E551

LIBRARY = Library(ModuleType("tensorrt"), "TensorRT", "10.3.0")


STANDS_FOR_TENSORRT = """
import ctypes, pathlib
class Logger:
    ERROR = 0
    def __init__(self, _): pass
def Runtime(_):
    ctypes.CDLL(str(pathlib.Path(__file__).with_name("libnvinfer.so.10")))
    if FORBIDDEN and ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
        raise SystemExit("absent here: PR_SET_MDWE")
    return object()
"""


@pytest.mark.parametrize("forbidden", [False, True])
def test_a_builders_library_that_is_refused_its_executable_stack_is_told_before_a_build(
    forbidden: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen with the real library of 10.6: under MemoryDenyWriteExecute= it does not load, so that no Builder can be."""
    monkeypatch.setattr(start, "_STARTED", set())
    plain = Path(_ctypes.__file__).read_bytes()
    (tmp_path / "libnvinfer.so.10").write_bytes(plain)
    (tmp_path / "libnvinfer_builder_resource.so.10.6.0").write_bytes(with_executable_stack(plain))
    (tmp_path / "tensorrt_of_the_test.py").write_text(f"FORBIDDEN = {forbidden}\n{STANDS_FOR_TENSORRT}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    refused = start.refusal(Library(ModuleType("tensorrt_of_the_test"), "TensorRT", "10.6.0"))
    if forbidden and refused and "absent here" in str(refused):
        pytest.skip("absent here: PR_SET_MDWE of Linux 6.3")
    if not forbidden:
        assert refused is None
        return
    assert refused is not None
    assert "cannot enable executable stack" in str(refused)
    assert "take MemoryDenyWriteExecute= out of the unit's drop-ins" in str(refused)


def with_executable_stack(library: bytes) -> bytes:
    """An ELF file of 64 bits whose PT_GNU_STACK asks for a stack that can be executed."""
    made = bytearray(library)
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    entries = [table + size * number for number in range(count)]
    (stack,) = (entry for entry in entries if struct.unpack_from("<I", library, entry)[0] == PT_GNU_STACK)
    struct.pack_into("<I", made, stack + 4, 7)
    return bytes(made)


def test_one_that_started_is_not_asked_again(asked):
    asked.append(ended(0))
    assert [start.refusal(LIBRARY), start.refusal(LIBRARY)] == [None, None]


def test_one_that_did_not_is_asked_each_time(asked):
    asked += [ended(1, stderr="TypeError: factory function returned nullptr"), ended(0)]
    refused = start.refusal(LIBRARY)
    assert refused is not None
    assert str(refused).startswith("TensorRT 10.3.0 does not start: TypeError: factory function returned nullptr; rein")
    assert start.refusal(LIBRARY) is None


def test_a_child_that_was_killed_says_nothing_and_is_not_remembered(asked):
    asked += [ended(-9), ended(-11, stdout="[x] [TRT] [E] CUDA initialization failure with error: 35")]
    assert start.refusal(LIBRARY) is None
    refused = start.refusal(LIBRARY)
    assert refused is not None
    assert "(SIGSEGV): CUDA initialization failure with error: 35; this TensorRT is built for a newer" in str(refused)


def test_a_child_that_never_ends_is_a_refusal(asked):
    asked.append(subprocess.TimeoutExpired("python", start.TIMEOUT_S))
    assert "cannot be told" in str(start.refusal(LIBRARY))


def test_a_child_that_said_nothing_is_told_as_that(asked):
    asked.append(ended(3))
    assert "does not start: the library gave no reason" in str(start.refusal(LIBRARY))
