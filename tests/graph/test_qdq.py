from __future__ import annotations

import numpy as np
import onnx
import pytest
import yolo
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from vajra_edge.errors import GraphError
from vajra_edge.graph.passes.instrument import measurable
from vajra_edge.graph.passes.qdq import Placement, place, quantize, quantize_weight, scale_of
from vajra_edge.graph.topology import Wiring, load

PLAIN = yolo.network()
PLACED = place(Wiring(load(PLAIN)))
AMAX = dict.fromkeys(measurable(PLAIN), 4.0)


@pytest.fixture(scope="module")
def wiring() -> Wiring:
    model = load(quantize(PLAIN, PLACED, AMAX))
    onnx.checker.check_model(model, full_check=True)
    return Wiring(model)


def only(node: str, source: str) -> Placement:
    return Placement(frozenset({node}), {}, (), {source: frozenset({node})}, ())


def test_exactly_the_placed_readers_read_int8(wiring: Wiring) -> None:
    for tensor, readers in PLACED.reads.items():
        assert {node.output[0] for node in wiring.readers[f"{tensor}_dq"]} == readers
    pairs = [node for node in wiring.nodes if node.op_type == "QuantizeLinear"]
    assert len(pairs) == len(PLACED.reads)


def test_activations_are_symmetric_with_one_scale_each(wiring: Wiring) -> None:
    for node in wiring.nodes:
        if node.op_type == "QuantizeLinear":
            zero, scale = wiring.array(node.input[2]), wiring.array(node.input[1])
            assert zero is not None
            assert scale is not None
            assert (zero.dtype, zero.shape, int(zero), scale.shape) == (np.int8, (), 0, ())


def test_weights_are_int8_constants_with_one_scale_an_output_channel(wiring: Wiring) -> None:
    weight, scale = wiring.array("leave.weight_int8"), wiring.array("leave.weight_scale")
    assert weight is not None
    assert scale is not None
    assert (weight.dtype, weight.shape, scale.shape) == (np.int8, (32, 48, 1, 1), (32,))
    assert "leave.weight" not in wiring.tensors
    assert not any(node.op_type == "QuantizeLinear" and "weight" in node.input[0] for node in wiring.nodes)


def test_biases_are_left_as_they_are(wiring: Wiring) -> None:
    before = Wiring(load(PLAIN)).array("leave.bias")
    after = wiring.array("leave.bias")
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before, after)


def test_layers_that_stay_high_keep_their_weights(wiring: Wiring) -> None:
    assert "box_last.weight" in wiring.tensors
    assert "box_last.weight_int8" not in wiring.tensors


def test_the_output_hardly_moves() -> None:
    images = yolo.images(1)
    probe = load(PLAIN)
    del probe.graph.output[:]
    names = measurable(PLAIN)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    import onnxruntime

    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    amax = {n: float(np.abs(v).max()) for n, v in zip(names, session.run(None, {"images": images}), strict=True)}
    before, after = yolo.run(PLAIN, images), yolo.run(quantize(PLAIN, PLACED, amax), images)
    assert np.abs(before[:, 4:] - after[:, 4:]).mean() < 0.05
    assert np.abs(before[:, :4] - after[:, :4]).mean() < 2


def test_tensors_that_share_take_the_widest_range() -> None:
    amax = AMAX | {"joined": 8.0, "leave_silu": 2.0}
    found = Wiring(load(quantize(PLAIN, PLACED, amax)))
    assert found.array("joined_scale") == found.array("leave_silu_scale")
    assert float(np.asarray(found.array("leave_silu_scale"))) * 127 >= 8.0


def test_weights_that_two_layers_share_are_stored_once() -> None:
    draft = yolo.Draft()
    weight = draft.constant("weight", np.ones((16, 16, 1, 1), np.float32))
    one = draft.node("Conv", "one", draft.block("first", "images", 3, 16, side=3), weight)
    draft.node("Conv", "output0", draft.node("Relu", "between", one), weight)
    plain = draft.finish("output0", [16, 64, 64])
    reads = {"first_silu": frozenset({"one"}), "between": frozenset({"output0"})}
    both = Placement(frozenset({"one", "output0"}), {}, (), reads, ())
    found = load(quantize(plain, both, {"first_silu": 1.0, "between": 1.0}))
    assert sum(node.op_type == "DequantizeLinear" and "weight" in node.input[0] for node in found.graph.node) == 1


