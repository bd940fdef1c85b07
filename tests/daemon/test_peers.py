"""Real exports of other families, made and run by their own packages: our predict, val and daemon find their boxes.

PEER_PYTHON names a Python that has ultralytics 8.4, PEER5_PYTHON one that has the package yolov5. Each case compares at
least ``LEAST_BOXES`` boxes of ``LEAST_CLASSES`` classes at confidence 0.25.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from desk import frames_of
from numpy.typing import NDArray

from vajra_edge import Vajra
from vajra_edge.datasets.dataset import open_dataset
from vajra_edge.demo.settings import CLIP
from vajra_edge.geometry.boxes import iou
from vajra_edge.geometry.letterbox import PAD_VALUE, LetterboxTransform
from vajra_edge.tasks.load import RunArguments, load
from vajra_edge.tasks.val import tally

pytestmark = pytest.mark.long("a peer exports and runs a dozen networks; test_families.py reads every layout always")

LEAST_BOXES, LEAST_CLASSES = 20, 3
THINNEST_PX = 4.0
"""A box that is thinner has no IoU to speak of: messages round its sides to 0.01 px, COCO's json to 0.001."""
CONF, IOU, SCORE = 0.25, 0.99, 0.005
SIDE = 320
ULTRALYTICS = {
    "yolov8n.yaml": {"plain": {}, "half": {"half": True}, "dynamic": {"dynamic": True}, "nms": {"nms": True}},
    "yolo11n.yaml": {"plain": {}, "half": {"half": True}, "dynamic": {"dynamic": True}, "nms": {"nms": True}},
    "yolo26n.yaml": {
        "end-to-end": {"end2end": True},
        "without": {"end2end": False},
        "nms": {"nms": True},
        "half": {"end2end": True, "half": True},
        "dynamic": {"end2end": True, "dynamic": True},
        "dynamic-without": {"end2end": False, "dynamic": True},
    },
}
YOLOV5 = {"yolov5n.yaml": {"plain": {}, "dynamic": {"dynamic": True}, "simplified": {"opset": 13}}}
CASES = [
    (package, config, name)
    for package, configs in (("ultralytics", ULTRALYTICS), ("yolov5", YOLOV5))
    for config, exports in configs.items()
    for name in exports
]
PYTHON = {"ultralytics": "PEER_PYTHON", "yolov5": "PEER5_PYTHON"}

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """What the peer made and found: rows (n, 6) by picture, for its predict and its val."""

    path: Path
    predict: dict[str, Rows]
    val: dict[str, Rows]


