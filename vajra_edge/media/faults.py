"""Faults: the ways in which a picture or clip on a disk cannot be used, and the error that says which."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from vajra_edge.errors import DatasetError


class ImageFault(Enum):
    """What is wrong with a file; the value is its name in JSON."""

    PICTURE_CUT_SHORT = "picture_cut_short"
    PICTURE_UNREADABLE = "picture_unreadable"
    PICTURE_TOO_LARGE = "picture_too_large"
    CLIP_UNREADABLE = "clip_unreadable"


class UnusableFile(DatasetError):
    """A picture or clip that cannot be used.

    Attributes:
        path: of the file.
        fault: by which it is counted.
        what: is wrong with it.
    """

    def __init__(self, path: Path, fault: ImageFault, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}", remedy=remedy, path=path)
        self.path, self.fault, self.what = path, fault, what
