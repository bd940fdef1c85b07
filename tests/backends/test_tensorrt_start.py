"""Whether TensorRT starts is asked of a child, and remembered only where that says something."""

from __future__ import annotations

import subprocess
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


LIBRARY = Library(ModuleType("tensorrt"), "TensorRT", "10.3.0")


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
