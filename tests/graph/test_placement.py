from __future__ import annotations

import numpy as np
import pytest
import yolo

from vajra_edge.graph.passes.qdq import Placement, place
from vajra_edge.graph.topology import Wiring, load


@pytest.fixture(scope="module")
def placed() -> Placement:
    return place(Wiring(load(yolo.network())))


def lone(*sizes: int, before: bool = False, **more: int) -> str | None:
    """The reason why a convolution with an ordinary one behind it stays high; None if it is quantized."""
    draft = yolo.Draft()
    source, first = "images", 3
    if before:
        source, first = draft.block("before", "images", 3, sizes[0], side=3), sizes[0]
    made = draft.block("asked", source, first, sizes[1], **more)
    draft.conv("output0", made, sizes[1], 4)
    return place(Wiring(load(draft.finish("output0", [4, 64, 64])))).high.get("asked")


def test_every_ordinary_layer_reads_int8(placed: Placement) -> None:
    assert {"stem", "down", "inner1", "inner2", "leave", "spread", "neck", "box1", "class2", "qkv"} <= placed.layers


def test_nothing_stands_between_a_layer_and_its_activation(placed: Placement) -> None:
    assert not [name for name in placed.reads if name.endswith("_gate") or name in placed.layers]


def test_of_a_residual_addition_only_the_shortcut_is_quantized(placed: Placement) -> None:
    assert "added" in placed.reads["halves1"]
    assert "added" in placed.shortcuts
    assert "inner2_silu" not in placed.reads


def test_a_shortcut_that_no_layer_reads_in_int8_stays_as_it_is() -> None:
    graph = Wiring(load(yolo.network()))
    assert "halves1" not in place(graph, {"inner1": "measured"}).reads


def test_a_shortcut_can_be_kept_high(placed: Placement) -> None:
    found = place(Wiring(load(yolo.network())), {"added": "measured"})
    assert "added" not in found.shortcuts
    assert found.reads["halves1"] == frozenset({"inner1"})
    assert found.layers == placed.layers


def test_a_constant_that_is_added_is_no_residual() -> None:
    draft = yolo.Draft()
    made = draft.block("one", "images", 3, 16, side=3)
    draft.node("Add", "moved", made, draft.constant("shift", np.ones((1, 16, 1, 1), np.float32)))
    draft.conv("output0", draft.block("two", "moved", 16, 16), 16, 4)
    assert place(Wiring(load(draft.finish("output0", [4, 64, 64])))).shortcuts == ()


def test_tensors_that_concat_joins_share_one_scale(placed: Placement) -> None:
    assert any({"joined", "leave_silu"} <= group for group in placed.shared)


def test_pooling_shares_the_scale_of_what_it_pools() -> None:
    draft = yolo.Draft()
    made = draft.block("one", "images", 3, 16, side=3)
    pooled = draft.node("MaxPool", "pooled", made, kernel_shape=[3, 3], pads=[1] * 4)
    draft.conv(
        "output0", draft.node("Add", "sum", draft.block("a", made, 16, 16), draft.block("b", pooled, 16, 16)), 16, 4
    )
    found = place(Wiring(load(draft.finish("output0", [4, 64, 64]))))
    assert found.shared == (frozenset({"one_silu", "pooled"}),)


def test_the_head_stays_high_with_the_reason(placed: Placement) -> None:
    assert "box arithmetic" in placed.high["reach"]
    assert all("last layer" in placed.high[name] for name in ("box_last", "class_last"))
    assert not {"chance", "bins_first", "scores", "box1_silu_dq"} & set(placed.reads)


def test_attention_products_and_softmax_stay_high(placed: Placement) -> None:
    assert not {"query_turned", "qkv_parts1", "attention", "attention_turned", "qkv_parts2"} & set(placed.reads)


def test_the_first_layer_is_quantized_although_it_has_three_channels() -> None:
    assert lone(3, 16, side=3) is None


@pytest.mark.parametrize("sizes", [(8, 8), (12, 12)])
def test_narrow_layers_stay_high(sizes: tuple[int, int]) -> None:
    assert "fewer than 16 channels" in str(lone(*sizes, before=True, side=3))


def test_a_narrow_layer_with_one_aligned_side_is_quantized() -> None:
    assert lone(16, 8, before=True, side=3) is None


def test_depthwise_layers_need_aligned_channels_and_a_kernel() -> None:
    assert lone(32, 32, before=True, side=3, group=32) is None
    assert "depthwise" in str(lone(20, 20, before=True, side=3, group=20))
    assert "depthwise" in str(lone(32, 32, before=True, side=1, group=32))


def test_small_products_stay_high() -> None:
    draft = yolo.Draft()
    flat = draft.reshape("rows", draft.block("one", "images", 3, 16, side=3), -1, 4096, 16)
    small = draft.node("MatMul", "small", flat, draft.constant("w1", np.ones((16, 8), np.float32)))
    large = draft.node("MatMul", "large", flat, draft.constant("w2", np.ones((16, 16), np.float32)))
    square = draft.reshape("square", draft.node("Concat", "both", small, large, axis=2), -1, 24, 64, 64)
    draft.conv("output0", square, 24, 4)
    found = place(Wiring(load(draft.finish("output0", [4, 64, 64]))))
    assert found.high["small"] == "product too small"
    assert "large" in found.layers


def test_layers_that_measurement_keeps_stay_high(placed: Placement) -> None:
    found = place(Wiring(load(yolo.network())), {"neck": "measured"})
    assert found.high["neck"] == "measured"
    assert placed.layers - found.layers == {"neck"}
    assert "joined" not in found.reads
