"""A desk: the tiny network, labelled images, a data.yaml and a clip in one folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tiny

from vajra_edge.media.opencv import load_cv2

SIDE_PX = 256
IMAGES = 12
CLIP_FRAMES, CLIP_FPS = 14, 5.0


def desk(folder: Path, **network: object) -> Path:
    """Fill a folder; returns the network's file."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(IMAGES):
        scene = tiny.scene(SIDE_PX, seed=number)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), scene.image)
        (folder / "labels" / f"{number}.txt").write_text(labels(scene))
    (folder / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [person, car]\n")
    clip(folder / "clip.mp4")
    weights = folder / "tiny.onnx"
    weights.write_bytes(tiny.network(SIDE_PX, **network))
    return weights


def labels(scene: tiny.Scene) -> str:
    """YOLO text of a scene."""
    lines = []
    for label, (left, top, right, bottom) in zip(scene.class_id, scene.xyxy / SIDE_PX, strict=True):
        lines.append(f"{label} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n")
    return "".join(lines)


def clip(path: Path) -> None:
    """A video of scenes with 3 objects at odd frames and none at even ones."""
    load_cv2()
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), CLIP_FPS, (SIDE_PX, SIDE_PX))
    for number in range(CLIP_FRAMES):
        writer.write(tiny.scene(SIDE_PX, objects=3 * (number % 2), seed=number).image)
    writer.release()


def frames_of(path: Path) -> list[np.ndarray]:
    """All frames of a video."""
    load_cv2()
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    video.release()
    return frames
