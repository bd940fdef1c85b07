"""Thresholds: which boxes are told, checked against what a network with NMS has baked in."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from vajra_edge.errors import VajraError
from vajra_edge.graph.signature import Signature
from vajra_edge.tasks.arguments import share_of
from vajra_edge.types import Detections
from vajra_edge.wording import Argument, say

IOU, MAX_DET = 0.7, 300
"""Upstream's defaults, for predict and val."""


@dataclass(frozen=True)
class Thresholds:
    """What passes.

    Attributes:
        conf: lowest confidence.
        iou: boxes of one class that overlap more are one object.
        max_det: most boxes of an image, after ``class_ids``.
        class_ids: None: all.
    """

    conf: float
    iou: float
    max_det: int
    class_ids: frozenset[int] | None = None

    def most(self, found: Detections) -> Detections:
        """The best ``max_det``."""
        if len(found) <= self.max_det:
            return found
        return Detections(found.xyxy[: self.max_det], found.confidence[: self.max_det], found.class_id[: self.max_det])


def thresholds(
    signature: Signature,
    conf: float,
    iou: float | None,
    max_det: int | None = None,
    classes: Sequence[int | str] | int | str | None = None,
) -> Thresholds:
    """Check what was asked for.

    Args:
        signature: of the network.
        conf: lowest confidence.
        iou: None: what is baked in, else 0.7.
        max_det: None: what is baked in, else 300.
        classes: class ids or names; None: all.

    Raises:
        VajraError: a value cannot be, a class is not known, or the network has another baked in.
    """
    if max_det is not None and (not isinstance(max_det, int) or isinstance(max_det, bool) or max_det < 1):
        raise VajraError(say(Argument.MAX_DET, f" {max_det!r} is not a number of boxes"), remedy="use 1 or more")
    iou = None if iou is None else share_of(Argument.IOU, iou)
    if signature.has_nms:
        _require_baked(Argument.IOU, iou, signature.nms_iou)
        _require_baked(Argument.MAX_DET, max_det, signature.max_det)
        iou, max_det = signature.nms_iou, signature.max_det
    ids = None if classes is None else _class_ids(signature.class_names, classes)
    return Thresholds(
        share_of(Argument.CONF, conf), IOU if iou is None else iou, MAX_DET if max_det is None else max_det, ids
    )


def _require_baked(argument: Argument, asked: float | None, baked: float | None) -> None:
    if asked is not None and asked != baked:
        name = argument.value
        raise VajraError(
            say(argument.of(asked), f" is asked for, and {name}={baked} is baked into this network's NMS"),
            remedy=say("leave ", argument, " out, or export without ", Argument.NMS),
        )


def _class_ids(names: Sequence[str], classes: Sequence[int | str] | int | str) -> frozenset[int]:
    wanted = [classes] if isinstance(classes, (int, str)) else list(classes)
    return frozenset(_class_id(names, one) for one in wanted)


def _class_id(names: Sequence[str], one: int | str) -> int:
    text = str(one).strip()
    if text in names:
        return list(names).index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are 0 to {len(names) - 1}: {', '.join(names[:8])} ..."
    raise VajraError(say(Argument.CLASSES, f": {one!r} is not one of this network's"), remedy=hint)
