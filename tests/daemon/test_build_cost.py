"""What a real build costs: memory in the child, stage by stage, and none of it in the daemon."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import tiny
from waiting import LIMIT_S

from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.daemon.build_process import Builder, BuildProgressed, BuildSucceeded, ChildFailed
from vajra_edge.demo.settings import WEIGHTS
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision
from vajra_edge.plans.store import EngineStore
from vajra_edge.quantization import camera_samples

MB = 1_000_000


@pytest.fixture
def posted() -> queue.SimpleQueue[object]:
    return queue.SimpleQueue()


@pytest.fixture
def builder(posted: queue.SimpleQueue[object]) -> Iterator[Builder]:
    made = Builder(posted.put)
    yield made
    made.close()


def end_of(posted: queue.SimpleQueue[object]) -> BuildSucceeded | ChildFailed:
    while isinstance(event := posted.get(timeout=LIMIT_S), BuildProgressed):
        pass
    return event


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_memory_of_a_build_is_the_childs_and_each_stage_says_its_peak(builder: Builder, posted, tmp_path: Path):
    request = BuildRequest(WEIGHTS, weights_digest(WEIGHTS), "onnxruntime", EngineSpec(), tmp_path / "state", 1 << 30)
    before_bytes = resident_bytes()
    builder.start(1, request)
    end = end_of(posted)
    grown_bytes = resident_bytes() - before_bytes
    assert isinstance(end, BuildSucceeded), end
    plan = EngineStore(request.state_dir, 1 << 30).get(end.fingerprint)
    peaks = {name: stage.peak_rss_bytes for name, stage in plan.manifest.report.stages.items()}
    assert list(peaks) == ["load", "simplify", "build", "verify"]
    assert list(peaks.values()) == sorted(peaks.values())
    assert 100 * MB < peaks["verify"] <= end.peak_rss_bytes
    assert grown_bytes < 20 * MB, "the daemon pays nothing"


def int8_request(tmp_path: Path, broken: str | None = None) -> BuildRequest:
    """Of a network that is calibrated in seconds, on 16 pictures."""
    weights, images = tmp_path / "tiny.onnx", tmp_path / "images"
    weights.write_bytes(tiny.network(channels=16))
    images.mkdir()
    for number in range(16):
        cv2.imwrite(str(images / f"{number:02}.png"), tiny.scene(objects=8, seed=number).image)
    if broken is not None:
        (images / broken).write_bytes(b"no picture")
    calibration = CalibrationSettings(data=images)
    return BuildRequest(
        weights,
        weights_digest(weights),
        "onnxruntime",
        EngineSpec(nms=NmsSpec(max_det=20, top_k=30), precision=Precision.INT8),
        tmp_path / "state",
        1 << 30,
        calibration=calibration,
        calibration_digest=camera_samples.wanted_set(calibration, tmp_path / "state", 1).digest,
        threads=1,
    )


def test_calibration_too_is_paid_by_the_child_and_says_its_peak(builder: Builder, posted, tmp_path: Path):
    request = int8_request(tmp_path)
    before_bytes = resident_bytes()
    builder.start(1, request)
    end = end_of(posted)
    grown_bytes = resident_bytes() - before_bytes
    assert isinstance(end, BuildSucceeded), end
    stages = EngineStore(request.state_dir, 1 << 30).get(end.fingerprint).manifest.report.stages
    peaks = {name: stage.peak_rss_bytes for name, stage in stages.items()}
    assert list(peaks) == ["load", "simplify", "calibrate", "build", "verify"]
    assert list(peaks.values()) == sorted(peaks.values())
    assert peaks["simplify"] < peaks["calibrate"] <= end.peak_rss_bytes
    assert grown_bytes < 20 * MB, "the daemon pays nothing"


def test_a_calibration_source_that_fails_on_its_seventh_image_fails_the_build_for_good(
    builder: Builder, posted, tmp_path: Path
):
    request = int8_request(tmp_path, broken="06.png")
    builder.start(1, request)
    end = end_of(posted)
    assert isinstance(end, ChildFailed)
    assert "06.png: not an image that OpenCV can read" in end.message
    assert "calibration image" in end.message
    assert end.permanent
    assert "\n" not in end.message
    assert EngineStore(request.state_dir, 1).plans() == ()
