"""COCO json: the images of an annotation file, and their objects, as the many programs that write one write it.

Which images there are is read first; calibration and predict want no more. Numbers may be text, ids anything that
can be told apart. What can only mean one thing is taken so and counted, what cannot is refused.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vajra_edge.datasets import class_names as names_of
from vajra_edge.datasets.account import Account, LeftOut, ReadAs
from vajra_edge.datasets.labels import Drawn, read_text
from vajra_edge.errors import DatasetError

MAX_COCO_BYTES = 2 << 30
"""COCO's own train annotations take 0.5 GB."""
SAME_OBJECT_IOU = 0.7
"""No detector keeps two boxes of one class that overlap more (NMS): they are one object, drawn twice."""
NEEDED = ("images", "annotations", "categories")
_OTHERS = {
    "shapes": "a LabelMe file of one picture",
    "_via_img_metadata": "a project of the VGG annotator",
    "_via_settings": "a project of the VGG annotator",
    "log": "a file of another program",
}
CONVERT = "convert it to COCO json or YOLO text, such as with supervision or FiftyOne"

Id: TypeAlias = "int | str"
_Row: TypeAlias = "tuple[int, tuple[float, float, float, float], bool]"


@dataclass(frozen=True)
class Listed:
    """One image of a file.

    Attributes:
        file_name: with forward slashes, below some folder.
        ids: of it; several where it is listed several times.
        stated_wh: width and height in pixels; None: not stated.
    """

    file_name: str
    ids: tuple[Id, ...]
    stated_wh: tuple[int, int] | None


@dataclass(frozen=True)
class CocoFile:
    """A COCO annotation file whose images are known and whose annotations have not been looked at.

    Attributes:
        path: of the file.
        class_names: in the order of class ids; the data.yaml's if it has names, else by category id.
        images: in the file's order.
    """

    path: Path
    class_names: tuple[str, ...]
    images: tuple[Listed, ...]
    _content: Mapping[str, Any] = field(repr=False, compare=False)
    _class_ids: Mapping[Id, int | str] = field(repr=False, compare=False)

    def objects(self, account: Account) -> Mapping[str, Drawn]:
        """The objects of each image, by its ``file_name``.

        Raises:
            DatasetError: an entry is not what COCO means, or a category is unknown; says file and entry.
        """
        try:
            rows = self._rows(account)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise _foreign(self.path, error) from error
        self._refuse_shares(rows)
        contributor = str(_mapping(self._content.get("info")).get("contributor", ""))
        made = {}
        for image in self.images:
            made[image.file_name] = Drawn.of(
                self._joined(image, rows, account),
                is_share=False,
                stated_wh=image.stated_wh,
                is_turnable=contributor != "Label Studio",
            )
        return made

    def _rows(self, account: Account) -> dict[Id, list[_Row]]:
        """What each image id has; equal entries under one annotation id count once."""
        rows: dict[Id, list[_Row]] = {number: [] for image in self.images for number in image.ids}
        seen: set[tuple[Id, Id, _Row]] = set()
        for place, entry in enumerate(self._content["annotations"]):
            what = f"annotation {entry.get('id', f'number {place + 1}')}"
            image_id = _id(entry["image_id"])
            if image_id not in rows:
                account.add(LeftOut.OBJECT_WITHOUT_PICTURE, what)
                continue
            box = _box(self.path, what, entry, account)
            if box is None:
                continue
            row = self._class_id(what, entry), box, bool(_number(entry.get("iscrowd") or 0))
            key = (_id(entry.get("id", f"number {place}")), image_id, row)
            if key in seen:
                account.add(LeftOut.EQUAL_OBJECT, what)
                continue
            seen.add(key)
            rows[image_id].append(row)
        return rows

    def _class_id(self, what: str, entry: Mapping[str, Any]) -> int:
        category = _id(entry["category_id"])
        found = self._class_ids.get(category)
        if found is None:
            raise DatasetError(
                f"{self.path}: {what} has category {category}, which 'categories' lacks", remedy="add it there"
            )
        if isinstance(found, str):
            raise DatasetError(
                f"{self.path}: {what} has category {found!r}, which the names lack",
                remedy="add it to names in data.yaml",
            )
        return found

    def _joined(self, image: Listed, rows: Mapping[Id, list[_Row]], account: Account) -> list[_Row]:
        """The objects of an image under all its ids; equal ones under two ids count once.

        Raises:
            DatasetError: two people drew the same objects, so that there is no telling whose boxes are meant.
        """
        joined = list(rows[image.ids[0]])
        for number in image.ids[1:]:
            new = [row for row in rows[number] if row not in joined]
            account.add(ReadAs.JOINED, image.file_name)
            if len(new) < len(rows[number]):
                account.add(LeftOut.EQUAL_OBJECT, image.file_name, len(rows[number]) - len(new))
            if any(_same_object(one, other) for one in new for other in joined):
                raise DatasetError(
                    f"{self.path}: {image.file_name} is there under ids {', '.join(map(str, image.ids))}, "
                    "with the same objects drawn a little differently",
                    remedy="keep the annotations of one id",
                )
            joined += new
        return joined

    def _refuse_shares(self, rows: Mapping[Id, Sequence[_Row]]) -> None:
        edges = [edge for found in rows.values() for _, box, _ in found for edge in box]
        if edges and max(edges) <= 1 + 1e-6:
            raise DatasetError(
                f"{self.path}: all boxes lie between 0 and 1, COCO's are in pixels",
                remedy="multiply them by width and height of their images",
            )


