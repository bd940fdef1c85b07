"""The whole daemon, with real parts: build child, ONNX Runtime, broker, files and sockets."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
import tiny
from station import LIMIT_S, Ears, Station, build_children, wait_for

from vajra_edge.backends.base import select
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.cli.run import run
from vajra_edge.daemon import app, deployment, reconciler, state_machine
from vajra_edge.daemon.crash_log import MARKER_BYTES, Marker
from vajra_edge.daemon.events import Stop
from vajra_edge.daemon.reconciler import DesiredPlans
from vajra_edge.daemon.sample_collector import ImagesChanged
from vajra_edge.daemon.systemd import Notify
from vajra_edge.daemon.watchdog import Vital
from vajra_edge.demo.broker import Broker
from vajra_edge.errors import BackendUnavailable, ControlError, ForeignPlan, WeightsError
from vajra_edge.inference import open_detector
from vajra_edge.plans.charges import BESIDE_S
from vajra_edge.plans.history import Cause
from vajra_edge.plans.store import EngineStore


def fingerprints(ears: Ears) -> list[str]:
    """The engines named in the detection messages heard so far, each change once."""
    told = [content["engine"]["fingerprint"] for path, content, _ in ears.heard if path.endswith("/detections")]
    return [one for number, one in enumerate(told) if number == 0 or told[number - 1] != one]


def jobs(station: Station) -> int:
    """Builds and loads since the start."""
    assert station.supervisor
    return station.supervisor._s.jobs


def test_first_boot_builds_serves_and_says_so_everywhere(station):
    with_ears = station.listen()
    station.start()
    first = station.status()
    assert first["phase"] in ("starting", "preparing")
    assert first["cameras"][0]["state"] == "off"  # a file waits for somebody to see its first frame
    fingerprint = station.serving()
    message = with_ears.detections()
    assert message["engine"]["fingerprint"] == fingerprint[:12]
    assert {found["class"] for found in message["detections"]} <= {"person", "car"}
    assert message["detections"]
    engine = with_ears.ever(lambda path, content: path == "engine" and content["fingerprint"] == fingerprint[:12])
    assert engine["class_names"] == ["person", "car"]
    with_ears.ever(lambda path, content: path == "status" and content["state"] == "preparing")
    status = station.status()
    assert (status["phase"], status["reason"], status["engine"]["wanted"]) == ("serving", "", fingerprint)
    assert status["broker"]["connected"]
    station.until(lambda status: status["cameras"][0]["published"] > 0)
    assert station.stop() == 0
    last = with_ears.until(lambda path, content: path == "status" and content["state"] == "stopped")
    assert last["device"] == "test"
    assert not build_children(os.getpid())
    assert not station.socket.exists()
    with_ears.close()


def test_what_is_built_is_said_once_however_often_it_is_worked_out_meanwhile(rebooted, caplog):
    caplog.set_level("INFO")
    rebooted.start()
    rebooted.serving()
    caplog.clear()
    rebooted.write_weights(tiny.network(gain=30.0))
    wanted = rebooted.until(lambda status: status["engine"]["building"])["engine"]["wanted"]
    for _ in range(3):
        rebooted.parts.inbox.put(ImagesChanged(frozen=False))
        rebooted.ask(verb="rebuild", dry_run=True)  # is answered after what was asked before it
    assert caplog.text.count(f"plan {wanted[:12]} is wanted") == 1


def test_new_weights_are_built_beside_and_swapped_in_between_two_frames(rebooted):
    ears = rebooted.listen()
    rebooted.start()
    old = rebooted.serving()
    ears.detections(5)
    rebooted.write_weights(tiny.network(gain=30.0))
    (preview,) = rebooted.ask(verb="rebuild", dry_run=True)
    assert preview["needed"] is True
    assert any(phrase.startswith("weights ") for phrase in preview["why"])
    building = rebooted.until(lambda status: status["engine"]["building"])
    assert building["phase"] == "serving"
    assert building["engine"]["building"]["fingerprint"] == preview["fingerprint"]
    ears.until(lambda path, content: path == "status" and content["progress"])
    ears.until(lambda path, content: path.endswith("/detections") and content["engine"]["fingerprint"] != old[:12])
    ears.detections(5)
    assert fingerprints(ears) == [old[:12], preview["fingerprint"][:12]]
    sequence = [content["seq"] for path, content, _ in ears.heard if path.endswith("/detections")]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    status = rebooted.status()
    assert status["engine"]["on_probation"]
    assert rebooted.stop() == 0
    ears.close()


class Held:
    """Keeps every call of a runner that serves until it is let go; counts how often each runner is closed."""

    def __init__(self, station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go, self.closed = threading.Event(), Counter()
        runner = station.parts.serving.ready.detector.runner
        infer, close = runner.infer, type(runner).close
        monkeypatch.setattr(runner, "infer", lambda batch: self.let_go.wait(LIMIT_S) and infer(batch))
        monkeypatch.setattr(type(runner), "close", lambda one: self.closed.update([id(one)]) or close(one))
        self.runner = runner


def test_while_the_old_plan_ends_with_its_frames_the_supervisor_answers_and_says_which_plan_serves(
    rebooted, monkeypatch
):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    old = rebooted.serving()
    ears.until(lambda _, content: content)
    held = Held(rebooted, monkeypatch)
    rebooted.write_weights(tiny.network(gain=30.0))
    status = rebooted.until(lambda status: status["engine"]["loading"] and rebooted.parts.serving.awaited)
    new = status["engine"]["loading"]
    assert status["engine"]["serving"]["fingerprint"] == old != new
    assert not status["engine"]["on_probation"]
    assert not held.closed
    held.let_go.set()
    status = rebooted.until(lambda status: status["engine"]["on_probation"])
    assert (status["engine"]["serving"]["fingerprint"], status["engine"]["loading"]) == (new, None)
    wait_for(lambda: held.closed[id(held.runner)])
    assert rebooted.stop() == 0
    assert set(held.closed.values()) == {1}
    assert len(held.closed) == 2
    ears.close()


def test_a_stop_while_a_swap_waits_closes_every_runner_once(rebooted, monkeypatch):
    rebooted.start()
    rebooted.serving()
    held = Held(rebooted, monkeypatch)
    rebooted.write_weights(tiny.network(gain=30.0))
    wait_for(lambda: rebooted.parts.serving.awaited)
    rebooted.parts.inbox.put(Stop())
    held.let_go.set()
    assert rebooted.stop() == 0
    assert set(held.closed.values()) == {1}
    assert len(held.closed) == 2


def test_a_stored_plan_serves_without_a_build(rebooted):
    rebooted.start()
    rebooted.serving()
    assert jobs(rebooted) == 1


def test_a_stored_plan_that_is_damaged_is_put_aside_and_built_anew(rebooted):
    (plan,) = (rebooted.state_dir / "engines").glob("*/plan")
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    rebooted.start()
    assert rebooted.serving() == plan.parent.name
    assert len(list((rebooted.state_dir / "quarantine").iterdir())) == 1
    assert jobs(rebooted) == 2
    told = rebooted.until(lambda status: [one["follows"] for one in status["engine"]["failures"]] == ["serves since"])
    (failure,) = told["engine"]["failures"]
    assert (failure["fingerprint"], failure["cause"]) == (plan.parent.name, "damage")


@pytest.fixture
def bridged(station: Station) -> Station:
    """A first boot has an interim plan: another workspace makes another fingerprint, also of ONNX Runtime's plans."""
    station.settings["engine"] = {"backend": "onnxruntime", "precision": "fp32", "workspace_gib": 1.0}
    return station


