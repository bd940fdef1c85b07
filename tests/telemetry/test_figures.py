"""Every figure of a manifest, as the status and the ``engine`` topic carry it."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

import orjson
import pytest
from measured import INT8_NOTES, NOTES, REPORT

from vajra_edge.build.request import BuildRequest
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.mqtt.messages import encode
from vajra_edge.mqtt.schema import EngineMessage
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.plain import Fields
from vajra_edge.plans.report import BuildReport
from vajra_edge.plans.report_json import read, read_verify
from vajra_edge.plans.signing import KEY_BYTES, open_signed
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.telemetry.plan_view import PlanView
from vajra_edge.telemetry.status import EngineView, Status


@pytest.fixture
def manifest() -> Manifest:
    """INT8 on a DLA core."""
    spec = EngineSpec(target=Target("dla", 0), precision=Precision.INT8)
    request = BuildRequest(Path("/net.pt"), "ab" * 32, "tensorrt", spec, Path("/s"), 1)
    return Manifest(
        fingerprint=Fingerprint.of(request, {"library": "TensorRT 10.3.0"}),
        backend="tensorrt",
        signature=Signature("images", "detections", Layout.DETECTIONS, 1, (640, 640), False, False, 32, ("person",)),
        wanted=spec,
        precision=spec.precision,
        target=spec.target,
        verify=read_verify(Fields(REPORT)),
        report=read(Fields(NOTES)),
        weights_name="net.pt",
        build_s=61.0,
        created_at="2026-11-22T10:00:00+00:00",
    )


def published(manifest: Manifest) -> EngineMessage:
    view = PlanView.of(manifest)
    now = datetime(2026, 11, 22, tzinfo=timezone.utc)
    status = Status("gate-7", "serving", "", now, 1.0, 7, EngineView(serving=view))
    orjson.dumps(status.to_json())
    return EngineMessage.model_validate_json(encode(status.engine_message()))


STORED = Path(__file__).parents[1] / "plans/manifests"


@pytest.mark.parametrize("name", ["lowered", "dla", "again"])
def test_a_stored_manifest_is_published_as_it_was_by_the_version_that_wrote_it(name: str):
    view = PlanView.of(open_signed(STORED / f"{name}.json", bytes(KEY_BYTES)))
    now = datetime(2026, 11, 22, tzinfo=timezone.utc)
    message = Status("gate-7", "serving", "", now, 1.0, 7, EngineView(serving=view)).engine_message()
    stored = (STORED / f"{name}.engine").read_bytes().replace(b'"schema":1', b'"schema":2')  # of another message
    told = encode(replace(message, at=now, clock_synchronised=False))
    for later in (b'"clock_synchronised":false,', b'"built_at_synchronised":null,', b'"path":"",'):
        assert later in told
        told = told.replace(later, b"")
    assert told + b"\n" == stored


def test_every_figure_of_the_gate_is_published(manifest: Manifest):
    gate = published(manifest).verify
    assert gate
    assert asdict(gate) == {name: value for name, value in REPORT.items() if name != "bounds"}


def test_a_report_from_before_the_speeds_were_compared_is_published_without_them(manifest: Manifest):
    earlier = {name: value for name, value in REPORT.items() if name not in ("int8_ms", "fp16_ms", "speed")}
    gate = published(replace(manifest, verify=read_verify(Fields(earlier)))).verify
    assert gate
    assert (gate.recall, gate.int8_ms, gate.fp16_ms, gate.speed) == (0.968, None, None, "")


def test_the_share_of_int8_its_drift_and_the_origin_of_its_ranges_are_published(manifest: Manifest):
    int8 = published(manifest).int8
    assert int8
    assert (int8.macs_share, int8.layers, int8.layers_kept) == (0.9123, 71, 4)
    assert (int8.score_drift, int8.box_drift) == (0.0081, 0.0064)
    assert (int8.ranges, int8.algorithm, int8.images) == ("measured", "minmax", 448)
    assert (int8.images_from, int8.collector) == ("the device's cameras", "TensorRT on the GPU")


def test_the_report_card_of_the_dla_is_published_with_what_fell_back_and_why(manifest: Manifest):
    dla = published(manifest).dla
    assert dla
    assert (dla.macs_share, dla.transitions, dla.nodes_on_dla, dla.nodes, dla.loadables) == (0.83, 2, 40, 52, 1)
    assert dla.left_on_gpu == {"this device's own DLA compiler refuses it": 9, "beyond the region": 3}


def test_ranges_without_a_choice_of_layers_publish_what_there_is(manifest: Manifest):
    int8 = published(replace(manifest, report=read(Fields({"int8": {"ranges": INT8_NOTES["ranges"]}})))).int8
    assert int8
    assert (int8.ranges, int8.macs_share, int8.score_drift) == ("measured", None, None)


def test_figures_of_a_refused_precision_are_published_too(manifest: Manifest):
    failed = {**REPORT, "passed": False, "recall": 0.71}
    refused = {"precision": "int8", "reason": "recall 0.71", "report": failed, "notes": {"int8": INT8_NOTES}}
    bare = {"precision": "fp16", "reason": "not finite", "report": None, "notes": {}}
    message = published(replace(manifest, precision=Precision.FP32, report=read(Fields({"rejected": [refused, bare]}))))
    assert (message.int8, message.dla) == (None, None)
    first, second = message.refused
    assert first.verify
    assert first.int8
    assert (first.precision, first.verify.recall, first.int8.macs_share) == ("int8", 0.71, 0.9123)
    assert (second.precision, second.verify, second.int8) == ("fp16", None, None)


def test_what_failed_for_a_cause_that_may_pass_is_published_with_the_remedy(manifest: Manifest):
    passing = {"precision": "int8", "reason": "the memory did not suffice", "passing": True}
    lasting = {"precision": "int8", "reason": "no tactic", "passing": False}
    lowered = replace(manifest, precision=Precision.FP16, report=read(Fields({"rejected": [passing, lasting]})))
    told = "the memory did not suffice; another try may do better: vajra-edge rebuild --force"
    assert [one.reason for one in published(lowered).refused] == [told, "no tactic"]
    assert PlanView.of(lowered).rejected == (f"int8 is not used: {told}", "int8 is not used: no tactic")


def test_a_plan_without_a_gate_and_without_notes_publishes_nothing_of_them(manifest: Manifest):
    message = published(replace(manifest, verify=None, report=BuildReport()))
    assert (message.verify, message.int8, message.dla, message.refused) == (None, None, None, ())


def test_int8_refused_for_its_drift_publishes_the_share_that_was_chosen(manifest: Manifest):
    unplaced = {name: INT8_NOTES[name] for name in ("ranges", "chosen", "curve")}
    refused = {"precision": "int8", "reason": "it moves scores", "report": None, "notes": {"int8": unplaced}}
    (message,) = published(
        replace(manifest, precision=Precision.FP32, report=read(Fields({"rejected": [refused]})))
    ).refused
    assert message.int8
    assert (message.int8.macs_share, message.int8.layers, message.int8.layers_kept) == (0.9, None, 4)


FOREIGN_NOTES: dict[str, dict[str, object]] = {
    "another field": {"rejected": [{"rung": "int8"}], "dla": {"nodes": 4, "left_on_gpu": {"/softmax": {"count": 9}}}},
    "another shape": {"rejected": ["int8: drift"], "dla": {"nodes": 4, "left_on_gpu": {"/softmax": 9}}, "int8": 0.9},
    "another kind": {"rejected": {"int8": "drift"}, "dla": {"nodes": 4, "left_on_gpu": []}, "dla_inspected": "none"},
}


@pytest.mark.parametrize("notes", FOREIGN_NOTES.values(), ids=FOREIGN_NOTES)
def test_notes_of_another_version_publish_what_is_understood_of_them(manifest: Manifest, notes: dict[str, object]):
    message = published(replace(manifest, report=read(Fields(notes))))
    assert (message.int8, message.refused) == (None, ())
    assert message.dla
    assert (message.dla.nodes, message.dla.left_on_gpu) == (4, {})


def test_a_refusal_without_its_reason_is_published_with_what_is_there(manifest: Manifest):
    view = PlanView.of(replace(manifest, report=read(Fields({"rejected": [{"precision": "int8"}]}))))
    assert [(one.precision, one.reason, one.verify) for one in view.refused] == [("int8", "", None)]
    assert view.rejected == ("another way to int8 is not used: ",)
    lowered = replace(manifest, precision=Precision.FP32, report=read(Fields({"rejected": [{"precision": "int8"}]})))
    assert PlanView.of(lowered).rejected == ("int8 is not used: ",)
