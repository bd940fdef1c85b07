"""I: a build while another program holds all but a little of the GPU."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lab as shared
from lab import Lab

HOLDER = """
import sys
from cuda.bindings import runtime as cudart
wanted = float(sys.argv[1]) * 2**30
def checked(result):
    assert int(result[0]) == 0, result[0]
    return result[1:]
checked(cudart.cudaFree(0))
step = 1 << 30
while True:
    free, total = checked(cudart.cudaMemGetInfo())
    spare = int(free - wanted)
    if spare < 64 << 20:
        break
    if int(cudart.cudaMalloc(min(step, spare))[0]):
        step //= 2
        if step < 16 << 20:
            break
print(free / 2**30, flush=True)
sys.stdin.read()
"""


@contextmanager
def held(lab: Lab, free_gib: float) -> Iterator[float]:
    """Another process holds the GPU but for so much; yields what is really free, in GiB."""
    if lab.dry:
        yield free_gib
        return
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(free_gib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        line = holder.stdout.readline()
        assert line, "the program that holds the memory did not start"
        yield float(line)
    finally:
        holder.stdin.close()
        try:
            holder.wait(20)
        except subprocess.TimeoutExpired:
            holder.kill()


@dataclass(frozen=True)
class Starved:
    """What came of a build with little memory.

    Attributes:
        asked_gib: should have been left.
        free_gib: was left, before this process touched the GPU.
        verdict: built, or the class of the error.
        message: of the error.
        attempts: limits that were tried, as the product noted or reported them.
        seconds: it took.
    """

    asked_gib: float
    free_gib: float
    verdict: str
    message: str
    attempts: list[str]
    seconds: float


def starved(lab: Lab, free_gib: float) -> Starved:
    """VajraV1-nano in FP16. Built, or an error of the product's that says memory; anything else is a failure."""
    from vajra_edge.backends.tensorrt.backend import TensorRT
    from vajra_edge.errors import VajraError

    spec = shared.spec_of("fp16")
    graph, found = shared.assembled(lab.model("nano").read_bytes(), spec)
    reported: list[str] = []

    def report(step: Any) -> None:
        if step.percent is None:
            reported.append(str(step.message))

    with held(lab, free_gib) as free, shared.effort(0, None):
        began_s = time.monotonic()
        try:
            built = TensorRT().build(graph, found, spec, report)
            verdict, message, attempts = "built", "", list(built.report.tensorrt.attempts)
        except VajraError as error:
            verdict, message, attempts = type(error).__name__, str(error), []
    seconds = round(time.monotonic() - began_s, 1)
    made = Starved(free_gib, round(free, 2), verdict, message, attempts or reported, seconds)
    lab.keep(made)
    assert verdict in {"built", "OutOfMemory"}, f"a want of memory is told as {verdict}: {message}"
    return made
