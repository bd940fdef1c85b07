"""The GPU's path against the host's: the same boxes, whatever is in flight, whatever changes, whatever is refused."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from backends.cuda_emulation import EmulatedGpu
from backends.trt_simulation import Simulation, install
from colours import MEANINGS, stored

from vajra_edge.backends.cuda.check import check
from vajra_edge.backends.cuda.detections import unfit
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.errors import InferenceError, NotFinite
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.cuda_detector import CudaDetector
from vajra_edge.inference.detector import Batch, Filter, HostDetector
from vajra_edge.media.bgr import bgr_of
from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Target
from vajra_edge.types import Detections, Frame, Memory

GPU = EngineSpec(target=Target("gpu"))
SIGNATURE = Signature("images", "output0", Layout.RAW, 3, (128, 128), True, False, 32, tiny.NAMES)


class Bench:
    """A simulated TensorRT on an emulated GPU, and the host's path beside it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, integrated: bool = False) -> None:
        self.gpu = EmulatedGpu(folder, integrated=integrated)
        self.simulation = Simulation("10.3.0")
        install(monkeypatch, self.simulation, self.gpu)

    def detector(
        self, signature: Signature = SIGNATURE, nms: NmsSpec | None = None, *, dazzled: bool = False
    ) -> CudaDetector:
        plan = self._plan(signature, dazzled=dazzled)
        return CudaDetector(TensorRT().load_on_gpu(plan, signature, GPU), Kernels(0, None), nms)

    def host(self, signature: Signature = SIGNATURE, nms: NmsSpec | None = None) -> HostDetector:
        return HostDetector(TensorRT().load(self._plan(signature), signature, GPU), nms)

    def _plan(self, signature: Signature, *, dazzled: bool = False) -> bytes:
        graph = tiny.network(signature.resolution_hw[0], batch=None if signature.dynamic_batch else signature.batch)
        return self.simulation.plan({"dla": False}, tiny.dazzled(graph) if dazzled else graph)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Bench:
    return Bench(monkeypatch, folder)


def frame(seed: int, wh: tuple[int, int] = (128, 128), camera: str = "gate") -> Frame:
    image = cv2.resize(tiny.scene(128, 3, seed).image, wh, interpolation=cv2.INTER_NEAREST)
    return Frame(np.asarray(image, np.uint8), 0, datetime.now(timezone.utc), seed, camera)


def require_same(found: Detections, wanted: Detections) -> None:
    order, other = (np.lexsort((*one.xyxy.T, one.class_id)) for one in (found, wanted))
    np.testing.assert_array_equal(found.class_id[order], wanted.class_id[other])
    np.testing.assert_allclose(found.confidence[order], wanted.confidence[other], atol=0.02)
    np.testing.assert_allclose(found.xyxy[order], wanted.xyxy[other], atol=1.0)


def through(detector: CudaDetector | HostDetector, frames: list[Frame], filter_: Filter | None = None) -> Batch:
    detector.submit(frames, [filter_ or Filter()] * len(frames))
    return detector.collect()


@pytest.mark.parametrize("integrated", [False, True])
def test_cameras_of_any_size_find_what_the_host_finds(
    monkeypatch: pytest.MonkeyPatch, folder: Path, integrated: bool
) -> None:
    bench = Bench(monkeypatch, folder, integrated=integrated)
    detector, host = bench.detector(), bench.host()
    frames = [frame(1), frame(2, (640, 360)), frame(3, (96, 300))]
    for batch in (frames, frames[:1], frames[1:], frames):
        found, wanted = through(detector, batch), through(host, batch)
        assert sum(map(len, wanted.found)) > 0
        for one, other in zip(found.found, wanted.found, strict=True):
            require_same(one, other)
        assert found.frames == tuple(batch)
    detector.close()
    host.close()


def test_two_batches_in_flight_come_back_in_order_each_with_its_own_boxes(bench: Bench) -> None:
    detector, host = bench.detector(), bench.host()
    wanted = [through(host, [frame(seed)]).found[0] for seed in range(8)]
    detector.submit([frame(0)], [Filter()])
    for seed in range(1, 8):
        detector.submit([frame(seed)], [Filter()])
        assert detector.in_flight == 2
        require_same(detector.collect().found[0], wanted[seed - 1])
    require_same(detector.collect().found[0], wanted[7])
    detector.close()
    host.close()