def wanted_serves(status):
    engine = status["engine"]
    return engine["serving"] and engine["serving"]["fingerprint"] == engine["wanted"] and not engine["building"]


def test_damage_is_said_on_both_topics_until_the_successor_of_the_plan_serves(bridged):
    bridged.start()
    wanted = bridged.until(wanted_serves)["engine"]["wanted"]
    bridged.stop()
    store = EngineStore(bridged.state_dir, 1 << 40)
    store.mark_good(wanted)
    store.get(wanted).path.write_bytes(b"other bytes")
    ears = bridged.listen()
    bridged.start()
    status = bridged.until(wanted_serves)
    assert status["engine"]["wanted"] == wanted
    assert status["reason"] == ""
    told = f"the stored plan {wanted[:12]} was damaged: its plan has 11 bytes"
    building = ears.until(lambda path, content: path == "engine" and content["building"] == wanted[:12])
    assert told in building["why"]
    ears.until(lambda path, content: path == "engine" and content["fingerprint"] == wanted[:12])

    def reasons() -> list[str]:
        return [content["reason"] for path, content, _ in ears.all() if path == "status"]

    wait_for(lambda: any(told in reason for reason in reasons()) and reasons()[-1] == "")
    engines = [content for path, content, _ in ears.heard if path == "engine" and content["building"]]
    assert not any("no wanted plan" in content["why"] for content in engines)
    ears.close()


