"""Foreign: an ``.engine`` file that a user names, checked against this machine before any library opens it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.engine import cuda, engine_file, trt_library
from vajra_edge.engine.spec import Precision, Target
from vajra_edge.errors import BackendUnavailable, PlanError
from vajra_edge.graph import metadata
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.wording import say

REMEDY = "export it again on this device"
OURS = "vajra_edge"
"""Key of the header under which ``export`` keeps what upstream's words do not say."""


@dataclass(frozen=True)
class ForeignEngine:
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


def read(path: Path) -> ForeignEngine:
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
    return ForeignEngine(content.plan, str(header), found, precision, target)


def _require_release(path: Path, header: engine_file.PlanHeader) -> None:
    try:
        library = trt_library.load()
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
