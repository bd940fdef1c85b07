"""What cells make of answers, without a GPU."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import cells_matrix  # noqa: E402
import cells_pins  # noqa: E402
import cells_small  # noqa: E402
import lab  # noqa: E402
from cells_small import Verdict  # noqa: E402

from vajra_edge.engine import trt_memory  # noqa: E402
from vajra_edge.graph import half  # noqa: E402
from vajra_edge.graph.wiring import Wiring  # noqa: E402
from vajra_edge.offline.arguments import ExportArguments  # noqa: E402


def layer(kind: str, weights: str = "", count: int = 0, tensor: str = "FP16", side: int = 4) -> dict[str, object]:
    told: dict[str, object] = {
        "Name": kind,
        "LayerType": kind,
        "Inputs": [
            {"Name": "a", "Dimensions": [1, 8, side, side], "Format/Datatype": f"Channel major {tensor} format"}
        ],
        "Outputs": [{"Name": "b", "Dimensions": [1, 8, side, side], "Format/Datatype": "Row major linear FP16 format"}],
    }
    return told | ({"Weights": {"Type": weights, "Count": count}} if weights else {})


def test_the_int8_share_of_an_engine_is_that_of_its_multiply_adds():
    found = lab.inspected(
        [
            layer("CaskConvolution", "Int8", 300, "Int8", side=2),
            layer("CaskConvolution", "Half", 100, side=2),
            layer("Reformat", tensor="Int8"),
            layer("kgen"),
        ]
    )
    assert (found.layers, found.with_weights, found.int8_weights, found.int8_tensors) == (4, 2, 1, 2)
    assert found.int8_share == 0.75
    assert found.kinds == {"CaskConvolution": 2, "Reformat": 1, "kgen": 1}


def test_an_engine_that_lists_names_only_has_no_share():
    assert lab.inspected(["a", "b"]) == lab.Inspected(2, 0, 0, 0, None, {})


def test_builds_in_cells_are_of_the_level_asked_for_and_the_product_is_left_as_it_was():
    memory = trt_memory.Memory(8 << 30, 4 << 30)
    with lab.effort(0):
        assert trt_memory.limits(memory, None, 3).optimization_level == 0
        assert trt_memory.limits(memory, None, 3).max_tactics == lab.FEW_TACTICS
    with lab.of_level(3):
        assert trt_memory.limits(memory, None, 1).optimization_level == 3
        assert trt_memory.limits(memory, None, 1).max_tactics is None
    assert trt_memory.limits(memory, None, 3).optimization_level == 3


def test_an_answer_that_differs_from_the_record_is_told_with_both():
    first, second = cells_small.recorded()[:2]
    same = Verdict(first["case"], first["built"], first["accepted"], 0.1)
    other = Verdict(second["case"], second["built"], not second["accepted"], 0.1, ("no kernel",))
    found = cells_small.compared([same, other], asked=3)
    assert (found.agree, found.missing) == (1, 1)
    assert len(found.differ) == 1
    assert found.differ[0].startswith(f"{second['built']}: {second['case']}: recorded {second['accepted']}")
    assert "no kernel" in found.differ[0]


def _dies_at_the_second(pipe):
    import os

    for number in range(2):
        case, built = pipe.recv()
        if number:
            os._exit(7)
        pipe.send({"case": case, "built": built, "accepted": True, "seconds": 0.0, "errors": ()})


def test_a_graph_that_ends_its_process_is_answered_by_that_and_the_others_go_on(monkeypatch):
    import multiprocessing

    fork = multiprocessing.get_context("fork")

    def worker():
        here, there = fork.Pipe()
        process = fork.Process(target=_dies_at_the_second, args=(there,), daemon=True)
        process.start()
        there.close()
        return process, here

    monkeypatch.setattr(cells_small, "_worker", worker)
    due = [(f"case {number}", "strong") for number in range(4)]
    found = list(cells_small.answers(due, time.monotonic() + 30, workers=1))
    assert [one.case for one in found] == [case for case, _ in due]
    assert [one.accepted for one in found] == [True, None, True, None]
    assert "ended with 7" in found[1].errors[0]


def test_a_dynamic_export_is_compared_at_its_least_best_and_largest_size():
    assert cells_matrix.sizes(ExportArguments(img_size=320, dynamic=True)) == [(32, 32), (320, 320), (640, 640)]
    assert cells_matrix.sizes(ExportArguments(img_size=(320, 448))) == [(320, 448)]


@pytest.fixture
def wiring() -> Wiring:
    weight = numpy_helper.from_array(np.ones((8, 3, 1, 1), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["features"], "conv"),
        helper.make_node("Sigmoid", ["features"], ["scores"], "sigmoid"),
        helper.make_node("Mul", ["scores", "scores"], ["output0"], "mul"),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 4, 4))
    made = helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 8, 4, 4))
    return Wiring(
        onnx.shape_inference.infer_shapes(helper.make_model(helper.make_graph(nodes, "g", [given], [made], [weight])))
    )


def test_the_named_sets_of_pins(wiring):
    assert cells_pins.SETS["nothing"](wiring) == frozenset()
    assert cells_pins.SETS["region"](wiring) == {"scores", "output0"}
    assert cells_pins.SETS["product"](wiring) == half.float32_nodes(wiring)
