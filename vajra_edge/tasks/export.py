"""Export: weights to an ``.engine`` or ``.onnx`` file beside them, through the very steps of the daemon's build."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vajra_edge import device, durable
from vajra_edge.backends.base import Backend, select
from vajra_edge.backends.onnx_file import OnnxFile
from vajra_edge.build.attempt import Graph
from vajra_edge.build.outcome import Cancelled, Outcome, Proved, Unproved
from vajra_edge.build.precision_fallback import prove
from vajra_edge.build.progress import Stages
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.build.worker import onnx_of
from vajra_edge.demo.settings import CLIP
from vajra_edge.errors import (
    BackendAbsent,
    BackendUnavailable,
    BuildCancelled,
    CalibrationError,
    GraphError,
    UnsupportedSpec,
    VajraError,
    WeightsError,
)
from vajra_edge.graph import intake, metadata, signature, topology
from vajra_edge.graph.assemble import assemble
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans import engine_file
from vajra_edge.plans.engine_file import EngineFile
from vajra_edge.plans.report import BuildReport, VerifyReport
from vajra_edge.plans.report_json import write_refused, write_verify
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.progress import Report
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.tasks.arguments import (
    CHECKPOINT_STRIDE_PX,
    CHECKPOINTS,
    DEFAULT_DATA,
    ExportArguments,
    ImageSize,
    Usual,
    resolution_hw,
    target_of,
)
from vajra_edge.tasks.class_names import names_of
from vajra_edge.version import VERSION
from vajra_edge.wording import Argument, Setting, Value, say

_LOGGER = logging.getLogger(__name__)


def images_of(arguments: ExportArguments) -> CalibrationSet | None:
    """The calibration images; None unless ``int8`` is asked for.

    Raises:
        CalibrationError: they cannot be used, or are fewer than ``batch``.
    """
    if not arguments.int8:
        return None
    return CalibrationSet.collect(_source(arguments), fraction=arguments.fraction, batch=arguments.batch)


def _source(arguments: ExportArguments) -> Path:
    """``data``; the demo's clip in the place of upstream's default, which is a download, where that file is not there.

    Raises:
        CalibrationError: the clip was taken out of this installation.
    """
    source = Path(arguments.data or DEFAULT_DATA)
    if str(source) != DEFAULT_DATA or source.exists():
        return source
    if not CLIP.is_file():
        raise CalibrationError(
            f"{source} does not exist", remedy=say("name your images: ", Argument.DATA.of("my_dataset.yaml"))
        )
    _LOGGER.warning(
        "INT8 IS CALIBRATED ON FRAMES OF THE DEMO CLIP, for there is no %s: good for a trial, not for service. Real "
        "calibration wants data=my_dataset.yaml with 500 images of your scene, or the daemon, which takes its cameras'",
        source,
    )
    return CLIP


HALF, INT8 = Setting.PRECISION.to("fp16"), Setting.PRECISION.to("int8")


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        path: the file.
        precision: achieved; the accuracy check may have stepped up from what was asked for.
        target: where it runs.
        built_for: GPU generation, like ``compute capability 8.6``; empty for ONNX.
        seconds: it took.
        verify: the accuracy check's report.
        report: of the build.
        int8_ms: median time of a full batch in INT8, by turns with FP16; None where they were not compared.
        fp16_ms: likewise in FP16.
    """

    path: Path
    precision: Precision
    target: str
    built_for: str
    seconds: float
    verify: VerifyReport
    report: BuildReport
    int8_ms: float | None = None
    fp16_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "precision": self.precision.value,
            "target": self.target,
            "built_for": self.built_for,
            "seconds": self.seconds,
            "int8_ms": self.int8_ms,
            "fp16_ms": self.fp16_ms,
            "verify": write_verify(self.verify),
            "rejected": [write_refused(one) for one in self.report.refused],
        }


def export(weights: Path, arguments: ExportArguments, report: Report) -> Exported:
    """Export one file.

    Args:
        weights: a ``.pt`` or ``.onnx`` file.
        arguments: checked.
        report: takes progress; raises to stop.

    Raises:
        VajraError: weights, graph, library, images or accuracy check stand in the way; nothing was written.
    """
    began_s = time.monotonic()
    backend, target = _backend(arguments)
    request, arguments = _request(weights, arguments, target, backend.name)
    if (error := backend.check(request.spec)) is not None:
        raise error
    images, stages = images_of(arguments), Stages(report)
    with stages("export", f"reading {weights.name}"):
        onnx_bytes = intake.embedded(onnx_of(request), request.weights_path)
    with stages("simplify", "preparing the graph"):
        graph = Graph(*assemble(onnx_bytes, request.spec, class_names=request.class_names))
    digest = images.digest if images else None  # ranges are kept under it
    request = replace(request, calibration_digest=digest)
    # Somebody asked for this very try, so that what was refused before is forgotten.
    proved = _proved(prove(request, backend, graph, stages, images, forget=True))
    built_for = _built_for(proved)
    with stages("store", "writing the file"):
        path = _written(request, arguments, proved, built_for)
    built, verdict = proved.passed.built, proved.passed.verdict
    return Exported(
        path=path,
        precision=built.precision,
        target=str(built.target),
        built_for=built_for,
        seconds=time.monotonic() - began_s,
        verify=verdict,
        report=proved.report(stages),
        int8_ms=verdict.figures.int8_ms,
        fp16_ms=verdict.figures.fp16_ms,
    )


