from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import yolo

from vajra_edge.graph.passes.instrument import measurable
from vajra_edge.graph.passes.qdq import place, quantize
from vajra_edge.graph.passes.qoperator import SILU_FLOOR, to_qlinear
from vajra_edge.graph.topology import Wiring, load

PLAIN = yolo.network()


@pytest.fixture(scope="module")
def limits() -> dict[str, tuple[float, float]]:
    probe, names = load(PLAIN), measurable(PLAIN)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    images = yolo.images(1)  # held: ONNX Runtime 1.23 hands the input itself back as an output
    found = session.run(None, {"images": images})
    return {name: (float(value.min()), float(value.max())) for name, value in zip(names, found, strict=True)}


def made(limits: dict[str, tuple[float, float]], keep: dict[str, str] | None = None) -> bytes:
    amax = {name: max(-low, high) for name, (low, high) in limits.items()}
    return to_qlinear(quantize(PLAIN, place(Wiring(load(PLAIN)), keep), amax), limits)


def test_onnx_runtime_computes_convolutions_and_silu_in_int8(limits, tmp_path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(made(limits), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    layers = place(Wiring(load(PLAIN))).layers
    assert kinds.count("QLinearConv") == len(layers)
    assert kinds.count("QLinearSigmoid") >= len(layers) - 4


def test_the_graph_is_valid_and_agrees(limits) -> None:
    found = made(limits)
    onnx.checker.check_model(load(found), full_check=True)
    images = yolo.images(1)
    before, after = yolo.run(PLAIN, images), yolo.run(found, images)
    assert np.abs(before[:, 4:] - after[:, 4:]).mean() < 0.05


def test_the_short_side_of_silu_takes_few_levels(limits) -> None:
    zero = Wiring(load(made(limits))).array("stem_silu_zero")
    assert zero is not None
    assert zero.dtype == np.uint8
    assert 0 < int(zero) < 60


def test_what_silu_makes_zero_of_takes_no_levels(limits) -> None:
    far = limits | {"stem": (-50.0, 12.0)}
    wiring = Wiring(load(made(far)))
    scale, zero = (np.asarray(wiring.array(f"stem_{part}")) for part in ("scale", "zero"))
    assert (0 - int(zero)) * float(scale) == pytest.approx(SILU_FLOOR, abs=float(scale))
    assert (255 - int(zero)) * float(scale) == pytest.approx(12, abs=float(scale))


def test_a_layer_that_something_beside_silu_reads_keeps_its_whole_range() -> None:
    draft = yolo.Draft()
    made = draft.block("one", "images", 3, 16, side=3)
    draft.conv("output0", draft.node("Add", "sum", made, "one"), 16, 16)
    plain = draft.finish("output0", [16, 64, 64])
    placed = place(Wiring(load(plain)))
    placed = replace(placed, layers=frozenset({"one"}), reads={"images": frozenset({"one"})}, shortcuts=())
    spans = dict.fromkeys(measurable(plain), (-20.0, 3.0))
    wiring = Wiring(load(to_qlinear(quantize(plain, placed, dict.fromkeys(measurable(plain), 20.0)), spans)))
    assert int(np.asarray(wiring.array("one_zero"))) == pytest.approx(255 * 20 / 23, abs=1)


def test_layers_left_in_fp32_read_what_they_read_before(limits) -> None:
    wiring = Wiring(load(made(limits, {"neck": "measured"})))
    assert wiring.producer["neck"].input[0] == "joined"
    assert wiring.producer["box_last"].input[0] == "box1_silu"


def test_biases_are_counted_in_the_steps_of_the_sums(limits) -> None:
    wiring = Wiring(load(made(limits)))
    parts = [np.asarray(wiring.array(f"leave_bias_{part}")) for part in ("int32", "scale", "zero")]
    assert [part.dtype for part in parts] == [np.int32, np.float32, np.int32]
    before = np.asarray(Wiring(load(PLAIN)).array("leave.bias"))
    np.testing.assert_allclose(parts[0] * parts[1], before, atol=float(parts[1].max()))


def test_a_layer_whose_output_leaves_the_graph_keeps_it_in_fp32() -> None:
    draft = yolo.Draft()
    draft.conv("output0", draft.block("one", "images", 3, 16, side=3), 16, 16)
    plain = draft.finish("output0", [16, 64, 64])
    wiring = Wiring(load(plain))
    reads = {"images": frozenset({"one"}), "one_silu": frozenset({"output0"})}
    placed = type(place(wiring))(frozenset({"one", "output0"}), {}, (), reads, ())
    spans = dict.fromkeys(measurable(plain), (-3.0, 3.0))
    quantized = to_qlinear(quantize(plain, placed, dict.fromkeys(measurable(plain), 3.0)), spans)
    assert yolo.run(quantized, yolo.images(1)).dtype == np.float32