def test_a_third_batch_and_too_many_frames_are_refused(bench: Bench) -> None:
    detector = bench.detector()
    with pytest.raises(InferenceError, match="4 frames"):
        detector.submit([frame(0)] * 4, [Filter()] * 4)
    for _ in range(2):
        detector.submit([frame(0)], [Filter()])
    with pytest.raises(InferenceError, match="2 batches in flight"):
        detector.submit([frame(0)], [Filter()])
    detector.close()


def test_nothing_is_recorded_anew_when_sizes_and_thresholds_change(bench: Bench) -> None:
    detector = bench.detector()
    for _ in range(4):  # both slots, first by calls and then recorded
        through(detector, [frame(0)])
    recorded = bench.gpu.recorded
    for wh, confidence in (((640, 360), 0.5), ((1280, 720), 0.01), ((50, 60), 0.9)):
        detector.set_nms(NmsSpec(iou=confidence))
        through(detector, [frame(1, wh)], Filter(confidence))
    assert (recorded, bench.gpu.recorded) == (2, 2)
    assert detector.path == "GPU, one CUDA graph a batch"
    detector.close()


def test_filters_and_suppression_are_those_of_their_frame(bench: Bench) -> None:
    detector = bench.detector(nms=NmsSpec(max_det=2))
    limits = Filter(0.3, frozenset({1})), Filter(0.3)
    detector.submit([frame(5), frame(5)], limits)
    batch = detector.collect()
    assert set(batch.found[0].class_id) == {1}
    assert len(batch.found[1]) == len(batch.unfiltered[0]) == 2
    assert sorted(batch.found[1].confidence, reverse=True) == list(batch.found[1].confidence)
    detector.close()


def test_what_cannot_be_recorded_is_queued_call_by_call_and_says_why(bench: Bench) -> None:
    bench.gpu.refuses_capture = True
    detector, host = bench.detector(), bench.host()
    for seed in range(4):
        require_same(through(detector, [frame(seed)]).found[0], through(host, [frame(seed)]).found[0])
    assert "call by call: CUDA refused cudaStreamEndCapture" in detector.path
    assert bench.gpu.launched == 0
    detector.close()
    host.close()


def test_boxes_of_an_earlier_batch_are_never_told_for_a_later_one(bench: Bench) -> None:
    detector = bench.detector()
    for seed in range(4):
        through(detector, [frame(seed)])
    bench.gpu.loses = 1
    detector.submit([frame(9)], [Filter()])
    detector.submit([frame(10)], [Filter()])
    with pytest.raises(InferenceError, match=r"the GPU answered for image \d+ where \d+ was asked for"):
        detector.collect()
    host = bench.host()
    require_same(detector.collect().found[0], through(host, [frame(10)]).found[0])
    detector.close()
    host.close()


