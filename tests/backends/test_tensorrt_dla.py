"""Placement on a DLA core against the stand-ins: what is asked, set and reported, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from backends.trt_simulation import MEMORY_ERROR, Simulation, install, quantized
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.backends.base import Built, Int8Graph
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.backends.tensorrt.dla import loadables
from vajra_edge.build import worker
from vajra_edge.errors import BuildError, OutOfMemory, UnsupportedSpec
from vajra_edge.graph.dla import ranges as dla_ranges
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.report import DlaInspected
from vajra_edge.plans.spec import EngineSpec, Precision, Target

SIGNATURE = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, ("person", "car"))


def network() -> bytes:
    """Four convolutions, one behind a softmax that only the GPU runs, and a reshape to the output."""
    random = np.random.default_rng(0)
    shapes = ((64, 3, 3, 3), (64, 64, 3, 3), (64, 64, 1, 1), (6, 64, 1, 1))
    weights = [random.standard_normal(shape, np.float32) for shape in shapes]
    constants = [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)]
    constants.append(numpy_helper.from_array(np.array([1, 6, -1], np.int64), "shape"))
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["a"], ["a_gate"]),
        helper.make_node("Mul", ["a", "a_gate"], ["a_silu"]),
        helper.make_node("Conv", ["a_silu", "w1"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["e"], axis=1),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Conv", ["f", "w3"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["output0"]),
    ]
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64]),
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 1024]),
    ]
    graph = helper.make_graph(nodes, "islands", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def built(simulation: Simulation, precision: Precision, graph: bytes | None = None, core: int = 0) -> Built:
    spec = EngineSpec(target=Target("dla", core), precision=precision)
    return TensorRT().build(network() if graph is None else graph, SIGNATURE, spec, lambda _: None)


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1", "11.4.0"])
def test_the_best_region_goes_to_the_core_and_the_rest_to_the_gpu(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    simulation = Simulation(version, dla_cores=2)
    install(monkeypatch, simulation)
    made = built(simulation, Precision.FP16, core=1)
    placed = [name.split("__")[0] for name in simulation.set_to("DLA")]
    assert placed == ["Conv", "Sigmoid", "Mul", "Conv", "Conv", "Add"]
    assert "GPU_FALLBACK" in simulation.set_to("flag")
    # Once for the probe, whose only layer must go there, and once for the network, whose layers go by name.
    assert [kind.name for kind in simulation.set_to("default_device_type")] == ["DLA", "GPU"]
    assert simulation.set_to("DLA_core") == [1, 1]
    assert all(size & (size - 1) == 0 for size in simulation.set_to("DLA_LOCAL_DRAM"))
    assert simulation.set_to("DLA_GLOBAL_DRAM") == [], "a loadable's weights have to fit: the library's 512 MiB"
    assert simulation.set_to("deserialised_for_core") == [1, 1]
    card = made.report.dla
    assert card.transitions == 2
    assert 0.9 < card.macs_share < 1
    assert "Softmax: approximate on DLA, so that it stays on the GPU" in card.left_on_gpu
    assert made.report.dla_inspected == DlaInspected(1, 3)
    assert made.report.tensorrt.typing == ("strong" if version == "11.4.0" else "weak")


CHOSEN = frozenset({"/model.0/conv/Conv", "/model.0/act/Mul", "/model.9/cv2/conv/Conv"})


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("{ForeignNode[/model.0/conv/Conv.../model.9/cv2/conv/Conv]}", "DLA", 1),
        ("{ForeignNode[/model.0/conv/Conv]}", "DLA", 1),
        ("{ForeignNode[PWN(PWN(/model.0/act/Sigmoid), /model.0/act/Mul) + scale.../model.8/m/Add]}", "DLA", 1),
        ("{ForeignNode[/model.0/conv/Conv.../model.9/cv2/conv/Conv]}", "Myelin", 0),
        ("{ForeignNode[/model.10/attn/MatMul.../model.22/Concat]}", "kgen", 0),
        ("{ForeignNode[/model.0/conv/Conv_1.../model.22/Concat]}", "kgen", 0),
        ("/model.0/conv/Conv", "CaskConvolution", 0),
    ],
)
def test_a_loadable_is_a_region_of_chosen_layers_that_myelin_did_not_make(name: str, kind: str, count: int) -> None:
    assert (
        loadables([{"Name": name, "LayerType": kind}, {"Name": "images to nvm", "LayerType": "NoOp"}], CHOSEN) == count
    )


def test_a_plan_too_large_to_be_loaded_after_its_build_is_built_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1, load_errors=["[allocator.cpp] Error Code 1: out of memory"])
    install(monkeypatch, simulation)
    made = built(simulation, Precision.FP16)
    assert len(made.report.tensorrt.attempts) == 2
    assert made.report.dla_inspected == DlaInspected(1, 3)


def test_a_plan_that_does_not_load_after_its_build_gives_the_library_s_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1, load_errors=["Serialization assertion failed"])
    install(monkeypatch, simulation)
    with pytest.raises(BuildError, match="cannot load the plan just built: Serialization assertion failed"):
        built(simulation, Precision.FP16)


def test_an_open_batch_is_fixed_for_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1)
    install(monkeypatch, simulation)
    graph = onnx.load_model_from_string(network())
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    made = built(simulation, Precision.FP16, graph.SerializeToString())
    assert made.report.tensorrt.shapes is None
    assert made.report.dla.nodes_on_dla == 6


def test_what_the_device_s_own_compiler_refuses_stays_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1, dla_refuses=frozenset({"Sigmoid"}))
    install(monkeypatch, simulation)
    made = built(simulation, Precision.FP16)
    assert [name.split("__")[0] for name in simulation.set_to("DLA")] == ["Mul", "Conv", "Conv", "Add"]
    assert "this device's own DLA compiler refuses it" in made.report.dla.left_on_gpu


def ranges(graph: bytes) -> bytes:
    names = ("images", "a", "a_silu", "b", "c", "d", "e", "f", "g")
    return dla_ranges.attach(graph, {name: float(index + 1) for index, name in enumerate(names)})


def test_int8_before_11_sets_a_range_for_every_tensor_and_takes_the_gpu_s_back(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1)
    install(monkeypatch, simulation)
    built(simulation, Precision.INT8, ranges(network()))
    given = {name: high for name, low, high in simulation.set_to("range") if low == -high}
    assert given == {
        "images": 1.0,
        "a": 2.0,
        "a_gate": 1.0,
        "a_silu": 3.0,
        "b": 5.0,  # the operands of an addition share the larger
        "c": 5.0,
        "d": 6.0,
        "e": 7.0,
        "f": 8.0,
        "g": 9.0,
    }
    assert set(simulation.set_to("reset_range")) == {"e", "f", "g"}
    assert {"INT8", "FP16"} <= set(simulation.set_to("flag"))


def test_a_tensor_without_a_range_keeps_its_node_off_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1)
    install(monkeypatch, simulation)
    graph = dla_ranges.attach(network(), {"images": 1.0, "a": 1.0, "a_silu": 1.0, "b": 1.0})
    made = built(simulation, Precision.INT8, graph)
    assert [name.split("__")[0] for name in simulation.set_to("DLA")] == ["Conv", "Sigmoid", "Mul", "Conv", "Conv"]
    assert "a tensor of it has no calibration range" in made.report.dla.left_on_gpu


@pytest.mark.parametrize(("graph", "has"), [(quantized(network()), "Q/DQ nodes"), (network(), "no ranges")])
def test_int8_before_11_needs_ranges_and_no_qdq(monkeypatch: pytest.MonkeyPatch, graph: bytes, has: str) -> None:
    simulation = Simulation("10.3.0", dla_cores=1)
    install(monkeypatch, simulation)
    assert TensorRT().int8_graph(EngineSpec(target=Target("dla"), precision=Precision.INT8)) is Int8Graph.RANGES
    with pytest.raises(UnsupportedSpec, match=f"this one has {has}"):
        built(simulation, Precision.INT8, graph)


def test_int8_from_11_takes_qdq(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("11.4.0", dla_cores=1)
    install(monkeypatch, simulation)
    assert TensorRT().int8_graph(EngineSpec(target=Target("dla"), precision=Precision.INT8)) is Int8Graph.QDQ
    made = built(simulation, Precision.INT8, quantized(network()))
    assert made.report.tensorrt.typing == "strong"
    assert simulation.set_to("range") == []
    assert any(name.startswith("Conv") for name in simulation.set_to("DLA"))


@pytest.mark.parametrize(
    ("simulation", "reason"),
    [
        (Simulation("10.3.0", dla_cores=0), r"sees no DLA core here .*set \[engine\] target = gpu:0"),
        (Simulation("10.3.0", dla_cores=1), r"has 1 DLA cores, no dla:1; set \[engine\] target = dla:0"),
        (
            Simulation("10.3.0", dla_cores=2, dla_builds=False),
            "is counted but does nothing: a single convolution does not build for it: cannot load libnvdla_compiler",
        ),
        (
            Simulation("11.4.0", dla_cores=2, dla_idle=True),
            r"is counted but does nothing: .*convolution falls back to the GPU; set .* target = gpu:0, or install",
        ),
        (
            Simulation("10.3.0", dla_cores=2, dla_refuses=frozenset({"Conv"})),
            "is counted but does nothing: .*convolution is refused",
        ),
        (
            Simulation("10.3.0", dla_cores=2, dla_refuses=frozenset({"Mul", "Add", "Sigmoid"}), drops_dla=True),
            "put nothing on",
        ),
    ],
)
def test_a_core_that_is_not_there_or_does_not_work_is_said_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, simulation: Simulation, reason: str
) -> None:
    install(monkeypatch, simulation)
    with pytest.raises(UnsupportedSpec, match=reason):
        built(simulation, Precision.FP16, core=1)


def test_a_network_without_anything_for_the_core_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1)
    install(monkeypatch, simulation)
    node = helper.make_node("Reshape", ["images", "shape"], ["output0"])
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64]),
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 2048]),
    ]
    shape = numpy_helper.from_array(np.array([1, 6, -1], np.int64), "shape")
    graph = helper.make_model(helper.make_graph([node], "none", ends[:1], ends[1:], [shape]))
    with pytest.raises(UnsupportedSpec, match="no part of this network can run on dla:0: box arithmetic"):
        built(simulation, Precision.FP16, graph.SerializeToString())


def test_want_of_memory_while_looking_for_a_core_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1)
    install(monkeypatch, simulation)

    def nothing(self: object, logger: object) -> None:
        logger.log(simulation.module.ILogger.ERROR, MEMORY_ERROR)  # type: ignore[attr-defined]
        raise TypeError("pybind11::init(): factory function returned nullptr")

    asked = EngineSpec(target=Target("dla"), precision=Precision.FP16)
    with monkeypatch.context() as short:
        short.setattr(simulation.module.Runtime, "__init__", nothing)
        refused = TensorRT().check(asked)
        assert isinstance(refused, OutOfMemory)
        assert not worker._permanent(refused)
    assert TensorRT().check(asked) is None


def test_want_of_memory_while_a_core_is_tried_out_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", dla_cores=1, probe_memory_failures=1)
    install(monkeypatch, simulation)
    with pytest.raises(OutOfMemory, match="not enough memory to try out dla:0"):
        built(simulation, Precision.FP16)
    assert built(simulation, Precision.FP16).plan
