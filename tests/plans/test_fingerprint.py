from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from vajra_edge.build.request import BuildRequest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.plans import fingerprint
from vajra_edge.plans.fingerprint import IMAGES, WEIGHTS, Fingerprint, Part
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target

TENSORRT = {"library": "TensorRT 10.3.0", "gpu": "Orin", "driver": "540.4.0", "power mode": "MAXN"}


@pytest.fixture
def wanted(tmp_path: Path) -> BuildRequest:
    return BuildRequest(tmp_path / "a.pt", "ab" * 32, "tensorrt", EngineSpec(), tmp_path, 1 << 30)


def test_the_same_wish_on_the_same_machine_has_the_same_digest(wanted: BuildRequest):
    again = dict(reversed(TENSORRT.items()))
    assert Fingerprint.of(wanted, TENSORRT) == Fingerprint.of(replace(wanted), again)
    assert len(Fingerprint.of(wanted, TENSORRT).digest) == 64


def test_every_field_of_the_spec_changes_the_digest(wanted: BuildRequest):
    other = {
        "target": Target("dla", 1),
        "precision": Precision.FP16,
        "resolution_hw": (320, 640),
        "batch": 2,
        "dynamic": True,
        "largest_hw": (1280, 1280),
        "nms": NmsSpec(iou=0.5),
        "simplify": False,
        "opset": 17,
        "workspace_gib": 1.5,
        "typing": "strong",
        "optimization_level": 1,
        "allow_lower_precision": False,
    }
    for_int8 = {"quantization"}
    assert {*other, *for_int8} == {field.name for field in fields(EngineSpec)}, "a new field must be decided on here"
    digests = {
        Fingerprint.of(replace(wanted, spec=replace(wanted.spec, **{name: value})), TENSORRT).digest
        for name, value in other.items()
    }
    assert len(digests | {Fingerprint.of(wanted, TENSORRT).digest}) == len(other) + 1


@pytest.mark.parametrize("nms", [None, NmsSpec(iou=0.6), NmsSpec(max_det=10), NmsSpec(top_k=300)])
def test_each_figure_of_nms_is_baked_in_and_counts(wanted: BuildRequest, nms: NmsSpec | None):
    changed = replace(wanted, spec=replace(wanted.spec, nms=nms))
    assert Fingerprint.of(changed, TENSORRT).digest != Fingerprint.of(wanted, TENSORRT).digest


def test_what_does_not_shape_the_plan_is_not_in_it(wanted: BuildRequest, tmp_path: Path):
    moved = replace(
        wanted,
        weights_path=tmp_path / "b.pt",
        state_dir=tmp_path / "s",
        max_bytes=7,
        threads=3,
        timeout_s=1,
        force=True,
    )
    assert Fingerprint.of(moved, TENSORRT) == Fingerprint.of(wanted, TENSORRT)


def test_calibration_counts_for_int8_alone(wanted: BuildRequest):
    entropy = CalibrationSettings(algorithm="entropy")
    assert Fingerprint.of(replace(wanted, calibration=entropy), TENSORRT) == Fingerprint.of(wanted, TENSORRT)
    int8 = replace(wanted, spec=replace(wanted.spec, precision=Precision.INT8))
    frozen = replace(int8, calibration_digest="cd" * 32)
    prints = [Fingerprint.of(each, TENSORRT) for each in (int8, replace(int8, calibration=entropy), frozen)]
    assert len({each.digest for each in prints}) == 3
    assert prints[0].explain(prints[2]) == ("calibration images not frozen -> cdcdcdcdcdcd", "weights same")


def test_the_route_to_int8_counts_for_int8_alone(wanted: BuildRequest):
    for precision, counts in ((Precision.INT8, True), (Precision.FP16, False), (Precision.FP32, False)):
        specs = [replace(wanted.spec, precision=precision, quantization=route) for route in ("auto", "qdq")]
        digests = {Fingerprint.of(replace(wanted, spec=spec), TENSORRT).digest for spec in specs}
        assert (len(digests) == 2) is counts


def test_texts_that_would_run_together_differ(wanted: BuildRequest):
    one = Fingerprint.of(replace(wanted, class_names=("a, b",)), TENSORRT)
    two = Fingerprint.of(replace(wanted, class_names=("a", "b")), TENSORRT)
    assert one.digest != two.digest
    assert hashed(("ab", "c")) != hashed(("a", "bc"))
    assert hashed(("a", "b"), ("c", "d")) != hashed(("a", "bcd"))


def hashed(*rows: tuple[str, str]) -> str:
    return fingerprint._hash([Part("", *row) for row in rows])


