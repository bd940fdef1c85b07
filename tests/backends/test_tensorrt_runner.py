"""The runner against stand-ins whose engines compute in the memory that the runner hands them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
from backends.cuda_standin import CudaStandIn
from backends.trt_listing import LISTINGS
from backends.trt_simulation import Simulation, install
from near import assert_near
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.backends.base import Runner
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.errors import ForeignPlan, InferenceError, PlanError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.spec import EngineSpec, Precision, Target

GPU = EngineSpec(target=Target("gpu"))
SIGNATURE = Signature("images", "output0", Layout.RAW, 4, (64, 64), True, False, 32, tiny.NAMES)
STATIC = replace(SIGNATURE, batch=1, dynamic_batch=False)


def opened(simulation: Simulation, signature: Signature = SIGNATURE, graph: bytes | None = None) -> Runner:
    graph = tiny.network(64, batch=None if signature.dynamic_batch else signature.batch) if graph is None else graph
    return TensorRT().load(simulation.plan({"dla": False}, graph), signature, GPU)


def pooled() -> bytes:
    """A network of any size: each 32 x 32 cell's average colour, twice, as (N, 6, cells)."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[32, 32], strides=[32, 32]),
        helper.make_node("Concat", ["pooled", "pooled"], ["twice"], axis=1),
        helper.make_node("Reshape", ["twice", "shape"], ["output0"]),
    ]
    shape = numpy_helper.from_array(np.array([0, 6, -1], np.int64), "shape")
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"]),
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["n", 6, "cells"]),
    ]
    graph = helper.make_graph(nodes, "pooled", ends[:1], ends[1:], [shape])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("version", LISTINGS)
