"""What a build feeds its networks: what production's kernel makes, or the host where that serves; never confused."""

from __future__ import annotations

import ctypes
import itertools
import shutil
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from backends.cuda_emulation import EmulatedGpu
from backends.trt_simulation import Simulation, install
from numpy.typing import NDArray

from vajra_edge.backends.cuda import kernels
from vajra_edge.backends.cuda.check import CudaUnavailable
from vajra_edge.backends.cuda.compiler import machine_code
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.backends.tensorrt.calibration_engine import TrtReplay
from vajra_edge.backends.tensorrt.calibrator import CalibrationFeed
from vajra_edge.backends.tensorrt.runner import TrtRunner
from vajra_edge.build import worker
from vajra_edge.build.request import BuildRequest, images_of, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import BuildCancelled
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.cuda_detector import CudaDetector
from vajra_edge.inference.detector import Filter
from vajra_edge.plans import caches
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Progress
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.calibration_set import Holdout
from vajra_edge.quantization.observer import Replay
from vajra_edge.types import Frame

SIDE = 256
SPEC = EngineSpec(Target("gpu"), Precision.INT8, quantization="qdq", nms=None, allow_lower_precision=False)
SIGNATURE = Signature("images", "output0", Layout.RAW, 1, (SIDE, SIDE), False, False, 32, tiny.NAMES)
FRAME_HW = ((480, 640), (333, 77), (90, 160))
"""Larger, narrower and smaller than the input."""

Image = NDArray[np.float32]


def quiet(_: Progress) -> None:
    pass


@dataclass
class Fed:
    """Every image that a network of the build was given, by who ran it."""

    by: dict[str, list[bytes]] = field(default_factory=dict)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind, name in ((TrtReplay, "run"), (Replay, "run"), (TrtRunner, "infer")):
            monkeypatch.setattr(kind, name, self._noting(kind.__name__, getattr(kind, name)))
        monkeypatch.setattr(CalibrationFeed, "next", self._noting_handed(CalibrationFeed.next))

    def _noting(self, who: str, run: Any) -> Any:
        def noted(runs: Any, batch: Image, *others: Any) -> Any:
            self.by.setdefault(who, []).extend(image.tobytes() for image in batch)
            return run(runs, batch, *others)

        return noted

    def _noting_handed(self, following: Any) -> Any:
        def noted(feed: CalibrationFeed) -> Any:
            addresses = following(feed)
            nbytes = 3 * SIDE * SIDE * 4
            for address in addresses or ():
                self.by.setdefault("calibrator", []).append(ctypes.string_at(address, nbytes))
            return addresses

        return noted


