"""NVIDIA's real parser and builder on the networks that users have: every precision, open and fixed shapes, NMS."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest
from checkpoints import random_network, save, stripped

from vajra_edge.backends import cuda
from vajra_edge.backends.tensorrt import library
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.graph import export
from vajra_edge.graph.assemble import assemble
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.engine_file import plan_header
from vajra_edge.plans.report import Shapes
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.progress import Progress
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.ptq import Calibration, prepare_int8

pytestmark = [
    pytest.mark.skipif(
        not any(importlib.util.find_spec(name) for name in library.MODULES), reason="absent here: TensorRT-RTX"
    ),
]

SMALL = pytest.mark.long("twelve builds of a network thrice the size take minutes; nano and YOLOX are built always")

HW = (640, 640)
MOST = 4
"""Batch of the networks whose shape is open."""


class Shelf:
    """The networks, each exported once."""

    def __init__(self, shared_data: Path, folder: Path) -> None:
        self.models = shared_data / "models"
        self.images = shared_data / "images" / "coco128"
        self.folder = folder
        self.onnx_bytes = functools.cache(self._onnx_bytes)

    def _onnx_bytes(self, name: str, dynamic: bool) -> bytes:
        if name == "yolox":
            return (self.models / "yolox_nano_v8layout.onnx").read_bytes()
        if name == "nano" and not dynamic:
            return (self.models / "vajra-v1-nano-det-cctv.onnx").read_bytes()
        pytest.importorskip("torch", reason="absent here: torch")
        weights = self.models / "vajra-v1-nano-det-cctv.pt"
        if name == "small":
            weights = self.folder / "small.pt"
            save(stripped(random_network(size="small")), weights)
        return export.from_checkpoint(weights, resolution_hw=HW, batch=MOST if dynamic else 1, dynamic=dynamic)


@pytest.fixture(scope="module")
def shelf(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(shared_data, tmp_path_factory.mktemp("networks"))


@pytest.fixture(autouse=True)
def _real_library() -> None:
    library.load.cache_clear()


def in_int8(graph: bytes, signature: Signature, images: Path) -> bytes:
    """By the static rules on two photos: what is built is shown here, not what is accurate."""
    few = CalibrationSet.collect(images, most=2)
    quantized, told = prepare_int8(graph, signature, Calibration(few, search=False), lambda _: None)
    assert told.share > 0.9
    return quantized


@pytest.mark.parametrize("with_nms", [False, True], ids=["raw", "nms"])
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        ("nano", False),
        ("nano", True),
        ("yolox", False),
        pytest.param("small", False, marks=SMALL),
        pytest.param("small", True, marks=SMALL),
    ],
)
def test_a_network_becomes_a_plan(shelf: Shelf, name: str, dynamic: bool, precision: Precision, with_nms: bool) -> None:
    spec = EngineSpec(
        Target("gpu"),
        precision,
        batch=MOST if dynamic else 1,
        dynamic=dynamic,
        nms=NmsSpec() if with_nms else None,
        optimization_level=0,
    )
    graph, signature = assemble(shelf.onnx_bytes(name, dynamic), spec)
    if precision is Precision.INT8:
        graph = in_int8(graph, signature, shelf.images)
    seen: list[Progress] = []
    made = TensorRT().build(graph, signature, spec, seen.append)
    assert str(plan_header(made.plan)) == str(library.load())
    assert (made.precision, made.report.tensorrt.typing) == (precision, "strong")
    assert made.report.tensorrt.compute_capability == "8.6" or cuda.count()
    most = (MOST, 3, *HW)
    shapes = Shapes((1, 3, 32, 32), most, most) if dynamic else None
    assert made.report.tensorrt.shapes == shapes
    percents = [step.percent for step in seen if step.percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len(percents) > 10
