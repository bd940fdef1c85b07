"""Labels check: whether the labels of a dataset can judge this network: classes, boxes, and what is left to score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vajra_edge.datasets import class_names
from vajra_edge.datasets.account import Account, LeftOut, ReadAs
from vajra_edge.datasets.dataset import Dataset
from vajra_edge.datasets.labels import Truth
from vajra_edge.errors import DatasetError
from vajra_edge.media import image_file
from vajra_edge.wording import Argument, say

NAMED = 12
"""So many names of the network are told where those of the dataset match none of them."""
_BEYOND, _LEAST_BEYOND = 0.02, 4
"""A box that leaves its picture by more than this share is drawn wrongly; a few such boxes are in many sets."""


def class_ids(
    pictures: Dataset, names: Sequence[str], account: Account, *, by_number: bool = False
) -> NDArray[np.int32]:
    """Class id of the dataset -> class id of the network; -1 for one that no object has.

    Equal lists match by number; others by name, see ``class_names``. Without names, or if asked to, all do by number.

    Args:
        pictures: with their labels.
        names: of the network.
        account: classes that the network does not have, and those that it has as one, are counted there.
        by_number: whatever they are called.

    Raises:
        DatasetError: objects have classes that the network does not have; all of those are named.
    """
    used = np.bincount(_used(pictures))
    own = tuple(pictures.class_names or ())
    numbered = by_number or not own
    known = own or tuple(names[: len(used)])
    matched = tuple(range(min(len(names), len(known)))) if numbered else class_names.match(known, names)
    matched += (None,) * (max(len(known), len(used)) - len(matched))
    lost = [number for number, found in enumerate(matched) if found is None]
    if any(number < len(used) and used[number] for number in lost):
        raise _unmatched(pictures, names, lost, numbered=numbered)
    for number in lost:
        account.add(LeftOut.CLASS_UNMATCHED, known[number])
    for found in sorted({found for found in matched if found is not None and matched.count(found) > 1}):
        alike = [name for name, other in zip(known, matched, strict=False) if other == found]
        account.add(ReadAs.MERGED_CLASSES, f"{' and '.join(alike)} as {names[found]}", len(alike))
    return np.array([-1 if found is None else found for found in matched], np.int32)


def _used(pictures: Dataset) -> NDArray[np.int32]:
    """Class id of every object."""
    drawn = [entry.drawn.class_id for entry in pictures.entries if entry.drawn is not None]
    return np.concatenate([np.zeros(0, np.int32), *drawn])


def _unmatched(pictures: Dataset, names: Sequence[str], lost: Sequence[int], *, numbered: bool) -> DatasetError:
    own = pictures.class_names
    called = [own[number] if own and number < len(own) else str(number) for number in lost]
    if numbered:
        told = f"{pictures.source} has objects of classes that the network, with {len(names)}, does not have: "
        return DatasetError(told + ", ".join(called), remedy="name the dataset that the network was trained for")
    others = [name for name in names if not class_names.called(name, own or ())]
    twice = [name for name in called if len(class_names.called(name, names)) > 1]
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    told = (
        f"{pictures.source} has {len(own or ())} classes, the network {len(names)}; "
        f"it does not know {', '.join(called)}"
    )
    told += f" (of {', '.join(twice)} the network has several)" if twice else ""
    told += f"; the network's that are left: {', '.join(others[:NAMED])}{more}" if others else ""
    return DatasetError(
        told,
        remedy=say(
            "spell them as the network does, or pass ", Argument.BY_NUMBER.of(True), " if the order is the same"
        ),
    )


def require_objects(pictures: Dataset) -> None:
    """Refuse labels without objects, before anything is run.

    Raises:
        DatasetError: there is none.
    """
    if not any(entry.drawn is not None and len(entry.drawn) for entry in pictures.entries):
        raise DatasetError(
            f"{pictures.source}: the labels hold no object", remedy="give a dataset in which there is something"
        )


def require_inside(pictures: Dataset, truths: Sequence[Truth], sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse labels of which most leave their pictures: they are in other units, or of other pictures.

    Args:
        pictures: for messages.
        truths: of each image, in its pixels.
        sizes: width and height of each image, in pixels.

    Raises:
        DatasetError: more than half of them do.
    """
    boxes = sum(len(truth) for truth in truths)
    beyond = sum(
        int((truth.xyxy[:, 2:] > np.array(size) * (1 + _BEYOND) + 1).any(axis=1).sum())
        for truth, size in zip(truths, sizes, strict=True)
    )
    if beyond >= _LEAST_BEYOND and beyond * 2 > boxes:
        raise DatasetError(
            f"{pictures.source}: {beyond} of {boxes} boxes end outside their pictures",
            remedy="check what the four numbers are (COCO: left, top, width, height), and that these are the pictures",
        )


def require_left(pictures: Dataset, truths: Sequence[Truth], account: Account) -> None:
    """Refuse a set of which nothing is left to score.

    Raises:
        DatasetError: no image with an object could be used; says why by reason.
    """
    if not any((~truth.crowd).any() for truth in truths):
        left_out = account.left_out()
        why = "; ".join(map(str, left_out)) or "the labels hold crowds alone"
        large = any(one.reason == LeftOut.PICTURE_TOO_LARGE.value for one in left_out)
        remedy = image_file.TILES if large else "mend or replace them"
        raise DatasetError(f"{pictures.source}: nothing is left to score: {why}", remedy=remedy)
