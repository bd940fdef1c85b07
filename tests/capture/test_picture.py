"""Pictures one by one: JPEG, PNG and WebP, whole, damaged and hostile."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hostile_images import jpeg_claiming, png_of

from vajra_edge.capture.sources.picture import DamagedPicture, PictureDecoder

NOISE = np.random.default_rng(3)
SMOOTH = cv2.resize(NOISE.integers(0, 255, (9, 12, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str = ".jpg", *options: int, image: np.ndarray = SMOOTH) -> bytes:
    return bytes(cv2.imencode(suffix, image, options)[1].tobytes())


JPEG = encoded()


def decoded(content: bytes) -> np.ndarray:
    return PictureDecoder("gate").decoded(content)


def difference(image: np.ndarray, expected: np.ndarray = SMOOTH) -> float:
    return float(np.abs(image.astype(int) - expected).mean())


@pytest.mark.parametrize(
    "content",
    [
        JPEG,
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        encoded(".png"),
        encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 95),
        b"\r\n" + JPEG,
        JPEG + bytes(100),
        JPEG[:-2],
    ],
)
def test_a_whole_picture_is_decoded_in_its_colours(content: bytes) -> None:
    image = decoded(content)
    assert image.flags["C_CONTIGUOUS"]
    assert difference(image) < 4.0


def test_grey_becomes_bgr() -> None:
    assert difference(decoded(encoded(image=SMOOTH[..., 0])), SMOOTH[..., :1]) < 4.0


def with_pillow(mode: str, **options: object) -> bytes:
    images = pytest.importorskip("PIL.Image", reason="absent here: pip install Pillow")
    out = io.BytesIO()
    images.fromarray(SMOOTH[..., ::-1]).convert(mode).save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def test_four_components_become_bgr() -> None:
    assert difference(decoded(with_pillow("CMYK"))) < 4.0


def test_a_phones_picture_is_turned_upright() -> None:
    images = pytest.importorskip("PIL.Image", reason="absent here: pip install Pillow")
    exif = images.Exif()
    exif[0x112] = 6
    assert difference(decoded(with_pillow("RGB", exif=exif)), cv2.rotate(SMOOTH, cv2.ROTATE_90_CLOCKWISE)) < 4.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>busy</html>",
        NOISE.bytes(3000),
        JPEG[: len(JPEG) // 2],
        JPEG[: len(JPEG) // 2] + b"\xff\xd9",
        JPEG[: len(JPEG) // 2] + JPEG[len(JPEG) * 3 // 4 :],
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[:3000],
        encoded(".png")[:2000],
        encoded(".bmp"),
        JPEG[:20],
    ],
)
def test_a_damaged_picture_is_no_picture(content: bytes) -> None:
    with pytest.raises(DamagedPicture):
        decoded(content)


def test_after_a_damaged_picture_the_next_is_whole() -> None:
    pictures = PictureDecoder("gate")
    for _ in range(3):
        with pytest.raises(DamagedPicture):
            pictures.decoded(JPEG[:3000])
        assert difference(pictures.decoded(JPEG)) < 4.0


@pytest.mark.parametrize("content", [png_of(45_000, 45_000), jpeg_claiming(JPEG, 65_000, 65_000)])
def test_an_absurd_size_is_refused_by_its_header(content: bytes) -> None:
    with pytest.raises(DamagedPicture, match=r"\d{5} x \d{5} pixels, allowed are"):
        decoded(content)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    progressive = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = progressive[progressive.index(b"\xff\xda") : -2]
    with pytest.raises(DamagedPicture, match="more than 64 scans"):
        decoded(progressive[:-2] + scan * 70 + b"\xff\xd9")


def test_a_refused_picture_takes_no_memory(tmp_path: Path) -> None:
    """A PNG of 45,000 x 45,000 pixels took 6.2 GB. Not by rusage, whose peak is inherited from who runs the tests."""
    (tmp_path / "bomb.png").write_bytes(png_of(45_000, 45_000))
    code = (
        "import re, sys; from pathlib import Path\n"
        "from vajra_edge.capture.sources.folder import read_image\n"
        "from vajra_edge.capture.sources.picture import DamagedPicture, PictureDecoder\n"
        "from vajra_edge.errors import SourceError\n"
        "path, refused = Path(sys.argv[1]), 0\n"
        "try: PictureDecoder('gate').decoded(path.read_bytes())\n"
        "except DamagedPicture: refused += 1\n"
        "try: read_image(path)\n"
        "except SourceError: refused += 1\n"
        "peak_kib = int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "sys.exit(0 if refused == 2 and peak_kib < 500_000 else 1)"
    )
    root = Path(__file__).resolve().parents[2]
    assert (
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "bomb.png")], cwd=root, check=False).returncode == 0
    )
