"""Whether a request is of now and asked for the first time, by clocks that tests set."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from vajra_edge.clock import Moment
from vajra_edge.errors import PublishError
from vajra_edge.mqtt import freshness
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.freshness import KEPT_S, WINDOW_S, Freshness

NOON_S = 1_795_860_000.0


class Clock:
    def __init__(self, *, synchronised: bool = True) -> None:
        self.moment = Moment("b1", 5000.0, NOON_S, synchronised)

    def now(self) -> Moment:
        return self.moment

    def passes(self, seconds: float) -> None:
        moment = self.moment
        self.moment = replace(moment, boot_s=moment.boot_s + seconds, unix_s=moment.unix_s + seconds)

    def is_set(self, seconds: float, *, synchronised: bool = True) -> None:
        self.moment = replace(self.moment, unix_s=self.moment.unix_s + seconds, synchronised=synchronised)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def judge(clock: Clock) -> Freshness:
    """A daemon that has run for an hour."""
    made = Freshness(clock.now)
    clock.passes(3600.0)
    return made


def asked(clock: Clock, age_s: float = 0.0, transaction: str | None = "t1", verb: str = "rebuild") -> Requested:
    at = datetime.fromtimestamp(clock.moment.unix_s - age_s, timezone.utc)
    return Requested(verb, transaction, at=at)


def refusal(judging: Freshness, request: Requested) -> str:
    """Of the request, empty where it is taken."""
    try:
        judging.require_now(request)
        judging.require_first(request)
    except PublishError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("age_s", "words"),
    [
        (0.0, ""),
        (WINDOW_S - 1.0, ""),
        (1.0 - WINDOW_S, ""),
        (WINDOW_S + 1.0, "is 301 s older than this device's clock, 2026-11-28T"),
        (-WINDOW_S - 1.0, "is 301 s newer than this device's clock"),
        (NOON_S, "older than"),
    ],
)
def test_a_request_is_taken_within_the_window_around_the_devices_clock(clock: Clock, age_s: float, words: str) -> None:
    told = refusal(judge(clock), asked(clock, age_s))
    assert words in told
    assert bool(words) == bool(told)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_no_time_is_too_far_away_to_be_refused(clock: Clock, at: str) -> None:
    assert "which is beyond 300 s" in refusal(judge(clock), Requested("rebuild", "t1", at=datetime.fromisoformat(at)))


def test_a_request_says_when_and_which_it_is_unless_it_only_reads(clock: Clock) -> None:
    judging = judge(clock)
    assert 'does not say when it was asked; send "at": "2026-11-28T' in refusal(judging, Requested("rebuild", "t1"))
    assert "has no transaction" in refusal(judging, asked(clock, transaction=None))
    assert [refusal(judging, Requested("status", "t1")) for _ in range(2)] == ["", ""]


def test_the_same_transaction_is_taken_once_in_the_window_whatever_it_asks(clock: Clock) -> None:
    judging = judge(clock)
    first = asked(clock, age_s=-WINDOW_S + 1.0)
    assert refusal(judging, first) == ""
    for _ in range(20):
        clock.passes(KEPT_S / 20 - 1.0)
        assert refusal(judging, first)
    assert "'t1' was used before" in refusal(judging, asked(clock, verb="rollback"))
    clock.passes(KEPT_S)
    assert "older than" in refusal(judging, first)
    assert refusal(judging, asked(clock)) == "", "another request may have the name of one that is long over"


def test_a_request_that_was_refused_used_up_nothing(clock: Clock) -> None:
    judging = judge(clock)
    assert refusal(judging, asked(clock, age_s=WINDOW_S + 1.0))
    assert refusal(judging, asked(clock)) == ""


def test_what_was_asked_of_the_process_before_this_one_is_not_taken_again(clock: Clock) -> None:
    judging = Freshness(clock.now)
    clock.passes(60.0)
    assert "may have been answered before; ask anew" in refusal(judging, asked(clock, age_s=70.0))
    assert refusal(judging, asked(clock, age_s=50.0)) == ""
    clock.is_set(-1000.0)
    assert "may have been answered before" in refusal(judging, asked(clock, 70.0, "t2"))
    assert refusal(judging, asked(clock, 50.0, "t3")) == ""


def test_a_clock_that_is_set_back_brings_no_old_request_back(clock: Clock) -> None:
    judging = judge(clock)
    recorded = asked(clock)
    assert refusal(judging, recorded) == ""
    clock.passes(KEPT_S + 1.0)
    clock.is_set(-KEPT_S)
    assert "may have been answered before" in refusal(judging, recorded)
    challenge = str(judging.told()["challenge"])
    assert refusal(judging, Requested("rebuild", "t2", challenge=challenge)) == "", "nobody is locked out"


def test_without_a_clock_that_is_right_a_challenge_takes_the_place_of_the_time() -> None:
    clock = Clock(synchronised=False)
    judging = judge(clock)
    told = refusal(judging, asked(clock))
    assert "2026-11-28T" in told
    assert "is not known to be right" in told
    assert "send the challenge of this answer" in told
    assert "send the challenge" in refusal(judging, Requested("rebuild", "t1"))
    assert judging.told()["clock_synchronised"] is False
    challenged = Requested("rebuild", "t1", challenge=str(judging.told()["challenge"]))
    assert refusal(judging, challenged) == ""
    assert "was used before" in refusal(judging, challenged)
    clock.is_set(-NOON_S)
    assert refusal(judging, replace(challenged, transaction="t2")) == "", "no clock that anybody sets matters"


def test_a_challenge_stands_for_a_window_or_two_and_is_none_of_another_process(clock: Clock) -> None:
    judging, other = judge(clock), judge(clock)
    told = str(judging.told()["challenge"])
    clock.passes(WINDOW_S - 1.0)
    assert judging.told()["challenge"] == told
    clock.passes(2.0)
    assert judging.told()["challenge"] != told
    request = Requested("rebuild", "t1", challenge=told)
    judging.require_now(request)
    assert "that does not stand" in refusal(other, request)
    clock.passes(WINDOW_S)
    assert "that does not stand" in refusal(judging, request)
    assert "that does not stand" in refusal(judging, replace(request, challenge=""))


def test_no_more_is_remembered_than_there_is_room_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "MOST_KNOWN", 3)
    judging = judge(clock)
    assert [refusal(judging, asked(clock, transaction=name)) for name in "abc"] == ["", "", ""]
    assert "3 transactions are remembered already" in refusal(judging, asked(clock, transaction="d"))
    assert "'a' was used before" in refusal(judging, asked(clock, transaction="a")), "nothing was forgotten for it"
    clock.passes(KEPT_S + 1.0)
    assert refusal(judging, asked(clock, transaction="d")) == ""
