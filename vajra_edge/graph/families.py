"""Families: which detector wrote an output, by its shape and by what one picture gives.

Each layout is read only where nothing else looks like it. Everything else is refused by what it looks like: other
tasks, other exporters' post-processing, outputs that nobody decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import GraphError
from vajra_edge.graph.anchors import Grid, follows, grid_of
from vajra_edge.graph.signature import BOX_ROWS, DETECTION_COLUMNS
from vajra_edge.wording import Setting, Text, say

Array = NDArray[np.float32]

_MASKS = 32
"""Mask coefficients of a candidate in YOLO's segmentation heads."""
_SHARES = 1.5
"""Boxes in shares of the input stay below it; in pixels some of any number of them are larger."""
_SCORES = (-1e-3, 1 + 1e-3)
_ONE = 0.999
_COCO_POSE = 51
"""17 key points with x, y and how visible they are."""


class Unit(Enum):
    """What box figures are counted in."""

    PIXELS = "pixels of the input"
    SHARES = "shares of the input, 0..1"
    CELLS = "cells of the grid, and logarithms of sizes"


class FamilyKind(Enum):
    """What one row of an output is."""

    ANCHOR = "a candidate; NMS comes after"
    QUERY = "an object with the score of every class; no NMS"
    DETECTION = "an object: corners, score, class; no NMS"


@dataclass(frozen=True)
class Reading:
    """How one output is to be read.

    Attributes:
        family: for people.
        output: name of the tensor.
        kind: of its rows.
        rows_first: (N, rows, columns), otherwise (N, columns, rows).
        objectness: a score of its own before those of the classes, which they are multiplied with.
        corners: boxes are x1, y1, x2, y2, otherwise cx, cy, w, h.
        unit: of boxes.
        grid: of ANCHOR rows, where it is known.
        bgr_bytes: the input is BGR 0..255, otherwise RGB 0..1.
    """

    family: str
    output: str
    kind: FamilyKind
    rows_first: bool = True
    objectness: bool = False
    corners: bool = False
    unit: Unit = Unit.PIXELS
    grid: Grid | None = None
    bgr_bytes: bool = False


def plain(reading: Reading) -> Reading:
    """The same output, read as ``Layout.RAW``: what differs from it has to be rewritten."""
    return Reading(reading.family, reading.output, FamilyKind.ANCHOR, rows_first=False, grid=reading.grid)


def recognise(outputs: Mapping[str, Array], classes: int | None, size_hw: tuple[int, int]) -> Reading:
    """Read the one output that is a known layout.

    Args:
        outputs: by name, what one picture gave.
        classes: how many class names there are; None: nobody knows.
        size_hw: of the picture.

    Raises:
        GraphError: none is, or two; says what they look like.
    """
    three = {name: value[:1] for name, value in outputs.items() if value.ndim == 3}  # noqa: PLR2004  (N, rows, columns)
    if (other := _other_task(outputs, three, classes, size_hw)) is not None:
        raise other
    if classes is None:
        raise _nameless(three, size_hw)
    found = [one for name, value in three.items() if (one := _reading(name, value, classes, size_hw)) is not None]
    if len(found) != 1:
        raise unknown(outputs, classes, size_hw)
    return found[0]


def _reading(name: str, value: Array, classes: int, size_hw: tuple[int, int]) -> Reading | None:
    rows, columns = value.shape[1:]
    grid = grid_of(rows, size_hw)
    if columns == DETECTION_COLUMNS and _is_detections(value[0], classes, grid):
        return Reading("end to end: corners, score, class", name, FamilyKind.DETECTION, unit=_unit(name, value[0]))
    if columns == BOX_ROWS + 1 + classes and grid is not None:
        return _with_objectness(name, value[0], grid, size_hw)
    if columns == BOX_ROWS + classes:
        return _rows_of_scores(name, value[0], grid, size_hw)
    if rows == BOX_ROWS + classes:
        grid = grid_of(columns, size_hw)
        return _candidates(name, value[0].T, grid, size_hw, rows_first=False)
    return None


def _is_detections(rows: Array, classes: int, grid: Grid | None) -> bool:
    """A score of 0..1 and a whole class number; rows that are empty, or all alike, say nothing."""
    filled = rows[rows[:, 4] > 0]
    if not len(filled) or np.ptp(rows) == 0:
        return grid is None and (classes != DETECTION_COLUMNS - BOX_ROWS or not rows.any())
    low, high = _SCORES
    labels = filled[:, 5]
    return bool(
        ((rows[:, 4] >= low) & (rows[:, 4] <= high)).all()
        and ((labels == labels.round()) & (labels >= 0) & (labels < classes)).all()
    )


