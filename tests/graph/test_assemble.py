from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import tiny
from near import assert_near

from vajra_edge.backends import onnxruntime
from vajra_edge.errors import GraphError
from vajra_edge.graph import signature
from vajra_edge.graph.assemble import assemble
from vajra_edge.graph.passes import nms
from vajra_edge.graph.signature import Layout
from vajra_edge.heads.detect import rows_of_detections
from vajra_edge.plans.spec import EngineSpec, NmsSpec

SMALL = NmsSpec(max_det=20, top_k=30)


def test_nms_is_added_and_the_graph_simplified():
    graph, made = assemble(tiny.network(), EngineSpec(nms=SMALL))
    assert (made.layout, made.max_det, made.top_k, made.class_names) == (Layout.DETECTIONS, 20, 30, tiny.NAMES)
    scene = tiny.scene()
    rows = rows_of_detections(onnxruntime.reference(graph, made).infer(tiny.blob(scene.image))[0], 0.5)
    assert len(rows) == len(scene.xyxy)


def test_without_nms_the_upstream_layout_stays():
    _, made = assemble(tiny.network(), EngineSpec(nms=None, simplify=False))
    assert made.layout is Layout.RAW


def test_names_and_stride_of_the_settings_are_written_into_the_graph():
    graph, made = assemble(
        tiny.network(metadata=False), EngineSpec(nms=SMALL), class_names=("Fußgänger", "car"), stride=32
    )
    assert (made.class_names, made.stride) == (("Fußgänger", "car"), 32)
    again, remade = assemble(graph, EngineSpec(nms=SMALL))
    assert remade == made
    assert onnx.load_from_string(again).metadata_props


def test_names_of_the_settings_override_those_of_the_file():
    _, made = assemble(tiny.network(), EngineSpec(nms=SMALL), class_names=("a", "b"))
    assert made.class_names == ("a", "b")


def test_a_dynamic_batch_takes_what_is_asked_for():
    graph, made = assemble(tiny.network(batch=None), EngineSpec(nms=SMALL, batch=3))
    assert (made.batch, made.dynamic_batch) == (3, True)
    blobs = np.concatenate([tiny.blob(tiny.scene(seed=seed).image) for seed in range(3)])
    assert onnxruntime.reference(graph, made).infer(blobs).shape == (3, 20, 6)


def unit_of(graph: bytes) -> float:
    tensors = onnx.load_from_string(graph).graph.initializer
    return next(float(onnx.numpy_helper.to_array(one)) for one in tensors if one.name == "/nms/unit")


def test_nms_counts_areas_in_a_unit_for_the_largest_size_that_may_come():
    network = tiny.network(batch=None, open_size=True)
    asked = EngineSpec(nms=SMALL, resolution_hw=(128, 128), dynamic=True, simplify=False)
    graph, made = assemble(network, asked)
    large, larger = assemble(network, replace(asked, largest_hw=(512, 512)))
    assert (made.most_hw, larger.most_hw) == ((128, 128), (512, 512))
    assert unit_of(graph) == 4 * unit_of(large)
    assert assemble(tiny.network(), EngineSpec(nms=SMALL, largest_hw=(512, 512)))[1].largest_hw is None, "it is fixed"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EngineSpec(resolution_hw=(320, 320)), r"fixed to 256x256 \(height x width\), 320x320 is asked for; unset"),
        (EngineSpec(batch=4), r"fixed to batch 1, 4 is asked for; set \[engine\] batch = 1"),
    ],
)
def test_a_file_with_fixed_shapes_is_refused_with_what_to_set(spec: EngineSpec, message: str):
    with pytest.raises(GraphError, match=message):
        assemble(tiny.network(), spec)


@pytest.mark.parametrize(("of_the_file", "asked", "largest"), [(4, None, 4), (4, 4, 4), (None, None, 1), (None, 8, 8)])
def test_a_batch_that_is_not_asked_for_is_that_of_the_file(of_the_file: int | None, asked: int | None, largest: int):
    assert assemble(tiny.network(batch=of_the_file), EngineSpec(batch=asked))[1].batch == largest


def test_a_size_that_is_asked_for_is_all_that_a_file_of_open_sizes_needs_without_metadata():
    network = tiny.network(batch=None, open_size=True, metadata=False)
    graph, made = assemble(
        network, EngineSpec(nms=SMALL, resolution_hw=(128, 96)), class_names=("a", "b"), stride=tiny.STRIDE
    )
    assert made.resolution_hw == (128, 96)
    assert signature.read(graph).resolution_hw == (128, 96)


def test_a_file_that_holds_other_nms_is_refused():
    with_nms = nms.add_nms(tiny.network(), SMALL)
    with pytest.raises(GraphError, match=r"holds NMS with iou, max_det, top_k = \(0.7, 20, 30\)"):
        assemble(with_nms, EngineSpec(nms=NmsSpec(iou=0.5, max_det=20, top_k=30)))


@pytest.mark.parametrize("simplified", [True, False])
@pytest.mark.parametrize("batch", [1, None])
def test_nms_of_a_file_is_taken_out_where_it_is_to_happen_outside(batch: int | None, simplified: bool):
    plain = tiny.network(batch=batch)
    inside, _ = assemble(plain, EngineSpec(nms=SMALL, simplify=simplified))
    graph, made = assemble(inside, EngineSpec(nms=None))
    assert (made.layout, made.nms_iou, made.class_names) == (Layout.RAW, None, tiny.NAMES)
    before, known = assemble(plain, EngineSpec(nms=None))
    blob = tiny.blob(tiny.scene().image)
    expected = onnxruntime.reference(before, known).infer(blob)
    assert_near(onnxruntime.reference(graph, made).infer(blob), expected)
