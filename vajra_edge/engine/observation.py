"""Observation: measure the ranges of a graph's tensors on a calibration set, by ONNX Runtime on the CPU.

MinMax takes one pass over the images; percentile and entropy take a second one that counts magnitudes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine import histogram
from vajra_edge.engine.calibration import Inputs
from vajra_edge.engine.ranges import Range, Ranges, key_of, structure_of
from vajra_edge.engine.replay import Outputs, Replay
from vajra_edge.errors import CalibrationError
from vajra_edge.graph import probes
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Progress, Report


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
    extremes = Extremes(onnx_bytes, signature.resolution_hw)
    replay = Replay(probes.extremes(onnx_bytes, extremes.tensors, extremes.means), signature, threads, lean=True)
    for batch in Pass(images, signature, report, "ranges").batches(replay.rows):
        extremes.add(replay.run(batch), len(batch), replay.rows)
    ranges = extremes.ranges(images.digest, algorithm, _collector())
    if algorithm == "minmax":
        return ranges
    counted = Pass(images, signature, report, "histograms")
    return ranges.with_amax(_limits(onnx_bytes, signature, counted, ranges, algorithm, threads), algorithm)


@dataclass(frozen=True)
class Pass:
    """One run over all images.

    Attributes:
        images: the calibration set.
        signature: of the graph; tells the size.
        report: takes progress; may raise to stop.
        what: is measured, for a person.
    """

    images: Inputs
    signature: Signature
    report: Report
    what: str

    def batches(self, size: int = 1) -> Iterator[NDArray[np.float32]]:
        """(n, 3, H, W) with n = ``size``, fewer in the last; each is reported once it has been used.

        Raises:
            CalibrationError: an image cannot be read, or fewer came than were promised.
        """
        count, done = len(self.images), 0
        images = iter(self.images.inputs(self.signature.resolution_hw))
        while some := list(itertools.islice(images, size)):
            yield np.concatenate(some)
            done += len(some)
            self.report(Progress("calibrate", 100 * done / count, f"{self.what}: image {done} of {count}"))
        if done < count:
            raise CalibrationError(
                f"the calibration set ended after {done} of {count} images", remedy="check its files", done=done
            )


class Extremes:
    """The smallest and largest values, and channel means, of all tensors of a graph, whoever runs it.

    Args:
        onnx_bytes: the FP32 graph.
        resolution_hw: height and width of the images, in pixels.
        tensors: which of ``probes.measurable``; None: all.

    Attributes:
        tensors: the names, in graph order.
        means: those whose channel means are wanted.
    """

    def __init__(self, onnx_bytes: bytes, resolution_hw: tuple[int, int], tensors: Sequence[str] | None = None) -> None:
        self._onnx_bytes, self._resolution_hw = onnx_bytes, resolution_hw
        self.tensors = list(probes.measurable(onnx_bytes) if tensors is None else tensors)
        self.means = [name for name in probes.channelled(onnx_bytes) if name in set(self.tensors)]
        self._low, self._high = np.full(len(self.tensors), np.inf), np.full(len(self.tensors), -np.inf)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._images = 0

    def add(self, made: Outputs, count: int = 1, size: int = 1) -> None:
        """Take the outputs of one call.

        Args:
            made: outputs of ``probes.extremes`` by name.
            count: images in the call that no other call had, before any that only fill its batch.
            size: images in the call.

        Raises:
            CalibrationError: a tensor is not finite.
        """
        low, high = made[probes.LOW], made[probes.HIGH]
        self._require_finite(low, high)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        for name in self.means:
            rows = made[probes.MEAN + name]
            mean = rows[: len(rows) * count // size].mean(axis=0, dtype=np.float64)
            if not np.isfinite(mean).all():  # a GPU's smallest and largest pass over what is no number
                raise _not_finite(name)
            self._sums[name] = self._sums.get(name, 0) + count * mean
        self._images += count

    def ranges(self, set_digest: str, algorithm: str, collector: str) -> Ranges:
        """What was seen so far, as MinMax ranges.

        Args:
            set_digest: of the images.
            algorithm: that the images were run for; part of the key.
            collector: for the manifest.
        """
        found = {
            name: Range(float(low), float(high), float(max(-low, high, 0)), self._mean(name))
            for name, low, high in zip(self.tensors, self._low, self._high, strict=True)
        }
        key = key_of(self._onnx_bytes, self._resolution_hw, set_digest, algorithm)
        structure = structure_of(self._onnx_bytes, self._resolution_hw)
        return Ranges(found, "minmax", key, structure, set_digest, self._images, collector)

    def _mean(self, name: str) -> tuple[float, ...]:
        total = self._sums.get(name)
        return () if total is None else tuple(float(value) for value in total / self._images)

    def _require_finite(self, *rows: NDArray[np.float32]) -> None:
        for row in rows:
            if not np.isfinite(row).all():
                raise _not_finite(self.tensors[int(np.flatnonzero(~np.isfinite(row))[0])])


def _not_finite(name: str) -> CalibrationError:
    return CalibrationError(
        f"tensor {name} is not finite on a calibration image", remedy="check the weights", tensor=name
    )


def _collector() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__} on the CPU"


def _limits(
    onnx_bytes: bytes, signature: Signature, run: Pass, ranges: Ranges, algorithm: str, threads: int | None
) -> dict[str, float]:
    """Of every tensor; the images that only fill the last static batch are counted with it."""
    amax = {name: value for name, value in ranges.amax().items() if value > 0}
    replay = Replay(probes.histograms(onnx_bytes, amax, histogram.BINS), signature, threads, lean=True)
    counts = {name: np.zeros(histogram.BINS, np.int64) for name in amax}
    for batch in run.batches(replay.rows):
        made = replay.run(batch)
        for name in counts:
            counts[name] += made[probes.COUNTS + name]
    return {name: histogram.limit(counts[name], most, algorithm) for name, most in amax.items()}
