"""What cells make of answers, without a GPU."""

from __future__ import annotations

import enum
import multiprocessing
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "backends")]

import cells_matrix  # noqa: E402
import cells_pins  # noqa: E402
import cells_small  # noqa: E402
import lab  # noqa: E402
from cells_small import Verdict  # noqa: E402
from cuda_standin import CudaStandIn, cudaError_t  # noqa: E402

from vajra_edge.backends.tensorrt import limits  # noqa: E402
from vajra_edge.graph.passes import fp16  # noqa: E402
from vajra_edge.graph.signature import Layout, Signature  # noqa: E402
from vajra_edge.graph.topology import Wiring  # noqa: E402
from vajra_edge.tasks.arguments import ExportArguments  # noqa: E402


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
    memory = limits.Memory(8 << 30, 4 << 30)
    with lab.effort(0):
        assert limits.limits(memory, None, 3).optimization_level == 0
        assert limits.limits(memory, None, 3).max_tactics == lab.FEW_TACTICS
    with lab.of_level(3):
        assert limits.limits(memory, None, 1).optimization_level == 3
        assert limits.limits(memory, None, 1).max_tactics is None
    assert limits.limits(memory, None, 3).optimization_level == 3


def test_an_answer_that_differs_from_the_record_is_told_with_both():
    first, second = cells_small.recorded()[:2]
    same = Verdict(first["case"], first["built"], first["accepted"], 0.1)
    other = Verdict(second["case"], second["built"], not second["accepted"], 0.1, ("no kernel",))
    found = cells_small.compared([same, other], asked=3)
    assert (found.agree, found.missing) == (1, 1)
    assert len(found.differ) == 1
    assert found.differ[0].startswith(f"{second['built']}: {second['case']}: recorded {second['accepted']}")
    assert "no kernel" in found.differ[0]


class Graphs:
    """The calls for graphs, which the product does not make."""

    class cudaStreamCaptureMode(enum.IntEnum):  # noqa: N801  CUDA's own name
        cudaStreamCaptureModeThreadLocal = 1  # noqa: N815

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.said.append(name)
        made = (7,) if name in {"cudaStreamEndCapture", "cudaGraphInstantiate"} else ()
        return lambda *_: (cudaError_t.cudaSuccess, *made)


class Mode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class Engine:
    """One open input and one output."""

    num_io_tensors = 2

    def get_tensor_name(self, index):
        return ("images", "output0")[index]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name == "images" else Mode.OUTPUT

    def get_tensor_profile_shape(self, name, profile):
        return (1, 3, 32, 32), (2, 3, 64, 64), (4, 3, 128, 128)


class Context:
    def __init__(self) -> None:
        self.shape, self.addresses, self.runs = (-1, 3, -1, -1), {}, 0

    def get_tensor_shape(self, name):
        return self.shape if name == "images" else (2, 84, 100)

    def set_input_shape(self, name, shape):
        self.shape = shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        self.runs += 1
        return True


def test_an_engine_is_timed_plain_and_as_a_graph_at_its_best_shape_and_everything_is_given_back(monkeypatch):
    standin, graphs, context = CudaStandIn(), Graphs(), Context()
    library = SimpleNamespace(trt=SimpleNamespace(TensorIOMode=Mode))
    standin.install(monkeypatch)
    monkeypatch.setattr(lab, "graph_calls", lambda: graphs)
    monkeypatch.setattr(lab.tensorrt_library, "load", lambda: library)
    monkeypatch.setattr(lab, "deserialise", lambda *_: (object(), Engine(), context))
    monkeypatch.setattr(lab, "dtype_of", lambda *_: np.dtype(np.float32))
    found = lab.bare(b"plan", seconds=0.0)
    assert context.shape == (2, 3, 64, 64)
    assert set(context.addresses) == {"images", "output0"}
    assert context.runs > 30
    assert graphs.said.count("cudaGraphLaunch") >= 50
    assert found.graph_median_ms <= found.graph_p95_ms
    assert not standin.held
    assert not standin.streams


def test_a_whole_frame_is_timed_by_the_products_detector(tmp_path, monkeypatch):
    made = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, ("person",))
    closed: list[bool] = []
    runner = SimpleNamespace(
        signature=made, infer=lambda _: np.zeros((1, 5, 84), np.float32), close=lambda: closed.append(True)
    )
    monkeypatch.setattr(lab, "frame_1080p", lambda _: np.zeros((1080, 1920, 3), np.uint8))
    found = lab.whole_frame(lab.Lab(tmp_path, tmp_path, tmp_path), runner, frames=5)
    assert closed == [True]
    assert found.p50_ms <= found.p99_ms
    assert found.boxes == 0


class Process:
    """A worker that answers one graph and dies at the second."""

    exitcode = 7

    def __init__(self, pipe) -> None:
        self._thread = threading.Thread(target=self._run, args=(pipe,))
        self._thread.start()

    def _run(self, pipe) -> None:
        case, built = pipe.recv()
        pipe.send({"case": case, "built": built, "accepted": True, "seconds": 0.0, "errors": ()})
        pipe.recv()
        pipe.close()

    def join(self) -> None:
        self._thread.join()

    def kill(self) -> None:
        raise AssertionError("it died by itself")


def test_a_graph_that_ends_its_process_is_answered_by_that_and_the_others_go_on(monkeypatch):
    def worker():
        here, there = multiprocessing.Pipe()
        return Process(there), here

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
    assert cells_pins.SETS["product"](wiring) == fp16.float32_nodes(wiring)