def cache_dir() -> Path:
    """Where calibration ranges and TensorRT's timings are kept from one export to the next (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vajra-edge"


def install_hint() -> str:
    """What to install on this machine for ``format=engine``."""
    if device.l4t() is not None:
        return (
            "on this Jetson: apt install python3-libnvinfer, in a virtual environment made with --system-site-packages"
        )
    if device.gpus():
        return "on this machine: pip install tensorrt"
    if device.probe().arch == "x86_64":
        return "on this machine, which has no GPU: pip install 'vajra-edge[tensorrt-rtx]', or export with format=onnx"
    return "export on the Jetson itself, or with format=onnx here"


def _backend(arguments: ExportArguments) -> tuple[Backend, Target]:
    """Which library, and where its plan will run."""
    target = target_of(arguments.device)
    if arguments.format == "onnx":
        portable = OnnxFile()
        return portable, target or portable.auto_target()
    if target == Target("cpu"):
        raise VajraError(
            "an engine does not run on a cpu",
            remedy=say("use ", Argument.FORMAT.of("onnx"), ", or ", Argument.DEVICE.of(0)),
        )
    try:
        backend = select("tensorrt", state_dir=cache_dir()).backend
    except BackendAbsent as error:
        message = say(Argument.FORMAT.of("engine"), ": ", error.message)
        raise BackendUnavailable(message, remedy=install_hint()) from error
    return backend, target or backend.auto_target()


def _request(
    weights: Path, arguments: ExportArguments, target: Target, backend: str
) -> tuple[BuildRequest, ExportArguments]:
    """What is to be built, and the arguments with what the file settles in the place of defaults."""
    weights = weights.absolute()
    if weights.suffix.lower() == ".engine":
        raise WeightsError(f"{weights} is an engine already", remedy="export from the .pt or .onnx file")
    sha256 = weights_digest(weights)
    arguments, shape = _shape(weights, arguments)
    spec = EngineSpec(
        target=target,
        precision=arguments.precision,
        batch=arguments.batch,
        dynamic=arguments.dynamic,
        simplify=arguments.simplify,
        workspace_gib=arguments.workspace,
        quantization=arguments.quantization,
        **shape,
    )
    _require_dla(spec)
    request = BuildRequest(
        weights, sha256, backend, spec, cache_dir(), max_bytes=0, timeout_s=math.inf, keep_slower=True
    )
    return replace(request, class_names=names_of(arguments.names)), arguments


def _shape(weights: Path, arguments: ExportArguments) -> tuple[ExportArguments, dict[str, Any]]:
    """Size and NMS: of a checkpoint as asked for, of an ONNX file what it can be.

    Returns:
        The arguments, where what was not asked for is what the file has; and fields of an ``EngineSpec``.

    Raises:
        GraphError: the ONNX file is fixed to something else than asked for.
    """
    nms = NmsSpec() if arguments.nms else None
    if weights.suffix.lower() in CHECKPOINTS:
        size = resolution_hw(arguments.img_size, CHECKPOINT_STRIDE_PX)
        arguments = replace(arguments, img_size=size)
        largest = arguments.largest_hw(size, CHECKPOINT_STRIDE_PX)
        return arguments, {"resolution_hw": size, "nms": nms, "largest_hw": largest}
    found = read_onnx(weights, arguments.img_size, names_of(arguments.names))[1]
    if isinstance(arguments.img_size, Usual):
        arguments = replace(arguments, img_size=found.resolution_hw)
    if isinstance(arguments.batch, Usual) and not found.dynamic_batch:
        arguments = replace(arguments, batch=found.batch)
    size = resolution_hw(arguments.img_size, found.stride)
    _require_shape(weights, arguments, found, size)
    if found.has_nms:
        nms = NmsSpec(found.nms_iou or 0.0, found.max_det or 0, found.top_k or 0)
    largest = arguments.largest_hw(size, found.stride) if found.dynamic_size else None
    return arguments, {"resolution_hw": size, "nms": None if found.end_to_end else nms, "largest_hw": largest}


def _require_shape(weights: Path, arguments: ExportArguments, found: Signature, size: tuple[int, int]) -> None:
    if not found.dynamic_size and found.resolution_hw != size:
        raise _fixed(weights, Argument.IMG_SIZE, found.resolution_hw, size)
    if not found.dynamic_batch and found.batch != arguments.batch:
        raise _fixed(weights, Argument.BATCH, found.batch, arguments.batch)
    if arguments.dynamic and not (found.dynamic_batch or found.dynamic_size):
        raise _fixed(weights, Argument.DYNAMIC, False, True)
    if arguments.max_img_size is not None and not found.dynamic_size:
        raise GraphError(
            say(
                f"{weights.name} is fixed to ",
                Argument.IMG_SIZE.of(size),
                ": ",
                Argument.MAX_IMG_SIZE,
                " does not apply",
            ),
            remedy=say("leave ", Argument.MAX_IMG_SIZE, " out, or export from the .pt file"),
        )


def read_onnx(path: Path, img_size: ImageSize | None, names: tuple[str, ...] | None) -> tuple[bytes, Signature]:
    """An ONNX file of any family that is known, as a network of ours.

    Args:
        path: of the file.
        img_size: asked for, where the file leaves it open; a ``Usual`` one gives way to what its metadata records.
        names: of the classes; None: the file's own.

    Raises:
        WeightsError: it cannot be read.
        GraphError: it is not a detection network of a known layout.
    """
    content = intake.read_file(path)
    fields = metadata.fields_of(topology.parse(content))
    if isinstance(img_size, Usual) and metadata.resolution_hw_of(fields) is not None:
        img_size = None
    stride = metadata.positive_int_of(fields, "stride")
    size = None if img_size is None else resolution_hw(img_size, stride or CHECKPOINT_STRIDE_PX)
    content = intake.take_in(content, class_names=names, resolution_hw=size)
    return content, signature.read(content, class_names=names, resolution_hw=size)


def _fixed(weights: Path, argument: Argument, has: Value, asked: Value) -> GraphError:
    return GraphError(
        say(f"{weights.name} is fixed to ", argument.of(has), ", ", argument.of(asked), " is asked for"),
        remedy=say("pass ", argument.of(has), ", or export from the .pt file"),
    )


def _require_dla(spec: EngineSpec) -> None:
    if spec.target.kind == "dla" and spec.precision.is_single:
        raise UnsupportedSpec("a DLA core computes in FP16 and INT8 only", remedy=say(HALF | INT8))


def _proved(outcome: Outcome) -> Proved:
    match outcome:
        case Proved():
            return outcome
        case Unproved(error):
            raise error
        case Cancelled(reason):
            raise BuildCancelled(reason)


def _built_for(proved: Proved) -> str:
    made = proved.passed.built.report.tensorrt
    return f"compute capability {made.compute_capability}" if made is not None else ""


def _written(request: BuildRequest, arguments: ExportArguments, proved: Proved, built_for: str) -> Path:
    """Put the file beside the weights, in one step."""
    built, made, weights = proved.passed.built, proved.passed.signature, request.weights_path
    arguments_kept = {
        "batch": made.batch,
        "half": built.precision is Precision.FP16,
        "int8": built.precision is Precision.INT8,
        "dynamic": made.dynamic_batch or made.dynamic_size,
        "nms": made.layout is Layout.DETECTIONS,
        "simplify": arguments.simplify,
    }
    if arguments.format == "onnx":
        path = _onnx_path(weights, built.precision)
        network = topology.parse(built.plan)
        about = {"args": str(arguments_kept), "precision": built.precision.value, "batch": made.batch, **_sizes(made)}
        metadata.put(network, about)
        with durable.reported(path.parent, "written"):
            durable.replace(path, topology.serialize(network), path.parent, mode=0o644)
        return path
    path = weights.with_suffix(".engine")
    engine_file.write(path, EngineFile(_header(request, proved, built_for, arguments_kept), built.plan))
    return path


def _sizes(made: Signature) -> dict[str, list[int]]:
    """The input size in the words of metadata, and the largest where sizes are dynamic."""
    optimum = {key: list(made.resolution_hw) for key in metadata.SIZES}
    return {**optimum, **{key: list(made.largest_hw) for key in metadata.LARGEST if made.largest_hw}}


def _onnx_path(weights: Path, precision: Precision) -> Path:
    """``x.onnx``, or ``x.fp16.onnx``; never the weights themselves."""
    if precision is Precision.FP32 and weights.suffix.lower() != ".onnx":
        return weights.with_suffix(".onnx")
    return weights.with_suffix(f".{precision.value}.onnx")


def _header(
    request: BuildRequest, proved: Proved, built_for: str, arguments_kept: Mapping[str, object]
) -> dict[str, Any]:
    """Upstream's words, so that its tools can read the file, and ours, from which ``loaded`` opens it again."""
    built, made = proved.passed.built, proved.passed.signature
    return {
        "description": f"{request.weights_path.stem} for {built.target}",
        "version": VERSION,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": "detect",
        "stride": made.stride,
        "batch": made.batch,
        **_sizes(made),
        "names": dict(enumerate(made.class_names)),
        "args": dict(arguments_kept),
        "vajra_edge": {
            "signature": json.loads(json.dumps(made.to_json())),
            "precision": built.precision.value,
            "target": str(built.target),
            "built_for": built_for,
            "weights_sha256": request.weights_sha256,
        },
    }