def test_a_change_in_the_first_minute_is_compared_with_the_plan_that_serves(bridged):
    bridged.start()
    first = bridged.until(lambda status: status["engine"]["building"])
    assert first["engine"]["why"] == ["no wanted plan served on this device yet"]
    served = bridged.until(wanted_serves)
    assert served["engine"]["on_probation"]
    assert EngineStore(bridged.state_dir, 1 << 40).current() is None
    ears = bridged.listen()
    ears.until(lambda path, content: path == "engine" and not content["building"])
    bridged.write(engine={"max_det": 50})
    told = ears.until(lambda path, content: path == "engine" and content["building"])
    assert told["why"] == "NMS iou 0.7, max_det 300, top_k 500 -> iou 0.7, max_det 50, top_k 500; weights same"
    (preview,) = bridged.ask(verb="rebuild", dry_run=True)
    assert "; ".join(preview["why"]) == told["why"]
    ears.close()


def test_a_plan_that_is_built_and_does_not_serve_yet_is_said_to_be_loading(rebooted, monkeypatch):
    rebooted.start()
    old = rebooted.serving()
    opened, go = deployment._open, threading.Event()

    def slow(*about):
        go.wait(LIMIT_S)
        return opened(*about)

    monkeypatch.setattr(deployment, "_open", slow)
    ears = rebooted.listen()
    rebooted.write_weights(tiny.network(gain=30.0))
    building = ears.until(lambda path, content: path == "engine" and content["building"])
    assert (building["loading"], building["fingerprint"]) == (None, old[:12])
    loading = ears.until(lambda path, content: path == "engine" and not content["building"])
    assert (loading["loading"], loading["fingerprint"]) == (building["building"], old[:12])
    assert loading["why"] == building["why"]
    assert rebooted.status()["engine"]["loading"][:12] == building["building"]
    go.set()
    last = ears.until(lambda path, content: path == "engine" and content["fingerprint"] != old[:12])
    assert (last["building"], last["loading"], last["why"]) == (None, None, "")
    ears.close()


