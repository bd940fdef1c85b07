"""Plans that pass their accuracy check and do worse in service: what was published, who serves again, what is told."""

from __future__ import annotations

import signal
import time
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny
from faults.supervised import Supervised
from onnx import numpy_helper
from station import Ears, Station
from waiting import LIMIT_S, wait_for

from vajra_edge.daemon import probation
from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened

pytestmark = pytest.mark.long(
    "a daemon and a probation for each verdict, a minute each; test_probation.py judges always"
)


def without(*classes: int) -> bytes:
    """The tiny network, blind for these classes."""
    made = onnx.load_from_string(tiny.network())
    (threshold,) = (one for one in made.graph.initializer if one.name == "threshold")
    values = numpy_helper.to_array(threshold).copy()
    values[list(classes)] -= 1000.0
    threshold.CopyFrom(numpy_helper.from_array(values, "threshold"))
    return made.SerializeToString()


def entries(station: Station, happened: Happened) -> list[AuditEntry]:
    told = AuditLog(station.state_dir).read()
    assert not told.doubts
    return [one for one in told.entries if one.happened is happened]


def swapped_to_another(station: Station, old: str) -> str:
    def other(status: dict[str, Any]) -> bool:
        return status["engine"]["serving"]["fingerprint"] != old and not status["engine"]["loading"]

    return str(station.until(other)["engine"]["serving"]["fingerprint"])


def back(station: Station, old: str) -> None:
    station.until(lambda status: status["engine"]["serving"]["fingerprint"] == old)


def engines(ears: Ears) -> list[str]:
    """Of all detection messages so far, each change once."""
    ears._poll()
    told = [content["engine"]["fingerprint"] for path, content, _ in ears.all() if path.endswith("/detections")]
    return [one for number, one in enumerate(told) if number == 0 or told[number - 1] != one]


@pytest.fixture
def watched(rebooted: Station) -> tuple[Station, str, Ears]:
    """A daemon whose plan has served so many frames that the next one can be judged by them."""
    ears = rebooted.listen("camera/+/detections")
    rebooted.start()
    old = rebooted.serving()
    ears.detections(probation.FRAMES + 20)
    return rebooted, old, ears


def test_a_network_that_finds_nothing_gives_way_and_the_history_says_why(watched):
    station, old, ears = watched
    station.write_weights(without(0, 1))
    new = swapped_to_another(station, old)
    back(station, old)
    wait_for(lambda: len(engines(ears)) >= 3)
    assert engines(ears)[:3] == [old[:12], new[:12], old[:12]]
    blind = [c for _, c, _ in ears.all() if c["engine"]["fingerprint"] == new[:12]]
    assert not any(content["detections"] for content in blind)
    station.stop()
    (rolled,) = entries(station, Happened.ROLLED_BACK)
    assert (rolled.fingerprint, rolled.asked_by) == (new, "probation")
    assert rolled.reason.startswith("it found nothing in")
    assert rolled.figures["found_a_frame"] == 0.0 < rolled.figures["before_found_a_frame"]
    last = entries(station, Happened.SWAPPED)[-1]
    assert (last.fingerprint, last.asked_by, rolled.reason in last.reason) == (old, "probation", True), last
    ears.close()


def test_a_network_that_is_blind_for_one_camera_gives_way(rebooted, monkeypatch):
    monkeypatch.setattr(probation, "SCENE_S", 1.0)
    rebooted.camera("yard")
    for path in (rebooted.folder / "yard-pictures").iterdir():
        image = tiny.scene(seed=1).image
        image[(image == tiny.RED).all(axis=2)] = tiny.GREY
        cv2.imwrite(str(path), np.ascontiguousarray(image))
    ears = rebooted.listen("camera/yard/detections")
    rebooted.start()
    old = rebooted.serving()
    ears.detections(probation.FRAMES + 20, camera="yard")
    rebooted.write_weights(without(1))
    new = swapped_to_another(rebooted, old)
    back(rebooted, old)
    rebooted.stop()
    (rolled,) = entries(rebooted, Happened.ROLLED_BACK)
    assert rolled.fingerprint == new
    assert rolled.reason.startswith("camera yard: it found 0.00 objects a frame")
    assert rolled.figures["found_a_frame"] > 0.0  # the gate was seen as before
    ears.close()


def struck(station: Station, monkeypatch: pytest.MonkeyPatch, strike: Any) -> None:
    """Have the runner that serves now do this before each of its batches."""
    runner = station.parts.serving.ready.detector.runner
    infer = runner.infer

    def slowed(batch: Any) -> Any:
        strike()
        return infer(batch)

    monkeypatch.setattr(runner, "infer", slowed)


