"""Observation: measure the ranges of a graph's tensors on a calibration set, by ONNX Runtime on the CPU.

MinMax takes one pass over the images; percentile and entropy take a second one that counts magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine import histogram
from vajra_edge.engine.backend import Progress, Report
from vajra_edge.engine.ranges import Range, Ranges, key_of, structure_of
from vajra_edge.engine.replay import Replay
from vajra_edge.errors import CalibrationError
from vajra_edge.graph import probes
from vajra_edge.graph.signature import Signature


class Inputs(Protocol):
    """The images of a calibration set, ready for a network; iterated once a pass."""

    @property
    def digest(self) -> str:
        """Digest of the images and their order."""
        ...

    def __len__(self) -> int: ...

    def inputs(self, input_hw: tuple[int, int]) -> Iterable[NDArray[np.float32]]:
        """(1, 3, H, W) float32, RGB, 0..1, letterboxed, one after the other."""
        ...


def observe(
    onnx_bytes: bytes, signature: Signature, images: Inputs, algorithm: str, report: Report, threads: int | None = None
) -> Ranges:
    """Run all images through the graph and keep how large each tensor gets.

    Args:
        onnx_bytes: the FP32 graph.
        signature: its signature.
        images: the calibration set.
        algorithm: minmax, percentile or entropy.
        report: takes progress; may raise to stop.
        threads: of the CPU; None: all.

    Raises:
        CalibrationError: an image cannot be read, the network fails on it, or a tensor is not finite.
    """
    tensors = probes.measurable(onnx_bytes)
    means = probes.channelled(onnx_bytes)
    found = _extremes(onnx_bytes, signature, _Pass(images, signature, report, "ranges", threads), tensors, means)
    ranges = Ranges(
        found, "minmax", key_of(onnx_bytes, images.digest, algorithm), structure_of(onnx_bytes), len(images)
    )
    if algorithm == "minmax":
        return ranges
    counted = _Pass(images, signature, report, "histograms", threads)
    return ranges.with_amax(_limits(onnx_bytes, signature, counted, ranges, algorithm), algorithm)


class _Pass:
    """One run over all images, with progress and an error where fewer come than were promised."""

    def __init__(self, images: Inputs, signature: Signature, report: Report, what: str, threads: int | None) -> None:
        self.images = images
        self.signature = signature
        self.report = report
        self.what = what
        self.threads = threads

    def each(self, act: Callable[[NDArray[np.float32]], None]) -> None:
        count, done = len(self.images), 0
        for image in self.images.inputs(self.signature.resolution_hw):
            act(image)
            done += 1
            self.report(Progress("calibrate", 100 * done / count, f"{self.what}: image {done} of {count}"))
        if done < count:
            raise CalibrationError(
                f"the calibration set ended after {done} of {count} images", remedy="check its files", done=done
            )


def _extremes(
    onnx_bytes: bytes, signature: Signature, run: _Pass, tensors: list[str], means: list[str]
) -> dict[str, Range]:
    replay = Replay(probes.extremes(onnx_bytes, tensors, means), signature, run.threads)
    low, high = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    sums: dict[str, NDArray[np.float64]] = {}

    def act(image: NDArray[np.float32]) -> None:
        made = replay.run(image)
        np.minimum(low, made[probes.LOW], out=low)
        np.maximum(high, made[probes.HIGH], out=high)
        _require_finite(tensors, made[probes.LOW], made[probes.HIGH])
        for name in means:
            row = made[probes.MEAN + name].mean(axis=0, dtype=np.float64)
            sums[name] = sums.get(name, 0) + row

    run.each(act)
    count = len(run.images)
    return {
        name: Range(float(low[at]), float(high[at]), float(max(-low[at], high[at], 0)), _mean(sums.get(name), count))
        for at, name in enumerate(tensors)
    }


def _mean(total: NDArray[np.float64] | None, count: int) -> tuple[float, ...]:
    return () if total is None else tuple(float(value) for value in total / count)


def _require_finite(tensors: list[str], *rows: NDArray[np.float32]) -> None:
    for row in rows:
        if not np.isfinite(row).all():
            name = tensors[int(np.flatnonzero(~np.isfinite(row))[0])]
            raise CalibrationError(
                f"tensor {name} is not finite on a calibration image", remedy="check the weights", tensor=name
            )


def _limits(onnx_bytes: bytes, signature: Signature, run: _Pass, ranges: Ranges, algorithm: str) -> dict[str, float]:
    amax = {name: value for name, value in ranges.amax().items() if value > 0}
    replay = Replay(probes.histograms(onnx_bytes, amax, histogram.BINS), signature, run.threads)
    counts = {name: np.zeros(histogram.BINS, np.int64) for name in amax}

    def act(image: NDArray[np.float32]) -> None:
        made = replay.run(image)
        for name in counts:
            counts[name] += made[probes.COUNTS + name]

    run.each(act)
    return {name: histogram.limit(counts[name], most, algorithm) for name, most in amax.items()}
