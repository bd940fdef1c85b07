from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yolo

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.errors import BuildCancelled, CalibrationError, VerifyError
from vajra_edge.graph import signature
from vajra_edge.graph.passes.nms import add_nms
from vajra_edge.graph.passes.qdq import Placement, quantize
from vajra_edge.graph.passes.qoperator import to_qlinear
from vajra_edge.graph.topology import Wiring, load
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision
from vajra_edge.progress import Progress
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.layer_search import drift
from vajra_edge.quantization.ptq import Calibration, prepare_half, prepare_int8, ranges_for
from vajra_edge.quantization.ranges import RangeCache

PLAIN = yolo.network()
SIGNATURE = signature.read(PLAIN)


def quiet(_: Progress) -> None:
    """Takes progress and does nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for at, picture in enumerate(yolo.images(12)):
        cv2.imwrite(str(made / f"{at:02}.png"), (picture.transpose(1, 2, 0)[:, :, ::-1] * 255).astype(np.uint8))
    return made


@pytest.fixture
def calibration(folder: Path, tmp_path: Path) -> Calibration:
    images = CalibrationSet.collect(folder)
    return Calibration(images, cache=RangeCache(tmp_path / "ranges"), threads=1)


def drift_of(quantized: bytes) -> float:
    images = yolo.images(6)
    pairs = [(yolo.run(PLAIN, image[None])[0], yolo.run(quantized, image[None])[0]) for image in images]
    return drift([one for one, _ in pairs], [other for _, other in pairs]).total


def test_the_graph_is_quantized_and_the_report_says_how(calibration: Calibration) -> None:
    quantized, int8 = prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    onnx.checker.check_model(load(quantized), full_check=True)
    layers = {name for name, node in Wiring(load(quantized)).producer.items() if "weight_dq" in " ".join(node.input)}
    assert int8.layers == len(layers) > 0
    assert 0.5 < int8.share < 1
    assert {"/box_last", "/class_last", "/reach"} <= set(int8.high)


def test_the_chosen_mixture_drifts_less_than_the_static_rules(calibration: Calibration) -> None:
    chosen, _ = prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    static, int8 = prepare_int8(PLAIN, SIGNATURE, replace(calibration, search=False), quiet)
    assert int8.curve is None
    assert drift_of(chosen) <= drift_of(static)


def test_the_same_recipe_serves_the_cpu(calibration: Calibration) -> None:
    fused, int8 = prepare_int8(PLAIN, SIGNATURE, replace(calibration, fused=True), quiet)
    assert any(tensor.data_type == onnx.TensorProto.UINT8 for tensor in load(fused).graph.initializer)
    assert int8.curve
    assert drift_of(fused) < 0.2


def test_a_graph_with_nms_is_judged_before_it(calibration: Calibration) -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    quantized, int8 = prepare_int8(plain, signature.read(plain), calibration, quiet)
    assert yolo.run(quantized, yolo.images(1)).shape == (1, 20, 6)
    assert int8.curve


def test_half_behind_int8_gives_the_same_detections(calibration: Calibration) -> None:
    quantized, _ = prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    half = prepare_half(quantized)
    images = yolo.images(1)
    assert np.abs(yolo.run(quantized, images)[:, 4:] - yolo.run(half, images)[:, 4:]).mean() < 0.01


def test_the_second_time_ranges_come_from_the_cache(calibration: Calibration) -> None:
    sources = [prepare_int8(PLAIN, SIGNATURE, calibration, quiet)[1].ranges.source for _ in range(2)]
    assert sources == ["measured", "cache"]


def test_ranges_of_other_weights_are_not_used(calibration: Calibration) -> None:
    prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    _, int8 = prepare_int8(yolo.network(seed=1), SIGNATURE, calibration, quiet)
    assert int8.ranges.source == "measured"


def test_ranges_of_other_images_are_not_used(calibration: Calibration) -> None:
    prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    fewer = replace(calibration, images=calibration.images.some(5))
    assert prepare_int8(PLAIN, SIGNATURE, fewer, quiet)[1].ranges.images == 5


def test_on_request_ranges_of_earlier_weights_are_used_and_named(calibration: Calibration) -> None:
    prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    again = replace(calibration, reuse=True)
    _, int8 = prepare_int8(yolo.network(seed=1), SIGNATURE, again, quiet)
    assert "reused" in int8.ranges.source


def test_a_sabotaged_range_ruins_the_static_rules_and_is_seen_by_measurement(calibration: Calibration) -> None:
    assert calibration.cache is not None
    sound, _ = ranges_for(PLAIN, SIGNATURE, calibration, quiet)
    amax = {"down_silu": 0.01 * sound.tensors["down_silu"].amax}
    calibration.cache.put(sound.with_amax(amax, sound.algorithm))
    static, _ = prepare_int8(PLAIN, SIGNATURE, replace(calibration, search=False), quiet)
    chosen, int8 = prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    assert int8.ranges.source == "cache"
    assert "measured" in int8.high["/enter"]
    assert drift_of(chosen) < 0.5 * drift_of(static)


def test_int8_that_no_mixture_saves_is_refused_with_its_curve(calibration: Calibration) -> None:
    assert calibration.cache is not None
    sound, _ = ranges_for(PLAIN, SIGNATURE, calibration, quiet)
    ruined = {name: 0.01 * one.amax for name, one in sound.tensors.items()}
    calibration.cache.put(sound.with_amax(ruined, sound.algorithm))
    with pytest.raises(VerifyError, match=r"int8 drifts from FP32 by .* with \d+% of the multiply-adds") as raised:
        prepare_int8(PLAIN, SIGNATURE, calibration, quiet)
    assert raised.value.values["plan"].int8.curve


def test_the_seventh_image_stops_it_with_its_reason(calibration: Calibration, tmp_path: Path, folder: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(b"" if path.name == "06.png" else path.read_bytes())
    images = CalibrationSet.collect(broken)
    with pytest.raises(CalibrationError, match=r"calibration image 7 of 12: .*06\.png"):
        prepare_int8(PLAIN, SIGNATURE, replace(calibration, images=images), quiet)
    assert calibration.cache is not None
    assert not calibration.cache.folder.exists()


def test_it_can_be_cancelled_while_layers_are_chosen(calibration: Calibration) -> None:
    def stop(step: Progress) -> None:
        if "trial 3" in step.message:
            raise BuildCancelled("asked")

    with pytest.raises(BuildCancelled):
        prepare_int8(PLAIN, SIGNATURE, calibration, stop)


def test_a_cpu_plan_does_not_saturate_where_products_are_large() -> None:
    draft = yolo.Draft()
    many = draft.node("Relu", "many", draft.node("Concat", "copies", *["images"] * 8, axis=1))
    weight = draft.constant("weight", np.ones((16, 24, 1, 1), np.float32))
    summed = draft.node("Conv", "summed", many, weight, draft.constant("bias", np.zeros(16, np.float32)))
    draft.conv("output0", draft.node("Relu", "kept", summed), 16, 6)
    plain = draft.finish("output0", [6, 64, 64])
    reads = {"many": frozenset({"summed"}), "kept": frozenset({"output0"})}
    placed = Placement(frozenset({"summed", "output0"}), {}, (), reads, ())
    limits = {"many": (0.0, 1.0), "summed": (0.0, 24.0), "kept": (0.0, 24.0)}
    fused = to_qlinear(quantize(plain, placed, {"many": 1.0, "kept": 24.0}), limits)
    spec, images = EngineSpec(precision=Precision.INT8), np.ones((1, 3, 64, 64), np.float32)
    backend = OnnxRuntime(threads=1)
    runner = backend.load(backend.build(fused, SIGNATURE, spec, quiet).plan, SIGNATURE, spec)
    np.testing.assert_allclose(runner.infer(images), yolo.run(plain, images), rtol=0.05, atol=0.5)
    runner.close()