class Peers:
    """Asks a peer once for all exports of a network."""

    def __init__(self, folder: Path, pictures: list[Path]) -> None:
        self.folder, self.pictures = folder, pictures
        self.squares = folder / "squares"
        self.squares.mkdir()
        for picture in pictures:
            square = letterboxed(cv2.imread(str(picture)), SIDE)  # so that nobody's way of scaling matters
            cv2.imwrite(str(self.squares / f"{picture.stem}.png"), square)
        self._answers: dict[str, dict[str, Any]] = {}

    def made(self, package: str, config: str, name: str) -> Made:
        if config not in self._answers:
            self._answers[config] = self._ask(package, config)
        answer = self._answers[config][name]
        found = [{key: _rows(rows) for key, rows in answer[kind].items()} for kind in ("predict", "val")]
        return Made(Path(answer["path"]), *found)

    def _clip(self) -> list[Path]:
        """Two frames of the clip on which the daemon compares a new plan with its network."""
        frames, paths = frames_of(CLIP), []
        for at, frame in enumerate((frames[0], frames[-1])):
            paths.append(self.folder / f"clip{at}.png")
            cv2.imwrite(str(paths[-1]), frame)
        return paths

    def _ask(self, package: str, config: str) -> dict[str, Any]:
        python = os.environ.get(PYTHON[package])
        if not python:
            pytest.skip(f"absent here: {PYTHON[package]}, a Python with {package}")
        job = {
            "package": package,
            "config": config,
            "folder": str(self.folder / config),
            "side": SIDE,
            "exports": {**ULTRALYTICS, **YOLOV5}[config],
            "pictures": [str(path) for path in self.pictures],
            "settled_on": [str(path) for path in (*self.pictures, *self._clip())],
            "squares": [str(path) for path in sorted(self.squares.iterdir())],
        }
        child = Path(__file__).with_name("peer_networks.py")
        done = subprocess.run(
            [python, str(child)], input=json.dumps(job), capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def _rows(rows: list[list[float]]) -> Rows:
    return np.array(rows, np.float32).reshape(-1, 6)


@pytest.fixture(scope="module")
def peers(tmp_path_factory, shared_data):
    folder = tmp_path_factory.mktemp("peers")
    return Peers(folder, turned(shared_data / "images" / "photos" / "zidane.jpg", folder))


def letterboxed(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    place = LetterboxTransform.of((image.shape[1], image.shape[0]), (side, side))
    made = np.full((side, side, 3), PAD_VALUE, np.uint8)
    inner = cv2.resize(image, (place.width_px, place.height_px))
    made[place.top_px : place.top_px + place.height_px, place.left_px : place.left_px + place.width_px] = inner
    return made


def turned(photo: Path, folder: Path) -> list[Path]:
    """One photo in three ways: to a random network different photos are all white or all black."""
    image, paths = cv2.resize(cv2.imread(str(photo)), (480, 270)), []
    # Sizes whose grey border is of whole pixels: YOLOv5 rounds it, and places boxes by the fraction.
    for at, made in enumerate((image, image[:, ::-1], image[15:255])):
        paths.append(folder / f"{at}.png")
        cv2.imwrite(str(paths[-1]), made)
    return paths


def require_same(ours: dict[str, Rows], theirs: dict[str, Rows]) -> None:
    """Every box has a partner of its class in the other's, as near as ``IOU`` and ``SCORE`` say."""
    every = np.concatenate([rows[rows[:, 4] > CONF + SCORE] for rows in theirs.values()])
    every = every[(every[:, 2:4] - every[:, :2] > THINNEST_PX).all(axis=1)]
    assert len(every) >= LEAST_BOXES
    assert len(set(every[:, 5])) >= LEAST_CLASSES
    assert ours.keys() == theirs.keys()
    for name, rows in theirs.items():
        mine = ours[name]
        for one, other in ((mine, rows), (rows, mine)):
            wide = (one[:, 2:4] - one[:, :2] > THINNEST_PX).all(axis=1)
            sure = one[wide & (one[:, 4] > CONF + SCORE)]  # one at the threshold may fall on either side of it
            near = iou(sure[:, :4], other[:, :4]) >= IOU
            near &= sure[:, None, 5] == other[None, :, 5]
            near &= np.abs(sure[:, None, 4] - other[None, :, 4]) <= SCORE
            alone = sure[~near.any(axis=1)]
            assert not len(alone), f"{name}: {len(alone)} of {len(sure)} boxes without a partner, first {alone[0]}"


def ours_of(found: Any) -> Rows:
    return np.column_stack([found.xyxy, found.confidence, found.class_id]).astype(np.float32)


@pytest.mark.parametrize(("package", "config", "name"), CASES)
def test_predict_finds_the_peers_boxes(peers, package, config, name):
    made = peers.made(package, config, name)
    found = Vajra(made.path).predict(peers.pictures, conf=CONF, img_size=SIDE)
    require_same({Path(one.path).name: ours_of(one) for one in found}, made.predict)


@pytest.mark.parametrize(("package", "config", "name"), CASES)
def test_val_scores_the_peers_boxes(peers, package, config, name, tmp_path):
    made, names = peers.made(package, config, name), sorted(path.name for path in peers.squares.iterdir())
    runner = load(str(made.path), RunArguments(SIDE), tmp_path)
    try:
        found = tally(runner, open_dataset(peers.squares), CONF, 0.7, 1, lambda _: None).found
    finally:
        runner.close()
    require_same({name: ours_of(one) for name, one in zip(names, found, strict=True)}, made.val)


@pytest.mark.parametrize(("package", "config", "name"), CASES)
def test_the_daemon_publishes_the_peers_boxes(peers, package, config, name, station):
    made = peers.made(package, config, name)
    station.write_weights(made.path.read_bytes())
    station.settings["engine"] = {"img_size": SIDE, "max_det": 300}
    station.settings["cameras"] = {}
    for at, picture in enumerate(peers.pictures):
        folder = station.folder / f"camera{at}-pictures"
        folder.mkdir()
        (folder / picture.name).symlink_to(picture)
        station.camera(f"camera{at}", fps=2.0)
    station.start().serving()
    ears, found = station.listen("camera/#"), {}
    for at, picture in enumerate(peers.pictures):
        message = ears.ever(lambda path, _, at=at: path == f"camera/camera{at}/detections")
        rows = [[*one["xyxy"], one["confidence"], one["class_id"]] for one in message["detections"]]
        found[picture.name] = _rows(rows)
    ears.close()
    require_same(found, made.predict)