def _with_objectness(name: str, rows: Array, grid: Grid, size_hw: tuple[int, int]) -> Reading:
    """YOLOv5 and its like with three anchors a cell; with one it is YOLOv6, whose objectness is 1, or YOLOX."""
    _require_scores(name, rows[:, 4:])
    if grid.per_cell > 1 or (rows[:, 4] > _ONE).all():
        family = "YOLOv5, v7: boxes, objectness, classes" if grid.per_cell > 1 else "YOLOv6: the same, objectness 1"
        unit = _placed(name, rows, grid, size_hw)
        return Reading(family, name, FamilyKind.ANCHOR, objectness=True, unit=unit, grid=grid)
    if _lies(rows, grid, size_hw) is False:
        family = "YOLOX: offsets in cells, objectness, classes"
        return Reading(family, name, FamilyKind.ANCHOR, objectness=True, unit=Unit.CELLS, grid=grid, bgr_bytes=True)
    raise GraphError(
        f"{name} {_shape(rows)} looks like YOLOX with its boxes decoded, or like another network with one objectness a "
        "cell, and the two want other colours",
        remedy="export YOLOX as its own exporter does by itself, without --decode_in_inference",
    )


def _rows_of_scores(name: str, rows: Array, grid: Grid | None, size_hw: tuple[int, int]) -> Reading:
    """(rows, 4 + classes): a transposed YOLOv8 where rows lie on a grid, else queries as RT-DETR has them."""
    if grid is not None:
        return _candidates(name, rows, grid, size_hw, rows_first=True)
    _require_scores(name, rows[:, 4:])
    unit = _unit(name, rows)
    if unit is Unit.PIXELS:
        raise GraphError(
            f"{name} {_shape(rows)} has as many rows as no grid of its input, and boxes that are not in shares of it",
            remedy="export it again as upstream does: (N, 4 + classes, anchors), or RT-DETR with boxes of 0..1",
        )
    corners = bool((rows[:, 2:4] >= rows[:, :2]).all()) and rows.any()
    family = "RT-DETR: boxes of 0..1, classes"
    return Reading(family, name, FamilyKind.QUERY, True, corners=bool(corners), unit=unit)


def _candidates(name: str, rows: Array, grid: Grid | None, size_hw: tuple[int, int], *, rows_first: bool) -> Reading:
    """Boxes and class scores without objectness: YOLOv8 and its like, either way round."""
    _require_scores(name, rows[:, 4:])
    unit = _unit(name, rows) if grid is None else _placed(name, rows, grid, size_hw)
    family = "YOLOv8 and its like, transposed" if rows_first else "YOLOv8 and its like"
    corners = grid is not None and follows(rows[:, 2], grid.corners(size_hw)[:, 0] * grid.steps(size_hw)) is True
    return Reading(family, name, FamilyKind.ANCHOR, rows_first, corners=corners, unit=unit, grid=grid)


def _lies(rows: Array, grid: Grid, size_hw: tuple[int, int]) -> bool | None:
    """Whether boxes lie where their cells do, in whatever unit; None: nothing tells."""
    places = grid.corners(size_hw) * grid.steps(size_hw)[:, None]
    told = [follows(rows[:, axis], places[:, axis]) for axis in (0, 1)]
    return None if None in told else all(told)


def _placed(name: str, rows: Array, grid: Grid, size_hw: tuple[int, int]) -> Unit:
    if _lies(rows, grid, size_hw) is False:
        raise GraphError(
            f"{name} {_shape(rows)} has boxes that do not lie where their cells are: nobody decoded them",
            remedy="export it with its last layer in inference mode (YOLOv7: --grid), so that boxes come out in pixels",
        )
    return _unit(name, rows)


def _unit(name: str, rows: Array) -> Unit:
    boxes = rows[:, :BOX_ROWS]
    if not np.isfinite(boxes).all():
        raise GraphError(f"{name} has boxes that are no numbers", remedy="export it again, in FP32")
    return Unit.SHARES if boxes.any() and np.abs(boxes).max() <= _SHARES else Unit.PIXELS


def _require_scores(name: str, scores: Array) -> None:
    low, high = _SCORES
    if not ((scores >= low) & (scores <= high)).all():
        raise GraphError(
            f"{name} has scores from {scores.min():.3g} to {scores.max():.3g}: no sigmoids of them, or no scores",
            remedy="export it so that class scores are 0..1",
        )


def _shape(rows: Array) -> str:
    return f"(N, {', '.join(map(str, rows.shape))})"


def _other_task(
    outputs: Mapping[str, Array], three: Mapping[str, Array], classes: int | None, size_hw: tuple[int, int]
) -> GraphError | None:
    """A head of another task, or another exporter's post-processing."""
    told = _ending(outputs) or _task(outputs, three, classes, size_hw)
    if told is None:
        return None
    looks, remedy = told
    return GraphError(f"{listed_arrays(outputs)}: this looks like {looks}", remedy=remedy)


_DETECTION = "give the weights of a detection network"
_BARE = "export it again without its own NMS or post-processing"


