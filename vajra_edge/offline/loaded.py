"""Loaded: weights, an engine file or a plan of the store, opened so that val and predict can run them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vajra_edge.detect.open_detector import Loadable, open_runner
from vajra_edge.engine.backend import Runner
from vajra_edge.engine.onnxrt import OnnxRuntime
from vajra_edge.engine.prepare import prepare_half
from vajra_edge.engine.spec import EngineSpec, Precision, Target
from vajra_edge.engine.store import EngineStore
from vajra_edge.errors import GraphError, PlanError, UnsupportedSpec, VajraError, WeightsError
from vajra_edge.graph import signature
from vajra_edge.graph.signature import Signature
from vajra_edge.offline import foreign
from vajra_edge.offline.arguments import (
    CHECKPOINT_STRIDE_PX,
    CHECKPOINTS,
    Device,
    ImageSize,
    batch_of,
    resolution_hw,
    target_of,
)
from vajra_edge.offline.export import read_signature
from vajra_edge.offline.portable import precision_of
from vajra_edge.wording import Argument, say

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
    found = foreign.read(path)
    made = _as_built(path.name, found.signature, found.precision, arguments)
    _require_target(path.name, found.target, arguments)
    spec = EngineSpec(target=found.target, precision=found.precision or Precision.FP32, batch=found.signature.batch)
    _LOGGER.warning(
        "%s (%s) is run because you named it: an engine is a program, so know its maker", path, found.header
    )
    return open_runner(Loadable(f"{path.name}, built by {found.header},", "tensorrt", lambda: found.plan, made, spec))


def _plan(fingerprint: str, arguments: RunArguments, state_dir: Path) -> Runner:
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
