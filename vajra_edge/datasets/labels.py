"""Labels: what is true of one image, as its labels draw it and in pixels of the image."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import DatasetError


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


@dataclass(frozen=True)
class Drawn:
    """The objects of one image as its labels draw them.

    Attributes:
        xyxy: (n, 4) float64; in pixels, or in shares of width and height.
        class_id: (n,) int32, of the dataset.
        crowd: (n,) bool.
        is_share: the boxes are shares.
        stated_wh: width and height that the labels state; None: they state none.
        is_turnable: boxes on a picture that EXIF turns were drawn either on what lies in the file or on what is shown;
            False: the program that wrote them is known to mix the two up.
    """

    xyxy: NDArray[np.float64]
    class_id: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    is_share: bool
    stated_wh: tuple[int, int] | None = None
    is_turnable: bool = True

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[int, Sequence[float], bool]],
        *,
        is_share: bool,
        stated_wh: tuple[int, int] | None = None,
        is_turnable: bool = True,
    ) -> Drawn:
        """From rows of class id, xyxy, crowd."""
        return cls(
            np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
            np.array([row[0] for row in rows], np.int32),
            np.array([row[2] for row in rows], np.bool_),
            is_share,
            stated_wh,
            is_turnable,
        )

    def __len__(self) -> int:
        return len(self.class_id)

    def fits(self, resolution_wh: tuple[int, int]) -> bool:
        """Whether they were drawn on a picture of this size; what has no boxes fits any."""
        return self.stated_wh in {None, resolution_wh} or not len(self)

    def is_upright(self) -> bool:
        """Whether a box leaves the stated picture: it was then drawn on another than that, such as the turned one."""
        width, height = self.stated_wh or (0, 0)
        return bool((self.xyxy[:, 2:] > (width + 1, height + 1)).any())

    def truth(self, resolution_wh: tuple[int, int]) -> Truth:
        """In pixels of an image of this size."""
        scale = np.array(resolution_wh * 2, np.float64) if self.is_share else 1.0
        return Truth((self.xyxy * scale).astype(np.float32), self.class_id, self.crowd)

    def turned(self, orientation: int) -> Drawn:
        """The same boxes on the upright picture.

        Args:
            orientation: EXIF's, 5 to 8; the boxes are in pixels of what lies in the file, whose size is stated.
        """
        width, height = self.stated_wh or (0, 0)
        x, y = self.xyxy[:, 0::2], self.xyxy[:, 1::2]
        across = height - y if orientation in {6, 7} else y
        down = width - x if orientation in {7, 8} else x
        edges = np.sort(np.stack((across, down), axis=2), axis=1)
        return Drawn(edges.reshape(-1, 4), self.class_id, self.crowd, is_share=False, stated_wh=(height, width))


def yolo_path(image: Path) -> Path:
    """Where the labels of an image lie: the last folder ``images`` of its path reads ``labels`` (upstream's rule).

    Of a relative path the folders above count too.
    """
    parts = list(Path(os.path.abspath(image)).parts)  # noqa: PTH100  without following links, which may lead elsewhere
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_text(path: Path, most_bytes: int) -> str:
    """A text file of limited size: UTF-8, or UTF-16 with its mark, as Windows' shell writes.

    Raises:
        DatasetError: it cannot be read, is larger, or is not text.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise DatasetError(f"{path}: {size} bytes, the limit is {most_bytes}", remedy="give a smaller file")
        content = path.read_bytes()
        marked = len(content) > 2 and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # noqa: PLR2004
        return content.decode("utf-16" if marked else "utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}", remedy="check the path and its rights") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text", remedy="save it as UTF-8") from error