BAD_WEIGHTS = {
    "truncated": lambda good: good[: len(good) // 2],
    "random bytes": lambda good: bytes(range(256)) * 20,
    "nothing finite": lambda good: tiny.network(nan=True),
    "empty": lambda good: b"",
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_bad_weights_leave_the_old_engine_serving_and_the_status_says_why(rebooted, kind):
    rebooted.start()
    old = rebooted.serving()
    rebooted.write_weights(BAD_WEIGHTS[kind](tiny.network()))
    status = rebooted.until(lambda status: status["reason"])
    assert status["phase"] == "serving"
    assert status["engine"]["serving"]["fingerprint"] == old
    assert "\n" not in status["reason"]
    ears = rebooted.listen("camera/gate/detections")
    assert ears.until(lambda path, content: content)["engine"]["fingerprint"] == old[:12]
    ears.close()
    rebooted.write_weights(tiny.network())
    rebooted.until(lambda status: not status["reason"])
    assert rebooted.serving() == old


def test_weights_that_vanish_are_said_and_forgiven_when_they_are_back(rebooted):
    rebooted.start()
    old = rebooted.serving()
    rebooted.weights.unlink()
    assert "cannot be read: No such file" in rebooted.until(lambda status: status["reason"])["reason"]
    rebooted.write_weights(tiny.network())
    rebooted.until(lambda status: not status["reason"])
    assert rebooted.serving() == old
    assert jobs(rebooted) == 1


def test_no_weights_at_all_is_blocked_with_the_reason_until_they_come(station):
    station.weights.unlink()
    station.start()
    blocked = station.until(lambda status: status["phase"] == "blocked")
    assert "No such file" in blocked["reason"]
    station.write_weights(tiny.network())
    assert station.serving()


def test_no_weights_after_a_reboot_let_the_last_good_plan_serve(rebooted):
    rebooted.weights.unlink()
    rebooted.start()
    status = rebooted.until(lambda status: status["phase"] == "serving")
    assert "No such file" in status["reason"]


def test_when_the_last_good_plan_does_not_load_the_one_before_it_serves(rebooted, monkeypatch):
    store = EngineStore(rebooted.state_dir, 1 << 40)
    older = store.current()
    named = replace(older.manifest.fingerprint, digest="f" * 64)
    newer = store.commit(older.read(), replace(older.manifest, fingerprint=named))
    store.mark_good(newer.fingerprint)
    opened = deployment._open

    def refuse(store, fingerprint, threads):
        if fingerprint == newer.fingerprint:
            raise ForeignPlan("the plan was built by TensorRT 10.3.0, this device has TensorRT 10.16.2")
        return opened(store, fingerprint, threads)

    monkeypatch.setattr(deployment, "_open", refuse)
    rebooted.weights.unlink()
    rebooted.start()
    status = rebooted.until(lambda status: status["phase"] == "serving")
    assert status["engine"]["serving"]["fingerprint"] == older.fingerprint
    assert store.get(newer.fingerprint), "it is not damaged"
    assert jobs(rebooted) == 2


@pytest.fixture
def late_driver(monkeypatch):
    """A library that does not load before the event is set."""
    up, select = threading.Event(), open_detector.select

    def late(*args, **kwargs):
        if not up.is_set():
            raise BackendUnavailable("CUDA's driver does not load", remedy="load its kernel module")
        return select(*args, **kwargs)

    monkeypatch.setattr(state_machine, "RETRY_S", (0.3,))
    monkeypatch.setattr(reconciler, "select", late)
    monkeypatch.setattr(open_detector, "select", late)
    return up


def test_a_driver_that_is_up_after_the_daemon_costs_only_that_time(rebooted, late_driver):
    rebooted.start()
    status = rebooted.until(lambda status: status["phase"] == "blocked" and status["engine"]["retry_in_s"] is not None)
    assert "CUDA's driver does not load" in status["reason"]
    time.sleep(1.0)
    late_driver.set()
    status = rebooted.until(lambda status: status["engine"]["wanted"] and status["engine"]["serving"])
    assert status["engine"]["serving"]["fingerprint"] == status["engine"]["wanted"]
    assert (status["reason"], status["engine"]["retry_in_s"]) == ("", None)


def test_the_last_good_plan_serves_while_what_is_wanted_cannot_be_known(rebooted, late_driver, monkeypatch):
    monkeypatch.setattr(open_detector, "select", select)
    rebooted.start()
    told = "driver does not load"
    status = rebooted.until(lambda status: status["phase"] == "serving" and told in status["reason"])
    assert status["engine"]["wanted"] is None
    late_driver.set()
    status = rebooted.until(lambda status: status["engine"]["wanted"])
    assert status["engine"]["serving"]["fingerprint"] == status["engine"]["wanted"]
    assert jobs(rebooted) == 1


def test_one_misread_of_the_machine_costs_nothing_but_a_look(rebooted, monkeypatch):
    identity, work_out = OnnxRuntime.identity, DesiredPlans.work_out

    def misled(self, *args, **kwargs):
        monkeypatch.setattr(DesiredPlans, "work_out", work_out)
        with monkeypatch.context() as late:
            late.setattr(OnnxRuntime, "identity", lambda backend, spec: {**identity(backend, spec), "device": ""})
            return work_out(self, *args, **kwargs)

    monkeypatch.setattr(DesiredPlans, "work_out", misled)
    good = (rebooted.state_dir / "current").readlink().name
    rebooted.start()
    rebooted.serving()
    status = rebooted.until(lambda status: status["engine"]["wanted"] == good)
    assert status["engine"]["serving"]["fingerprint"] == good
    assert (status["reason"], status["engine"]["retry_in_s"]) == ("", None)
    time.sleep(1.0)
    assert jobs(rebooted) == 2, "the good plan's load, and the build that showed the mistake"


def test_a_killed_build_child_costs_nothing_and_rebuild_tries_again_at_once(rebooted):
    rebooted.start()
    old = rebooted.serving()
    rebooted.write_weights(tiny.network(gain=30.0))
    for child in wait_for(lambda: build_children(os.getpid())):
        os.kill(child, signal.SIGKILL)
    status = rebooted.until(lambda status: status["reason"])
    assert "killed by SIGKILL" in status["reason"]
    assert status["engine"]["serving"]["fingerprint"] == old
    assert 0 < status["engine"]["retry_in_s"] <= 30
    replies = rebooted.ask(verb="rebuild")
    assert replies[-1]["kind"] == "done"
    stages = [reply["building"]["stage"] for reply in replies[:-1] if reply["building"]]
    assert any(stages), "how far it is; of news that come together the last is told"
    assert replies[-1]["built"] is True
    assert rebooted.serving() == replies[-1]["fingerprint"] != old


def test_a_rebuild_that_fails_tells_its_caller_why(rebooted):
    rebooted.start()
    rebooted.serving()
    rebooted.write_weights(b"no network at all")
    with pytest.raises(ControlError):
        rebooted.ask(verb="rebuild")


def test_rebuild_of_what_serves_is_done_at_once_and_by_force_builds_it_anew(rebooted):
    rebooted.start()
    old = rebooted.serving()
    (done,) = rebooted.ask(verb="rebuild")
    assert (done["serving"], done["needed"], done["built"]) == (old, False, False)
    assert jobs(rebooted) == 1
    last = rebooted.ask(verb="rebuild", force=True)[-1]
    assert (last["serving"], last["needed"], last["built"]) == (old, True, True)


def test_a_rebuild_that_nobody_waits_for_is_answered_when_it_began(rebooted):
    rebooted.start()
    old = rebooted.serving()
    (begun,) = rebooted.ask(verb="rebuild", force=True, wait=False)
    assert begun["started"] is True
    assert rebooted.status()["engine"]["building"]["fingerprint"] == old


@pytest.mark.parametrize("fields", [{"force": "yes"}, {"path": "/etc/passwd"}])
def test_a_rebuild_with_other_fields_is_refused(rebooted, fields):
    rebooted.start()
    with pytest.raises(ControlError):
        rebooted.ask(verb="rebuild", **fields)


def test_thresholds_and_class_filters_apply_without_a_rebuild(rebooted):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    rebooted.serving()
    assert {found["class"] for found in ears.detections(3)["detections"]} == {"person", "car"}
    rebooted.write(detect={"classes": ["car"]})
    ears.until(lambda _, content: {found["class"] for found in content["detections"]} == {"car"})
    rebooted.write(detect={"classes": ["bus"]})
    ears.until(lambda _, content: not content["detections"])
    assert "no such class: bus; the network knows person, car" in rebooted.status()["reason"]
    rebooted.write(detect={"classes": ["car", "person"], "confidence": 1.0})
    rebooted.until(lambda status: not status["reason"])
    rebooted.camera("gate", confidence=0.1)
    rebooted.write()
    ears.until(lambda _, content: len(content["detections"]) > 3)
    assert jobs(rebooted) == 1
    ears.close()


def test_a_camera_tracks_when_it_is_asked_to_and_until_it_is_not(rebooted):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    rebooted.serving()
    gate = rebooted.grabber("gate")
    assert "track_id" not in ears.detections(3)["detections"][0]
    rebooted.camera("gate", track=True, confidence=0.1)
    rebooted.write()
    ears.until(lambda _, content: any(found.get("track_id") for found in content["detections"]))
    rebooted.camera("gate", track=False)
    rebooted.write()
    ears.until(lambda _, content: content["detections"] and "track_id" not in content["detections"][0])
    assert rebooted.grabber("gate") is gate
    ears.close()


def most_detections(content):
    return len(content["detections"])


def test_nms_outside_the_engine_changes_in_place(station, monkeypatch):
    monkeypatch.setattr(OnnxRuntime, "nms_inside", lambda *_: False)  # as TensorRT's
    ears = station.listen("camera/gate/detections")
    station.write(engine={"max_det": 4})
    station.start()
    old = station.serving()
    assert ears.until(lambda _, content: content["detections"])["detections"]
    assert most_detections(ears.detections(4)) == 4, "as the settings said at the start"
    station.write(engine={"max_det": 2, "nms_iou": 0.5})
    ears.until(lambda _, content: most_detections(content) == 2)
    station.write(engine={"nms_top_k": 1})
    ears.until(lambda _, content: most_detections(content) == 1)
    (preview,) = station.ask(verb="rebuild", dry_run=True)
    assert (preview["needed"], preview["why"]) == (False, [])
    assert station.serving() == old
    assert jobs(station) == 2, "the first build and its load"
    ears.close()


def test_nms_inside_the_engine_is_built_anew(rebooted):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    old = rebooted.serving()
    rebooted.write(engine={"max_det": 2})
    told = ears.until(lambda _, content: content["engine"]["fingerprint"] != old[:12])
    assert most_detections(told) == 2
    ears.close()


def test_a_camera_change_reopens_only_that_camera(rebooted):
    rebooted.camera("yard")
    rebooted.start()
    rebooted.serving()
    gate, yard = (rebooted.grabber(name) for name in ("gate", "yard"))
    rebooted.camera("yard", fps=10.0)
    rebooted.camera("dock")
    rebooted.write()
    rebooted.until(lambda status: [camera["id"] for camera in status["cameras"]] == ["gate", "yard", "dock"])
    rebooted.until(lambda status: {camera["state"] for camera in status["cameras"]} == {"streaming"})
    assert rebooted.parts.cameras._grabbers["gate"] is gate
    assert rebooted.parts.cameras._grabbers["yard"] is not yard
    ears = rebooted.listen()
    ears.detections(2, camera="dock")
    del rebooted.settings["cameras"]["dock"]
    rebooted.camera("yard", enabled=False)
    rebooted.write()
    rebooted.until(lambda status: [camera["state"] for camera in status["cameras"]] == ["streaming", "off"])
    ears.until(lambda path, content: path == "camera/dock/status" and content is None)
    assert rebooted.parts.cameras._grabbers["gate"] is gate
    assert jobs(rebooted) == 1
    ears.close()


def test_a_broker_change_only_reconnects(rebooted):
    rebooted.start()
    rebooted.serving()
    gate = rebooted.grabber("gate")
    other = Broker()
    try:
        port = other.open()[1]
        rebooted.write(mqtt={"port": port})
        ears = rebooted.listen(port=port)
        ears.detections(2)
        ears.ever(lambda path, content: path == "status" and content["state"] == "serving")
        ears.close()
    finally:
        rebooted.write(mqtt={"port": rebooted.port})
        rebooted.until(lambda status: status["broker"]["address"].endswith(str(rebooted.port)))
        other.close()
    assert rebooted.parts.cameras._grabbers["gate"] is gate
    assert jobs(rebooted) == 1


def test_invalid_settings_are_refused_with_the_reason_and_the_old_ones_stay(rebooted):
    rebooted.start()
    rebooted.serving()
    rebooted.write(detect={"confidence": 7})
    status = rebooted.until(lambda status: status["reason"])
    assert "detect.confidence = 7" in status["reason"]
    assert status["phase"] == "serving"
    with pytest.raises(ControlError, match=r"detect\.confidence = 7"):
        rebooted.ask(verb="reload")
    rebooted.config.unlink()
    rebooted.until(lambda status: "cannot be read" in status["reason"])
    rebooted.write(detect={"confidence": 0.3})
    rebooted.until(lambda status: not status["reason"])
    assert jobs(rebooted) == 1


def test_what_needs_a_restart_is_said_and_not_done(rebooted, tmp_path):
    rebooted.start()
    rebooted.serving()
    rebooted.write(service={"control_socket": str(tmp_path / "other.sock"), "threads": 1})
    status = rebooted.until(lambda status: status["settings"]["restart"])
    assert status["settings"]["restart"] == ["service.control_socket", "service.threads"]
    assert not (tmp_path / "other.sock").exists()
    assert jobs(rebooted) == 1
    rebooted.settings["service"]["control_socket"] = str(rebooted.socket)
    del rebooted.settings["service"]["threads"]
    rebooted.write()
    rebooted.until(lambda status: not status["settings"]["restart"])


def test_an_engine_setting_rebuilds_and_going_back_needs_no_build(rebooted):
    rebooted.start()
    old = rebooted.serving()
    rebooted.write(engine={"nms_iou": 0.5})
    new = rebooted.until(lambda status: status["engine"]["serving"]["fingerprint"] != old)
    assert "NMS" in " ".join(new["engine"]["why"])
    del rebooted.settings["engine"]["nms_iou"]
    before = jobs(rebooted)
    rebooted.write()
    rebooted.until(lambda status: status["engine"]["serving"]["fingerprint"] == old)
    assert jobs(rebooted) == before + 1


def test_other_weights_are_named_in_the_settings(rebooted, tmp_path):
    rebooted.start()
    old = rebooted.serving()
    same = tmp_path / "copy.onnx"
    same.write_bytes(rebooted.weights.read_bytes())
    rebooted.write(weights={"path": str(same)})
    time.sleep(1.0)
    assert rebooted.serving() == old
    assert jobs(rebooted) == 1
    rebooted.write(weights={"sha256": "0" * 64})
    status = rebooted.until(lambda status: status["reason"])
    assert "the settings ask for 000000" in status["reason"]
    assert status["engine"]["serving"]["fingerprint"] == old


def test_a_second_daemon_is_refused_and_disturbs_nothing(rebooted):
    rebooted.start()
    rebooted.serving()
    with pytest.raises(ControlError, match="another daemon serves"):
        run(rebooted.config, None)
    assert rebooted.status()["phase"] == "serving"


def test_max_frames_ends_by_itself_with_every_message_sent(rebooted):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start(max_frames=10)
    ears.detections(10)
    wait_for(lambda: rebooted.code is not None)
    assert rebooted.code == 0
    assert len(ears.all()) == 10
    ears.close()


def test_files_that_end_are_published_to_the_last_frame_and_end_the_daemon(rebooted):
    rebooted.camera("gate", loop=False, realtime=False)
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    wait_for(lambda: rebooted.code is not None)
    assert rebooted.code == 0
    ears.until(lambda _, content: content["frame_seq"] == 3)
    assert [content["frame_seq"] for _, content, _ in ears.all()] == [0, 1, 2, 3]
    ears.close()


def test_a_stop_in_the_middle_of_a_build_leaves_no_child(station):
    station.start()
    wait_for(lambda: build_children(os.getpid()))
    assert station.stop() == 0
    assert not build_children(os.getpid())


def test_a_runner_that_fails_for_good_ends_the_process_with_a_strike(rebooted):
    rebooted.start()
    fingerprint = rebooted.serving()
    rebooted.parts.serving.ready.detector.runner.close()
    wait_for(lambda: rebooted.code is not None)
    assert rebooted.code == 1
    (failure,) = rebooted.parts.history.failures()
    assert (failure.fingerprint, failure.cause, len(failure.times_s)) == (fingerprint, Cause.CRASH, 1)


def test_a_runner_that_fails_on_probation_gives_way_to_the_plan_before_it(rebooted):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    old = rebooted.serving()
    rebooted.write_weights(tiny.network(gain=30.0))
    new = rebooted.until(lambda status: status["engine"]["on_probation"])["engine"]["serving"]["fingerprint"]
    ears.until(lambda _, content: content["engine"]["fingerprint"] == new[:12])
    rebooted.parts.serving.ready.detector.runner.close()
    status = rebooted.until(lambda status: status["engine"]["serving"]["fingerprint"] == old)
    assert "the runner is closed" in status["reason"]
    ears.until(lambda _, content: content["engine"]["fingerprint"] == old[:12])
    assert rebooted.code is None
    rebooted.until(lambda status: status["engine"]["retry_in_s"])
    with pytest.raises(ControlError, match=r"waits: .*the runner is closed.* rebuild --force insists"):
        rebooted.ask(verb="rebuild")
    assert rebooted.stop() == 0
    rebooted.start()
    status = rebooted.until(lambda status: status["phase"] == "serving")
    assert status["engine"]["serving"]["fingerprint"] == old
    assert f"plan {new[:12]} waits" in status["reason"]
    assert 0 < status["engine"]["retry_in_s"] <= BESIDE_S[0], "no failure in service lasts for good"
    (failure,) = status["engine"]["failures"]
    assert (failure["fingerprint"], failure["cause"], failure["follows"]) == (new, "service", "tried again")
    done = rebooted.ask(verb="rebuild", force=True)[-1]
    assert done["serving"] == new
    ears.close()


def test_the_failure_of_a_task_is_said_until_the_same_task_succeeds_whatever_else_does(rebooted):
    rebooted.start()
    rebooted.serving()
    background = rebooted.parts.background
    background.do("mark plan good", lambda: int("full"))
    background.do("close plan", lambda: int("hung"))
    rebooted.until(lambda status: "mark plan good" in status["reason"] and "close plan" in status["reason"])
    background.do("mark plan good", lambda: None)
    rebooted.ask(verb="rebuild")  # what is wanted is worked out, and well
    status = rebooted.until(lambda status: "mark plan good" not in status["reason"])
    assert status["reason"].startswith("close plan: ValueError: invalid literal")
    background.do("close plan", lambda: None)
    rebooted.until(lambda status: not status["reason"])


def test_a_desk_that_hangs_while_a_plan_serves_is_named_and_costs_no_frame(rebooted):
    ears = rebooted.listen("camera/gate/detections")
    rebooted.start()
    rebooted.serving()
    hangs = threading.Event()
    rebooted.parts.beats._loops["background"].deadline_s = 1.5
    rebooted.parts.background.do("read the store", lambda: hangs.wait(LIMIT_S) and None)
    status = rebooted.until(lambda status: status["late"])
    assert re.search(r"background \(read the store\) has been silent for \d+ s", status["reason"])
    assert status["phase"] == "serving"
    assert all(late.vital is Vital.UNTIL_SERVING for late in rebooted.parts.beats.late())
    ears.detections(5)
    hangs.set()
    rebooted.until(lambda status: not status["late"])
    assert rebooted.stop() == 0
    ears.close()


def test_a_desk_that_hangs_while_nothing_serves_leads_to_a_restart_and_is_named(rebooted, monkeypatch):
    asked, answers, get = threading.Event(), threading.Event(), EngineStore.get

    def hangs(store, fingerprint):
        asked.set()
        answers.wait(LIMIT_S)
        return get(store, fingerprint)

    monkeypatch.setattr(EngineStore, "get", hangs)
    pings: list[str] = []
    rebooted.start()
    watchdog = rebooted.parts.watchdog
    watchdog._notify, watchdog._every_s = Notify(pings.append), 0.1
    wait_for(lambda: pings and asked.is_set())
    rebooted.parts.beats._loops["background"].deadline_s = 1.0
    status = rebooted.until(lambda status: status["late"])
    assert "background (work out what is wanted) has been silent" in status["reason"]
    fed = len(pings)
    rebooted.until(lambda status: status["uptime_s"] > 5.0)
    assert len(pings) <= fed + 1, "one may have been under way"
    answers.set()
    rebooted.serving()
    wait_for(lambda: len(pings) > fed + 1)
    assert rebooted.stop() == 0


def test_weights_on_a_disk_that_hangs_do_not_keep_the_last_good_plan_from_serving(rebooted, monkeypatch):
    asked, answers = threading.Event(), threading.Event()

    def hangs(_path, _beat):
        asked.set()
        answers.wait(LIMIT_S)
        raise WeightsError("the disk is gone")

    monkeypatch.setattr(app, "weights_digest", hangs)
    monkeypatch.setattr(app, "WATCH", app.WATCH._replace(deadline_s=1.0))
    (plan,) = (rebooted.state_dir / "engines").iterdir()
    EngineStore(rebooted.state_dir, 1 << 40).mark_good(plan.name)
    rebooted.start()
    assert asked.wait(LIMIT_S)
    assert rebooted.serving() == plan.name
    status = rebooted.until(lambda status: "watch has been silent" in status["reason"])
    assert f"weights {rebooted.weights} cannot be looked at: the disk does not answer" in status["reason"]
    answers.set()
    rebooted.until(lambda status: not status["late"] and not status["reason"])
    assert rebooted.stop() == 0


def test_who_is_late_is_noted_though_the_desk_hangs(rebooted: Station):
    goes_on = threading.Event()

    def hang() -> None:
        goes_on.wait()

    rebooted.start().serving()
    rebooted.parts.background.do("hang", hang)
    rebooted.parts.beats.expect("silent", 0.0, Vital.ALWAYS)
    noted = rebooted.state_dir / "running"
    wait_for(lambda: Marker.from_bytes(noted.read_bytes()[:MARKER_BYTES]).late == ("silent",))  # type: ignore[union-attr]
    goes_on.set()
