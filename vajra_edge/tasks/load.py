"""Load: weights, an engine file or a plan of the store, opened so that val and predict can run them.

An ``.engine`` file that a user names is checked against this machine before any library opens it. A runner may be
shared by detectors, so that predict may be called inside a loop over predict.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends import cuda
from vajra_edge.backends.base import Runner
from vajra_edge.backends.onnx_file import precision_of
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.backends.tensorrt import library as tensorrt_library
from vajra_edge.errors import BackendUnavailable, GraphError, PlanError, UnsupportedSpec, VajraError, WeightsError
from vajra_edge.graph import metadata, signature
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.open_detector import Loadable, open_runner
from vajra_edge.plans import engine_file
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.plans.store import EngineStore
from vajra_edge.privileges import user_of
from vajra_edge.quantization.ptq import prepare_half
from vajra_edge.tasks.arguments import (
    CHECKPOINT_STRIDE_PX,
    CHECKPOINTS,
    Device,
    ImageSize,
    batch_of,
    resolution_hw,
    target_of,
)
from vajra_edge.tasks.export import read_signature
from vajra_edge.wording import Argument, say

REMEDY = "export it again on this device"
OURS = "vajra_edge"
"""Key of the header under which ``export`` keeps what upstream's words do not say."""


@dataclass(frozen=True)
class UserEngine:
    """An engine file that this machine's library can be given.

    Attributes:
        plan: the serialized engine.
        header: who built it, like ``TensorRT 10.3.0.30``.
        signature: of its graph.
        precision: None where its maker did not say.
        target: where it runs.
    """

    plan: bytes
    header: str
    signature: Signature
    precision: Precision | None
    target: Target


def read(path: Path) -> UserEngine:
    """Read and check an engine file.

    Raises:
        PlanError: damaged, or built by another library, release or for another GPU; says which.
        BackendUnavailable: no TensorRT is installed.
    """
    content = engine_file.read(path)
    header = engine_file.plan_header(content.plan)
    _require_release(path, header)
    fields = content.metadata
    ours = fields.get(OURS)
    try:
        if isinstance(ours, dict):
            found, target = Signature.from_json(ours["signature"]), Target.parse(ours["target"])
            precision: Precision | None = Precision(ours["precision"])
            _require_gpu(path, header, str(ours.get("built_for", "")), target)
        else:
            found, precision, target = _upstream(path, fields), _half(fields), Target("gpu", 0)
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"{path}: damaged header: {type(error).__name__} {error}", remedy=REMEDY) from error
    return UserEngine(content.plan, str(header), found, precision, target)


def _require_release(path: Path, header: engine_file.PlanHeader) -> None:
    try:
        library = tensorrt_library.load()
    except BackendUnavailable as error:
        raise BackendUnavailable(
            say(f"{path} was built by {header} and needs it here: ", error.message), remedy=error.remedy
        ) from error
    if header.library != library.name or not header.same_release(library.version):
        raise PlanError(f"{path} was built by {header}, this machine has {library}", remedy=REMEDY, path=path)


def _require_gpu(path: Path, header: engine_file.PlanHeader, built_for: str, target: Target) -> None:
    index = target.index if target.kind == "gpu" else 0
    if not built_for or cuda.count() <= index:
        return
    here = f"compute capability {cuda.describe(index).compute_capability}"
    if here != built_for:
        raise PlanError(f"{path} ({header}) was built for {built_for}, this GPU has {here}", remedy=REMEDY, path=path)


