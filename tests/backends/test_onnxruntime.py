from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from backends.cuda_standin import CudaStandIn
from near import assert_near
from onnx import helper

from vajra_edge import device
from vajra_edge.backends import onnxruntime as backends_onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.errors import BackendUnavailable, BuildError, InferenceError, PlanError, UnsupportedSpec
from vajra_edge.geometry import boxes
from vajra_edge.graph import signature
from vajra_edge.graph.passes import nms
from vajra_edge.heads.detect import best_class, rows_of_detections
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.progress import Progress

SPEC = EngineSpec()


def quiet(_: Progress) -> None:
    pass


def built(onnx_bytes: bytes) -> tuple[Built, signature.Signature]:
    found = signature.read(onnx_bytes)
    return backends_onnxruntime.OnnxRuntime(threads=1).build(onnx_bytes, found, SPEC, quiet), found


def runner(onnx_bytes: bytes, **changes: object) -> backends_onnxruntime.OnnxRunner:
    made, found = built(onnx_bytes)
    return backends_onnxruntime.OnnxRuntime(threads=1).load(made.plan, replace(found, **changes), SPEC)


def test_a_built_plan_finds_what_is_in_the_picture():
    scene = tiny.scene(objects=8)
    found = best_class(runner(tiny.network()).infer(tiny.blob(scene.image))[0], 0.5, 0.7, 300)
    assert len(found) == 8
    overlap = boxes.iou(scene.xyxy, found.xyxy)
    assert np.all(overlap.max(axis=1) > 0.99)
    assert np.array_equal(found.class_id[overlap.argmax(axis=1)], scene.class_id)


def test_nms_in_the_graph_gives_the_same_boxes():
    scene = tiny.scene(objects=8)
    raw = best_class(runner(tiny.network()).infer(tiny.blob(scene.image))[0], 0.5, 0.7, 300)
    with_nms = runner(nms.add_nms(tiny.network(), NmsSpec(max_det=20, top_k=30)))
    rows = rows_of_detections(with_nms.infer(tiny.blob(scene.image))[0], 0.5)
    assert {tuple(box) for box in rows.xyxy.round(3)} == {tuple(box) for box in raw.xyxy.round(3)}


def test_the_plan_is_an_optimised_graph_that_any_cpu_of_this_kind_can_open():
    made, _ = built(tiny.network())
    domains = {node.domain for node in onnx.load_from_string(made.plan).graph.node}
    assert "com.microsoft.nchwc" not in domains
    assert len(onnx.load_from_string(made.plan).graph.node) <= len(onnx.load_from_string(tiny.network()).graph.node)
    assert (made.precision, made.target) == (Precision.FP32, Target("cpu"))
    assert made.report.onnx.nodes


def test_tensorrts_calibrator_is_refused_for_int8_with_what_to_set():
    asked = EngineSpec(precision=Precision.INT8, quantization="calibrator")
    assert str(backends_onnxruntime.OnnxRuntime().check(asked)).endswith(
        "; set [engine] quantization = qdq, or backend = tensorrt"
    )
    assert backends_onnxruntime.OnnxRuntime().check(replace(asked, quantization="qdq")) is None
    assert backends_onnxruntime.OnnxRuntime().check(replace(asked, precision=Precision.FP32)) is None, (
        "a quick plan of TensorRT's wish"
    )


def test_an_output_outlives_any_number_of_later_calls():
    running = runner(tiny.network())
    first = running.infer(tiny.blob(tiny.scene(seed=1).image))
    kept = first.copy()
    for seed in range(2, 6):
        running.infer(tiny.blob(tiny.scene(seed=seed).image))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("batch", [4, None])
def test_fewer_images_than_the_batch_are_padded_or_taken_as_they_are(batch: int | None):
    running = runner(tiny.network(batch=batch), batch=4)
    blobs = [tiny.blob(tiny.scene(seed=seed).image) for seed in range(4)]
    whole = running.infer(np.concatenate(blobs))
    for count in (1, 3):
        some = running.infer(np.concatenate(blobs[:count]))
        assert some.shape == (count, 6, 64)
        assert_near(some, whole[:count])


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((3, 3, 256, 256), np.float32),
        np.zeros((0, 3, 256, 256), np.float32),
        np.zeros((1, 3, 256, 224), np.float32),
        np.zeros((1, 4, 256, 256), np.float32),
        np.zeros((3, 256, 256), np.float32),
        np.zeros((1, 3, 256, 256), np.float64),
        np.zeros((1, 3, 256, 256), np.uint8),
    ],
    ids=lambda batch: f"{batch.dtype}{batch.shape}",
)
def test_a_batch_of_another_shape_or_type_raises_with_both(batch: np.ndarray):
    with pytest.raises(InferenceError, match=r"expected float32 \(1\.\.2, 3, 256, 256\)") as raised:
        runner(tiny.network(batch=2)).infer(batch)
    assert str(batch.shape) in str(raised.value)


