"""NVIDIA's real parser and builder, on a CPU: TensorRT-RTX builds for a GPU that is not here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import yolo
from backends.trt_simulation import quantized
from numpy.typing import NDArray
from onnx import numpy_helper

from vajra_edge.backends import cuda
from vajra_edge.backends.tensorrt import library
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.backends.tensorrt.calibration_engine import measure, observer
from vajra_edge.errors import BackendUnavailable, BuildCancelled, GraphError, InferenceError, UnsupportedSpec
from vajra_edge.graph import signature
from vajra_edge.graph.passes import nms
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.engine_file import EngineFile, plan_header, read, write
from vajra_edge.plans.report import Shapes
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.progress import Progress

pytestmark = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in library.MODULES), reason="absent here: TensorRT-RTX"
)

SPEC = EngineSpec(target=Target("gpu"))
SIGNATURE = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, tiny.NAMES)


class Noise:
    """A calibration set of one picture."""

    digest = "d"

    def __len__(self) -> int:
        return 1

    def inputs(self, input_hw: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
        yield yolo.images(1)


@pytest.fixture(autouse=True)
def _real_library() -> None:
    library.load.cache_clear()


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("with_nms", [False, True])
def test_a_small_network_becomes_a_plan_in_every_precision(precision: Precision, with_nms: bool) -> None:
    graph = tiny.network(64, batch=None)
    graph = quantized(graph) if precision is Precision.INT8 else graph
    signature = replace(SIGNATURE, batch=4, dynamic_batch=True)
    if with_nms:
        spec = NmsSpec(max_det=3, top_k=4)
        graph = nms.add_nms(graph, spec)
        signature = replace(signature, output_name="detections", layout=Layout.DETECTIONS, max_det=3, top_k=4)
    seen: list[Progress] = []
    made = TensorRT().build(graph, signature, replace(SPEC, precision=precision), seen.append)
    assert str(plan_header(made.plan)) == str(library.load())
    assert made.report.tensorrt.compute_capability == "8.6" or cuda.count()
    assert made.report.tensorrt.shapes == Shapes((1, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64))
    assert [step.percent for step in seen if step.percent is not None][-1] == 100


def test_a_trained_network_becomes_a_plan_with_an_upstream_header(shared_data: Path, tmp_path: Path) -> None:
    nano = (shared_data / "models" / "vajra-v1-nano-det-cctv.onnx").read_bytes()
    signature = replace(SIGNATURE, resolution_hw=(640, 640))
    seen: list[Progress] = []
    made = TensorRT(tmp_path).build(nano, signature, replace(SPEC, precision=Precision.FP16), seen.append)
    assert len(made.plan) < len(nano)
    assert len(seen) > 20
    assert seen[-1].percent == 100
    path = tmp_path / "nano.engine"
    write(path, EngineFile({"names": {"0": "person"}, "stride": 32}, made.plan))
    assert read(path).plan == made.plan


def test_a_cancelled_build_stops_early() -> None:
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        if (progress.percent or 0) > 5:
            raise BuildCancelled("somebody asked")

    with pytest.raises(BuildCancelled, match="somebody asked"):
        TensorRT().build(tiny.network(64), SIGNATURE, SPEC, stop)
    assert (told[-1].percent or 0) < 50


def test_a_broken_graph_names_its_node() -> None:
    graph = onnx.load_model_from_string(tiny.network(64))
    layer = graph.graph.node[2]
    weights = next(entry for entry in graph.graph.initializer if entry.name == layer.input[1])
    layer.name = "/neck/conv"
    weights.CopyFrom(numpy_helper.from_array(np.zeros((3, 5, 2, 2), np.float32), weights.name))
    with pytest.raises(GraphError, match=r"cannot read this graph at node /neck/conv \(Conv\): .*") as raised:
        TensorRT().build(graph.SerializeToString(), SIGNATURE, SPEC, lambda _: None)
    assert "\n" not in str(raised.value)


def test_an_input_of_another_name_is_refused() -> None:
    signature = replace(SIGNATURE, input_name="x", batch=2, dynamic_batch=True)
    with pytest.raises(GraphError, match="the graph's inputs are images, not x"):
        TensorRT().build(tiny.network(64, batch=None), signature, SPEC, lambda _: None)


@pytest.mark.skipif(cuda.count() > 0, reason="absent here: a machine without a GPU")
def test_without_a_gpu_a_plan_is_built_and_not_run() -> None:
    backend = TensorRT()
    assert backend.check(SPEC) is None
    assert "CUDA" in str(backend.cannot_run(SPEC))
    made = backend.build(tiny.network(64), SIGNATURE, SPEC, lambda _: None)
    with pytest.raises(BackendUnavailable, match="cannot run plans here: CUDA"):
        backend.load(made.plan, SIGNATURE, SPEC)
    with pytest.raises(UnsupportedSpec, match="sees no DLA core"):
        backend.build(tiny.network(64), SIGNATURE, EngineSpec(Target("dla"), Precision.FP16), lambda _: None)


@pytest.mark.skipif(cuda.count() > 0, reason="absent here: a machine without a GPU")
@pytest.mark.parametrize("with_nms", [False, True])
def test_without_a_gpu_a_calibration_engine_is_built_and_not_run(with_nms: bool) -> None:
    graph = yolo.network(batch=None)
    read = replace(SIGNATURE, batch=2, dynamic_batch=True, stride=8)
    if with_nms:
        spec = NmsSpec(max_det=3, top_k=4)
        graph = nms.add_nms(graph, spec)
        read = replace(read, output_name="detections", layout=Layout.DETECTIONS, max_det=3, top_k=4)
    seen: list[Progress] = []
    with pytest.raises((BackendUnavailable, InferenceError), match="CUDA"):
        measure(TensorRT(), SPEC, graph, read, Noise(), seen.append)
    assert {step.stage for step in seen} == {"calibrate"}
    assert seen[-1].message.startswith("calibration engine: ")


@pytest.mark.skipif(cuda.count() > 0, reason="absent here: a machine without a GPU")
def test_without_a_gpu_onnx_runtime_measures_the_ranges() -> None:
    graph = yolo.network()
    ranges = observer(TensorRT(), SPEC)(graph, signature.read(graph), Noise(), "minmax", lambda _: None, 1)
    assert "on the CPU, not TensorRT: CUDA" in ranges.collector
    assert ranges.tensors["images"].high > 0
