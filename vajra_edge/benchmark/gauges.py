"""Gauges: what a GPU does, by whatever can tell: NVML on a desktop and on Thor, the kernel's files on a Jetson."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vajra_edge.backends import cuda
from vajra_edge.benchmark import nvml, tegra
from vajra_edge.benchmark.gpu_reading import GpuReading


class GpuGauge(Protocol):
    """One GPU that can be looked at, from any one thread."""

    def read(self) -> GpuReading:
        """What it does now; what cannot be read is None."""
        ...

    def close(self) -> None:
        """Let it go; a second call does nothing."""
        ...


@dataclass(frozen=True)
class NoGauge:
    """Nothing tells anything of this GPU."""

    def read(self) -> GpuReading:
        """Nothing."""
        return GpuReading()

    def close(self) -> None:
        """Nothing."""


class Both:
    """Two gauges of one GPU: the second is asked for what the first does not tell (NVML has no load of an Orin)."""

    def __init__(self, first: GpuGauge, second: GpuGauge) -> None:
        self._first, self._second = first, second

    def read(self) -> GpuReading:
        """What either tells."""
        first, second = self._first.read(), self._second.read()
        lacking = {name: getattr(second, name) for name, value in vars(first).items() if value is None}
        return replace(first, **lacking)

    def close(self) -> None:
        """Let both go."""
        with ExitStack() as stack:
            stack.callback(self._second.close)
            stack.callback(self._first.close)


def gauge_of(
    index: int, name: str, root: Path = Path("/"), open_nvml: Callable[[str, str], GpuGauge | None] = nvml.opened
) -> GpuGauge:
    """The gauge of a GPU.

    Args:
        index: CUDA's number.
        name: CUDA's name; a device of another name that NVML has under that number is not believed.
        root: where /sys is.
        open_nvml: opens the device of an index or UUID and a name by NVML; None where it cannot.
    """
    found = [one for one in (tegra.opened(root), open_nvml(_named(index), name)) if one is not None]
    if not found:
        return NoGauge()
    return found[0] if len(found) == 1 else Both(found[0], found[1])


def _named(index: int, visible: str | None = None) -> str:
    """What the driver calls CUDA's device ``index``: that variable renumbers CUDA's devices, and not NVML's."""
    listed = os.environ.get(cuda.VISIBLE, "") if visible is None else visible
    names = [part.strip() for part in listed.split(",") if part.strip()]
    return names[index] if index < len(names) else str(index)
