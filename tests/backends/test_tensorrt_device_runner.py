"""A plan between memory of the GPU and memory of the GPU: contexts, addresses, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from backends.cuda_emulation import EmulatedGpu
from backends.trt_listing import LISTINGS
from backends.trt_simulation import Simulation, install

from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.errors import ForeignPlan, InferenceError, PlanError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.spec import EngineSpec, Target

GPU = EngineSpec(target=Target("gpu"))
SIGNATURE = Signature("images", "output0", Layout.RAW, 4, (64, 64), True, False, 32, tiny.NAMES)


@pytest.mark.parametrize("version", LISTINGS)
def test_each_slot_and_number_of_images_has_a_context_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """A recorded graph is undefined once its context was given another shape or address."""
    simulation, gpu = Simulation(version), EmulatedGpu(tmp_path)
    install(monkeypatch, simulation, gpu)
    runner = TensorRT().load_on_gpu(simulation.plan({"dla": False}, tiny.network(64, batch=None)), SIGNATURE, GPU)
    for slot, count in ((0, 1), (1, 1), (0, 4), (0, 1), (1, 4), (0, 4)):
        runner.enqueue(slot, count)
    assert simulation.set_to("input_shape") == [
        *((4, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64)),
    ], "the first only asks for the output's shape"
    assert simulation.set_to("address") == ["images", "output0"] * 4
    assert (runner.anchors, runner.not_recorded) == (4, "")
    runner.close()
    runner.close()
    assert gpu.unreleased() == []


def test_what_a_dla_core_computes_is_not_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation, gpu = Simulation("10.3.0", dla_cores=2), EmulatedGpu(tmp_path)
    install(monkeypatch, simulation, gpu)
    fixed = replace(SIGNATURE, dynamic_batch=False)
    spec = EngineSpec(target=Target("dla", 1))
    runner = TensorRT().load_on_gpu(simulation.plan({"dla": True}, tiny.network(64, batch=4)), fixed, spec)
    assert "DLA" in runner.not_recorded
    assert simulation.set_to("deserialised_for_core") == [1]
    runner.enqueue(0, 1)
    assert set(simulation.set_to("input_shape")) == {(4, 3, 64, 64)}
    runner.close()


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (replace(SIGNATURE, output_name="boxes"), "tensors are images, output0, not images and boxes"),
        (replace(SIGNATURE, input_name="x"), "not x and output0"),
        (replace(SIGNATURE, class_names=("person",)), r"shape \(4, 6, 4\), its signature says 5 rows"),
    ],
)
def test_a_plan_of_another_network_is_refused_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signature: Signature, reason: str
) -> None:
    simulation, gpu = Simulation("10.3.0"), EmulatedGpu(tmp_path)
    install(monkeypatch, simulation, gpu)
    with pytest.raises(PlanError, match=reason):
        TensorRT().load_on_gpu(simulation.plan({"dla": False}, tiny.network(64, batch=None)), signature, GPU)
    assert gpu.unreleased() == []


def test_a_plan_of_another_release_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = Simulation("10.3.0").plan({"dla": False}, tiny.network(64, batch=None))
    install(monkeypatch, Simulation("10.16.1"), EmulatedGpu(tmp_path))
    with pytest.raises(ForeignPlan, match=r"built by TensorRT 10\.3\.0\.26, this device has TensorRT 10\.16\.1"):
        TensorRT().load_on_gpu(plan, SIGNATURE, GPU)


def test_a_refused_run_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation, gpu = Simulation("10.3.0"), EmulatedGpu(tmp_path)
    install(monkeypatch, simulation, gpu)
    runner = TensorRT().load_on_gpu(simulation.plan({"dla": False}, tiny.network(64, batch=None)), SIGNATURE, GPU)
    monkeypatch.setattr(simulation.module.IExecutionContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(InferenceError, match="TensorRT refused to run"):
        runner.enqueue(0, 1)
    runner.close()
    assert gpu.unreleased() == []