def _upstream(path: Path, fields: Mapping[str, Any]) -> Signature:
    """The signature that upstream's header implies: its tensors are ``images`` and ``output0``."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    names, size = metadata.class_names_of(texts), metadata.resolution_hw_of(texts)
    stride, arguments = metadata.positive_int_of(texts, "stride"), fields.get("args") or {}
    if names is None or size is None or stride is None:
        raise PlanError(f"{path} has no header with names, stride and img_size", remedy=REMEDY, path=path)
    if fields.get("end2end") or (isinstance(arguments, dict) and arguments.get("nms")):
        raise PlanError(f"{path} holds another exporter's NMS", remedy="export it without nms", path=path)
    dynamic = bool(fields.get("dynamic") or (isinstance(arguments, dict) and arguments.get("dynamic")))
    batch = metadata.positive_int_of(texts, "batch") or 1
    return Signature("images", "output0", Layout.RAW, batch, size, dynamic, dynamic, stride, names)


def _half(fields: Mapping[str, Any]) -> Precision | None:
    arguments = fields.get("args")
    if not isinstance(arguments, dict):
        return None
    if arguments.get("int8"):
        return Precision.INT8
    return Precision.FP16 if arguments.get("half") else Precision.FP32


class SharedRunner:
    """A Runner over another's: calls take turns, outputs are copies, and closing it leaves the other open.

    Args:
        runner: stays its owner's.
        turn: held during each call.
    """

    def __init__(self, runner: Runner, turn: Lock) -> None:
        self.signature = runner.signature
        self._runner = runner
        self._turn = turn

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Runner.infer``; valid for good."""
        with self._turn:
            return self._runner.infer(batch).copy()

    def close(self) -> None:
        """Nothing: the owner closes."""


_LOGGER = logging.getLogger(__name__)
_FINGERPRINT = re.compile("[0-9a-f]{8,64}")
_STORE_BYTES = 1 << 62  # nothing is pruned from here


@dataclass(frozen=True)
class RunArguments:
    """How val and predict run what was named; equal ones share one runner.

    Attributes:
        img_size: None: what it was made for.
        half: run FP32 weights in FP16.
        batch: images in one call; None: what it was made for.
        device: None: the best there is.
    """

    img_size: ImageSize | None = None
    half: bool = False
    batch: int | None = None
    device: Device = None


def load(named: str, arguments: RunArguments, state_dir: Path) -> Runner:
    """Open what the user named.

    Args:
        named: path of a ``.pt``, ``.onnx`` or ``.engine`` file, or the fingerprint of a stored plan (8 digits suffice).
        arguments: how to run it.
        state_dir: where the store is.

    Returns:
        What runs it, for the caller to close.

    Raises:
        VajraError: it is not there, cannot be used, or not as asked; in one line.
    """
    path = Path(named)
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None and _FINGERPRINT.fullmatch(named) and not path.exists():
        return _plan(named, arguments, state_dir)
    if opener is None:
        raise WeightsError(f"{named} is neither weights nor an engine", remedy="name a .pt, .onnx or .engine file")
    if not path.is_file():
        raise WeightsError(f"{named} does not exist", remedy="check the path", path=path)
    return opener(path, arguments)


def _checkpoint(path: Path, arguments: RunArguments) -> Runner:
    """Weights are exported to ONNX in memory and run by ONNX Runtime."""
    from vajra_edge.graph import export

    size = None if arguments.img_size is None else resolution_hw(arguments.img_size, CHECKPOINT_STRIDE_PX)
    content = export.from_checkpoint(path, resolution_hw=size, batch=arguments.batch or 1)
    return _of_onnx(path.name, content, signature.read(content), arguments)


def _onnx(path: Path, arguments: RunArguments) -> Runner:
    content = path.read_bytes()
    found = _sized(path.name, read_signature(content, arguments.img_size), arguments.img_size)
    if found.dynamic_batch and arguments.batch is not None:
        found = replace(found, batch=batch_of(arguments.batch))  # nothing in an open graph limits it
    _require_batch(path.name, found, arguments.batch)
    return _of_onnx(path.name, content, found, arguments)


def _of_onnx(name: str, content: bytes, found: Signature, arguments: RunArguments) -> Runner:
    backend = OnnxRuntime()
    target = target_of(arguments.device) or backend.auto_target()
    if (error := backend.check(EngineSpec(target=target))) is not None:
        raise error
    inside = precision_of(content)
    if arguments.half and inside is Precision.FP32:
        content, inside = prepare_half(content), Precision.FP16
    elif arguments.half and inside is not Precision.FP16:
        _LOGGER.warning("half: the file is %s already and runs as it is", inside.value)
    spec = EngineSpec(target=target, precision=inside)
    return open_runner(Loadable(name, backend.name, lambda: content, found, spec))


