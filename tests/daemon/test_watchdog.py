from __future__ import annotations

import pytest

from vajra_edge.daemon.systemd import Notify
from vajra_edge.daemon.watchdog import LOADING_S, Beats, Flow, Late, Vital, Watchdog


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_who_is_silent_for_longer_than_it_may_is_late():
    clock = Clock()
    beats = Beats(clock)
    camera, mqtt = beats.expect("camera gate", 10.0), beats.expect("mqtt", 3.0)
    clock.now_s = 4.0
    assert beats.late() == (Late("mqtt", 4.0),)
    mqtt()
    assert beats.late() == ()
    clock.now_s = 20.0
    assert [late.name for late in beats.late()] == ["camera gate", "mqtt"]
    camera()
    beats.forget("mqtt")
    assert beats.late() == ()
    mqtt()  # a last beat of a loop that has ended
    assert beats.late() == ()


def test_systemd_is_pinged_at_half_its_patience_and_only_while_nobody_is_late(caplog):
    clock, sent = Clock(), []
    beats = Beats(clock)
    beat = beats.expect("pipeline", 5.0, Vital.ALWAYS)
    watchdog = Watchdog(Notify(sent.append, watchdog_s=4.0), beats)
    for tenth in range(40):
        clock.now_s = tenth / 10
        watchdog.tick(clock.now_s, serving=True)
    assert sent == ["WATCHDOG=1"] * 2
    for clock.now_s in (6.0, 7.0, 8.0):
        (late,) = watchdog.tick(clock.now_s, serving=True)
        assert str(late) == f"pipeline has been silent for {clock.now_s:.0f} s"
    assert len(sent) == 2
    assert caplog.text.count("pipeline has been silent") == 1
    beat()
    watchdog.tick(clock.now_s, serving=True)
    assert len(sent) == 3


def test_until_a_plan_serves_systemd_is_asked_for_patience_but_not_for_a_loop_that_hangs():
    clock, sent = Clock(), []
    beats = Beats(clock)
    desk = beats.expect("background", 5.0, Vital.UNTIL_SERVING)
    watchdog = Watchdog(Notify(sent.append, watchdog_s=30.0), beats)
    watchdog.tick(0.0, serving=False)
    watchdog.tick(1.0, serving=False)
    longer = f"WATCHDOG_USEC={LOADING_S * 1e6:.0f}"
    assert sent == [longer, "WATCHDOG=1"]
    clock.now_s = 9.0
    watchdog.tick(clock.now_s, serving=False)
    assert sent[2:] == ["WATCHDOG_USEC=30000000"]
    desk()
    watchdog.tick(clock.now_s, serving=False)
    assert sent[3:] == [longer]
    watchdog.tick(clock.now_s, serving=True)
    assert sent[4:] == ["WATCHDOG_USEC=30000000"]


def test_without_a_watchdog_nobody_is_pinged_and_lateness_is_still_told():
    clock, sent = Clock(), []
    beats = Beats(clock)
    beats.expect("pipeline", 5.0, Vital.ALWAYS)
    watchdog = Watchdog(Notify(sent.append), beats)
    assert watchdog.tick(0.0, serving=True) == ()
    clock.now_s = 9.0
    assert watchdog.tick(9.0, serving=True) == (Late("pipeline", 9.0, Vital.ALWAYS),)
    assert sent == []


@pytest.mark.parametrize(
    ("vital", "serving", "fed"),
    [
        (Vital.ALWAYS, True, False),
        (Vital.UNTIL_SERVING, True, True),
        (Vital.UNTIL_SERVING, False, False),
        (Vital.NEVER, False, True),
    ],
)
def test_only_who_is_vital_now_keeps_the_watchdog_hungry_and_everybody_late_is_named(vital, serving, fed, caplog):
    clock, sent = Clock(), []
    beats = Beats(clock)
    beats.expect("desk", 5.0, vital)
    beats.beat("desk", "load plan")
    watchdog = Watchdog(Notify(sent.append, watchdog_s=4.0), beats)
    clock.now_s = 6.0
    (late,) = watchdog.tick(6.0, serving=serving)
    assert str(late) == "desk (load plan) has been silent for 6 s"
    assert bool(sent) is fed
    assert ("everything else goes on" in caplog.text) is fed


def test_what_stood_still_while_a_plan_served_is_named_anew_once_none_does(caplog):
    clock = Clock()
    beats = Beats(clock)
    beats.expect("desk", 5.0, Vital.UNTIL_SERVING)
    watchdog = Watchdog(Notify(lambda _: None, watchdog_s=4.0), beats)
    clock.now_s = 6.0
    for serving in (True, True, False, False):
        watchdog.tick(clock.now_s, serving=serving)
    assert [record.message.partition("; ")[2] for record in caplog.records] == [
        "everything else goes on",
        "the watchdog is not fed until it moves",
    ]


def test_frames_that_come_and_are_not_published_are_late_and_a_camera_that_is_slow_or_gone_is_not():
    clock = Clock()
    beats = Beats(clock)
    flow = Flow(beats.expect("frames", 60.0, Vital.ALWAYS))

    def late_after(seconds, fps, published_fps, *, serving=True):
        start_s = clock.now_s
        while clock.now_s < start_s + seconds:
            clock.now_s += 0.5
            flow.tick(int(clock.now_s * fps), int(clock.now_s * published_fps), serving=serving)
        return bool(beats.late())

    assert not late_after(200, 20, 20)
    assert not late_after(200, 20, 0.05)
    assert not late_after(200, 0.05, 0.05)
    assert not late_after(200, 20, 0, serving=False)
    assert late_after(62, 20, 0)
    assert not late_after(2, 20, 20)
    assert not late_after(200, 0, 0)