def read(path: Path, class_names: tuple[str, ...] | None) -> CocoFile:
    """Read a COCO json file; its annotations are only counted.

    Args:
        path: of the file.
        class_names: of the data.yaml that names it; None: its own categories.

    Raises:
        DatasetError: not COCO json, or two files under one id; says file and entry.
    """
    content = _content(path)
    try:
        images = _images(path, content)
        categories = _categories(path, content)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _foreign(path, error) from error
    names = class_names or tuple(categories.values())
    matched = names_of.match(tuple(categories.values()), names)
    class_ids = {
        number: name if found is None else found
        for (number, name), found in zip(categories.items(), matched, strict=True)
    }
    return CocoFile(path, names, images, content, class_ids)


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_text(path, MAX_COCO_BYTES))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON: {error}", remedy="give a COCO annotation file") from error
    if isinstance(content, list) and content and isinstance(content[0], dict) and "score" in content[0]:
        raise DatasetError(
            f"{path}: a list of detections, no annotation file", remedy="give the file that says what is true"
        )
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: not a COCO annotation file", remedy=f"it needs {', '.join(NEEDED)}")
    missing = [key for key in NEEDED if key not in content]
    if missing:
        other = next((what for key, what in _OTHERS.items() if key in content), "")
        told = f"{other}, not a COCO annotation file" if other else f"not a COCO annotation file: no {missing[0]!r}"
        raise DatasetError(f"{path}: {told}", remedy=CONVERT if other else f"it needs {', '.join(NEEDED)}")
    return content


def _foreign(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path}: not a COCO annotation file: {type(error).__name__} {error}"[:400], remedy="check its entries"
    )


def _images(path: Path, content: Mapping[str, Any]) -> tuple[Listed, ...]:
    """Each file once, with all ids that it has.

    Raises:
        DatasetError: one id is that of two files, or a file has two sizes.
    """
    found: dict[str, Listed] = {}
    owners: dict[Id, str] = {}
    for entry in content["images"]:
        number, name, size = _id(entry["id"]), _file_name(entry), _stated(entry)
        before = found.get(name)
        twice = owners.setdefault(number, name)
        if twice != name:
            raise DatasetError(
                f"{path}: image id {number} is there twice, for {twice} and {name}",
                remedy="give each image an id of its own, and its annotations with it",
            )
        if before is None:
            found[name] = Listed(name, (number,), size)
            continue
        if size is not None and before.stated_wh not in {None, size}:
            raise DatasetError(
                f"{path}: {name} is there with {before.stated_wh} and with {size} pixels", remedy="keep the right one"
            )
        ids = before.ids if number in before.ids else (*before.ids, number)
        found[name] = Listed(name, ids, before.stated_wh or size)
    return tuple(found.values())


def _file_name(entry: Mapping[str, Any]) -> str:
    """With forward slashes; of LVIS, which has none, what its address ends in."""
    name = entry.get("file_name") or entry.get("path")
    if name is None and (address := entry.get("coco_url")):
        name = "/".join(str(address).split("?")[0].split("/")[-2:])
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"image {entry.get('id')} has no file_name")
    return posixpath.normpath(_text(name).strip().replace("\\", "/"))


