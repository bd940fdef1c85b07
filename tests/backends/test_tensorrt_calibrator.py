"""TensorRT's own calibrator: what it is fed, what is kept of it, and which releases have it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yolo
from backends.cuda_standin import CudaStandIn
from backends.trt_listing import LISTINGS
from backends.trt_simulation import Simulation, install
from numpy.typing import NDArray

from vajra_edge.backends.base import Built
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.errors import BuildCancelled, CalibrationError, UnsupportedSpec
from vajra_edge.graph.passes import qdq
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.graph.topology import Wiring, load
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Progress

GPU = Target("gpu")
SPEC = EngineSpec(target=GPU, precision=Precision.INT8, quantization="calibrator")
CALIBRATES = ("10.3.0", "10.13.3", "10.16.1")


@dataclass
class Pictures:
    """A set of random pictures; ``bad`` cannot be read."""

    count: int
    bad: int | None = None
    digest: str = "d"

    def __len__(self) -> int:
        return self.count

    def inputs(self, input_hw: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
        for index, picture in enumerate(yolo.images(self.count)):
            if index == self.bad:
                raise CalibrationError(f"calibration image {index + 1}: not an image")
            yield picture[None]


def signature(batch: int = 1, *, dynamic: bool = False) -> Signature:
    return Signature("images", "output0", Layout.RAW, batch, (64, 64), dynamic, False, 32, tiny.NAMES)


def built(
    images: Any,
    folder: Path | None = None,
    *,
    batch: int | None = 1,
    report: Any = lambda _: None,
    spec: EngineSpec = SPEC,
) -> Built:
    known = signature(batch or 4, dynamic=batch is None)
    return TensorRT(folder).build(tiny.network(64, batch=batch), known, spec, report, images=images)


@pytest.mark.parametrize("version", CALIBRATES)
def test_the_library_is_handed_every_image_under_weak_typing(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    simulation = Simulation(version)
    gpu = install(monkeypatch, simulation)
    made = built(Pictures(5))
    assert simulation.set_to("calibrated_by") == [5]
    assert simulation.set_to("flag") == ["FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS"]
    assert made.report.tensorrt.typing == "weak"
    assert made.report.tensorrt.calibration == "measured"
    assert gpu.held == {}


@pytest.mark.parametrize("version", [name for name in LISTINGS if name not in CALIBRATES])
def test_a_library_without_a_calibrator_says_what_to_set(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, Simulation(version))
    with pytest.raises(UnsupportedSpec, match=r"has no calibrator any more; set \[engine\] quantization = qdq"):
        built(Pictures(1))
    assert "quantization = qdq" in str(TensorRT().check(SPEC))


def test_the_calibrator_is_the_second_way_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {}
    for version in LISTINGS:
        install(monkeypatch, Simulation(version))
        ways[version] = TensorRT().routes(EngineSpec(target=GPU, precision=Precision.INT8))
    assert ways == {name: ("qdq", "calibrator") if name in CALIBRATES else ("qdq",) for name in LISTINGS}
    install(monkeypatch, Simulation("10.3.0", dla_cores=1))
    assert TensorRT().routes(EngineSpec(target=Target("dla"), precision=Precision.INT8)) == ("qdq",)
    assert TensorRT().routes(SPEC) == ("calibrator",)


@pytest.mark.parametrize(("batch", "handed", "calls"), [(1, 1, 5), (4, 4, 2), (None, 1, 5)])
def test_images_come_in_the_batch_of_the_graph(
    monkeypatch: pytest.MonkeyPatch, batch: int | None, handed: int, calls: int
) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    built(Pictures(5), batch=batch)
    assert simulation.set_to("calibration_batch") == [handed]
    assert simulation.set_to("calibrated_by") == [calls]


def test_a_dynamic_graph_is_calibrated_at_the_size_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    built(Pictures(1), batch=None)
    assert ("images", (1, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64)) in simulation.set_to("profile")


def test_what_was_measured_is_kept_for_the_same_weights_and_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    first = built(Pictures(3), tmp_path)
    assert built(Pictures(3), tmp_path).report.tensorrt.calibration == "the cache"
    built(Pictures(3, digest="other"), tmp_path)
    assert simulation.set_to("calibrated_by") == [3, "cache", 3]
    (kept,) = (
        path
        for path in (tmp_path / "calibration/caches").iterdir()
        if path.name == first.report.tensorrt.calibration_cache
    )
    assert b"\nTRT-10.3.0-MinMaxCalibration\n" in kept.read_bytes()


def test_a_cache_of_another_release_is_measured_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    name = str(built(Pictures(3), tmp_path).report.tensorrt.calibration_cache)
    content = b"TRT-8601-MinMaxCalibration\n"
    (tmp_path / "calibration/caches" / name).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    built(Pictures(3), tmp_path)
    assert simulation.set_to("calibrated_by") == [3, 3]


def test_a_damaged_cache_is_not_handed_to_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    name = str(built(Pictures(3), tmp_path).report.tensorrt.calibration_cache)
    path = tmp_path / "calibration/caches" / name
    path.write_bytes(path.read_bytes().replace(b"3c010204", b"7f010204"))
    built(Pictures(3), tmp_path)
    assert simulation.set_to("calibrated_by") == [3, 3]


def test_what_is_kept_is_measured_anew_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    built(Pictures(3), tmp_path)
    TensorRT(tmp_path).build(tiny.network(64), signature(), SPEC, lambda _: None, images=Pictures(3), fresh=True)
    assert simulation.set_to("calibrated_by") == [3, 3]


def test_an_image_that_cannot_be_read_fails_the_build_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = install(monkeypatch, Simulation("10.3.0"))
    with pytest.raises(CalibrationError, match="calibration image 3: not an image"):
        built(Pictures(5, bad=2), tmp_path)
    assert not (tmp_path / "calibration").exists()
    assert gpu.held == {}


def test_a_cancelled_calibration_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)

    def cancel(step: Progress) -> None:
        if step.message.startswith("ranges: image 2"):
            raise BuildCancelled("the build was cancelled")

    with pytest.raises(BuildCancelled):
        built(Pictures(5), report=cancel)
    assert simulation.set_to("calibrated_by") == [2]


def test_the_last_layers_stay_out_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    wiring = Wiring(load(tiny.network(64)))
    assert qdq.static_reasons(wiring)
    precisions: list[tuple[str, Any]] = []
    half = simulation.module.DataType.HALF
    plain = type.__getattribute__(simulation.module.ILayer, "__setattr__")

    def noted(layer: Any, name: str, value: Any) -> None:
        if name == "precision":
            precisions.append((layer.name, value))
        plain(layer, name, value)

    monkeypatch.setattr(simulation.module.ILayer, "__setattr__", noted)
    built(Pictures(1))
    assert [value for _, value in precisions].count(half) == len(qdq.static_reasons(wiring))


def test_no_gpu_no_calibrator(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"), CudaStandIn(devices=0))
    assert "CUDA sees 0 GPUs" in str(TensorRT().check(SPEC))
