"""Account: what of a dataset was left out, and what was read otherwise than as plain boxes, counted by reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from vajra_edge.media.faults import ImageFault
from vajra_edge.wording import shown

NAMED = 3
"""So many of each reason are named; the count tells the rest."""


class LeftOut(Enum):
    """Why something is not scored; the value is its name in JSON."""

    PICTURE_CUT_SHORT = "picture_cut_short"
    PICTURE_UNREADABLE = "picture_unreadable"
    PICTURE_TOO_LARGE = "picture_too_large"
    CLIP_UNREADABLE = "clip_unreadable"
    FRAME_UNREADABLE = "frame_unreadable"
    CLIP_WITHOUT_LABELS = "clip_without_labels"
    PICTURE_MISSING = "picture_missing"
    PICTURE_TWICE = "picture_twice"
    LABELS_WITHOUT_PICTURE = "labels_without_picture"
    OBJECT_WITHOUT_PICTURE = "object_without_picture"
    OBJECT_WITHOUT_BOX = "object_without_box"
    BOX_WITHOUT_AREA = "box_without_area"
    BOX_OUTSIDE_PICTURE = "box_outside_picture"
    EQUAL_OBJECT = "equal_object"
    CLASS_UNMATCHED = "class_unmatched"

    @property
    def words(self) -> str:
        """For people; the count follows."""
        return _LEFT_OUT[self]

    @classmethod
    def of(cls, fault: ImageFault) -> LeftOut:
        """For a file that cannot be used."""
        return cls(fault.value)


class ReadAs(Enum):
    """How something was read that is not a plain box of its picture; the value is its name in JSON."""

    POSE = "pose_as_box"
    POLYGON = "polygon_as_box"
    MASK = "mask_as_box"
    CONFIDENCE = "confidence_ignored"
    TRACK = "track_id_ignored"
    TURNED = "turned_with_exif"
    UPRIGHT = "upright_despite_size"
    JOINED = "picture_ids_joined"
    MERGED_CLASSES = "classes_merged"

    @property
    def words(self) -> str:
        """For people; the count follows."""
        return _READ_AS[self]


_LEFT_OUT = {
    LeftOut.PICTURE_CUT_SHORT: "pictures that are cut short",
    LeftOut.PICTURE_UNREADABLE: "pictures that cannot be decoded",
    LeftOut.PICTURE_TOO_LARGE: "pictures that are too large to decode",
    LeftOut.CLIP_UNREADABLE: "clips that cannot be decoded",
    LeftOut.FRAME_UNREADABLE: "frames that cannot be decoded, of clips",
    LeftOut.CLIP_WITHOUT_LABELS: "clips, which have no labels",
    LeftOut.PICTURE_MISSING: "pictures that are listed and not there",
    LeftOut.PICTURE_TWICE: "pictures that are named twice",
    LeftOut.LABELS_WITHOUT_PICTURE: "label files without a picture",
    LeftOut.OBJECT_WITHOUT_PICTURE: "objects of pictures that are not listed",
    LeftOut.OBJECT_WITHOUT_BOX: "objects without box or outline",
    LeftOut.BOX_WITHOUT_AREA: "boxes without an area",
    LeftOut.BOX_OUTSIDE_PICTURE: "boxes outside their picture",
    LeftOut.EQUAL_OBJECT: "objects that are there twice",
    LeftOut.CLASS_UNMATCHED: "classes that the network does not have, without objects",
}
_READ_AS = {
    ReadAs.POSE: "label lines of poses, whose boxes are used",
    ReadAs.POLYGON: "label lines of outlines or oriented boxes, whose upright boxes are used",
    ReadAs.MASK: "objects with an outline alone, whose boxes are used",
    ReadAs.CONFIDENCE: "label lines with a confidence, which is not used",
    ReadAs.TRACK: "label lines with a track id, which is not used",
    ReadAs.TURNED: "pictures that were labelled lying and are turned upright by EXIF; their boxes are turned too",
    ReadAs.UPRIGHT: "pictures whose stated size is that before EXIF turned them; their boxes are upright already",
    ReadAs.JOINED: "pictures with several ids, whose objects are joined",
    ReadAs.MERGED_CLASSES: "classes of the dataset that are one class of the network",
}


@dataclass(frozen=True)
class Counted:
    """One reason with how often it was met.

    Attributes:
        reason: its name in JSON.
        words: for people.
        count: how often.
        first: the first few pictures, files or classes.
    """

    reason: str
    words: str
    count: int
    first: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"reason": self.reason, "count": self.count, "first": list(self.first)}

    def __str__(self) -> str:
        more = " ..." if self.count > len(self.first) else ""
        return f"{self.words}: {self.count} ({', '.join(self.first)}{more})"


class Account:
    """Counts by reason; of each the first few are named, every class whole."""

    def __init__(self) -> None:
        self._counts: dict[LeftOut | ReadAs, int] = {}
        self._first: dict[LeftOut | ReadAs, dict[str, None]] = {}

    def add(self, reason: LeftOut | ReadAs, name: str, count: int = 1) -> None:
        """One more, or ``count``; those of one name are named once."""
        self._counts[reason] = self._counts.get(reason, 0) + count
        named, name = self._first.setdefault(reason, {}), shown(name)
        if len(named) < NAMED or reason in {LeftOut.CLASS_UNMATCHED, ReadAs.MERGED_CLASSES}:
            named[name] = None

    def left_out(self) -> tuple[Counted, ...]:
        """What is not scored, in the order of ``LeftOut``."""
        return tuple(self._counted(reason) for reason in LeftOut if reason in self._counts)

    def read_as(self) -> tuple[Counted, ...]:
        """What was read otherwise, in the order of ``ReadAs``."""
        return tuple(self._counted(reason) for reason in ReadAs if reason in self._counts)

    def _counted(self, reason: LeftOut | ReadAs) -> Counted:
        return Counted(reason.value, reason.words, self._counts[reason], tuple(self._first[reason]))