def dynamic_sizes() -> bytes:
    """A 1 x 1 network that takes any size; its output has one anchor a pixel."""
    weights = np.zeros((6, 3, 1, 1), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w"], ["c"]),
            helper.make_node("Reshape", ["c", "s"], ["output0"]),
        ],
        "dynamic",
        [helper.make_tensor_value_info("images", 1, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", 1, ["batch", 6, "anchors"])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.array([0, 6, -1]), "s")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, {"names": "{0: 'a', 1: 'b'}", "stride": "32", "imgsz": "[64, 96]"})
    return made.SerializeToString()


def test_smaller_sizes_run_where_the_network_allows_them():
    running = runner(dynamic_sizes())
    assert running.infer(np.zeros((1, 3, 64, 96), np.float32)).shape == (1, 6, 64 * 96)
    assert running.infer(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 6, 32 * 64)
    running.signature = replace(running.signature, largest_hw=(128, 96))
    assert running.infer(np.zeros((1, 3, 128, 96), np.float32)).shape == (1, 6, 128 * 96)
    for shape in ((1, 3, 48, 96), (1, 3, 160, 96)):
        with pytest.raises(InferenceError):
            running.infer(np.zeros(shape, np.float32))


def test_a_closed_runner_refuses_and_closes_again():
    running = runner(tiny.network())
    running.close()
    running.close()
    with pytest.raises(InferenceError, match="closed"):
        running.infer(tiny.blob(tiny.scene().image))


def test_the_reference_agrees_with_the_optimised_plan():
    onnx_bytes = tiny.network()
    image = tiny.blob(tiny.scene().image)
    reference = backends_onnxruntime.reference(onnx_bytes, signature.read(onnx_bytes), threads=1)
    assert_near(reference.infer(image), runner(onnx_bytes).infer(image))


@pytest.mark.parametrize("plan", [b"", b"\x00" * 100, tiny.network()[:-400]], ids=["empty", "zeros", "truncated"])
def test_bytes_that_are_no_plan_are_refused_in_one_line(plan: bytes):
    with pytest.raises(PlanError, match="refuses the plan") as raised:
        backends_onnxruntime.OnnxRuntime(threads=1).load(plan, signature.read(tiny.network()), SPEC)
    assert "\n" not in str(raised.value)


def test_a_graph_the_library_has_no_kernel_for_fails_the_build():
    network = onnx.load_from_string(tiny.network())
    network.graph.node[0].domain = "nobody.knows"
    network.opset_import.append(helper.make_opsetid("nobody.knows", 1))
    with pytest.raises(BuildError, match="refuses the graph") as raised:
        backends_onnxruntime.OnnxRuntime(threads=1).build(
            network.SerializeToString(), signature.read(tiny.network()), SPEC, quiet
        )
    assert raised.value.permanent


def test_a_call_the_library_fails_on_raises():
    running = runner(tiny.network(batch=2), output_name="no such output")
    with pytest.raises(InferenceError, match="failed on a batch of 1"):
        running.infer(tiny.blob(tiny.scene().image))


def test_a_graph_with_int8_or_half_inside_runs_and_says_what_it_is():
    network = onnx.load_from_string(tiny.network())
    scale = onnx.numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")
    zero = onnx.numpy_helper.from_array(np.array(0, np.uint8), "zero")
    network.graph.initializer.extend([scale, zero])
    network.graph.node[0].input[0] = "dequantised"
    network.graph.node.insert(0, helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["dequantised"]))
    network.graph.node.insert(0, helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["quantised"]))
    made, found = built(network.SerializeToString())
    assert made.precision is Precision.INT8
    scene = tiny.scene()
    output = backends_onnxruntime.OnnxRuntime(threads=1).load(made.plan, found, SPEC).infer(tiny.blob(scene.image))
    assert len(best_class(output[0], 0.5, 0.7, 300)) == len(scene.xyxy)


def test_half_precision_inside_is_recognised():
    network = onnx.load_from_string(tiny.network())
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float16), "half"))
    assert backends_onnxruntime._inside(network.graph) is Precision.FP16


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (EngineSpec(precision=Precision.FP16), r"on a GPU only; set \[engine\] precision = fp32, or precision = int8"),
        (EngineSpec(precision=Precision.TF32), r"tf32 on a GPU only; set \[engine\] precision = fp32"),
        (EngineSpec(target=Target("gpu", 0), precision=Precision.INT8), "on a CPU only; .* precision = fp16"),
        (EngineSpec(target=Target("dla", 0)), "backend = tensorrt"),
    ],
)
def test_what_it_cannot_do_is_said_with_what_to_set(spec: EngineSpec, reason: str):
    assert re.search(reason, str(backends_onnxruntime.OnnxRuntime().check(spec)))
    with pytest.raises(UnsupportedSpec, match=reason):
        backends_onnxruntime.OnnxRuntime(threads=1).build(tiny.network(), signature.read(tiny.network()), spec, quiet)