def _stated(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    sides = [entry.get(side) for side in ("width", "height")]
    if any(side in {None, "", 0, "0", -1} for side in sides if not isinstance(side, (list, dict))):
        return None
    width, height = (_number(side) for side in sides)
    return round(width), round(height)


def _categories(path: Path, content: Mapping[str, Any]) -> dict[Id, str]:
    """Names by id, in the order of ids; without the one that Roboflow writes to group the others.

    Raises:
        DatasetError: one id is that of two categories.
    """
    entries = [(_id(entry["id"]), entry) for entry in content["categories"]]
    names: dict[Id, str] = {}
    for number, entry in entries:
        if isinstance(entry["name"], (list, dict)) or entry["name"] is None:
            raise ValueError(f"category {number} has no name")
        name = _text(str(entry["name"]))
        if names.setdefault(number, name) != name:
            raise DatasetError(
                f"{path}: category id {number} is there twice, for {names[number]!r} and {name!r}",
                remedy="give each category an id of its own",
            )
    used = {
        _id(entry["category_id"])
        for entry in content["annotations"]
        if isinstance(entry, dict) and "category_id" in entry
    }
    groups = {entry.get("supercategory") for number, entry in entries}
    grouping = {
        number
        for number, entry in entries
        if number not in used and entry.get("supercategory") in {"none", "", None} and entry["name"] in groups
    }
    order = sorted(names, key=lambda number: (isinstance(number, str), number))
    return {number: names[number] for number in order if number not in grouping}


def _box(path: Path, what: str, entry: Mapping[str, Any], account: Account) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom in pixels; None, and counted, where there is no box that could be found."""
    sides = entry.get("bbox")
    if not isinstance(sides, list) or not sides:
        sides = _outline(entry.get("segmentation"))
        account.add(LeftOut.OBJECT_WITHOUT_BOX if sides is None else ReadAs.MASK, what)
        if sides is None:
            return None
    if len(sides) != 4:  # noqa: PLR2004  x, y, width and height
        raise DatasetError(
            f"{path}: {what} has a bbox of {len(sides)} numbers, COCO's is x, y, width, height", remedy="mend it"
        )
    x, y, w, h = (_number(side) for side in sides)
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        account.add(LeftOut.BOX_WITHOUT_AREA, what)
        return None
    return x, y, x + w, y + h


def _outline(segmentation: Any) -> list[float] | None:
    """x, y, width and height around polygons or a mask; None where there are none."""
    if isinstance(segmentation, dict):
        return _around_mask(segmentation)
    polygons = [polygon for polygon in segmentation or [] if isinstance(polygon, list) and len(polygon) > 1]
    if not polygons:
        return None
    xs = [_number(x) for polygon in polygons for x in polygon[0::2]]
    ys = [_number(y) for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _around_mask(mask: Mapping[str, Any]) -> list[float] | None:
    """Of run lengths, down the columns, plain or packed as pycocotools does."""
    height, width = (int(_number(side)) for side in mask["size"])
    counts = mask["counts"]
    runs = np.array(_unpacked(counts) if isinstance(counts, str) else [int(_number(run)) for run in counts], np.int64)
    ends = np.cumsum(runs)
    if (runs < 0).any() or (ends.size and ends[-1] > height * width):
        raise ValueError("run lengths are longer than the mask")
    starts, ends = (ends - runs)[1::2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return None
    left, right = int(starts[0] // height), int((ends[-1] - 1) // height)
    top, bottom = _rows_of(starts, ends, height)
    return [left, top, right - left + 1, bottom - top + 1]


def _rows_of(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int) -> tuple[int, int]:
    """First and last row; a run that goes on in the next column touches the edge of the picture."""
    if (starts // height != (ends - 1) // height).any():
        return 0, height - 1
    return int((starts % height).min()), int(((ends - 1) % height).max())


def _unpacked(text: str) -> list[int]:
    """Run lengths from pycocotools' text: base 32, least digit first, from the third on against the one before last."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value = digits = 0
        more = True
        while more:
            digit = ord(text[at]) - 48
            value |= (digit & 0x1F) << 5 * digits
            more = bool(digit & 0x20)
            at, digits = at + 1, digits + 1
            if not more and digit & 0x10:
                value |= -1 << 5 * digits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))  # noqa: PLR2004  the first three stand alone
    return runs


def _same_object(one: _Row, other: _Row) -> bool:
    if one[0] != other[0] or one[2] or other[2]:
        return False
    (a, b, c, d), (e, f, g, h) = one[1], other[1]
    overlap = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    return overlap >= SAME_OBJECT_IOU * ((c - a) * (d - b) + (g - e) * (h - f) - overlap)


def _id(value: Any) -> Id:
    """An id; ``"12"`` and 12.0 are 12."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{value!r} is no id")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{value!r} is no id")
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() else value


def _text(value: str) -> str:
    r"""The text, if it can be shown: JSON may hold half of a character pair (``\ud800``)."""
    value.encode()
    return value


def _number(value: Any) -> float:
    if isinstance(value, (list, dict)) or value is None:
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def found_files(images: Sequence[Listed], folders: Sequence[Path]) -> Iterator[Path | None]:
    """Where each image lies; None where it lies in none of the folders.

    The folder of the one before is tried first. A name with folders that are not there, as of another machine, is
    looked for by its last part alone.
    """
    order = list(folders)
    for image in images:
        choices = [image.file_name]
        if "/" in image.file_name:
            choices.append(posixpath.basename(image.file_name))
        found = next(((folder, name) for name in choices for folder in order if (folder / name).is_file()), None)
        if found is not None:
            order.remove(found[0])
            order.insert(0, found[0])
        yield None if found is None else found[0] / found[1]
