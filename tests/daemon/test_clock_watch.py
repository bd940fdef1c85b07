"""A wall clock that jumps, is told the time, or loses it: what the history and the topics say of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from station import Station

from vajra_edge import clock
from vajra_edge.clock import Moment
from vajra_edge.daemon.clock_watch import JUMP_S, QUIET_S, ClockWatch
from vajra_edge.mqtt.schema import DetectionMessage, HistoryMessage
from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened

NOON_S = 1_800_000_000.0
HALF_A_CENTURY_S = 50 * 365 * 86_400.0


class Clocks:
    """Those of a board, as a test sets them."""

    def __init__(self, unix_s: float = NOON_S, *, synchronised: bool = True) -> None:
        self.here = Moment("a", 100.0, unix_s, synchronised)
        self.watch = ClockWatch(lambda: self.here)

    def after(self, seconds: float, by_s: float = 0.0, *, synchronised: bool | None = None) -> tuple[AuditEntry, ...]:
        """What is told once time passed and the wall clock was set by so much."""
        known = self.here.synchronised if synchronised is None else synchronised
        self.here = Moment("a", self.here.boot_s + seconds, self.here.unix_s + seconds + by_s, known)
        return self.watch.look()


@pytest.mark.parametrize("by_s", [HALF_A_CENTURY_S, 0.5, -0.5, -3600.0])
def test_a_clock_that_is_set_is_told_with_from_to_and_by_how_much(by_s):
    clocks = Clocks()
    assert clocks.after(0.5) == ()
    (told,) = clocks.after(0.5, by_s)
    assert told.happened is Happened.CLOCK_JUMPED
    assert told.figures == {"by_s": by_s, "from_unix_s": NOON_S + 1.0, "to_unix_s": NOON_S + 1.0 + by_s}
    assert "forward" in told.reason if by_s > 0 else "back" in told.reason
    assert told.at == clocks.here
    assert clocks.after(0.5) == ()


def test_a_board_that_boots_in_1970_tells_both_that_it_was_set_and_that_it_knows_the_time_now():
    clocks = Clocks(unix_s=30.0, synchronised=False)
    assert clocks.after(0.5) == (), "nothing happened to it yet"
    jumped, known = clocks.after(0.5, HALF_A_CENTURY_S, synchronised=True)
    assert (jumped.happened, known.happened) == (Happened.CLOCK_JUMPED, Happened.CLOCK_SYNCHRONISED)
    assert jumped.reason.startswith("from 1970-01-01T00:00:31.000+00:00 to 2019-")
    assert "101 s after the boot" in known.reason


def test_a_clock_that_is_slewed_and_a_daemon_that_looks_late_are_no_jump():
    clocks = Clocks()
    assert all(clocks.after(0.5, 0.04) == () for _ in range(100)), "chrony catches up with 4 s"
    assert clocks.after(30.0, 0.08 * 30.0) == (), "and the daemon stood still meanwhile"
    assert clocks.after(8 * 3600.0) == (), "the board slept"
    assert clocks.after(0.5, JUMP_S) == ()


def test_two_programs_that_fight_over_the_clock_do_not_fill_the_history():
    clocks = Clocks()
    (first,) = clocks.after(0.5, 2.0)
    told = [entry for turn in range(100) for entry in clocks.after(0.5, 3.0 if turn % 2 else -3.0)]
    assert first.figures["by_s"] == 2.0
    assert told == []
    (rest,) = clocks.after(QUIET_S)
    assert (rest.figures["by_s"], rest.reason.endswith("in 100 steps")) == (0.0, True)
    assert clocks.after(QUIET_S) == ()


def test_a_clock_that_nobody_confirms_any_more_is_told_and_one_that_flaps_only_by_its_end():
    clocks = Clocks()
    (lost,) = clocks.after(0.5, synchronised=False)
    assert lost.happened is Happened.CLOCK_UNSYNCHRONISED
    assert clocks.after(0.5, synchronised=True) == ()
    assert clocks.after(0.5, synchronised=False) == ()
    assert clocks.after(QUIET_S) == (), "it is as it was told"
    assert [one.happened for one in clocks.after(0.5, synchronised=True)] == [Happened.CLOCK_SYNCHRONISED]


def test_a_daemon_whose_board_booted_in_1970_lies_to_nobody_and_tells_when_it_knows_the_time(
    rebooted: Station, monkeypatch
):
    """The clock that it has is shifted; it is told the time while it serves."""
    real, told = clock.now, {"by_s": -HALF_A_CENTURY_S, "error_us": clock.UNSYNCHRONISED_US}
    monkeypatch.setattr(clock, "_max_error_us", lambda: int(told["error_us"]))
    monkeypatch.setattr(clock, "now", lambda: replace(real(), unix_s=real().unix_s + told["by_s"]))
    ears = rebooted.listen()
    rebooted.start()
    assert not DetectionMessage.model_validate(ears.detections()).clock_synchronised
    assert not ears.ever(lambda path, _: path == "status")["clock_synchronised"]
    assert not rebooted.status()["clock_synchronised"]
    told.update(by_s=0.0, error_us=1_000)
    ears.until(lambda path, content: path == "status" and content["clock_synchronised"])  # said again, with the time
    ears.until(lambda path, content: path.endswith("detections") and content["clock_synchronised"])
    history = ears.ever(
        lambda path, content: path == "history" and content["entries"][-1]["happened"] == "clock synchronised"
    )
    jumped = HistoryMessage.model_validate(history).entries[-2]
    assert (jumped.happened, jumped.asked_by) == ("clock jumped", "the clock")
    assert jumped.figures["by_s"] == pytest.approx(HALF_A_CENTURY_S, abs=1.0)
    ears.close()
    rebooted.stop()
    kept = {one.happened: one for one in AuditLog(rebooted.state_dir).read().entries}
    assert not kept[Happened.SWAPPED].at.synchronised
    assert kept[Happened.CLOCK_SYNCHRONISED].at.synchronised
    assert rebooted.parts.publisher.counters().outbox.dropped == {}, "no message grew old by it"
