from __future__ import annotations

import acted
import cv2
import numpy as np
import pytest
import tiny
from backends.cuda_emulation import EmulatedGpu
from backends.trt_simulation import Simulation, install
from benchmark.known import SUBJECT
from pictures import picture

from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.benchmark.contender import Contender, bare_ms
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.scenes import MemoryScene, SourceScene, Taken, taken_alone
from vajra_edge.capture.children import Children
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import InferenceError, SourceError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.cuda_detector import CudaDetector
from vajra_edge.inference.detector import Batch, Filter, StageTimes
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.plans.spec import EngineSpec, Target
from vajra_edge.types import Detections

IMAGE = np.zeros((32, 48, 3), np.uint8)


class Detector:
    """Finds nothing, at once."""

    class signature:  # noqa: N801  read as an attribute
        batch = 4

    def __init__(self, failing=False):
        self.failing, self.batches, self.slots = failing, [], []

    @property
    def in_flight(self):
        return len(self.slots)

    def set_nms(self, nms):
        pass

    def wait(self, timeout_s):
        return True

    def bare_ms(self, seconds, count=1):
        return 0.2

    def submit(self, frames, filters):
        if self.failing:
            raise InferenceError("the plan gave way")
        self.batches.append(([frame.camera for frame in frames], list(filters)))
        none = tuple(Detections.empty() for _ in frames)
        self.slots.append(Batch(tuple(frames), none, none, StageTimes(0.1, 0.2, 0.1)))

    def collect(self):
        return self.slots.pop(0)


def contender(detector):
    tag = EngineTag("ab", "fp32", "cpu", ())
    return Contender(SUBJECT, detector, tag, Filter(0.6, frozenset({1})))


def test_every_camera_in_memory_is_served_and_filtered_as_the_settings_say():
    detector = Detector()
    path = MemoryScene([IMAGE], 3, 30.0, 0.05).turn(contender(detector), Meter(None), 0.5)
    assert {one.camera for one in path.paced} == set(path.cameras) == {"memory-0", "memory-1", "memory-2"}
    assert path.arrived >= len(path.paced) > 0
    assert len(path.late_ms) == path.arrived
    assert path.full == ()
    assert {one for _, filters in detector.batches for one in filters} == {Filter(0.6, frozenset({1}))}
    assert all(len(cameras) == len(set(cameras)) <= 4 for cameras, _ in detector.batches)


def test_the_gpus_path_takes_its_turns_as_the_hosts_does(monkeypatch, tmp_path):
    """A simulated TensorRT on an emulated GPU, with the kernels themselves."""
    gpu, simulation = EmulatedGpu(tmp_path), Simulation("10.3.0")
    install(monkeypatch, simulation, gpu)
    signature = Signature("images", "output0", Layout.RAW, 2, (128, 128), True, False, 32, tiny.NAMES)
    plan = simulation.plan({"dla": False}, tiny.network(128, batch=None))
    runner = TensorRT().load_on_gpu(plan, signature, EngineSpec(target=Target("gpu")))
    detector = CudaDetector(runner, Kernels(0, None))
    assert bare_ms(detector, 2, 0.0)[0] > 0
    sight = tiny.scene(128, 3).image
    path = MemoryScene([sight], 2, 20.0, 0.005).turn(contender(detector), Meter(None), 0.5)
    assert bare_ms(detector, 1, 0.0)[0] > 0
    detector.close()
    assert path.arrived >= len(path.paced) > 0
    assert {one.camera for one in path.paced} == set(path.cameras)


def test_a_plan_that_fails_in_a_turn_ends_the_run():
    with pytest.raises(InferenceError, match="the plan gave way"):
        MemoryScene([IMAGE], 1, 100.0, 0.0).turn(contender(Detector(failing=True)), Meter(None), 0.2)


@pytest.fixture
def pictures(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), tiny.scene(seed=number).image)
    return tmp_path


@pytest.fixture
def camera(pictures):
    return CameraSettings(id="yard", source=str(pictures), fps=20.0)


def test_a_source_is_read_alone_and_tells_its_pictures_apart(camera, pictures):
    taken = taken_alone(camera)
    assert len(taken.took_ms) >= len(taken.images) > 0
    assert taken.resolution_wh == (256, 256)
    other = CameraSettings(id="yard", source=str(pictures / "1.png"))
    assert taken_alone(other).first != taken.first == taken_alone(camera).first


def test_a_source_that_gives_no_picture_is_an_error_of_one_line(tmp_path):
    with pytest.raises(SourceError):
        taken_alone(CameraSettings(id="yard", source=str(tmp_path / "absent.mp4")))


@pytest.mark.parametrize("pixels", ["BGRX", "NV12"])
def test_pictures_of_a_live_camera_are_kept_in_bgr(tmp_path, monkeypatch, pixels):
    monkeypatch.setattr("vajra_edge.benchmark.scenes.Children", lambda: Children(acted.COMMAND))
    source = acted.script(tmp_path / "camera.json", [["give", 3, pixels, "BT709", False], ["nap", 600]])
    (image,) = taken_alone(CameraSettings(id="yard", source=source)).images
    assert np.abs(image.astype(int) - picture(3)).max() <= 2


def test_a_clip_is_read_as_fast_as_it_goes_and_then_at_its_own_pace(camera):
    scene = SourceScene(camera, 0.005, Taken((IMAGE,), (2.0,), None))
    try:
        path = scene.turn(contender(Detector()), Meter(None), 0.5)
    finally:
        scene.close()
    assert len(path.full) >= 3
    assert path.arrived + 1 >= len(path.paced) > 0, "one may have come before the count began"
    assert path.seconds == 1.0, "twice the turn, for a pace gives few frames"
    assert path.size_bytes > 0


def test_an_engine_that_is_faster_than_the_decoder_takes_frames_from_memory_as_fast_as_it_goes(camera):
    sizes = []

    class Seeing(Detector):
        def submit(self, frames, filters):
            sizes.extend((frame.camera, frame.resolution_wh, frame.memory is not None) for frame in frames)
            super().submit(frames, filters)

    scene = SourceScene(camera, 0.005, Taken((IMAGE, IMAGE), (2.0, 2.0), None))
    try:
        scene.suit(5.0)
        path = scene.turn(contender(Seeing()), Meter(None), 0.5)
    finally:
        scene.close()
    assert scene.full_from_memory
    assert {one for one in sizes if one[0] == "full"} == {("full", (48, 32), True)}
    assert {one[:2] for one in sizes if one[0] == "paced"} == {("paced", (256, 256))}, "at its pace it is the source"
    assert len(path.full) >= 3


@pytest.mark.parametrize(("took_ms", "engine_ms"), [((2.0,), 7.0), ((), 0.1)])
def test_a_source_that_is_fast_enough_or_live_is_what_is_measured(camera, took_ms, engine_ms):
    scene = SourceScene(camera, 0.005, Taken((IMAGE,), took_ms, None))
    try:
        scene.suit(engine_ms)
    finally:
        scene.close()
    assert not scene.full_from_memory


def test_a_live_camera_has_its_own_pace_and_no_other(camera, monkeypatch):
    monkeypatch.setattr("vajra_edge.benchmark.scenes.comes_live", lambda camera: True)
    scene = SourceScene(camera, 0.005, Taken((IMAGE,), (), None))
    try:
        path = scene.turn(contender(Detector()), Meter(None), 0.5)
    finally:
        scene.close()
    assert path.full == ()
    assert len(path.paced) > 0