def test_a_network_that_serves_far_slower_than_its_check_measured_gives_way(watched, monkeypatch):
    station, old, ears = watched
    station.write_weights(tiny.network(gain=30.0))
    new = swapped_to_another(station, old)
    before_ms = station.parts.serving.compared()["before_age_p99_ms"]  # more than the median
    struck(station, monkeypatch, lambda: time.sleep((probation.SLOWER * 3 * before_ms + 2 * probation.GRACE_MS) / 1e3))
    back(station, old)
    station.stop()
    (rolled,) = entries(station, Happened.ROLLED_BACK)
    assert rolled.fingerprint == new
    assert rolled.reason.startswith("frame age is")
    for name in ("age_p50_ms", "age_p99_ms"):
        assert rolled.figures[name] > rolled.figures[f"before_{name}"]
    ears.close()


def test_a_network_that_was_measured_to_be_slower_is_what_was_asked_for_and_both_figures_are_told(watched):
    station, old, ears = watched
    station.write_weights(tiny.network(channels=64))
    new = swapped_to_another(station, old)
    wait_for(lambda: station.parts.serving.compared()["frames"] >= probation.FRAMES)
    assert not station.parts.serving.unfit()
    assert station.serving() == new
    station.stop()
    swaps = {one.fingerprint: one.figures for one in entries(station, Happened.SWAPPED)}
    assert swaps[new]["latency_p50_ms"] > swaps[old]["latency_p50_ms"]
    ears.close()


def test_a_network_that_fails_on_its_hundredth_frame_gives_way_within_the_process(watched, monkeypatch):
    station, old, ears = watched
    station.write_weights(tiny.network(gain=30.0))
    new = swapped_to_another(station, old)
    left = iter(range(100))

    def strike() -> None:
        if next(left, None) is None:
            raise RuntimeError("the hundredth frame")

    struck(station, monkeypatch, strike)
    back(station, old)
    count = len([c for _, c, _ in ears.all() if c["engine"]["fingerprint"] == new[:12]])
    assert count >= 90  # those before it were published
    assert station.thread.is_alive()
    station.stop()
    (rolled,) = entries(station, Happened.ROLLED_BACK)
    assert (rolled.fingerprint, "the hundredth frame" in rolled.reason) == (new, True)
    ears.close()


def numbers(content: dict[str, Any]) -> range:
    """That a message or a gap record speaks of."""
    gap = content.get("gap") or {"from": content["seq"], "to": content["seq"]}
    return range(gap["from"], gap["to"] + 1)


def test_a_network_that_crashes_the_daemon_on_its_hundredth_frame_gives_way_the_third_time(rebooted):
    only = rebooted.folder / "only"
    ears = rebooted.listen("camera/+/detections")
    systemd = Supervised(rebooted, f"hundredth:segv:{only}").start()
    try:
        old = systemd.until(lambda status: status["engine"]["serving"])["engine"]["serving"]["fingerprint"]
        ears.detections(3)
        only.write_text("none")
        rebooted.write_weights(tiny.network(gain=30.0))
        new = systemd.until(lambda status: status["engine"]["wanted"] not in (None, old))["engine"]["wanted"]
        only.write_text(new)
        wait_for(lambda: engines(ears) == [old[:12], new[:12], old[:12]], limit_s=4 * LIMIT_S)
        ears.detections(3)
    finally:
        code = systemd.stop()
    assert ([one.code for one in systemd.ended], code) == ([-signal.SIGSEGV] * 3 + [0], 0)
    everything = [content for _, content, _ in ears.all()] + ears.gaps
    told = {number for content in everything for number in numbers(content)}
    assert told == set(range(max(told) + 1)), "each frame was published, or its absence was told"
    of_new = [one for _, one, _ in ears.all() if one["engine"]["fingerprint"] == new[:12]]
    assert 99 < len(of_new) < 3 * 100  # of three lives; what a crash took before it was committed is in a gap record
    log = AuditLog(rebooted.state_dir).read().entries
    crashes = entries(rebooted, Happened.CRASHED)
    assert [(one.fingerprint, one.asked_by) for one in crashes] == [(new, "start")] * 3
    assert all("Segmentation fault" in one.reason for one in crashes)
    assert (log[-1].happened, log[-1].fingerprint, log[-1].asked_by) == (Happened.SWAPPED, old, "start")
    assert f"plan {new[:12]} waits: " in log[-1].reason, "the history says why the old one serves"
    ears.close()
