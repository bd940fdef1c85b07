"""Labels: what is true of one image, from YOLO text files or a COCO json file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import DatasetError

MAX_LABEL_BYTES = 64 << 20
"""A YOLO text file of one image."""
MAX_COCO_BYTES = 2 << 30
"""COCO's own train annotations take 0.5 GB."""
_SLACK = 0.01
"""How far outside 0..1 a coordinate may lie: annotation tools round, upstream allows as much."""
_BOX_COLUMNS, _SMALLEST_POLYGON = 5, 7


@dataclass(frozen=True)
class Truth:
    """The objects of one image.

    Attributes:
        xyxy: (n, 4) float32, left, top, right, bottom in image pixels.
        class_id: (n,) int32.
        crowd: (n,) bool, COCO's ``iscrowd``: a region of many objects, neither found nor missed.
    """

    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int32]
    crowd: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.class_id)

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[float], bool]]) -> Truth:
        """From rows of class id, xyxy in pixels, crowd."""
        return cls(
            np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[0] for row in rows], np.int32),
            np.array([row[2] for row in rows], np.bool_),
        )


def yolo_path(image: Path) -> Path:
    """Where the labels of an image lie: the last folder ``images`` of its path reads ``labels`` (upstream's rule)."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_yolo(path: Path, resolution_wh: tuple[int, int], classes: int | None) -> Truth:
    """Read ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3 ...`` (a polygon, taken as its box) per line, all 0..1.

    Args:
        path: the text file; equal lines count once, as upstream does.
        resolution_wh: of the image, in pixels.
        classes: how many classes there are, if known.

    Raises:
        DatasetError: a line is not that, or names a class that does not exist; says file and line.
    """
    lines = read_text(path, MAX_LABEL_BYTES).splitlines()
    unique = dict.fromkeys(
        _yolo_row(f"{path}:{number}", line, classes) for number, line in enumerate(lines, 1) if line.strip()
    )
    scale = (*resolution_wh, *resolution_wh)
    return Truth.of([(label, [side * px for side, px in zip(box, scale, strict=True)], False) for label, box in unique])


def _yolo_row(where: str, line: str, classes: int | None) -> tuple[int, tuple[float, ...]]:
    """Class id and xyxy in 0..1."""
    words = line.split()
    remedy = "each line is: class cx cy w h, from 0 to 1"
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DatasetError(f"{where}: not numbers: {line[:60]!r}", remedy=remedy) from error
    label, places = values[0], values[1:]
    if len(values) != _BOX_COLUMNS and (len(values) < _SMALLEST_POLYGON or len(values) % 2 == 0):
        raise DatasetError(f"{where}: {len(values)} numbers, expected 5 or a polygon", remedy=remedy)
    if not label.is_integer() or label < 0 or (classes is not None and label >= classes):
        known = f"0 to {classes - 1}" if classes is not None else "whole numbers from 0"
        raise DatasetError(f"{where}: class {words[0][:20]}, known are {known}", remedy="mend the label or the names")
    if not all(-_SLACK <= place <= 1 + _SLACK for place in places):
        raise DatasetError(f"{where}: coordinates outside 0 to 1: {line[:60]!r}", remedy=remedy)
    if len(values) == _BOX_COLUMNS:
        cx, cy, w, h = places
        return int(label), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return int(label), (min(places[::2]), min(places[1::2]), max(places[::2]), max(places[1::2]))


@dataclass(frozen=True)
class CocoFile:
    """A COCO annotation file.

    Attributes:
        class_names: in the order of class ids; the data.yaml's if it has names, else by category id.
        truths: of each image by its file name, in the file's order.
    """

    class_names: tuple[str, ...]
    truths: Mapping[str, Truth]


def read_coco(path: Path, class_names: tuple[str, ...] | None) -> CocoFile:
    """Read the boxes of a COCO json file.

    Raises:
        DatasetError: not COCO json, or a category that ``class_names`` lacks; says file and entry.
    """
    try:
        content = json.loads(read_text(path, MAX_COCO_BYTES))
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON: {error}", remedy="give a COCO annotation file") from error
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        files = {int(entry["id"]): str(entry["file_name"]) for entry in content["images"]}
        names = class_names or tuple(categories[number] for number in sorted(categories))
        rows: dict[int, list[tuple[int, Sequence[float], bool]]] = {number: [] for number in files}
        for image_id, row in _coco_rows(path, content["annotations"], categories, names):
            rows[image_id].append(row)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path}: not a COCO annotation file: {type(error).__name__} {error}", remedy="check its entries"
        ) from error
    return CocoFile(names, {files[number]: Truth.of(found) for number, found in rows.items()})


def _coco_rows(
    path: Path, annotations: Sequence[Mapping[str, Any]], categories: Mapping[int, str], names: tuple[str, ...]
) -> Iterator[tuple[int, tuple[int, Sequence[float], bool]]]:
    """Image id and row of each annotation."""
    class_ids = {name: number for number, name in enumerate(names)}
    for entry in annotations:
        name = categories[int(entry["category_id"])]
        if name not in class_ids:
            raise DatasetError(
                f"{path}: annotation {entry.get('id')} has category {name!r}, which the names lack",
                remedy="add it to names in data.yaml",
            )
        x, y, w, h = (float(side) for side in entry["bbox"])
        yield int(entry["image_id"]), (class_ids[name], (x, y, x + w, y + h), bool(entry.get("iscrowd", 0)))


def read_text(path: Path, most_bytes: int) -> str:
    """A UTF-8 file of limited size.

    Raises:
        DatasetError: it cannot be read, is larger, or is not text.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise DatasetError(f"{path}: {size} bytes, the limit is {most_bytes}", remedy="give a smaller file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}", remedy="check the path and its rights") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text", remedy="save it as UTF-8") from error