def _engine(path: Path, arguments: RunArguments) -> Runner:
    """A file that the user names is run on his word; the daemon runs plans of its own store only."""
    found = read(path)
    made = _as_built(path.name, found.signature, found.precision, arguments)
    _require_target(path.name, found.target, arguments)
    spec = EngineSpec(target=found.target, precision=found.precision or Precision.FP32, batch=found.signature.batch)
    _LOGGER.warning(
        "%s (%s) is run because you named it: an engine is a program, so know its maker", path, found.header
    )
    return open_runner(Loadable(f"{path.name}, built by {found.header},", "tensorrt", lambda: found.plan, made, spec))


def _plan(fingerprint: str, arguments: RunArguments, state_dir: Path) -> Runner:
    _require_own(state_dir)
    store = EngineStore(state_dir, _STORE_BYTES)
    matching = [name for name in store.plans() if name.startswith(fingerprint)]
    plan = store.get(matching[0]) if len(matching) == 1 else None
    if plan is None:
        raise PlanError(
            f"{len(matching)} plans of {state_dir} have the fingerprint {fingerprint}",
            remedy="name a file, or more digits; VAJRA_EDGE_STORE__STATE_DIR names another store",
        )
    manifest = plan.manifest
    made = _as_built(fingerprint, manifest.signature, manifest.precision, arguments)
    _require_target(fingerprint, manifest.target, arguments)
    return open_runner(Loadable.of(plan, made))


def _require_own(state_dir: Path) -> None:
    """A plan is a program, and whoever owns the store signed it: root does not run it in its own name."""
    owner = user_of(state_dir) if os.geteuid() == 0 else None
    if owner is not None and owner.pw_uid != 0:
        raise PlanError(
            f"the plans of {state_dir} are {owner.pw_name}'s, and root would run them as programs of its own",
            remedy=f"type runuser -u {owner.pw_name} -- before the command, or name a file",
        )


_OPENERS: Mapping[str, Callable[[Path, RunArguments], Runner]] = {
    **dict.fromkeys(CHECKPOINTS, _checkpoint),
    ".onnx": _onnx,
    ".engine": _engine,
}


def _require_target(name: str, built_for: Target, arguments: RunArguments) -> None:
    if target_of(arguments.device) not in {None, built_for}:
        raise UnsupportedSpec(
            f"{name} was built for {built_for}, not {target_of(arguments.device)}",
            remedy=say("leave ", Argument.DEVICE, " out"),
        )


def _as_built(name: str, found: Signature, precision: Precision | None, arguments: RunArguments) -> Signature:
    """The signature of a plan; its largest size, its batch and its precision were settled when it was built."""
    _require_batch(name, found, arguments.batch)
    if arguments.half and precision not in {None, Precision.FP16}:
        _LOGGER.warning("half: %s was built in %s and runs as it is", name, getattr(precision, "value", precision))
    return _sized(name, found, arguments.img_size)


def _sized(name: str, found: Signature, img_size: ImageSize | None) -> Signature:
    """The signature with the size that was asked for, which is all that its runner makes room for.

    Raises:
        GraphError: it is fixed to another, or cannot be as large.
    """
    size = found.resolution_hw if img_size is None else resolution_hw(img_size, found.stride)
    fits = all(side <= most for side, most in zip(size, found.most_hw, strict=True))
    if fits and (found.dynamic_size or size == found.resolution_hw):
        return replace(found, resolution_hw=size, largest_hw=None)
    has, asked = Argument.IMG_SIZE.of(found.most_hw), Argument.IMG_SIZE.of(size)
    limit, argument = ("takes up to", Argument.MAX_IMG_SIZE) if found.dynamic_size else ("has", Argument.IMG_SIZE)
    raise GraphError(
        say(f"{name} {limit} ", has, ", ", asked, " is asked for"),
        remedy=say("leave ", Argument.IMG_SIZE, " out, or export it with ", argument.of(size)),
    )


def _require_batch(name: str, found: Signature, batch: int | None) -> None:
    if batch is not None and batch_of(batch) > found.batch:
        raise VajraError(
            say(Argument.BATCH, f" {batch} is above the {found.batch} that {name} takes"),
            remedy=say("export it with ", Argument.BATCH.of(batch)),
        )
