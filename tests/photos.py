"""Photos as cameras and tools write them, encoded by Pillow, which writes what OpenCV does not."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ORIENTATION = 0x0112


def texture(width: int = 400, height: int = 300, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 BGR: smooth patches of any colour, different in every corner."""
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height)), np.uint8)


def encoded(image: NDArray[np.uint8], kind: str = "JPEG", orientation: int | None = None, **options: object) -> bytes:
    """The file's content; ``orientation`` goes into its EXIF data."""
    pillow = pytest.importorskip("PIL.Image", reason="absent here: Pillow")
    if orientation is not None:
        exif = pillow.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    pillow.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(file, kind, **options)
    return file.getvalue()


def cut(path: Path, share: float) -> None:
    """Leave only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