def test_a_refused_call_raises_and_the_next_batch_is_right(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, host = bench.detector(), bench.host()
    for _ in range(2):
        through(detector, [frame(0)])
    detector.submit([frame(1)], [Filter()])
    with monkeypatch.context() as patch:
        patch.setattr(bench.gpu, "cudaGraphLaunch", lambda *_: (1,))
        with pytest.raises(InferenceError, match="CUDA refused cudaGraphLaunch"):
            detector.submit([frame(2)], [Filter()])
    require_same(detector.collect().found[0], through(host, [frame(1)]).found[0])
    require_same(through(detector, [frame(3)]).found[0], through(host, [frame(3)]).found[0])
    detector.close()
    host.close()


def test_a_picture_whose_scores_are_no_numbers_is_no_empty_scene_and_the_next_one_is_found(bench: Bench) -> None:
    detector, host = bench.detector(dazzled=True), bench.host()
    white = replace(frame(0, camera="yard"), image=np.full((128, 128, 3), 255, np.uint8))
    for _ in range(3):  # by calls, recorded, and launched as a graph
        detector.submit([frame(1), white], [Filter()] * 2)
        detector.submit([frame(2)], [Filter()])
        with pytest.raises(NotFinite, match=r"scores for 'yard' are not finite; choose a higher precision"):
            detector.collect()
        require_same(detector.collect().found[0], through(host, [frame(2)]).found[0])
    detector.close()
    host.close()


def test_a_fixed_batch_takes_fewer_frames_too(bench: Bench) -> None:
    fixed = replace(SIGNATURE, dynamic_batch=False)
    detector, host = bench.detector(fixed), bench.host(fixed)
    for frames in ([frame(1)], [frame(2), frame(3, (300, 200))]):
        for one, other in zip(through(detector, frames).found, through(host, frames).found, strict=True):
            require_same(one, other)
    detector.close()
    host.close()


def test_waiting_with_a_limit_says_whether_a_batch_is_done(bench: Bench) -> None:
    detector = bench.detector()
    assert detector.wait(0.0), "nothing is in flight"
    detector.submit([frame(0)], [Filter()])
    assert not detector.wait(0.0)
    assert detector.wait(30.0)
    detector.collect()
    detector.close()


def test_everything_is_given_back_once(bench: Bench) -> None:
    detector = bench.detector()
    detector.warm_up(frame(0), 2)
    assert detector.bare_ms(0.0) > 0
    detector.submit([frame(0)], [Filter()])
    detector.close()
    detector.close()
    assert bench.gpu.unreleased() == []


@pytest.mark.parametrize("left", range(0, 40000, 997))
def test_where_the_memory_ends_while_it_opens_nothing_is_left(bench: Bench, left: int) -> None:
    bench.gpu.memory_bytes = left
    with suppress(InferenceError):
        bench.detector().close()
    assert bench.gpu.unreleased() == []


def test_nms_inside_the_network_is_left_to_the_host() -> None:
    inside = replace(SIGNATURE, layout=Layout.DETECTIONS, max_det=10)
    assert unfit(SIGNATURE) is None
    assert unfit(inside) == "NMS is inside the network"


def test_more_candidates_than_the_gpu_takes_are_cut_and_that_is_said(bench: Bench) -> None:
    """A setting that is changed in place must not end the plan."""
    detector, host = bench.detector(), bench.host()
    detector.set_nms(NmsSpec(top_k=3840))
    require_same(through(detector, [frame(1)]).found[0], through(host, [frame(1)]).found[0])
    assert detector.path.endswith("; of 3840 candidates the best 1024")
    detector.set_nms(NmsSpec())
    assert detector.path == "GPU, one CUDA graph a batch"
    detector.close()
    host.close()


def test_a_capture_that_this_gpu_does_not_know_is_done_without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = bench.detector()
    monkeypatch.setattr(bench.gpu, "cudaStreamBeginCapture", lambda *_: (801,))
    monkeypatch.setattr(bench.gpu, "named", lambda code: ("cudaErrorNotSupported", "operation not supported"))
    through(detector, [frame(1)])
    assert "call by call: cudaStreamBeginCapture" in detector.path
    assert len(through(detector, [frame(1)]).found[0])
    detector.close()


def test_half_a_batch_leaves_nothing_to_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.gpu.refuses_capture = True
    detector, host = bench.detector(), bench.host()
    real, launches = bench.gpu.cuLaunchKernel, []

    def refused(*given: object) -> None:
        launches.append(1)
        if len(launches) == 3:  # after the letterbox and the candidates
            check("cuLaunchKernel", 1, "CUDA_ERROR_INVALID_VALUE", "invalid argument")
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(bench.gpu, "cuLaunchKernel", refused)
        with pytest.raises(InferenceError, match="cuLaunchKernel"):
            detector.submit([frame(1)], [Filter()])
    for seed in (2, 3):
        require_same(through(detector, [frame(seed)]).found[0], through(host, [frame(seed)]).found[0])
    detector.close()
    host.close()


def test_every_size_of_batch_is_recorded_before_anybody_is_served(bench: Bench) -> None:
    detector = bench.detector()
    detector.warm_up(frame(0), 1)
    recorded = bench.gpu.recorded
    for count in (1, 2, 3):
        for _ in range(2):
            through(detector, [frame(count)] * count)
    assert bench.gpu.recorded == recorded == 2 * 3
    detector.close()


def test_a_frame_may_be_written_over_once_it_was_submitted(bench: Bench) -> None:
    detector, host = bench.detector(), bench.host()
    image = frame(4).image.copy()
    lent = replace(frame(4), image=image)
    wanted = through(host, [frame(4)]).found[0]
    detector.submit([lent], [Filter()])
    image.fill(0)
    require_same(detector.collect().found[0], wanted)
    detector.close()
    host.close()


def lying_in(memory: Memory, one: Frame) -> Frame:
    image = memory._bytes[64 : 64 + one.image.nbytes].reshape(one.image.shape)
    image[...] = one.image
    return replace(one, image=image, memory=memory)


def of_format(one: Frame, pixels: PixelFormat, meaning: Colorimetry = USUAL) -> Frame:
    return replace(one, image=stored(one.image, pixels, meaning), pixels=pixels, colorimetry=meaning)


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("lies", [False, True])
def test_frames_of_each_format_find_what_the_host_finds_in_them(
    monkeypatch: pytest.MonkeyPatch, folder: Path, integrated: bool, lies: bool
) -> None:
    """All in one batch, in memory of their own or a camera's."""
    bench = Bench(monkeypatch, folder, integrated=integrated)
    detector, host = bench.detector(), bench.host()
    for seed, wh in ((1, (128, 128)), (2, (640, 360)), (3, (96, 300))):
        plain = frame(seed, wh)
        frames = [of_format(plain, pixels) for pixels in PixelFormat]
        assert [one.resolution_wh for one in frames] == [wh] * len(frames)
        if lies:
            frames = [lying_in(Memory(np.zeros(1 << 20, np.uint8)), one) for one in frames]
        found, wanted = through(detector, frames).found, through(host, frames).found
        for one, other in zip(found, wanted, strict=True):
            require_same(one, other)
        require_same(wanted[PixelFormat.BGRX], wanted[PixelFormat.BGR])
        if wh == SIGNATURE.resolution_hw:  # else edges of objects lie amid four pixels of one colour
            assert len(wanted[PixelFormat.BGR]) > 0
            require_same(wanted[PixelFormat.NV12], wanted[PixelFormat.BGR])
    detector.close()
    host.close()


@pytest.mark.parametrize("meaning", MEANINGS, ids=str)
def test_the_network_sees_the_colours_that_the_matrix_and_range_of_a_frame_say(
    bench: Bench, meaning: Colorimetry
) -> None:
    """As the host sees them: within a level where nothing is scaled."""
    detector = bench.detector()
    image = np.random.default_rng(3).integers(0, 256, (128 * 3 // 2, 128), np.uint8)
    nv12 = replace(frame(0), image=image, pixels=PixelFormat.NV12, colorimetry=meaning)
    detector.submit([nv12], [Filter()])
    detector.collect()
    seen = np.ctypeslib.as_array((ctypes.c_float * (3 * 128 * 128)).from_address(detector._slots[0]._input))
    wanted = np.empty((3, 128, 128), np.float32)
    Letterbox((128, 128)).apply(bgr_of(nv12), wanted)
    np.testing.assert_allclose(seen.reshape(wanted.shape), wanted, rtol=0, atol=1.01 / 255)
    detector.close()


def test_a_camera_that_changes_its_format_has_nothing_recorded_anew(bench: Bench) -> None:
    detector = bench.detector()
    for _ in range(4):
        through(detector, [frame(0)])
    recorded = bench.gpu.recorded
    for pixels in (*PixelFormat, *PixelFormat):
        through(detector, [of_format(frame(1, (320, 200)), pixels)])
    assert bench.gpu.recorded == recorded
    detector.close()


@pytest.mark.parametrize("integrated", [False, True])
def test_a_camera_s_memory_is_read_where_it_lies_for_as_long_as_it_is_there(
    monkeypatch: pytest.MonkeyPatch, folder: Path, integrated: bool
) -> None:
    bench = Bench(monkeypatch, folder, integrated=integrated)
    detector, host = bench.detector(), bench.host()
    memory = Memory(np.zeros(1 << 20, np.uint8))
    for seed in range(4):
        lent = lying_in(memory, frame(seed, (300, 200)))
        require_same(through(detector, [lent]).found[0], through(host, [lent]).found[0])
        assert bench.gpu.registered == {memory.address: 1 << 20}
        assert all(intake._staging is None for slot in detector._slots for intake in slot._intakes)
    del lent, memory
    assert bench.gpu.registered == {}
    detector.close()
    host.close()


def test_memory_that_the_gpu_cannot_read_is_copied_from(bench: Bench) -> None:
    bench.gpu.refuses_registering = True
    detector, host = bench.detector(), bench.host()
    memory = Memory(np.zeros(1 << 20, np.uint8))
    for seed in range(4):
        lent = lying_in(memory, frame(seed))
        require_same(through(detector, [lent]).found[0], through(host, [lent]).found[0])
    detector.close()
    host.close()


def test_an_image_outside_the_memory_of_its_camera_is_copied_from(bench: Bench) -> None:
    detector, host = bench.detector(), bench.host()
    memory = Memory(np.zeros(1 << 20, np.uint8))
    elsewhere = replace(frame(2), memory=memory)
    require_same(through(detector, [elsewhere]).found[0], through(host, [elsewhere]).found[0])
    assert bench.gpu.registered == {}
    detector.close()
    host.close()
