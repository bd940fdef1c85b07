"""E: calibration ranges by the GPU beside ONNX Runtime's, and how long they take."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import lab as shared
from lab import Lab

from vajra_edge.backends.tensorrt import calibration_engine
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.datasets.dataset import open_dataset
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.quantization import observer
from vajra_edge.quantization.calibration_set import CalibrationSet

CLOSE = 0.01
"""Of a tensor's amplitude; MinMax of FP32 in another order of sums differs by far less."""


@dataclass(frozen=True)
class Compared:
    """Ranges by two ways.

    Attributes:
        images: that were run.
        tensors: that were measured.
        largest: difference of a limit, relative to the tensor's amplitude.
        where: that tensor.
        median: of all tensors.
        missing: tensors that only one of them measured.
        gpu_s: by the GPU, the building of its engines included.
        cpu_s: by ONNX Runtime.
        collector: who measured, in the product's words.
    """

    images: int
    tensors: int
    largest: float
    where: str
    median: float
    missing: int
    gpu_s: float
    cpu_s: float
    collector: str


@dataclass(frozen=True)
class Seconds:
    """Of one calibration by the GPU."""

    images: int
    seconds: float
    engine_s: float
    collector: str


def ranges(lab: Lab, images: int) -> Compared:
    """VajraV1-nano on photos.

    Raises:
        AssertionError: a range differs by more than ``CLOSE``.
    """
    import numpy as np

    onnx_bytes, found, spec, photos = _given(lab, 2 if lab.dry else images)
    began_s = time.monotonic()
    by_gpu = _measured(lab, spec, onnx_bytes, found, photos)
    gpu_s = round(time.monotonic() - began_s, 1)
    lab.keep({"gpu_s": gpu_s, "collector": by_gpu.collector})
    began_s = time.monotonic()
    by_cpu = observer.observe(onnx_bytes, found, photos, "minmax", shared.quiet)
    cpu_s = round(time.monotonic() - began_s, 1)
    shares = {
        name: max(abs(one.low - other.low), abs(one.high - other.high)) / max(other.amax, 1e-6)
        for name, other in by_cpu.tensors.items()
        if (one := by_gpu.tensors.get(name)) is not None
    }
    where = max(shares, key=lambda name: shares[name])
    missing = len(set(by_cpu.tensors) ^ set(by_gpu.tensors))
    median = float(np.median(list(shares.values())))
    made = Compared(
        len(photos), len(shares), shares[where], where, median, missing, gpu_s, cpu_s, by_gpu.collector
    )  # fmt: skip
    lab.keep(made)
    assert not missing, f"{missing} tensors were measured by one of them only"
    assert made.largest <= CLOSE, f"{where} differs by {made.largest:.2%} of its amplitude"
    return made


def seconds(lab: Lab, images: int) -> Seconds:
    """So many images, coco128's as often as it takes; alone, for it is timed."""
    onnx_bytes, found, spec, photos = _given(lab, 3 if lab.dry else images)
    first: list[float] = []
    began_s = time.monotonic()

    def report(step: Any) -> None:
        if step.percent is not None and not first:
            first.append(time.monotonic() - began_s)
            lab.keep({"first_image_s": first[0]})

    made = _measured(lab, spec, onnx_bytes, found, photos, report)
    taken_s = round(time.monotonic() - began_s, 1)
    return Seconds(len(photos), taken_s, round(first[0], 1) if first else 0.0, made.collector)


def _given(lab: Lab, images: int) -> tuple[bytes, Any, EngineSpec, CalibrationSet]:
    spec = shared.spec_of("int8")
    onnx_bytes, found = shared.assembled(lab.model("nano").read_bytes(), spec)
    photos = open_dataset(lab.data / "images" / "coco128")
    entries = (photos.entries * (images // len(photos) + 1))[:images]
    return onnx_bytes, found, spec, CalibrationSet("coco128", replace(photos, entries=entries))


def _measured(
    lab: Lab, spec: EngineSpec, onnx_bytes: bytes, found: Any, photos: CalibrationSet, report: Any = shared.quiet
) -> Any:
    if lab.dry:
        return observer.observe(onnx_bytes, found, photos, "minmax", report)
    with shared.effort():
        return calibration_engine.measure(TensorRT(), spec, onnx_bytes, found, photos, report)
