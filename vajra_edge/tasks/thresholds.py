"""Thresholds: which boxes are told, checked against what a network with NMS has baked in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vajra_edge.datasets import class_names
from vajra_edge.errors import VajraError
from vajra_edge.graph.signature import Signature
from vajra_edge.tasks import kinds
from vajra_edge.tasks.arguments import share_of
from vajra_edge.types import Detections
from vajra_edge.wording import Argument, say

IOU, MAX_DET = 0.7, 300
"""Upstream's defaults, for predict and val."""
_TOLD = 8
"""So many classes are listed in a message."""


@dataclass(frozen=True)
class Typed:
    """A class as it is typed on a command line, where 1 may be an id or a name."""

    text: str


Classes: TypeAlias = "int | str | Typed | Iterable[int | str | Typed]"
"""A number is a class id and a text a name, never the other."""


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
    classes: Classes | None = None,
) -> Thresholds:
    """Check what was asked for.

    Args:
        signature: of the network.
        conf: lowest confidence.
        iou: None: what is baked in, else 0.7.
        max_det: None: what is baked in, else 300.
        classes: class ids (numbers) or names (texts), one or several; None: all.

    Raises:
        VajraError: a value cannot be, a class is not known, or the network has another baked in.
    """
    max_det = None if max_det is None else kinds.count(Argument.MAX_DET, max_det, "a number of boxes")
    iou = None if iou is None else share_of(Argument.IOU, iou)
    if signature.end_to_end:
        _require_within(iou, max_det, signature.max_det or 0)
        max_det = max_det or signature.max_det
    elif signature.has_nms:
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


def _require_within(iou: float | None, max_det: int | None, rows: int) -> None:
    """What can be asked of a network that chooses its objects itself."""
    if iou is not None:
        raise VajraError(
            say(Argument.IOU.of(iou), " is asked for, and this network is end to end: no NMS comes after it"),
            remedy=say("leave ", Argument.IOU, " out"),
        )
    if max_det is not None and max_det > rows:
        raise VajraError(
            say(Argument.MAX_DET.of(max_det), f" is asked for, and this network tells at most {rows}"),
            remedy=say("leave ", Argument.MAX_DET, " out"),
        )


def _class_ids(names: Sequence[str], classes: Classes) -> frozenset[int]:
    single = isinstance(classes, (str, Typed, int, np.integer))
    try:
        wanted = [classes] if single else list(classes)  # type: ignore[arg-type]
    except TypeError:
        raise _no_class(names, classes, "class ids or names are expected") from None
    if not wanted:
        raise VajraError(
            say(Argument.CLASSES, " names no class"), remedy=say("leave ", Argument.CLASSES, " out for all")
        )
    return frozenset(number for one in wanted for number in _numbers(names, one))


def _numbers(names: Sequence[str], one: object) -> tuple[int, ...]:
    """Ids of the classes that are meant: of an id itself, of a name all classes that are called so."""
    if isinstance(one, Typed):
        return _typed(names, one.text)
    if isinstance(one, (int, np.integer)) and not isinstance(one, bool):
        if not 0 <= int(one) < len(names):
            raise _no_class(names, one)
        return (int(one),)
    if not isinstance(one, str):
        raise _no_class(names, one, "a class is a whole number, its id, or a text, its name")
    found = class_names.called(one, names)
    if not found and one.strip().isdecimal() and int(one) < len(names):
        if any(name.strip().isdecimal() for name in names):
            raise _no_class(names, one, f"a text is a name: pass the number {int(one)} for the class with that id")
        return (int(one),)  # where no class has a number for its name, that can only be an id
    if not found:
        raise _no_class(names, one)
    return found


def _typed(names: Sequence[str], text: str) -> tuple[int, ...]:
    """What somebody typed: an id or a name; where it is both and they are two classes, it is asked back."""
    found = class_names.called(text, names)
    number = int(text) if text.isdecimal() and int(text) < len(names) else None
    if number is None or found == (number,):
        return found or _numbers(names, text)
    if not found:
        return (number,)
    ways = [str(other) for other in found if not class_names.called(str(other), names)]
    told = say(
        *(Argument.CLASSES.of(text), f" is both class id {number} ({names[number]}) and the name of class "),
        ", ".join(map(str, found)),
    )
    other = (
        "" if names[number].isdecimal() and int(names[number]) < len(names) else f", or {names[number]} for id {number}"
    )
    if ways and other:
        raise VajraError(told, remedy=f"type {','.join(ways)} for the name{other}")
    raise VajraError(told, remedy="ask from Python, where a number is an id and a text a name")


def _no_class(names: Sequence[str], one: object, hint: str = "") -> VajraError:
    near = difflib.get_close_matches(str(one), names, n=1)
    hint = hint or (f"did you mean {near[0]}?" if near else "")
    more = " ..." if len(names) > _TOLD else ""
    hint = hint or f"there are 0 to {len(names) - 1}: {', '.join(names[:_TOLD])}{more}"
    return VajraError(say(Argument.CLASSES, f": {one!r} is not one of this network's"), remedy=hint)