def test_transposed_convolutions_have_their_output_channels_on_axis_1() -> None:
    draft = yolo.Draft()
    weight = np.random.default_rng(0).normal(size=(3, 5, 2, 2)).astype(np.float32)
    draft.node("ConvTranspose", "output0", "images", draft.constant("weight", weight), strides=[2, 2])
    plain = draft.finish("output0", [5, 128, 128])
    quantized = quantize(plain, only("output0", "images"), {"images": 1.0})
    assert np.asarray(Wiring(load(quantized)).array("weight_scale")).shape == (5,)
    images = yolo.images(1)
    assert np.abs(yolo.run(plain, images) - yolo.run(quantized, images)).max() < 0.05


def test_products_have_their_output_channels_on_the_last_axis() -> None:
    draft = yolo.Draft()
    weight = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    draft.node("MatMul", "output0", "images", draft.constant("weight", weight))
    plain = draft.finish("output0", [3, 64, 5])
    found = Wiring(load(quantize(plain, only("output0", "images"), {"images": 1.0})))
    assert np.asarray(found.array("weight_scale")).shape == (5,)


def test_bias_correction_takes_back_what_rounding_adds_on_average() -> None:
    mean = np.linspace(-1, 2, 48)
    found = Wiring(load(quantize(PLAIN, PLACED, AMAX, {"parts": [float(value) for value in mean]})))
    plain = Wiring(load(PLAIN))
    weight, bias = (np.asarray(plain.array(f"leave.{part}")) for part in ("weight", "bias"))
    values, scale = (np.asarray(found.array(f"leave.weight_{part}")) for part in ("int8", "scale"))
    lost = (weight - values * scale.reshape(-1, 1, 1, 1))[:, :, 0, 0]
    corrected = np.asarray(found.array(found.producer["leave"].input[2]))
    assert np.abs(corrected - bias).max() > 1e-4
    np.testing.assert_allclose(corrected, bias + lost @ mean, atol=1e-6)


def test_bias_correction_knows_groups() -> None:
    draft = yolo.Draft(5)
    draft.conv("output0", "images", 3, 6, side=3, group=3)
    plain = draft.finish("output0", [6, 64, 64])
    flat = np.ones((1, 3, 64, 64), np.float32) * np.array([1.0, 0.0, 0.5], np.float32).reshape(1, 3, 1, 1)
    quantized = quantize(plain, only("output0", "images"), {"images": 127.0 / 128}, {"images": [1.0, 0.0, 0.5]})
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    plain_inner, found = yolo.run(plain, flat)[inner], yolo.run(quantized, flat)[inner]
    assert np.abs(found - plain_inner).max() < 0.02


def test_a_missing_range_names_the_tensor() -> None:
    with pytest.raises(GraphError, match="no range for 1 tensors, the first is joined; calibrate"):
        quantize(PLAIN, PLACED, {name: most for name, most in AMAX.items() if name != "joined"})


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0, 1e9])
def test_a_range_that_int8_cannot_have_names_the_tensor(wrong: float) -> None:
    with pytest.raises(GraphError, match="the range of neck_silu is"):
        quantize(PLAIN, PLACED, AMAX | {"neck_silu": wrong})


@given(st.floats(0, 60000, width=32))
def test_scales_are_fp16_numbers_that_hold_the_range(amax: float) -> None:
    scale = scale_of(np.float32(amax), "x")
    assert np.float32(np.float16(scale)) == scale
    assert scale > 0
    assert scale * 127 >= np.float32(amax)


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 100))
def test_no_weight_is_further_off_than_half_a_step(seed: int, size: float) -> None:
    weight: NDArray[np.float32] = (np.random.default_rng(seed).normal(0, size, (4, 3, 3, 3))).astype(np.float32)
    values, scale = quantize_weight(weight, 0, "w")
    steps = scale.reshape(-1, 1, 1, 1)
    assert np.abs(values * steps - weight).max(axis=(1, 2, 3)) == pytest.approx(0, abs=float(steps.max()) * 0.5001)
    assert np.abs(values.astype(int)).max() <= 127


def test_a_channel_of_zeros_stays_zero() -> None:
    values, scale = quantize_weight(np.zeros((2, 3, 1, 1), np.float32), 0, "w")
    assert not values.any()
    assert (scale > 0).all()


def test_trained_nano_shrinks_to_less_than_a_third(shared_data) -> None:
    plain = (shared_data / "models/vajra-v1-nano-det-cctv.onnx").read_bytes()
    placement = place(Wiring(load(plain)))
    quantized = quantize(plain, placement, dict.fromkeys(measurable(plain), 10.0))
    assert len(quantized) < 0.3 * len(plain)
    onnx.checker.check_model(load(quantized), full_check=True)


def test_scales_survive_as_written() -> None:
    found = load(quantize(PLAIN, PLACED, AMAX | {"images": 1.0}))
    scale = next(numpy_helper.to_array(t) for t in found.graph.initializer if t.name == "images_scale")
    assert scale == scale_of(np.float32(1.0), "images")
