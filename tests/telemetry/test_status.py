from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import orjson
import pytest
from measured import PLAN, REPORT

from vajra_edge.mqtt.messages import encode
from vajra_edge.plans.history import Cause, Failure, Follows
from vajra_edge.plans.plain import Fields
from vajra_edge.plans.report_json import read_verify
from vajra_edge.progress import Progress
from vajra_edge.telemetry.status import BrokerView, BuildView, CameraView, EngineView, FailureView, Status

STATUS = Status(
    device="gate-7",
    phase="serving",
    reason="the weights are truncated; copy them again",
    started_at=datetime(2026, 11, 22, tzinfo=timezone.utc),
    uptime_s=5.0,
    pid=7,
    engine=EngineView(
        wanted="ef" * 32,
        serving=PLAN,
        building=BuildView("ef" * 32, quick=False, stage="build", percent=43.2, eta_s=61.0),
        why=("weights abcd -> ef01",),
    ),
    cameras=(CameraView("gate", "streaming", fps=29.9), CameraView("yard", "lost", "no route")),
    broker=BrokerView("broker:1883"),
)


def test_the_line_for_systemctl_says_it_all():
    assert STATUS.line() == (
        "serving abababababab (fp16 on gpu:0); building efefefefefef 43% (build, 61 s left); 1 of 2 cameras; "
        "no broker; the weights are truncated; copy them again"
    )


def test_what_int8_waits_for_is_said_once_in_the_line():
    reason = "int8 is not used: the folder is empty"
    waiting = replace(STATUS, reason=reason, engine=EngineView(calibration=reason))
    assert waiting.line().count(reason) == 1


def test_a_second_best_library_is_why_the_engine_is_not_what_the_settings_ask_for():
    reason = "Orin is seen, but CUDA has no driver here"
    view = EngineView(backend_reason=reason, instead=True)
    assert replace(STATUS, engine=view).engine_message().why == reason
    assert replace(STATUS, engine=replace(view, instead=False)).engine_message().why == ""


def test_it_is_plain_json():
    content = json.loads(orjson.dumps(STATUS.to_json()))
    assert content["engine"]["serving"]["verify"]["recall"] == 0.99
    assert content["cameras"][1]["reason"] == "no route"
    assert content["version"]


def test_a_failure_is_told_with_its_times_in_utc_and_what_follows():
    failure = Failure("ab" * 32, Cause.BUILD, "no memory", Follows.RETRY, (1_764_200_300.0,), 1_764_200_330.0)
    assert FailureView.of(failure) == FailureView(
        *("ab" * 32, "build", "no memory", ("2025-11-26T23:38:20+00:00",), "tried again", "2025-11-26T23:38:50+00:00")
    )


def test_the_retained_topics_come_from_it():
    service = orjson.loads(encode(STATUS.service_message()))
    assert (service["state"], service["progress"], service["reason"]) == ("serving", 0.43, STATUS.reason)
    engine = orjson.loads(encode(STATUS.engine_message()))
    assert (engine["fingerprint"], engine["building"]) == ("ab" * 6, "ef" * 6)
    assert (engine["wanted_precision"], engine["precision"], engine["latency_ms"]) == ("int8", "fp16", 4.9)
    assert engine["why"] == "weights abcd -> ef01"
    assert engine["built_at"] == "2026-11-22T10:00:00Z"
    states = [orjson.loads(encode(message))["state"] for message in STATUS.camera_messages()]
    assert states == ["streaming", "lost"]


def test_a_plan_that_is_being_loaded_is_named_with_the_reason_for_it():
    loading = replace(STATUS, reason="", engine=replace(STATUS.engine, building=None, loading="ef" * 32))
    engine = orjson.loads(encode(loading.engine_message()))
    assert (engine["building"], engine["loading"]) == (None, "ef" * 6)
    assert engine["why"] == "weights abcd -> ef01"
    assert loading.line().startswith("serving abababababab (fp16 on gpu:0); loading efefefefefef; ")
    bare = replace(loading, engine=replace(loading.engine, serving=None))
    assert orjson.loads(encode(bare.engine_message()))["loading"] == "ef" * 6


def test_damage_of_the_stored_plan_is_said_once_whatever_is_being_done_about_it():
    told = "the stored plan efefefefefef was damaged: SHA-256 differs"
    for engine in (
        EngineView(serving=PLAN, damage=told, why=(told,), building=BuildView("ef" * 32, quick=False)),
        EngineView(serving=PLAN, damage=told, why=(told,), last_error="killed"),
        EngineView(damage=told, why=(told,)),
    ):
        assert replace(STATUS, engine=engine).engine_message().why.count(told) == 1


def test_without_an_engine_the_topic_says_so():
    bare = Status("d", "blocked", "no weights", STATUS.started_at, 0.0, 1, EngineView(last_error="no weights"))
    message = orjson.loads(encode(bare.engine_message()))
    assert (message["fingerprint"], message["why"]) == (None, "no weights")


def test_the_percentage_of_a_build_never_goes_back():
    view, seen = BuildView("a", quick=False), []
    for progress in (
        Progress("load", 50.0),
        Progress("build", 50.0, "layer 7", 12.0),
        Progress("export", 10.0),
        Progress("a stage of tomorrow", 10.0),
        Progress("verify"),
        Progress("store", 100.0),
    ):
        view = view.after(progress)
        seen.append(view.percent)
    assert seen == sorted(seen)
    assert seen[1] == 61.0
    assert seen[-1] == 100.0


@pytest.mark.parametrize(("verify", "expected"), [({}, None), ({"latency_p50_ms": None}, None), (REPORT, 4.9)])
def test_the_gates_latency_is_there_where_it_was_measured(verify, expected):
    plan = replace(PLAN, verify=read_verify(Fields(verify)))
    said = Status("d", "serving", "", datetime.now(timezone.utc), 1.0, 7, EngineView(serving=plan))
    assert said.engine_message().latency_ms == expected
