"""YOLO labels: a text file beside each image, a line an object, of detection or of another task that holds boxes.

``class cx cy w h`` is a box. With more numbers a line is an outline (a polygon, or the corners of an oriented box), or
a box with keypoints (pose); predictions that were saved have a confidence and a track id at their ends. How many
numbers a line has does not always tell which, so all files of a dataset are looked at together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path

from vajra_edge.datasets.account import Account, LeftOut, ReadAs
from vajra_edge.datasets.labels import Drawn, read_text
from vajra_edge.errors import DatasetError

MAX_LABEL_BYTES = 64 << 20
"""A YOLO text file of one image."""
SLACK = 0.01
"""How far outside 0..1 a coordinate may lie: annotation tools round, upstream allows as much."""
REMEDY = "each line is: class cx cy w h, as shares of width and height from 0 to 1"

_BOX, _SMALLEST_OUTLINE = 4, 6
"""Numbers after the class."""
_VISIBILITIES = frozenset({0.0, 1.0, 2.0})
_MARKED_POINT = 3
"""x, y and visibility of a keypoint."""


@dataclass(frozen=True)
class Known:
    """What is known of the labels of a dataset before they are read.

    Attributes:
        classes: how many there are; None: not known.
        keypoints: numbers that each line of a pose has after its box; None: no pose, as far as data.yaml tells.
    """

    classes: int | None = None
    keypoints: int | None = None


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class LabelLine:
    """One line, in numbers.

    Attributes:
        where: file and line.
        label: class id.
        places: what follows.
        last: the last number as it is written.
    """

    where: str
    label: int
    places: tuple[float, ...]
    last: str


@dataclass(frozen=True)
class _Layout:
    """How the lines of one dataset are read.

    Attributes:
        keypoints: numbers after the box of a pose; None: no poses.
        has_tracks: what could be a triangle is a box with confidence and track id.
    """

    keypoints: int | None
    has_tracks: bool


@dataclass(frozen=True)
class _Taken:
    """What a line holds: where its box is, and as what it was read."""

    xyxy: tuple[float, float, float, float]
    read_as: tuple[ReadAs, ...]


def read(paths: Iterable[Path | None], known: Known, account: Account) -> list[Drawn]:
    """The objects of each file, in order; None is an image without a file, and so without objects.

    Raises:
        DatasetError: a line is none of what is known, or names a class that does not exist; says file and line.
    """
    files = [() if path is None else tuple(_lines(path, known.classes)) for path in paths]
    layout = _layout(list(chain.from_iterable(files)), known)
    return [Drawn.of(_rows(lines, layout, account), is_share=True) for lines in files]


def _lines(path: Path, classes: int | None) -> Iterable[LabelLine]:
    for number, text in enumerate(read_text(path, MAX_LABEL_BYTES).splitlines(), 1):
        if text.strip():
            yield _line(f"{path}:{number}", text, classes)


def _line(where: str, text: str, classes: int | None) -> LabelLine:
    words = text.split()
    try:
        label, *places = (float(word) for word in words)
    except ValueError as error:
        raise DatasetError(f"{where}: not numbers: {text[:60]!r}", remedy=REMEDY) from error
    if not label.is_integer() or label < 0 or (classes is not None and label >= classes):
        known = f"0 to {classes - 1}" if classes is not None else "whole numbers from 0"
        raise DatasetError(f"{where}: class {words[0][:20]}, known are {known}", remedy="mend the label or the names")
    if label >= 1 << 31:
        raise DatasetError(f"{where}: class {words[0][:20]}", remedy="class ids count from 0")
    return LabelLine(where, int(label), tuple(places), words[-1])


def _layout(lines: Sequence[LabelLine], known: Known) -> _Layout:
    sevens = [line for line in lines if len(line.places) == _SMALLEST_OUTLINE]
    has_tracks = any(line.places[-1] > 1 + SLACK and line.places[-1].is_integer() for line in sevens)
    has_tracks = has_tracks or (bool(sevens) and all(line.last == "1" for line in sevens))
    return _Layout(_keypoints(lines) if known.keypoints is None else known.keypoints, has_tracks)


def _keypoints(lines: Sequence[LabelLine]) -> int | None:
    """Numbers after the box of each line, where all of them look like poses: every third is a visibility.

    Raises:
        DatasetError: they may be poses or outlines.
    """
    counts = {len(line.places) - _BOX for line in lines}
    count = counts.pop() if len(counts) == 1 else 0
    if count < _MARKED_POINT or count % _MARKED_POINT:
        return None
    marks = {mark for line in lines for mark in line.places[_BOX + _MARKED_POINT - 1 :: _MARKED_POINT]}
    if not marks <= _VISIBILITIES:
        return None
    if count % 2 == 0 and max(marks) <= 1:  # as many numbers as an outline has, and none that it could not have
        raise DatasetError(
            f"{lines[0].where}: {count + _BOX + 1} numbers may be an outline or a pose",
            remedy=f"write kpt_shape: [{count // _MARKED_POINT}, 3] into data.yaml if it is a pose",
        )
    return count


def _rows(lines: Sequence[LabelLine], layout: _Layout, account: Account) -> list[tuple[int, Sequence[float], bool]]:
    """Class id and box of each line; equal ones count once, as upstream has it."""
    found: dict[tuple[int, Sequence[float]], None] = {}
    for line in lines:
        taken = _taken(line, layout)
        for reason in taken.read_as:
            account.add(reason, line.where)
        left, top, right, bottom = taken.xyxy
        if (line.label, taken.xyxy) in found:
            account.add(LeftOut.EQUAL_OBJECT, line.where)
        elif right <= left or bottom <= top:
            account.add(LeftOut.BOX_WITHOUT_AREA, line.where)
        elif min(right, bottom) <= 0 or max(left, top) >= 1:
            account.add(LeftOut.BOX_OUTSIDE_PICTURE, line.where)
        else:
            found[line.label, taken.xyxy] = None
    return [(label, xyxy, False) for label, xyxy in found]


def _taken(line: LabelLine, layout: _Layout) -> _Taken:
    """What a line holds.

    Raises:
        DatasetError: nothing that is known.
    """
    count = len(line.places)
    for ending in _endings(line):
        held = line.places[: count - len(ending)]
        if (shape := _shape(held, layout, is_last=not ending)) is not None:
            return _Taken(_box(line, held, shape), (*shape, *ending))
    if count == _BOX + 1:
        told = f"6 numbers, and {line.last[:20]} is no confidence"
    else:
        other = "a polygon" if layout.keypoints is None else f"{layout.keypoints + _BOX + 1} of a pose"
        told = f"{count + 1} numbers, expected 5 or {other}"
    raise DatasetError(f"{line.where}: {told}", remedy=REMEDY)


def _endings(line: LabelLine) -> Iterable[tuple[ReadAs, ...]]:
    """What may stand at the end of a saved prediction, the likeliest first."""
    yield ()
    if line.places and 0 <= line.places[-1] <= 1:
        yield (ReadAs.CONFIDENCE,)
    if len(line.places) > 1 and 0 <= line.places[-2] <= 1 and line.places[-1].is_integer() and line.places[-1] > 0:
        yield ReadAs.CONFIDENCE, ReadAs.TRACK


def _shape(held: Sequence[float], layout: _Layout, *, is_last: bool) -> tuple[ReadAs, ...] | None:
    """As what these numbers are read; None where they are nothing.

    Args:
        held: what is left of a line without its ending.
        layout: of the dataset.
        is_last: nothing was taken from the end.
    """
    if len(held) == _BOX:
        return ()
    if layout.keypoints is not None:
        return (ReadAs.POSE,) if len(held) == _BOX + layout.keypoints else None
    if len(held) < _SMALLEST_OUTLINE or len(held) % 2:
        return None
    is_track = is_last and held[-1].is_integer() and held[-1] > 1 + SLACK and max(held[:-1]) <= 1 + SLACK
    if is_track or (is_last and layout.has_tracks and len(held) == _SMALLEST_OUTLINE):
        return None
    return (ReadAs.POLYGON,)


def _box(line: LabelLine, held: Sequence[float], shape: tuple[ReadAs, ...]) -> tuple[float, float, float, float]:
    if shape == (ReadAs.POLYGON,):
        _require_inside(line, held)
        return min(held[::2]), min(held[1::2]), max(held[::2]), max(held[1::2])
    cx, cy, w, h = held[:_BOX]
    _require_inside(line, held[:_BOX])
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _require_inside(line: LabelLine, places: Sequence[float]) -> None:
    if not all(isfinite(place) and -SLACK <= place <= 1 + SLACK for place in places):
        numbers = " ".join(f"{place:g}" for place in (line.label, *line.places))
        pixels = max(places) > 2  # noqa: PLR2004  no share of anything
        remedy = f"{REMEDY}; these look like pixels: divide them by width and height" if pixels else REMEDY
        raise DatasetError(f"{line.where}: coordinates outside 0 to 1: {numbers[:60]!r}", remedy=remedy)