def test_a_version_that_cannot_be_read_shares_no_plan_with_one_that_can(wanted: BuildRequest):
    broken = {**TENSORRT, "library": ""}
    without = {name: value for name, value in TENSORRT.items() if name != "library"}
    digests = {Fingerprint.of(wanted, each).digest for each in (TENSORRT, broken, without)}
    assert len(digests) == 3


def test_an_absent_graph_library_is_hashed_under_another_label(wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    whole = Fingerprint.of(wanted, TENSORRT)
    monkeypatch.setattr(fingerprint, "GRAPH_LIBRARIES", ("onnx", "no-such-distribution-at-all"))
    name = "no-such-distribution-at-all"
    assert Part(name, f"{name} (unreadable)", "") in Fingerprint.of(wanted, TENSORRT).parts
    assert Fingerprint.of(wanted, TENSORRT).digest != whole.digest


@pytest.mark.parametrize(
    ("distribution", "weights", "python", "precision", "counts"),
    [
        ("torch", "a.pt", None, Precision.FP16, True),
        ("torch", "a.onnx", None, Precision.FP16, False),
        ("torch", "a.pt", Path("/opt/torch/bin/python"), Precision.FP16, False),
        ("onnxruntime", "a.onnx", None, Precision.INT8, True),
        ("onnxruntime", "a.onnx", None, Precision.FP16, False),
    ],
)
def test_a_library_counts_where_it_shapes_the_graph(
    wanted: BuildRequest,
    monkeypatch: pytest.MonkeyPatch,
    distribution: str,
    weights: str,
    python: Path | None,
    precision: Precision,
    counts: bool,
):
    spec = replace(wanted.spec, precision=precision)
    asked = replace(wanted, weights_path=Path(weights), weights_python=python, spec=spec)
    digests = set()
    for version in ("1.0", "2.0"):
        versions = {"onnx": "1", "onnxslim": "1", "torch": "1", "onnxruntime": "1", distribution: version}
        monkeypatch.setattr(fingerprint.device, "package_version", versions.get)
        digests.add(Fingerprint.of(asked, TENSORRT).digest)
    assert (len(digests) == 2) is counts


def test_an_upgraded_library_is_explained_in_words(wanted: BuildRequest):
    before = Fingerprint.of(wanted, TENSORRT)
    after = Fingerprint.of(wanted, {**TENSORRT, "library": "TensorRT 10.16.2"})
    assert before.explain(after) == ("TensorRT 10.3.0 -> 10.16.2", "weights same")


def test_new_weights_are_explained_by_their_first_digits(wanted: BuildRequest):
    before = Fingerprint.of(wanted, TENSORRT)
    after = Fingerprint.of(replace(wanted, weights_sha256="cd" * 32), TENSORRT)
    assert before.explain(after) == ("weights abababababab -> cdcdcdcdcdcd",)


def test_a_version_that_cannot_be_read_any_more_is_explained(wanted: BuildRequest):
    before = Fingerprint.of(wanted, TENSORRT)
    after = Fingerprint.of(wanted, {**TENSORRT, "driver": ""})
    assert before.explain(after) == ("driver 540.4.0 -> unreadable", "weights same")
    assert after.explain(before) == ("driver unreadable -> 540.4.0", "weights same")


def test_equal_fingerprints_have_nothing_to_explain(wanted: BuildRequest):
    assert Fingerprint.of(wanted, TENSORRT).explain(Fingerprint.of(wanted, TENSORRT)) == ()


def test_a_part_that_comes_or_goes_is_explained(wanted: BuildRequest):
    before = Fingerprint.of(wanted, TENSORRT)
    after = Fingerprint.of(wanted, {**TENSORRT, "DLA core": "1"})
    assert before.explain(after) == ("DLA core added (1)", "weights same")
    assert after.explain(before) == ("DLA core gone (1)", "weights same")


def test_a_fingerprint_survives_the_manifest(wanted: BuildRequest):
    made = Fingerprint.of(replace(wanted, class_names=("Fußgänger",)), TENSORRT)
    assert Fingerprint.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.digest.startswith(made.short)


def test_one_changed_setting_is_explained_under_its_name(wanted: BuildRequest):
    before = Fingerprint.of(wanted, TENSORRT)
    after = Fingerprint.of(replace(wanted, spec=replace(wanted.spec, nms=NmsSpec(iou=0.5))), TENSORRT)
    rest = f"max_det {NmsSpec().max_det}, top_k {NmsSpec().top_k}"
    phrase = f"NMS iou 0.7, {rest} -> iou 0.5, {rest}"
    assert before.explain(after) == (phrase, "weights same")


def test_a_part_is_looked_up_by_its_key_after_it_was_stored_too(wanted: BuildRequest):
    int8 = replace(wanted, spec=replace(wanted.spec, precision=Precision.INT8), calibration_digest="cd" * 32)
    made = Fingerprint.of(int8, {**TENSORRT, "driver": "", "target": "cpu"})
    for one in (made, Fingerprint.from_json(json.loads(json.dumps(made.to_json())))):
        assert (one.value(WEIGHTS), one.value(IMAGES)) == ("ab" * 32, "cd" * 32)
        assert (one.value("library"), one.value("driver"), one.value("of another version")) == (
            "TensorRT 10.3.0",
            "",
            "",
        )


VERSIONS = {"onnx": "1.17.0", "onnxslim": "0.1.65", "torch": "2.5.1", "onnxruntime": "1.20.1"}
ORIN = {"library": "TensorRT 10.3.0", "gpu": "Orin", "compute_capability": "8.7", "l4t": "36.4.0", "power_mode": "MAXN"}
ON_CPU = BuildRequest(Path("/w/a.onnx"), "ab" * 32, "onnxruntime", EngineSpec(), Path("/s"), 1 << 30)
ON_GPU = replace(
    ON_CPU,
    weights_path=Path("/w/a.pt"),
    backend="tensorrt",
    class_names=("person", "Fußgänger"),
    stride=32,
    spec=EngineSpec(
        target=Target("gpu", 0),
        precision=Precision.FP16,
        resolution_hw=(384, 640),
        batch=4,
        dynamic=True,
        largest_hw=(768, 1280),
        nms=None,
        opset=17,
        workspace_gib=1.5,
        typing="strong",
        optimization_level=4,
        allow_lower_precision=False,
        simplify=False,
    ),
)
ON_DLA = replace(
    ON_GPU,
    spec=EngineSpec(
        target=Target("dla", 1),
        precision=Precision.INT8,
        nms=NmsSpec(iou=0.5, max_det=100, top_k=300),
        quantization="qdq",
    ),
    calibration=CalibrationSettings(algorithm="entropy"),
    calibration_digest="cd" * 32,
)


@pytest.mark.parametrize(
    ("request_", "identity", "digest"),
    [
        (
            ON_CPU,
            {"library": "onnxruntime 1.20.1", "device": "x86_64 Xeon"},
            "a4ad75bc8d8a368951ec25d61eb283c4c3b3c84435053ca7a0e1f79dbae780f0",
        ),
        (
            ON_GPU,
            {**ORIN, "target": "gpu:0", "driver": "540.4.0"},
            "37adb628d86da307c8ea410140d83c4506b6206bba29d9453a0e225ec7580732",
        ),
        (
            ON_DLA,
            {**ORIN, "target": "dla:1", "driver": ""},
            "271adefa85b2ce0a2ae69808e8ffccc59bc114583b44f19adc6e06994e20ca4a",
        ),
    ],
    ids=["cpu", "gpu", "dla"],
)
def test_digests_are_those_of_plans_in_the_field(
    monkeypatch: pytest.MonkeyPatch, request_: BuildRequest, identity: dict[str, str], digest: str
):
    monkeypatch.setattr(fingerprint, "SCHEMA", 2)
    monkeypatch.setattr(fingerprint, "PASSES", 4)
    monkeypatch.setattr(fingerprint.device, "package_version", VERSIONS.get)
    assert Fingerprint.of(request_, identity).digest == digest


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("weights", ["net.pt", "net.onnx"])
def test_only_the_machine_decides_whether_a_plan_is_foreign_to_it(
    wanted: BuildRequest, precision: Precision, weights: str
):
    wanted = replace(wanted, weights_path=Path(weights), spec=replace(wanted.spec, precision=precision))
    built = Fingerprint.of(wanted, {**TENSORRT, "power_mode": "MAXN"})
    assert built.foreign_to({**TENSORRT, "power_mode": "15W"}) == ()
    assert built.foreign_to({**TENSORRT, "library": "TensorRT 10.16.2"}) == ("TensorRT 10.3.0 -> 10.16.2",)
    assert Fingerprint.from_json(built.to_json()).foreign_to(TENSORRT) == ()


def test_what_could_not_be_read_then_or_now_makes_no_plan_foreign(wanted: BuildRequest):
    here = {**TENSORRT, "l4t": "36.4"}
    sound, late = Fingerprint.of(wanted, here), Fingerprint.of(wanted, {**here, "driver": ""})
    assert sound.digest != late.digest
    for misread in ({**here, "driver": ""}, {name: here[name] for name in here if name != "driver"}):
        assert sound.foreign_to(misread) == ()
    assert late.foreign_to(here) == late.foreign_to({**here, "driver": ""}) == ()
    moved = {**here, "driver": "", "library": "TensorRT 10.16.2"}
    assert sound.foreign_to(moved) == late.foreign_to(moved) == ("TensorRT 10.3.0 -> 10.16.2",)
