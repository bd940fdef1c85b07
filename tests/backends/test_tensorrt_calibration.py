"""Ranges by a TensorRT calibration engine: those of ONNX Runtime, from every release; and who measured is on record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import yolo
from backends.cuda_standin import CudaStandIn
from backends.trt_listing import LISTINGS
from backends.trt_simulation import Simulation, install
from near import assert_near
from numpy.typing import NDArray
from onnx import helper

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.backends.tensorrt import calibration_engine
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.backends.tensorrt.calibration_engine import LEVEL, observer
from vajra_edge.build import worker
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import BuildCancelled, CalibrationError
from vajra_edge.graph import signature
from vajra_edge.graph.dla import ranges as dla_ranges
from vajra_edge.graph.passes import instrument
from vajra_edge.graph.topology import load
from vajra_edge.plans import caches
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.progress import Progress
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.observer import Extremes, observe
from vajra_edge.quantization.ranges import RangeCache, Ranges

SPEC = EngineSpec(target=Target("gpu"), precision=Precision.INT8)


@dataclass
class Pictures:
    """A set of random pictures; ``bad`` cannot be read, and fewer may come than promised."""

    count: int
    promised: int | None = None
    bad: int | None = None
    digest: str = "d"

    def __len__(self) -> int:
        return self.promised or self.count

    def inputs(self, input_hw: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
        for index, picture in enumerate(yolo.images(self.count)):
            if index == self.bad:
                raise CalibrationError(f"calibration image {index + 1}: not an image")
            yield picture[None]


def quiet(_: Progress) -> None:
    pass


def network(batch: int | None) -> bytes:
    model = load(yolo.network(batch=batch))
    helper.set_model_props(model, {"names": "['person', 'car']", "stride": "8", "batch": str(batch or 4)})
    return bytes(model.SerializeToString())


def measured(graph: bytes, images: Pictures, algorithm: str = "minmax", spec: EngineSpec = SPEC) -> Ranges:
    return observer(TensorRT(), spec)(graph, signature.read(graph), images, algorithm, quiet, 1)


def assert_equal(found: Ranges, expected: Ranges) -> None:
    assert list(found.tensors) == list(expected.tensors)
    for name, other in expected.tensors.items():
        one = found.tensors[name]
        assert_near((one.low, one.high, one.amax), (other.low, other.high, other.amax))
        np.testing.assert_allclose(one.mean, other.mean, rtol=0, atol=1e-4 * other.amax)


@pytest.mark.parametrize("batch", [1, 4, None])
@pytest.mark.parametrize("version", LISTINGS)
def test_the_ranges_are_those_that_onnx_runtime_measures(
    monkeypatch: pytest.MonkeyPatch, version: str, batch: int | None
) -> None:
    simulation = Simulation(version)
    gpu = install(monkeypatch, simulation)
    graph, images = network(batch), Pictures(6)
    found = measured(graph, images)
    expected = observe(graph, signature.read(graph), images, "minmax", quiet, 1)
    assert_equal(found, expected)
    assert replace(found, tensors={}, collector="") == replace(expected, tensors={}, collector="")
    assert found.images == 6
    release = version.removeprefix("rtx-")
    assert found.collector == f"TensorRT{'-RTX' if release != version else ''} {release} on gpu:0"
    assert expected.collector.startswith("ONNX Runtime ")
    assert expected.collector.endswith(" on the CPU")
    assert (gpu.held, gpu.streams) == ({}, set())


@pytest.mark.parametrize("version", LISTINGS)
def test_the_engine_is_fp32_without_tf32_and_made_with_little_effort(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    simulation = Simulation(version, dla_cores=1)
    install(monkeypatch, simulation)
    measured(network(None), Pictures(1), spec=replace(SPEC, target=Target("dla")))
    assert simulation.set_to("flag") == []
    assert simulation.set_to("cleared") == ["TF32"]
    assert simulation.set_to("builder_optimization_level") == [LEVEL]
    assert simulation.set_to("profile") == []  # every side is fixed
    assert simulation.set_to("DLA") == []


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_is_left_of_a_batch_is_filled_with_images_and_not_counted(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    graph, images = network(4), Pictures(count)
    assert_equal(measured(graph, images), observe(graph, signature.read(graph), images, "minmax", quiet, 1))


def test_a_file_of_one_is_a_file_of_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    graph, images = network(1), Pictures(2)
    found, cache = measured(graph, images), RangeCache(tmp_path)
    cache.put(found)
    by_cpu = observe(graph, signature.read(graph), images, "minmax", quiet, 1)
    assert cache.get(by_cpu.key) == found


def test_progress_tells_the_engine_s_build_and_then_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    graph, seen = network(4), []
    observer(TensorRT(), SPEC)(graph, signature.read(graph), Pictures(6), "minmax", seen.append, 1)
    assert {step.stage for step in seen} == {"calibrate"}
    assert seen[0].message.startswith("calibration engine: reading the graph")
    assert [step.message for step in seen[-2:]] == ["ranges: image 4 of 6", "ranges: image 6 of 6"]
    assert seen[-1].percent == 100


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (Pictures(6, bad=3), "calibration image 4: not an image"),
        (Pictures(3, promised=7), "ended after 3 of 7 images"),
    ],
)
def test_a_set_that_fails_or_is_short_fails_the_calibration(
    monkeypatch: pytest.MonkeyPatch, images: Pictures, reason: str
) -> None:
    gpu = install(monkeypatch, Simulation("10.3.0"))
    with pytest.raises(CalibrationError, match=reason):
        measured(network(1), images)
    assert (gpu.held, gpu.streams) == ({}, set())


@pytest.mark.parametrize("stop_at", ["calibration engine", "ranges"])
def test_a_cancelled_calibration_stops_and_holds_nothing(monkeypatch: pytest.MonkeyPatch, stop_at: str) -> None:
    gpu = install(monkeypatch, Simulation("10.3.0"))
    graph = network(1)

    def stop(step: Progress) -> None:
        if step.message.startswith(stop_at):
            raise BuildCancelled("asked")

    with pytest.raises(BuildCancelled, match="asked"):
        observer(TensorRT(), SPEC)(graph, signature.read(graph), Pictures(3), "minmax", stop, 1)
    assert (gpu.held, gpu.streams) == ({}, set())


@pytest.mark.parametrize(
    ("simulation", "gpu", "algorithm", "reason"),
    [
        (Simulation("10.3.0"), CudaStandIn(), "percentile", "percentile needs histograms"),
        (Simulation("10.3.0"), CudaStandIn(), "entropy", "entropy needs histograms"),
        (Simulation("rtx-1.7.1"), CudaStandIn(devices=0), "minmax", "CUDA sees 0 GPUs here, none with number 0"),
        (
            Simulation("10.3.0", memory_failures=9),
            CudaStandIn(),
            "minmax",
            "the calibration engine failed: not enough memory to build",
        ),
        (
            Simulation("10.3.0"),
            CudaStandIn(memory_bytes=1 << 10),
            "minmax",
            "the calibration engine failed: ",
        ),
    ],
)
def test_onnx_runtime_measures_what_tensorrt_does_not_and_says_why(
    monkeypatch: pytest.MonkeyPatch, simulation: Simulation, gpu: CudaStandIn, algorithm: str, reason: str
) -> None:
    install(monkeypatch, simulation, gpu)
    graph, images = network(1), Pictures(2)
    found = measured(graph, images, algorithm)
    expected = observe(graph, signature.read(graph), images, algorithm, quiet, 1)
    assert found.collector.startswith(f"{expected.collector}, not TensorRT: {reason}")
    assert replace(found, collector=expected.collector) == expected
    assert gpu.held == {}


def test_onnx_runtime_s_own_builds_are_measured_by_it() -> None:
    assert OnnxRuntime().observer(SPEC) is observe


def test_what_is_no_number_is_found_though_a_gpu_s_extremes_pass_over_it() -> None:
    graph = network(1)
    extremes = Extremes(graph, (64, 64))
    low, high = np.zeros((2, len(instrument.measurable(graph))), np.float32)
    made = {instrument.LOW: low, instrument.HIGH: high}
    made |= {instrument.MEAN + name: np.zeros((1, 3), np.float32) for name in instrument.channelled(graph)}
    made[f"{instrument.MEAN}joined"] = np.array([[0, np.nan, 0]], np.float32)
    with pytest.raises(CalibrationError, match="tensor joined is not finite on a calibration image"):
        extremes.add(made)


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """INT8 for a GPU, with calibration images in a folder; what a simulation takes says nothing about INT8."""
    monkeypatch.setattr(TensorRT, "compares_speed", lambda self, spec: False)
    weights, folder = tmp_path / "tiny.onnx", tmp_path / "images"
    weights.write_bytes(tiny.network(channels=16))
    folder.mkdir()
    for seed in range(24):
        cv2.imwrite(str(folder / f"{seed:02}.png"), tiny.scene(objects=8, seed=seed).image)
    spec = replace(SPEC, nms=NmsSpec(max_det=20, top_k=30))
    request = BuildRequest(weights, weights_digest(weights), "tensorrt", spec, tmp_path / "state", 1 << 30, threads=1)
    calibration = CalibrationSettings(data=folder)
    digest = camera_samples.wanted_set(calibration, request.state_dir, spec.batch).digest
    return replace(request, calibration=calibration, calibration_digest=digest)


def built(request: BuildRequest) -> Manifest:
    return worker.run(request, quiet).manifest


@pytest.mark.parametrize("version", LISTINGS)
def test_int8_for_a_gpu_is_calibrated_quantized_judged_and_stored(
    monkeypatch: pytest.MonkeyPatch, version: str, wanted: BuildRequest
) -> None:
    simulation = Simulation(version)
    gpu = install(monkeypatch, simulation)
    plan = worker.run(wanted, quiet)
    manifest = plan.manifest
    assert (manifest.precision, manifest.report.refused) == (Precision.INT8, ())
    ranges = manifest.report.plan.int8.ranges
    assert ranges.source == "measured"
    assert ranges.collector.startswith("TensorRT")
    assert manifest.report.plan.int8.share > 0.5
    assert manifest.verify.figures.judged
    assert b"DequantizeLinear" in plan.read()
    assert simulation.set_to("range") == []
    assert (gpu.held, gpu.streams) == ({}, set())


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "10.16.1"])
def test_int8_for_a_dla_before_11_gets_ranges_in_the_place_of_q_dq(
    monkeypatch: pytest.MonkeyPatch, version: str, wanted: BuildRequest
) -> None:
    simulation = Simulation(version, dla_cores=2)
    install(monkeypatch, simulation)
    request = replace(wanted, spec=replace(wanted.spec, target=Target("dla", 1)))
    plan = worker.run(request, quiet)
    manifest = plan.manifest
    assert (manifest.precision, str(manifest.target)) == (Precision.INT8, "dla:1")
    assert manifest.report.plan.int8.ranges.collector.startswith("TensorRT")
    assert manifest.report.plan.dla.nodes_on_dla > 0
    assert manifest.verify.figures.judged
    assert b"QuantizeLinear" not in plan.read()
    (file,) = (request.state_dir / caches.RANGES.path).glob("*.json")
    amax = RangeCache(file.parent).get(file.stem).amax()
    assert all(low == -high for _, low, high in simulation.set_to("range"))
    set_to = {name: high for name, _, high in simulation.set_to("range")}
    content = plan.read()
    graph = content[32 + int.from_bytes(content[28:32], "little") :]
    assert set_to == {name: most for name, most in dla_ranges.equalised(graph, amax).items() if name in set_to}
    assert {"images", "mean0", "mean4"} <= set(set_to)


def test_int8_for_a_dla_from_11_gets_q_dq(monkeypatch: pytest.MonkeyPatch, wanted: BuildRequest) -> None:
    simulation = Simulation("11.4.0", dla_cores=1)
    install(monkeypatch, simulation)
    plan = worker.run(replace(wanted, spec=replace(wanted.spec, target=Target("dla"))), quiet)
    assert plan.manifest.precision is Precision.INT8
    assert b"DequantizeLinear" in plan.read()
    assert simulation.set_to("range") == []


def test_the_manifest_says_who_measured_ranges_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, wanted: BuildRequest
) -> None:
    simulation = Simulation("10.3.0", memory_failures=3)
    install(monkeypatch, simulation)
    first = built(wanted).report.plan.int8.ranges
    other = replace(wanted, spec=replace(wanted.spec, optimization_level=2))
    second = built(other).report.plan.int8.ranges
    assert (first.source, second.source) == ("measured", "cache")
    assert first.collector == second.collector
    assert "not TensorRT: the calibration engine failed: not enough memory" in first.collector


def test_an_image_that_fails_fails_the_build_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, wanted: BuildRequest, tmp_path: Path
) -> None:
    gpu = install(monkeypatch, Simulation("10.3.0"))
    folder = tmp_path / "others"
    shutil.copytree(wanted.calibration.data, folder)
    (folder / "06.png").write_bytes(b"no picture")
    calibration = CalibrationSettings(data=folder)
    digest = camera_samples.wanted_set(calibration, wanted.state_dir, 1).digest
    with pytest.raises(CalibrationError, match=r"calibration image 6 of 20: .*06.png: not an image"):
        built(replace(wanted, calibration=calibration, calibration_digest=digest))
    assert not (wanted.state_dir / caches.RANGES.path).exists()
    assert gpu.held == {}


def test_a_large_network_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    graph, images, seen = network(1), Pictures(3), []
    monkeypatch.setattr(calibration_engine, "PART_LEAST_BYTES", 100_000)
    monkeypatch.setattr(calibration_engine, "PART_MOST_BYTES", 100_000)
    found = observer(TensorRT(), SPEC)(graph, signature.read(graph), images, "minmax", seen.append, 1)
    assert len(simulation.set_to("network_flags")) > 1
    assert_equal(found, observe(graph, signature.read(graph), images, "minmax", quiet, 1))
    percents = [step.percent for step in seen if step.percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] == 100
