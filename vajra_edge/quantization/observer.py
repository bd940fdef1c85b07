"""Observer: measures the ranges of a graph's tensors on a calibration set, by ONNX Runtime on the CPU.

MinMax takes one pass over the images; percentile and entropy take a second one that counts magnitudes in
histograms: (bins,) counts of |x| over equal bins from 0 to the largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge import device
from vajra_edge.errors import CalibrationError
from vajra_edge.graph.passes import instrument
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import Inputs
from vajra_edge.quantization.ranges import Range, Ranges, key_of, structure_of

Outputs = dict[str, NDArray[Any]]


class Replay:
    """One session.

    Q/DQ pairs run as separate operators around FP32 convolutions: the arithmetic of INT8 kernels that sum without
    overflow, as TensorRT's do, whatever instructions this processor has.

    Args:
        onnx_bytes: the graph.
        signature: tells input, batch and size.
        threads: of the CPU; None: all that this process may use.
        lean: run each node as soon as what it reads is there, and fuse nothing. For a graph of probes, which reads
            every tensor: in its own order ONNX Runtime holds nearly all of them until the end (trained nano at 640:
            1134 MiB, lean 287 MiB and no slower).

    Attributes:
        rows: images in one call at the most.

    Raises:
        CalibrationError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self, onnx_bytes: bytes, signature: Signature, threads: int | None = None, *, lean: bool = False
    ) -> None:
        import onnxruntime

        self._failures = _failures()

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or device.usable_cpus()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if lean:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        except self._failures as error:
            raise CalibrationError(f"ONNX Runtime refuses the graph: {error}", remedy="export it again") from error
        self._names = [entry.name for entry in self._session.get_outputs()]
        self._input = signature.input_name
        self.rows = 1 if signature.dynamic_batch else signature.batch

    def run(self, batch: NDArray[np.float32], known: Mapping[str, NDArray[Any]] | None = None) -> Outputs:
        """Up to ``rows`` images through the graph; the last one fills what is left of a static batch.

        Args:
            batch: (n, 3, H, W) float32, letterboxed.
            known: further inputs by name, for ``rows`` images.

        Returns:
            All outputs by name, as the graph makes them, those of the filling images too.

        Raises:
            CalibrationError: ONNX Runtime fails on the images.
        """
        missing = self.rows - len(batch)
        whole = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        try:
            found = self._session.run(self._names, {self._input: whole, **(known or {})})
        except self._failures as error:
            raise CalibrationError(
                f"ONNX Runtime fails on an image: {error}", remedy="check the weights' input size"
            ) from error
        return dict(zip(self._names, found, strict=True))


def _failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime's binding raises; its own types have no parent in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    kinds = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    return (RuntimeError, ValueError, *(getattr(binding, name) for name in kinds))


BINS = 2048
"""As TensorRT's entropy calibration uses."""

LEVELS = 128
"""Magnitudes of symmetric INT8, 0 to 127."""

PERCENTILE = 99.99
"""Share of magnitudes, in percent, that stays unclipped."""

ENTROPY_STRIDE = 16
"""Limits tried are this many bins apart: 120 of them, each a quarter of a percent to a few percent from the next."""


def limit(counts: NDArray[np.int64], amax: float, algorithm: str) -> float:
    """The largest magnitude that INT8 should hold.

    Args:
        counts: the histogram.
        amax: where its last bin ends.
        algorithm: minmax, percentile, entropy or mse.
    """
    if algorithm == "minmax" or counts.sum() == 0 or amax == 0:
        return amax
    last = {"percentile": _percentile, "entropy": _entropy, "mse": _squared_error}[algorithm](counts)
    return amax * last / len(counts)


def _percentile(counts: NDArray[np.int64]) -> int:
    """Bins needed to hold ``PERCENTILE`` of all values."""
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, PERCENTILE / 100)) + 1


def _squared_error(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that rounding inside and clipping outside together cost the least squared error."""
    centre = np.arange(len(counts)) + 0.5
    total, first, second = (np.cumsum((counts * centre**power)[::-1])[::-1] for power in (0, 1, 2))
    kept = np.arange(LEVELS, len(counts) + 1)
    outside = [np.append(sums, 0)[kept] for sums in (total, first, second)]
    clipped = outside[2] - 2 * kept * outside[1] + kept**2 * outside[0]
    rounded = (counts.sum() - outside[0]) * (kept / (LEVELS - 1)) ** 2 / 12
    return int(kept[np.argmin(clipped + rounded)])


def _entropy(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that the INT8 distribution diverges least (Kullback-Leibler) from the clipped one.

    The procedure is NVIDIA's (S. Migacz, 8-bit Inference with TensorRT, GTC 2017). Zeros are left out, as their bin
    would outweigh all others behind an activation function.
    """
    values = counts.astype(np.float64)
    values[0] = values[1]
    tried = range(LEVELS, len(counts) + 1, ENTROPY_STRIDE)
    return min(tried, key=lambda kept: _divergence(values, kept))


def _divergence(values: NDArray[np.float64], kept: int) -> float:
    wanted = values[:kept].copy()
    wanted[-1] += values[kept:].sum()
    seen = values[:kept] > 0
    level = np.arange(kept) * LEVELS // kept
    sums = np.bincount(level, weights=values[:kept], minlength=LEVELS)
    filled = np.bincount(level, weights=seen, minlength=LEVELS)
    made = np.where(seen, (sums / np.maximum(filled, 1))[level], 0)
    if made.sum() == 0 or wanted.sum() == 0:
        return float("inf")
    p, q = wanted / wanted.sum(), made / made.sum()
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q == 0)].sum()
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(1 / np.finfo(np.float32).eps))


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
    replay = Replay(instrument.extremes(onnx_bytes, extremes.tensors, extremes.means), signature, threads, lean=True)
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
        tensors: which of ``instrument.measurable``; None: all.

    Attributes:
        tensors: the names, in graph order.
        means: those whose channel means are wanted.
    """

    def __init__(self, onnx_bytes: bytes, resolution_hw: tuple[int, int], tensors: Sequence[str] | None = None) -> None:
        self._onnx_bytes, self._resolution_hw = onnx_bytes, resolution_hw
        self.tensors = list(instrument.measurable(onnx_bytes) if tensors is None else tensors)
        self.means = [name for name in instrument.channelled(onnx_bytes) if name in set(self.tensors)]
        self._low, self._high = np.full(len(self.tensors), np.inf), np.full(len(self.tensors), -np.inf)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._images = 0

    def add(self, made: Outputs, count: int = 1, size: int = 1) -> None:
        """Take the outputs of one call.

        Args:
            made: outputs of ``instrument.extremes`` by name.
            count: images in the call that no other call had, before any that only fill its batch.
            size: images in the call.

        Raises:
            CalibrationError: a tensor is not finite.
        """
        low, high = made[instrument.LOW], made[instrument.HIGH]
        self._require_finite(low, high)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        for name in self.means:
            rows = made[instrument.MEAN + name]
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
    replay = Replay(instrument.histograms(onnx_bytes, amax, BINS), signature, threads, lean=True)
    counts = {name: np.zeros(BINS, np.int64) for name in amax}
    for batch in run.batches(replay.rows):
        made = replay.run(batch)
        for name in counts:
            counts[name] += made[instrument.COUNTS + name]
    return {name: limit(counts[name], most, algorithm) for name, most in amax.items()}
