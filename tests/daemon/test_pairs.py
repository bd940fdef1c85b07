"""A snapshot and the detection message that it names are of one frame: what is painted there is what was found."""

from __future__ import annotations

import io
import shutil
from typing import Any

import cv2
import numpy as np
import orjson
import pytest
import tiny
from numpy.typing import NDArray
from station import Station
from waiting import wait_for

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.schema import DetectionMessage, SnapshotComment
from vajra_edge.mqtt.subscriber import Subscription

pillow = pytest.importorskip("PIL.Image", reason="absent here: Pillow")
CELLS = 8
SAME = ("key", "epoch", "seq", "taken_at", "clock_synchronised", "frame_seq")
NUMBERS = 200
"""Each of them has a row of cells of its own, red where its bit is set and green where it is not."""


def painted(number: int, row: int) -> NDArray[np.uint8]:
    image = np.full((256, 256, 3), tiny.GREY, np.uint8)
    top = row * tiny.STRIDE
    for bit in range(CELLS):
        left = bit * tiny.STRIDE
        image[top : top + tiny.STRIDE, left : left + tiny.STRIDE] = tiny.RED if number >> bit & 1 else tiny.GREEN
    return image


def number_in(picture: bytes) -> int:
    """As the picture shows it."""
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).astype(int)
    centres = image[tiny.STRIDE // 2 :: tiny.STRIDE, tiny.STRIDE // 2 :: tiny.STRIDE]
    (row,) = {int(row) for row in np.argwhere(np.abs(centres - tiny.GREY).max(2) > 60)[:, 0]}
    return sum(1 << bit for bit in range(CELLS) if centres[row, bit, 2] > centres[row, bit, 1])


def number_found(message: DetectionMessage) -> int:
    """As the boxes say."""
    assert len(message.detections) == CELLS
    return sum(1 << int(one.xyxy[0] // tiny.STRIDE) for one in message.detections if one.class_name == "person")


def numbered_camera(station: Station, name: str, first: int) -> None:
    folder = station.folder / f"{name}-numbers"
    folder.mkdir()
    for number in range(NUMBERS):
        cv2.imwrite(str(folder / f"{number:03}.png"), painted((first + 7 * number) % 256, number % CELLS))
    station.camera(name, source=str(folder), fps=40.0, snapshot_every_s=0.05)


class Viewer:
    """Whoever shows snapshots with their boxes."""

    def __init__(self, mqtt: MqttSettings) -> None:
        self.subscription = Subscription(mqtt, ["vajra/test/camera/#"])
        self.messages: dict[str, DetectionMessage] = {}
        self.pictures: list[tuple[SnapshotComment, bytes]] = []
        self.missing: set[tuple[str, str, int]] = set()
        wait_for(lambda: self.look() or self.subscription.ready)

    def look(self) -> None:
        for item in self.subscription.poll(0.02):
            if item.path.endswith("/snapshot"):
                with pillow.open(io.BytesIO(item.payload)) as image:
                    told = SnapshotComment.model_validate_json(image.info["comment"])
                self.pictures.append((told, item.payload))
            elif item.path.endswith("/detections"):
                self._take(orjson.loads(item.payload))

    def _take(self, content: dict[str, Any]) -> None:
        if "gap" in content:
            numbers = range(content["gap"]["from"], content["gap"]["to"] + 1)
            self.missing |= {(content["camera"], content["epoch"], seq) for seq in numbers}
        else:
            message = DetectionMessage.model_validate(content)
            self.messages[message.key] = message

    def pairs(self, camera: str) -> list[tuple[bytes, DetectionMessage]]:
        told = [(one, jpeg) for one, jpeg in self.pictures if one.camera == camera]
        return [(jpeg, self.messages[one.key]) for one, jpeg in told if one.key in self.messages]


@pytest.fixture
def numbered(rebooted: Station) -> Station:
    """Two cameras whose pictures differ in every frame, and a snapshot of every second one."""
    for name, first in (("gate", 0), ("yard", 128)):
        numbered_camera(rebooted, name, first)
    return rebooted


@pytest.mark.parametrize(
    ("mqtt", "batch"),
    [({}, 1), ({"outbox": "memory"}, 2), ({"delivery": "live"}, 1), ({"qos": 0, "protocol": "3.1.1"}, 1)],
    ids=["disk", "memory, two in a batch", "live", "at most once"],
)
def test_every_snapshot_shows_what_its_message_says(numbered: Station, mqtt: dict[str, Any], batch: int):
    if batch > 1:
        numbered.write_weights(tiny.network(batch=None))
    numbered.write(mqtt=mqtt, engine={"batch": batch})
    viewer = Viewer(MqttSettings(host="127.0.0.1", port=numbered.port))
    numbered.start()
    numbered.serving()
    wait_for(lambda: viewer.look() or all(len(viewer.pairs(name)) >= 15 for name in ("gate", "yard")))
    for name in ("gate", "yard"):
        pairs = viewer.pairs(name)
        assert [number_in(jpeg) for jpeg, _ in pairs] == [number_found(message) for _, message in pairs]
        assert len({number_in(jpeg) for jpeg, _ in pairs}) > 5, "the pictures differ"
    for told, _ in viewer.pictures:
        message = viewer.messages.get(str(told.key))
        if message is not None:
            assert {name: getattr(message, name) for name in SAME} == {name: getattr(told, name) for name in SAME}
    viewer.subscription.close()


def test_where_the_disk_fails_a_snapshot_names_the_number_that_its_message_has_then(numbered: Station):
    outbox = numbered.state_dir / "outbox"
    shutil.rmtree(outbox)
    outbox.write_text("in the way of the folder")
    viewer = Viewer(MqttSettings(host="127.0.0.1", port=numbered.port))
    numbered.start()
    numbered.serving()
    wait_for(lambda: viewer.look() or len(viewer.pairs("gate")) >= 5)
    assert numbered.status()["broker"]["outbox"]["kept"] == "memory"
    assert all(number_in(jpeg) == number_found(message) for jpeg, message in viewer.pairs("gate"))
    viewer.subscription.close()
