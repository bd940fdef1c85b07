from __future__ import annotations

from vajra_edge.daemon.systemd import Notify
from vajra_edge.daemon.watchdog import Beats, Late, Watchdog


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
    beat = beats.expect("pipeline", 5.0)
    watchdog = Watchdog(Notify(sent.append, watchdog_s=4.0), beats)
    for tenth in range(40):
        clock.now_s = tenth / 10
        watchdog.tick(clock.now_s)
    assert sent == ["WATCHDOG=1"] * 2
    for clock.now_s in (6.0, 7.0, 8.0):
        (late,) = watchdog.tick(clock.now_s)
        assert str(late) == f"pipeline has been silent for {clock.now_s:.0f} s"
    assert len(sent) == 2
    assert caplog.text.count("pipeline has been silent") == 1
    beat()
    watchdog.tick(clock.now_s)
    assert len(sent) == 3


def test_without_a_watchdog_nobody_is_pinged_and_lateness_is_still_told():
    clock, sent = Clock(), []
    beats = Beats(clock)
    beats.expect("pipeline", 5.0)
    watchdog = Watchdog(Notify(sent.append), beats)
    assert watchdog.tick(0.0) == ()
    clock.now_s = 9.0
    assert watchdog.tick(9.0) == (Late("pipeline", 9.0),)
    assert sent == []