def providers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def test_a_gpu_without_the_cuda_provider_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    providers(monkeypatch, "CPUExecutionProvider")
    assert "pip install onnxruntime-gpu" in str(
        backends_onnxruntime.OnnxRuntime().check(EngineSpec(target=Target("gpu", 0)))
    )


@pytest.mark.parametrize(("index", "refused"), [(0, False), (1, True)])
def test_a_gpu_is_accepted_if_it_is_there(monkeypatch: pytest.MonkeyPatch, index: int, refused: bool):
    providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(backends_onnxruntime.device, "gpus", lambda: (device.Gpu(0, "L4"),))
    assert (backends_onnxruntime.OnnxRuntime().check(EngineSpec(target=Target("gpu", index))) is not None) == refused


class Session:
    """What ONNX Runtime is asked for on a GPU; it computes nothing."""

    asked: ClassVar[list[dict[str, str]]] = []

    def __init__(self, plan: bytes, options: onnxruntime.SessionOptions, providers: list[tuple[str, dict[str, str]]]):
        del options
        self.asked.append(providers[0][1])

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider"]


@pytest.mark.parametrize(("precision", "tf32"), [(Precision.FP32, "0"), (Precision.TF32, "1"), (Precision.FP16, "0")])
def test_a_gpu_rounds_to_tf32_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, tf32: str
):
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    spec = EngineSpec(target=Target("gpu", 0), precision=precision)
    backends_onnxruntime.OnnxRuntime(threads=1).load(b"", signature.read(tiny.network()), spec)
    assert Session.asked.pop() == {"device_id": "0", "use_tf32": tf32}


@pytest.mark.parametrize(("capability", "takes_it"), [("5.3", False), ("7.2", False), ("8.7", True), ("11.0", True)])
def test_tf32_is_refused_on_a_gpu_that_does_not_compute_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, takes_it: bool
):
    gpu = CudaStandIn(capability=capability)
    gpu.install(monkeypatch)
    providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(backends_onnxruntime.device, "gpus", lambda: (device.Gpu(0, "a GPU"),))
    refused = backends_onnxruntime.OnnxRuntime().check(EngineSpec(target=Target("gpu", 0), precision=Precision.TF32))
    assert (refused is None) == takes_it
    if refused is not None:
        assert f"compute capability {capability}, does not compute in tf32" in str(refused)
        assert "precision = fp16" in str(refused)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="absent here: an ONNX Runtime without CUDA"
)
def test_a_cuda_provider_that_does_not_load_is_never_replaced_by_the_cpu():
    made, found = built(tiny.network())
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendUnavailable, match="does not load"),
    ):
        backends_onnxruntime.OnnxRuntime(threads=1).load(made.plan, found, EngineSpec(target=Target("gpu", 0)))


def test_the_identity_names_library_and_processor_without_loading_the_library(monkeypatch: pytest.MonkeyPatch):
    known = backends_onnxruntime.OnnxRuntime().identity(SPEC)
    assert known["library"].startswith("onnxruntime 1.")
    assert device.cpu_name() in known["device"]
    monkeypatch.setattr(backends_onnxruntime.device, "gpus", lambda: (device.Gpu(0, "L4", "8.9", "570.1"),))
    assert backends_onnxruntime.OnnxRuntime().identity(EngineSpec(target=Target("gpu", 0)))["driver"] == "570.1"
    assert backends_onnxruntime.OnnxRuntime().identity(EngineSpec(target=Target("gpu", 3)))["device"] == ""
    code = (
        "import sys\nfrom vajra_edge.backends.onnxruntime import OnnxRuntime\n"
        "from vajra_edge.plans.spec import EngineSpec\n"
        "OnnxRuntime().identity(EngineSpec());"
        "sys.exit(bool({'onnx', 'onnxruntime', 'torch', 'tensorrt'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_absent_library_has_an_empty_version(monkeypatch: pytest.MonkeyPatch):
    absent: Callable[[str], None] = lambda name: None  # noqa: E731  one line says it
    monkeypatch.setattr(backends_onnxruntime.device, "package_version", absent)
    assert backends_onnxruntime.OnnxRuntime().identity(SPEC)["library"] == ""


SESSION = "import vajra_edge, onnxruntime, sys; onnxruntime.InferenceSession(sys.stdin.buffer.read())"


def test_the_makers_of_the_library_are_told_nothing(tmp_path):
    """1.29 to 1.32 do by themselves, and their identifier of the machine in the home is what is seen of that here."""
    told = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    command = [sys.executable, "-c", SESSION]
    subprocess.run(command, env={**told, "HOME": str(tmp_path)}, input=tiny.network(), check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []
