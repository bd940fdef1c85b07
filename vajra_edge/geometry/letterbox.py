"""Letterbox: an image into the network's input, and boxes back out of it.

The numerics are upstream's: one scale for both sides, larger or smaller, bilinear, centred, grey 114 around, then BGR
to RGB and 0..255 to 0..1. Rounding of the border follows upstream's ``round(pad - 0.1)`` on the left and top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PAD_VALUE = 114
"""Grey of the border, as networks of this family are trained with (upstream LetterBox)."""


@dataclass(frozen=True)
class LetterboxTransform:
    """Where an image lies in the network's input.

    Attributes:
        scale: input pixels per image pixel, the same for both axes.
        left_px: columns of border before the image.
        top_px: rows of border above the image.
        width_px: columns that the image fills.
        height_px: rows that the image fills.
    """

    scale: float
    left_px: int
    top_px: int
    width_px: int
    height_px: int

    @classmethod
    def of(cls, resolution_wh: tuple[int, int], input_hw: tuple[int, int]) -> LetterboxTransform:
        """Centre an image of ``resolution_wh`` in an input of ``input_hw``, as large as it fits."""
        width, height = resolution_wh
        scale = min(input_hw[0] / height, input_hw[1] / width)
        width_px, height_px = max(round(width * scale), 1), max(round(height * scale), 1)
        left = round((input_hw[1] - width_px) / 2 - 0.1)
        top = round((input_hw[0] - height_px) / 2 - 0.1)
        return cls(scale, left, top, width_px, height_px)

    def to_image(self, xyxy: NDArray[np.float32], resolution_wh: tuple[int, int]) -> NDArray[np.float32]:
        """Boxes (n, 4) from input pixels to image pixels, clipped to the image."""
        shift = np.array((self.left_px, self.top_px) * 2, np.float32)
        boxes: NDArray[np.float32] = (xyxy - shift) / np.float32(self.scale)
        width, height = resolution_wh
        return np.clip(boxes, 0, np.array((width, height) * 2, np.float32), out=boxes)

    def to_input(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) from image pixels to input pixels."""
        shift = np.array((self.left_px, self.top_px) * 2, np.float32)
        return xyxy * np.float32(self.scale) + shift


@lru_cache(maxsize=256)
def placement(resolution_wh: tuple[int, int], input_hw: tuple[int, int]) -> LetterboxTransform:
    """``Placement.of``, remembered: a camera asks for the same one at each frame."""
    return LetterboxTransform.of(resolution_wh, input_hw)


class Letterbox:
    """Fills the network's input from images, reusing its buffers; one a thread.

    Args:
        input_hw: height and width of the input in pixels.
        place: where an image of a resolution lies in the input.
    """

    def __init__(
        self,
        input_hw: tuple[int, int],
        place: Callable[[tuple[int, int], tuple[int, int]], LetterboxTransform] = placement,
    ) -> None:
        self.input_hw = input_hw
        self._place = place
        self._resized: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
        self._planes: list[Any] = []

    def apply(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> LetterboxTransform:
        """Write ``image`` (height, width, 3) BGR or (height, width, 4) BGRx into ``out`` (3, H, W) float32, RGB, 0..1.

        Returns:
            Where the image lies, for the way back.
        """
        where = self._place((image.shape[1], image.shape[0]), self.input_hw)
        inner = self._resize(image, where)
        cv2.split(inner, self._planes)
        rows = slice(where.top_px, where.top_px + where.height_px)
        columns = slice(where.left_px, where.left_px + where.width_px)
        for channel in range(3):
            np.divide(self._planes[2 - channel], np.float32(255), out=out[channel, rows, columns])
        self._paint_border(out, rows, columns)
        return where

    def blank(self, batch: int) -> NDArray[np.float32]:
        """A new input buffer (batch, 3, H, W), all border."""
        return np.full((batch, 3, *self.input_hw), PAD_VALUE / 255, np.float32)

    def _resize(self, image: NDArray[np.uint8], where: LetterboxTransform) -> NDArray[np.uint8]:
        size = (where.height_px, where.width_px, image.shape[2])
        if self._resized.shape != size:
            self._resized = np.empty(size, np.uint8)
            self._planes = [np.empty(size[:2], np.uint8) for _ in range(size[2])]
        if image.shape == size:
            return image
        cv2.resize(image, (where.width_px, where.height_px), dst=self._resized, interpolation=cv2.INTER_LINEAR)
        return self._resized

    def _paint_border(self, out: NDArray[np.float32], rows: slice, columns: slice) -> None:
        grey = np.float32(PAD_VALUE / 255)
        if rows.start or rows.stop != self.input_hw[0]:
            out[:, : rows.start] = grey
            out[:, rows.stop :] = grey
        if columns.start or columns.stop != self.input_hw[1]:
            out[:, rows, : columns.start] = grey
            out[:, rows, columns.stop :] = grey
