"""Calibrated: images for INT8 as ``data`` names them, and a Backend that is given its INT8 graph measured on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vajra_edge.demo.packaged import CLIP
from vajra_edge.engine.backend import Backend, Built, Report, Runner
from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.engine.prepare import Calibration, Notes, prepare_int8, ranges_for
from vajra_edge.engine.ranges import RangeCache
from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.engine.trt import TensorRT
from vajra_edge.errors import CalibrationError
from vajra_edge.graph import dla_ranges
from vajra_edge.graph.signature import Signature
from vajra_edge.offline.arguments import DEFAULT_DATA, ExportArguments

_LOGGER = logging.getLogger(__name__)


def images_of(arguments: ExportArguments) -> CalibrationSet:
    """The calibration images that ``data`` and ``fraction`` ask for.

    Raises:
        CalibrationError: they cannot be used, or are fewer than ``batch``.
    """
    return CalibrationSet.collect(source_of(arguments), fraction=arguments.fraction, batch=arguments.batch)


def source_of(arguments: ExportArguments) -> Path:
    """``data``; the demo's clip in the place of upstream's default, which is a download, where that file is not there.

    Raises:
        CalibrationError: the clip was taken out of this installation.
    """
    source = Path(arguments.data or DEFAULT_DATA)
    if str(source) != DEFAULT_DATA or source.exists():
        return source
    if not CLIP.is_file():
        raise CalibrationError(f"{source} does not exist", remedy="name your images: data=my_dataset.yaml")
    _LOGGER.warning(
        "INT8 IS CALIBRATED ON FRAMES OF THE DEMO CLIP, for there is no %s: good for a trial, not for service. Real "
        "calibration wants data=my_dataset.yaml with 500 images of your scene, or the daemon, which takes its cameras'",
        source,
    )
    return CLIP


class Calibrated:
    """Another backend, given the graph that calibration makes where INT8 is asked for.

    Args:
        inner: builds and runs.
        calibration: the images, and where ranges are kept.
    """

    def __init__(self, inner: Backend, calibration: Calibration) -> None:
        self.name = inner.name
        self.inner = inner
        self.calibration = calibration

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        """See ``Backend``."""
        return self.inner.identity(spec)

    def check(self, spec: EngineSpec) -> str | None:
        """See ``Backend``."""
        return self.inner.check(spec)

    def cannot_run(self, spec: EngineSpec) -> str | None:
        """See ``Backend``."""
        return self.inner.cannot_run(spec)

    def build(self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report) -> Built:
        """See ``Backend``; for INT8 the graph is calibrated first.

        Raises:
            CalibrationError: the images are short or failing.
        """
        if spec.precision is not Precision.INT8:
            return self.inner.build(onnx_bytes, signature, spec, report)
        if isinstance(self.inner, TensorRT) and self.inner.wants_ranges(spec):
            ranges, source = ranges_for(onnx_bytes, signature, self.calibration, report)
            notes: Notes = {"ranges": source}
            onnx_bytes = dla_ranges.attach(onnx_bytes, ranges.amax())
        else:
            onnx_bytes, notes = prepare_int8(onnx_bytes, signature, self.calibration, report)
        built = self.inner.build(onnx_bytes, signature, spec, report)
        return replace(built, notes={**built.notes, "int8": notes})

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> Runner:
        """See ``Backend``."""
        return self.inner.load(plan, signature, spec)


def calibrated(backend: Backend, arguments: ExportArguments, cache_dir: Path) -> Backend:
    """The backend as it is, or for ``int8`` one that calibrates.

    Raises:
        CalibrationError: the images cannot be used.
    """
    if not arguments.int8:
        return backend
    return Calibrated(backend, Calibration(images_of(arguments), cache=RangeCache(cache_dir / "calibration")))