def _ending(outputs: Mapping[str, Array]) -> tuple[str, str] | None:
    """Post-processing that leaves the layouts of one (N, rows, columns) tensor."""
    shapes, names = [value.shape for value in outputs.values()], {name.lower() for name in outputs}
    if names >= {"num_dets", "det_boxes", "det_scores", "det_classes"} or "num_detections" in names:
        return "a network that ends in TensorRT's EfficientNMS", _BARE
    if {"labels", "boxes", "scores"} <= names:
        return "RT-DETR as its authors export it, or torchvision's detectors", _BARE
    if {"logits", "pred_boxes"} <= names or {"dets", "labels"} <= names:
        return "a DETR of Hugging Face, or a network of MMDetection", _BARE
    flat = next((shape for shape in shapes if len(shape) == 2 and shape[1] in {6, 7} and len(shapes) == 1), None)  # noqa: PLR2004  image, corners, class, score
    if flat is not None and flat[1] == 7:  # noqa: PLR2004
        return (
            "YOLOv7 exported with --end2end: the boxes of all images in one list",
            "export it again without --end2end",
        )
    five = [shape for shape in shapes if len(shape) == 5]  # noqa: PLR2004  image, anchor, row, column, figures
    if five and len(five) == len(shapes):
        return (
            "the heads of YOLOv5 or v7 before anything is decoded",
            "export it again in inference mode (YOLOv7: --grid)",
        )
    return None


def _task(
    outputs: Mapping[str, Array], three: Mapping[str, Array], classes: int | None, size_hw: tuple[int, int]
) -> tuple[str, str] | None:
    """A head of another task than detection."""
    shapes = [value.shape for value in outputs.values()]
    if len(shapes) == 1 and len(shapes[0]) == 2:  # noqa: PLR2004  (N, classes)
        return "a classification network", _DETECTION
    maps = [shape for shape in shapes if len(shape) == 4]  # noqa: PLR2004  (N, channels, rows, columns)
    if three and any(shape[1] == _MASKS for shape in maps):
        return "a segmentation network (boxes and masks)", _DETECTION
    if maps and len(maps) == len(shapes):
        looks = "a network for semantic segmentation, or heads of a detector before anything is decoded"
        return looks, "export a detection network in inference mode"
    if len(three) != len(shapes) or len(three) > 1 or classes is None:
        return None
    return _task_of_columns(next(iter(three.values()))[0], classes, size_hw)


def _task_of_columns(value: Array, classes: int, size_hw: tuple[int, int]) -> tuple[str, str] | None:
    """Figures beyond those of a detection network."""
    rows, columns = value.shape
    if rows < columns:
        usual, further = BOX_ROWS + classes, value[BOX_ROWS + classes :]
    else:
        grid = grid_of(rows, size_hw)
        objectness = int(grid is not None and grid.per_cell > 1)
        usual = DETECTION_COLUMNS if grid is None else BOX_ROWS + classes + objectness
        further = value[:, usual:]
        if columns in {DETECTION_COLUMNS, BOX_ROWS + classes, BOX_ROWS + 1 + classes}:
            return None
    beyond = min(rows, columns) - usual
    if beyond == 1:
        return "a network for oriented boxes (obb: an angle after the classes), or a name is missing", _DETECTION
    low, high = _SCORES
    scores = bool(((further >= low) & (further <= high)).all())  # then they may be other classes
    if beyond == _MASKS and not (scores and further.any()):
        return "a segmentation network (mask coefficients after the classes)", _DETECTION
    if beyond == _COCO_POSE or (beyond > 0 and not scores and not (beyond % 3 and beyond % 2)):
        return f"a pose network ({beyond} figures of key points after the classes)", _DETECTION
    return None


def _nameless(three: Mapping[str, Array], size_hw: tuple[int, int]) -> GraphError:
    counts = {count for value in three.values() if (count := _count(value, size_hw)) is not None}
    has = f"has {counts.pop()} classes and no names of them" if len(counts) == 1 else "has no class names"
    return GraphError(f"the network's metadata {has}", remedy=say(Setting.CLASS_NAMES.given(), ", one for each"))


def _count(value: Array, size_hw: tuple[int, int]) -> int | None:
    """How many classes a layout has, where rows lie on a grid."""
    rows, columns = (int(side) for side in value.shape[1:])
    if (grid := grid_of(rows, size_hw)) is not None:
        with_objectness = grid.per_cell > 1 or _lies(value[0], grid, size_hw) is False
        return columns - BOX_ROWS - int(with_objectness)
    return rows - BOX_ROWS if grid_of(columns, size_hw) is not None else None


def unknown(outputs: Mapping[str, Array], classes: int, size_hw: tuple[int, int]) -> GraphError:
    """What is wrong with outputs of which none, or more than one, has a known layout."""
    expected = f"expected one output (N, {BOX_ROWS + classes}, anchors) for {classes} classes"
    three = [value for value in outputs.values() if value.ndim == 3]  # noqa: PLR2004
    remedy: Text = "export it again as upstream does"
    if len(three) == 1 and (count := _count(three[0], size_hw)) is not None and 0 < count != classes:
        remedy = say(f"it has {count} classes: ", Setting.CLASS_NAMES.given(), ", one for each")
    return GraphError(f"{expected}, found {listed_arrays(outputs)}", remedy=remedy)


def listed_arrays(outputs: Mapping[str, Array]) -> str:
    """Names and shapes of at most four tensors, for a message."""
    texts = [f"{name} ({', '.join(map(str, value.shape))})" for name, value in list(outputs.items())[:4]]
    return ", ".join(texts) + (f" and {len(outputs) - 4} more" if len(outputs) > 4 else "")  # noqa: PLR2004
