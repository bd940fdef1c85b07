"""Results: what predict found in one image, for people and for other programs."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import VajraError
from vajra_edge.types import Detections
from vajra_edge.wording import shown

_HUE_STEP = 0.618033988749895  # golden ratio: neighbouring class ids get hues far apart
_LEAST_LINE_PX, _LINE_SHARE = 2, 0.003  # of width plus height, halved: visible on a thumbnail and on 4K
_TEXT_SCALE = 0.35  # of the line width; Hershey letters are 22 px high at 1.0


@dataclass(frozen=True, eq=False)
class Results:
    """The detections of one image.

    Attributes:
        image: (height, width, 3) uint8, BGR, as it was read.
        path: of the image or video; an address of a camera, without password; ``image0`` and so on for arrays.
        frame: number in the video or since the camera was opened, from 0; None for single images.
        detections: boxes in pixels of ``image``, best first.
        names: class id -> name.
        speed: milliseconds for this image in ``preprocess``, ``inference``, ``postprocess``.
        saved: the annotated image or video that ``save`` writes; None without.
        cut_short: the end of the image's file is missing, so that part of the image is grey.
    """

    image: NDArray[np.uint8]
    path: str
    frame: int | None
    detections: Detections
    names: Mapping[int, str]
    speed: Mapping[str, float] = field(default_factory=dict)
    saved: Path | None = None
    cut_short: bool = False

    def __len__(self) -> int:
        return len(self.detections)

    @property
    def resolution_wh(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return int(self.image.shape[1]), int(self.image.shape[0])

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """(n, 4) left, top, right, bottom in pixels."""
        return self.detections.xyxy

    @property
    def xyxyn(self) -> NDArray[np.float32]:
        """(n, 4) the same as shares of the image's width and height, 0..1."""
        return np.divide(self.xyxy, self._sides, dtype=np.float32)

    @property
    def xywh(self) -> NDArray[np.float32]:
        """(n, 4) centre x, centre y, width, height in pixels."""
        sides = self.xyxy[:, 2:] - self.xyxy[:, :2]
        return np.concatenate((self.xyxy[:, :2] + sides / 2, sides), axis=1)

    @property
    def xywhn(self) -> NDArray[np.float32]:
        """(n, 4) the same as shares of the image's width and height, 0..1."""
        return np.divide(self.xywh, self._sides, dtype=np.float32)

    @property
    def _sides(self) -> NDArray[np.float32]:
        return np.array(self.resolution_wh * 2, np.float32)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(n,) 0..1, best first."""
        return self.detections.confidence

    @property
    def class_id(self) -> NDArray[np.int32]:
        """(n,) keys of ``names``."""
        return self.detections.class_id

    def plot(self) -> NDArray[np.uint8]:
        """A copy of the image with a box, name and confidence for each detection; the best lies on top."""
        canvas = self.image.copy()
        line_px = max(_LEAST_LINE_PX, round(sum(self.resolution_wh) / 2 * _LINE_SHARE))
        for row in reversed(range(len(self))):
            label = f"{self.names[int(self.class_id[row])]} {self.confidence[row]:.2f}"
            _draw(canvas, self.xyxy[row], label, _colour(int(self.class_id[row])), line_px)
        return canvas

    def save(self, path: str | Path) -> Path:
        """Write ``plot()`` as an image of the kind that the suffix names.

        Raises:
            VajraError: OpenCV knows no such kind, or the file cannot be written.
        """
        path = Path(path)
        try:
            encoded, content = cv2.imencode(path.suffix or ".jpg", self.plot())
            if not encoded:
                raise VajraError(f"{path} cannot be encoded", remedy="use .jpg or .png")
            path.write_bytes(content.tobytes())
        except cv2.error as error:
            raise VajraError(f"{path}: OpenCV cannot write {path.suffix!r} files", remedy="use .jpg or .png") from error
        except OSError as error:
            raise VajraError(f"{path} cannot be written: {error.strerror}", remedy="check the folder") from error
        return path

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, unrounded."""
        frame = ({} if self.frame is None else {"frame": self.frame}) | ({"cut_short": True} if self.cut_short else {})
        rows = zip(self.class_id, self.confidence, self.xyxy, self.xyxyn, strict=True)
        found = [
            {
                "class_id": int(label),
                "class": self.names[int(label)],
                "confidence": float(confidence),
                "xyxy": [float(side) for side in box],
                "xyxyn": [float(side) for side in share],
            }
            for label, confidence, box, share in rows
        ]
        return {"path": shown(self.path), **frame, "resolution_wh": list(self.resolution_wh), "detections": found}

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``, with ``class_name`` in its data.

        Raises:
            VajraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise VajraError("supervision is not installed", remedy="pip install 'vajra-edge[supervision]'") from error
        names = np.array([self.names[int(label)] for label in self.class_id], dtype=np.str_)
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.confidence.copy(),
            class_id=self.class_id.astype(int),
            data={"class_name": names},
        )


def _colour(class_id: int) -> tuple[int, int, int]:
    """BGR, bright, another one for each class."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * _HUE_STEP % 1.0, 0.85, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def _draw(
    canvas: NDArray[np.uint8], xyxy: NDArray[np.float32], label: str, colour: tuple[int, int, int], line_px: int
) -> None:
    left, top, right, bottom = (round(float(side)) for side in xyxy)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, line_px, cv2.LINE_AA)
    scale, thick = line_px * _TEXT_SCALE / 2 + 0.15, max(1, line_px // 2)
    (width, height), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    above = top - height - below - line_px
    base = top - below - line_px // 2 if above >= 0 else top + height + below
    left = max(0, min(left, canvas.shape[1] - width))
    corner, other = (left, base - height - below // 2), (left + width, base + below)
    cv2.rectangle(canvas, corner, other, colour, cv2.FILLED)
    text = (0, 0, 0) if sum(colour) > 382 else (255, 255, 255)  # noqa: PLR2004  half of three full channels
    cv2.putText(canvas, label, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, text, thick, cv2.LINE_AA)