def test_a_batch_of_any_size_up_to_the_largest_is_answered(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    simulation = Simulation(version)
    gpu = install(monkeypatch, simulation)
    images = [tiny.blob(tiny.scene(64, 2, seed).image) for seed in range(4)]
    runner = opened(simulation)
    for count in (4, 1, 3):
        found = runner.infer(np.concatenate(images[:count])).copy()
        assert found.shape == (count, 6, 4)
        for index in range(count):
            assert_near(found[index], runner.infer(images[index])[0])
    runner.close()
    runner.close()
    assert gpu.held == {}
    assert gpu.streams == set()


def test_a_fixed_batch_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    # The plan says so, whatever the graph it was made from allows: a build for a DLA fixes the batch.
    plan = simulation.plan({"dla": False}, tiny.network(64, batch=4))
    runner = TensorRT().load(plan, replace(SIGNATURE, dynamic_batch=True), GPU)
    images = np.concatenate([tiny.blob(tiny.scene(64, 2, seed).image) for seed in range(4)])
    full = runner.infer(images).copy()
    assert runner.infer(images[:1]).shape == (1, 6, 4)
    assert_near(runner.infer(images[:3]), full[:3])
    assert simulation.set_to("input_shape") == [(4, 3, 64, 64)]
    runner.close()


def test_addresses_are_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    runner = opened(simulation)
    for count in (1, 2, 4):
        runner.infer(np.zeros((count, 3, 64, 64), np.float32))
    assert simulation.set_to("address") == ["images", "output0"]
    runner.close()


def test_the_last_answer_but_one_stays_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    runner = opened(simulation, STATIC)
    images = [tiny.blob(tiny.scene(64, 2, seed).image) for seed in range(2)]
    first = runner.infer(images[0])
    kept = first.copy()
    second = runner.infer(images[1])
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    runner.close()


def test_smaller_images_run_where_sizes_are_dynamic(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    runner = opened(simulation, replace(SIGNATURE, dynamic_size=True), pooled())
    images = np.random.default_rng(0).random((2, 3, 32, 64), np.float32)
    expected = images.reshape(2, 3, 32, 2, 32).mean((2, 4))
    assert_near(runner.infer(images), np.concatenate([expected, expected], 1))
    assert runner.infer(np.zeros((4, 3, 64, 64), np.float32)).shape == (4, 6, 4)
    runner.close()


def test_sizes_up_to_the_largest_run_and_the_plan_is_warm_at_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    gpu = install(monkeypatch, simulation)
    runner = opened(simulation, replace(SIGNATURE, dynamic_size=True, largest_hw=(96, 128)), pooled())
    assert simulation.set_to("input_shape") == [(4, 3, 96, 128), (4, 3, 64, 64)]
    held = dict(gpu.held)
    images = np.random.default_rng(0).random((4, 3, 96, 128), np.float32)
    expected = images.reshape(4, 3, 3, 32, 4, 32).mean((3, 5)).reshape(4, 3, 12)
    assert_near(runner.infer(images), np.concatenate([expected, expected], 1))
    assert runner.infer(np.zeros((1, 3, 32, 128), np.float32)).shape == (1, 6, 4)
    assert gpu.held == held, "memory is taken once"
    with pytest.raises(InferenceError, match="128x128 pixels, the engine takes 96x128 or less by 32"):
        runner.infer(np.zeros((1, 3, 128, 128), np.float32))
    runner.close()
    assert gpu.held == {}


@pytest.mark.parametrize(
    ("shape", "dynamic", "reason"),
    [
        ((5, 3, 64, 64), False, "5 images, the engine takes 1 to 4; .*raise .* batch"),
        ((0, 3, 64, 64), False, "0 images"),
        ((1, 3, 32, 64), False, "32x64 pixels, the engine takes 64x64$"),
        ((1, 3, 40, 64), True, "40x64 pixels, the engine takes 64x64 or less by 32"),
        ((1, 3, 96, 64), True, "96x64 pixels"),
        ((1, 3, 0, 64), True, "0x64 pixels"),
        ((3, 64, 64), False, "is not"),
        ((1, 4, 64, 64), False, "is not"),
    ],
)
def test_a_batch_it_was_not_built_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dynamic: bool, reason: str
) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    runner = opened(simulation, replace(SIGNATURE, dynamic_size=dynamic), pooled() if dynamic else None)
    with pytest.raises(InferenceError, match=reason):
        runner.infer(np.zeros(shape, np.float32))
    runner.close()
    with pytest.raises(InferenceError, match="closed"):
        runner.infer(np.zeros((1, 3, 64, 64), np.float32))


def test_a_plan_of_another_release_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Simulation("10.3.0").plan({"dla": False}, tiny.network(64))
    for version, named in (("10.16.1", "TensorRT 10.16.1"), ("rtx-1.7.1", "TensorRT-RTX 1.7.1")):
        gpu = install(monkeypatch, Simulation(version))
        with pytest.raises(ForeignPlan, match=rf"built by TensorRT 10\.3\.0\.26, this device has {named}; rebuild"):
            TensorRT().load(plan, STATIC, GPU)
        assert gpu.held == {}


def test_a_plan_the_library_refuses_gives_the_library_s_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    gpu = install(monkeypatch, simulation)
    reason = "The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.6"
    with pytest.raises(PlanError, match=f"refuses the plan: {reason}"):
        TensorRT().load(simulation.plan({"dla": False, "refused": reason}, b""), STATIC, GPU)
    assert (gpu.held, gpu.streams) == ({}, set())


def test_want_of_memory_is_no_fault_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is called damaged is put away and built anew, for hours."""
    simulation = Simulation("10.3.0")
    gpu = install(monkeypatch, simulation)
    reason = "Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(InferenceError, match=r"cannot load the plan: .*out of memory.*free memory of the GPU"):
        TensorRT().load(simulation.plan({"dla": False, "refused": reason}, b""), STATIC, GPU)
    assert (gpu.held, gpu.streams) == ({}, set())


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (replace(STATIC, output_name="boxes"), "tensors are images, output0, not images and boxes"),
        (replace(STATIC, input_name="x"), "not x and output0"),
        (replace(STATIC, class_names=("person",)), r"shape \(1, 6, 4\), its signature says 5 rows"),
    ],
)
def test_a_plan_of_another_network_is_refused_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, signature: Signature, reason: str
) -> None:
    simulation = Simulation("10.3.0")
    gpu = install(monkeypatch, simulation)
    with pytest.raises(PlanError, match=reason):
        opened(simulation, signature)
    assert (gpu.held, gpu.streams) == ({}, set())


def test_too_little_memory_on_loading_is_said_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    gpu = install(monkeypatch, simulation, CudaStandIn(memory_bytes=50_000))
    with pytest.raises(
        InferenceError,
        match=r"CUDA refused cudaHostAlloc: .*cudaErrorMemoryAllocation, error 2.*free memory of the GPU",
    ):
        opened(simulation, STATIC)
    assert (gpu.held, gpu.streams) == ({}, set())


def test_a_call_the_library_refuses_raises_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    runner = opened(simulation, STATIC)
    monkeypatch.setattr(simulation.module.IExecutionContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(InferenceError, match="TensorRT refused to run"):
        runner.infer(np.zeros((1, 3, 64, 64), np.float32))
    runner.close()


def test_what_an_earlier_call_logged_is_not_the_reason_of_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    runner = opened(simulation, STATIC)
    log = runner._runtime._sim_logger.log  # type: ignore[attr-defined]
    said = ["misaligned address"]

    def refuse(*_: object) -> bool:
        for message in said:
            log(simulation.module.ILogger.ERROR, message)
        return False

    monkeypatch.setattr(simulation.module.IExecutionContext, "execute_async_v3", refuse)
    for reason in ("misaligned address", "the library gave no reason"):
        with pytest.raises(InferenceError, match=f"TensorRT refused to run: {reason}"):
            runner.infer(np.zeros((1, 3, 64, 64), np.float32))
        said.clear()
    runner.close()


def test_the_dla_core_is_set_before_the_plan_is_deserialised(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=2)
    install(monkeypatch, simulation)
    spec = EngineSpec(target=Target("dla", 1), precision=Precision.FP16)
    runner = TensorRT().load(simulation.plan({"dla": True}, tiny.network(64)), STATIC, spec)
    assert simulation.set_to("deserialised_for_core") == [1]
    runner.close()
