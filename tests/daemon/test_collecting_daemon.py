"""Which boxes complete the cameras' calibration set in the whole daemon."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import tiny
from station import Station, wait_for

from vajra_edge.quantization import camera_samples


@pytest.fixture
def collecting(station: Station, tmp_path: Path) -> Station:
    """A daemon that wants INT8, and whose camera sees 24 scenes of eight objects."""
    street = tmp_path / "street"
    street.mkdir()
    for seed in range(24):
        cv2.imwrite(str(street / f"{seed:02}.png"), tiny.scene(objects=8, seed=seed).image)
    station.write_weights(tiny.network(channels=16))
    station.camera("gate", source=str(street))
    station.settings["engine"] = {"precision": "int8"}
    station.settings["calibration"] = {"max_images": 8, "sample_s": 0.05}
    return station


def boxes(station: Station) -> set[int]:
    return {one.boxes for one in camera_samples.listed(station.state_dir / camera_samples.FOLDER)}


def test_a_camera_of_which_nothing_is_published_completes_its_set_all_the_same(collecting: Station):
    collecting.settings["detect"] = {"classes": ["nobody"], "confidence": 0.9}
    ears = collecting.listen("camera/gate/detections")
    station = collecting.start()
    assert ears.detections()["detections"] == []
    wait_for((station.state_dir / camera_samples.FOLDER / camera_samples.FROZEN).exists)
    assert min(boxes(station)) > 0
    ears.close()
