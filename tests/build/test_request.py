from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from vajra_edge import device
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings, Settings, load
from vajra_edge.errors import BuildError, UnsupportedSpec, WeightsError
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target


def settings(**engine: object) -> Settings:
    return load(None, {"weights": {"path": "net.onnx"}, "engine": engine, "store": {"state_dir": "state"}})


def test_what_the_settings_ask_for_is_in_the_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "gpus", tuple)
    wanted = load(
        None,
        {
            "weights": {"path": "net.onnx", "class_names": ["a", "b"], "stride": 32, "python": "py"},
            "engine": {
                "img_size": [384, 640],
                "batch": 4,
                "nms_iou": 0.5,
                "max_det": 50,
                "nms_top_k": 400,
                "build_timeout_s": 60.0,
            },
            "calibration": {"data": "photos"},
            "service": {"threads": 3},
        },
    )
    made = BuildRequest.of(wanted, "ab" * 32, OnnxRuntime())
    assert made.spec == EngineSpec(resolution_hw=(384, 640), batch=4, nms=NmsSpec(0.5, 50, 400))
    assert made.weights_path == Path.cwd() / "net.onnx"
    assert made.weights_python == Path.cwd() / "py"
    assert made.calibration.data == Path.cwd() / "photos"
    assert (made.class_names, made.stride, made.threads, made.timeout_s) == (("a", "b"), 32, 3, 60.0)


def test_the_route_to_int8_is_handed_on():
    asked = settings(precision="int8", quantization="calibrator")
    assert BuildRequest.of(asked, "0" * 64, TensorRT()).spec.quantization == "calibrator"


@pytest.mark.parametrize("size", [None, 320, (256, 320)])
def test_an_input_size_is_a_side_or_a_pair_or_that_of_the_weights(size: object):
    expected = {None: None, 320: (320, 320), (256, 320): (256, 320)}[size]
    assert BuildRequest.of(settings(img_size=size), "0" * 64, OnnxRuntime()).spec.resolution_hw == expected


def test_auto_means_fp16_on_tensorrts_gpu_and_fp32_on_a_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "gpus", lambda: ())
    on_gpu = BuildRequest.of(settings(), "0" * 64, TensorRT()).spec
    on_cpu = BuildRequest.of(settings(), "0" * 64, OnnxRuntime()).spec
    assert (on_gpu.target, on_gpu.precision) == (Target("gpu", 0), Precision.FP16)
    assert (on_cpu.target, on_cpu.precision) == (Target("cpu"), Precision.FP32)


@pytest.mark.parametrize("target", ["gpu:0", "dla:0"])
def test_tensorrts_plans_leave_nms_to_the_host_so_that_its_figures_ask_for_no_other_plan(target: str):
    asked = [settings(target=target), settings(target=target, nms_iou=0.5, max_det=9, nms_top_k=30)]
    first, second = (BuildRequest.of(one, "0" * 64, TensorRT()) for one in asked)
    assert first.spec.nms is None
    assert first == second
    inside = [BuildRequest.of(settings(nms_iou=iou), "0" * 64, OnnxRuntime()).spec.nms for iou in (0.7, 0.5)]
    assert inside == [NmsSpec(), NmsSpec(iou=0.5)]


def test_a_dla_core_means_fp16_unless_the_operator_decides():
    automatic = BuildRequest.of(settings(target="dla:1"), "0" * 64, TensorRT()).spec
    decided = BuildRequest.of(settings(target="dla:1", precision="int8"), "0" * 64, TensorRT()).spec
    assert (automatic.target, automatic.precision) == (Target("dla", 1), Precision.FP16)
    assert decided.precision is Precision.INT8


def test_a_request_survives_the_way_to_the_child(tmp_path: Path):
    sent = BuildRequest(
        weights_path=tmp_path / "a.pt",
        weights_sha256="cd" * 32,
        backend="tensorrt",
        spec=EngineSpec(target=Target("dla", 1), precision=Precision.INT8, resolution_hw=(320, 640), nms=None),
        state_dir=tmp_path,
        max_bytes=5,
        class_names=("person", "Fußgänger"),
        stride=32,
        weights_python=Path("/usr/bin/python3"),
        calibration=CalibrationSettings(algorithm="entropy", data=tmp_path, fraction=0.5),
        calibration_digest="ef" * 32,
        threads=2,
        frames=tmp_path,
        timeout_s=9.0,
        address_space_bytes=1,
        keep=("ab" * 32,),
        force=True,
        again=True,
    )
    assert BuildRequest.from_json(json.loads(json.dumps(sent.to_json()))) == sent


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: plain.pop("spec"),
        lambda plain: plain.update(surprise=1),
        lambda plain: plain["spec"].update(target="tpu"),
        lambda plain: plain["spec"].update(precision="int3"),
        lambda plain: plain["calibration"].update(fraction=7),
    ],
)
def test_a_request_of_another_version_is_refused_in_one_line(damage, tmp_path: Path):
    plain = BuildRequest(tmp_path, "0" * 64, "onnxruntime", EngineSpec(), tmp_path, 1).to_json()
    damage(plain)
    with pytest.raises((BuildError, UnsupportedSpec)) as raised:
        BuildRequest.from_json(plain)
    assert "\n" not in str(raised.value)


def test_the_digest_of_weights_is_that_of_their_bytes(tmp_path: Path):
    path = tmp_path / "net.onnx"
    content = b"x" * 3_000_001
    path.write_bytes(content)
    assert weights_digest(path) == hashlib.sha256(content).hexdigest()


def test_weights_that_cannot_be_read_are_refused_with_path_and_remedy(tmp_path: Path):
    (tmp_path / "empty.pt").touch()
    for path, reason in (
        (tmp_path / "absent.pt", "No such file"),
        (tmp_path, "not a file"),
        (tmp_path / "empty.pt", "empty"),
    ):
        with pytest.raises(WeightsError, match=reason) as raised:
            weights_digest(path)
        assert raised.value.remedy
        assert str(path) in str(raised.value)