class Device:
    """A simulated TensorRT on an emulated GPU, and a request for INT8 with images of many sizes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, images: Path, kernels_folder: Path) -> None:
        self.gpu = EmulatedGpu(kernels_folder)
        self.simulation = Simulation("10.3.0", dla_cores=1)
        install(monkeypatch, self.simulation, self.gpu)
        monkeypatch.setattr(TensorRT, "compares_speed", lambda self, spec: False)
        self.fed = Fed()
        self.fed.watch(monkeypatch)
        self.folder, self.images = folder, images

    def request(self, spec: EngineSpec = SPEC, state: str = "state", backend: str = "tensorrt") -> BuildRequest:
        weights = self.folder / "tiny.onnx"
        weights.write_bytes(tiny.network(SIDE, channels=16))
        calibration = CalibrationSettings(data=self.images)
        digest = camera_samples.wanted_set(calibration, self.folder, spec.batch).digest
        request = BuildRequest(weights, weights_digest(weights), backend, spec, self.folder / state, 1 << 30, threads=1)
        return replace(request, calibration=calibration, calibration_digest=digest)

    def built(self, request: BuildRequest) -> Manifest:
        return worker.run(request, quiet).manifest

    def fitted(self, request: BuildRequest) -> list[NDArray[np.uint8]]:
        """The pictures that ranges come from."""
        return [picture for _, picture in Holdout.of(images_of(request)).fitted.pictures.images()]

    def in_service(self, pictures: list[NDArray[np.uint8]]) -> list[bytes]:
        """What lies in the network's input while the GPU's path serves these."""
        plan = self.simulation.plan({"dla": False}, tiny.network(SIDE))
        runner = TensorRT().load_on_gpu(plan, SIGNATURE, SPEC)
        detector, made = CudaDetector(runner, Kernels(0, None)), []
        for turn, picture in enumerate(pictures):
            detector.submit([Frame(picture, 0, datetime.now(timezone.utc), turn, "gate")], [Filter()])
            detector.collect()
            made.append(ctypes.string_at(runner.slots[turn % 2].input_address, 3 * SIDE * SIDE * 4))
        detector.close()
        return made


def by_host(pictures: list[NDArray[np.uint8]]) -> list[bytes]:
    letterbox, made = Letterbox((SIDE, SIDE)), []
    for picture in pictures:
        image = letterbox.blank(1)
        letterbox.apply(picture, image[0])
        made.append(image.tobytes())
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes whose boxes judge a plan, most of them larger than the input, and noise of other sizes between them."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for seed in range(20):
        side, scene = SIDE if seed % 4 == 2 else 300, tiny.scene(SIDE, objects=8, seed=seed).image
        cv2.imwrite(str(folder / f"{seed:02}.png"), cv2.resize(scene, (side, side), interpolation=cv2.INTER_NEAREST))
    for number, hw in enumerate(FRAME_HW):
        cv2.imwrite(str(folder / f"{4 * number:02}b.png"), rng.integers(0, 256, (*hw, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def kernels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, kernels_folder: Path) -> Device:
    return Device(monkeypatch, tmp_path, images, kernels_folder)


def without_compiler(patched: pytest.MonkeyPatch) -> None:
    def absent(newest: int) -> None:
        raise CudaUnavailable("CUDA's compiler does not load: none is here", remedy="install it")

    patched.setattr(kernels, "compiler", absent)
    patched.setattr(kernels, "machine_code", machine_code)


def test_on_a_gpu_ranges_and_layers_come_from_what_production_s_kernel_makes(device: Device) -> None:
    request = device.request()
    manifest = device.built(request)
    pictures = device.fitted(request)
    wanted, others = device.in_service(pictures), by_host(pictures)
    assert {picture.shape[:2] for picture in pictures} >= {FRAME_HW[0], (SIDE, SIDE)}
    assert wanted != others, "noise of another size comes out otherwise"
    assert device.fed.by["TrtReplay"] == wanted
    assert set(device.fed.by["Replay"]) <= set(wanted), "the choice of layers"
    assert manifest.report.plan.int8.ranges.collector == "TensorRT 10.3.0 on gpu:0; images prepared on gpu:0"
    assert device.gpu.unreleased() == []


def test_photos_come_out_bit_for_bit_as_in_service(device: Device, shared_data: Path) -> None:
    photos = sorted((shared_data / "images" / "coco128").glob("*.jpg"))[:24]
    device.images = device.folder / "photos"
    device.images.mkdir()
    for photo in photos:
        shutil.copy(photo, device.images)
    request = device.request(replace(SPEC, quantization="calibrator", allow_lower_precision=True))
    device.built(request)
    pictures = device.fitted(request)
    assert device.fed.by["calibrator"] == device.in_service(pictures) != by_host(pictures)


def test_the_plan_itself_is_judged_and_timed_on_the_kernel_s_images_alone(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRT, "compares_speed", lambda self, spec: True)
    request = replace(device.request(), keep_slower=True)
    assert device.built(request).verify.figures.int8_ms is not None, "timed beside FP16"
    judged = [picture for _, picture in Holdout.of(images_of(request)).judged.pictures.images()]
    wanted, warming_up = set(device.in_service(judged)), bytes(3 * SIDE * SIDE * 4)
    assert wanted != set(by_host(judged))
    assert set(device.fed.by["TrtRunner"]) - {warming_up} == wanted


def test_a_dla_core_s_ranges_come_from_the_kernel_that_prepares_its_frames(device: Device) -> None:
    request = device.request(replace(SPEC, target=Target("dla")))
    manifest = device.built(request)
    assert device.fed.by["TrtReplay"] == device.in_service(device.fitted(request))
    assert manifest.report.plan.int8.ranges.collector == "TensorRT 10.3.0 on gpu:0; images prepared on gpu:0"


def test_on_a_cpu_the_host_prepares(device: Device) -> None:
    request = device.request(replace(SPEC, target=Target("cpu")), backend="onnxruntime")
    manifest = device.built(request)
    wanted = by_host(device.fitted(request))
    assert device.fed.by["Replay"][: len(wanted)] == wanted
    assert "prepared" not in manifest.report.plan.int8.ranges.collector
    assert device.gpu.unreleased() == []


def test_without_a_compiler_the_host_prepares_and_the_manifest_says_why(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(monkeypatch)
    request = device.request()
    collector = device.built(request).report.plan.int8.ranges.collector
    assert "; images prepared on the CPU: CUDA's compiler does not load: none is here; and no code of " in collector
    assert device.fed.by["TrtReplay"] == by_host(device.fitted(request))


def test_ranges_of_images_that_the_host_prepared_are_not_taken_for_the_kernel_s(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (device.request(state=name) for name in ("first", "second", "third"))
    with monkeypatch.context() as patched:
        without_compiler(patched)
        by_cpu = device.built(first).report.plan.int8.ranges
    shutil.copytree(first.state_dir / caches.RANGES.path, second.state_dir / caches.RANGES.path)
    by_gpu = device.built(second).report.plan.int8.ranges
    assert (by_gpu.source, by_gpu.key != by_cpu.key) == ("measured", True)
    shutil.copytree(second.state_dir / caches.RANGES.path, third.state_dir / caches.RANGES.path)
    again = device.built(third).report.plan.int8.ranges
    assert (again.source, again.key) == ("cache", by_gpu.key)


def test_the_calibrator_s_cache_is_kept_apart_likewise(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(SPEC, quantization="calibrator", allow_lower_precision=True)
    requests = [device.request(spec, state=name) for name in ("first", "second", "third")]
    with monkeypatch.context() as patched:
        without_compiler(patched)
        device.built(requests[0])
    for before, after in itertools.pairwise(requests):
        folder = caches.CALIBRATION_CACHES.path
        shutil.copytree(before.state_dir / folder, after.state_dir / folder)
        device.built(after)
    count = len(device.fitted(requests[0]))
    assert device.simulation.set_to("calibrated_by") == [count, count, "cache"]


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, quantization="calibrator")])
def test_a_build_that_is_cancelled_among_its_images_holds_nothing(device: Device, spec: EngineSpec) -> None:
    def cancel(step: Progress) -> None:
        if "ranges: image 3" in step.message:
            raise BuildCancelled("the build was cancelled")

    with pytest.raises(BuildCancelled):
        worker.run(device.request(spec), cancel)
    assert device.gpu.unreleased() == []
