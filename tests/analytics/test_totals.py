"""Totals and hours, through restarts, blind intervals and clocks that are set."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vajra_edge.analytics.totals import (
    MOST_BLIND,
    MOST_HOURS,
    Blind,
    Totals,
    What,
    Why,
    by_class,
    counted,
)
from vajra_edge.analytics.watch import Crossed, Dwelt, Entered, Left, Occupied, Way
from vajra_edge.clock import Moment

TEN = 1_800_000_000 // 3600 * 3600
"""The beginning of an hour."""

CROSSED = Crossed("street", Way.IN, 1, "person")


def at(boot_s: float, unix_s: float | None = None, boot: str = "b", *, synchronised: bool = True) -> Moment:
    """A moment; the wall clock is at ``TEN`` when the boot begins, unless it says otherwise."""
    return Moment(boot, boot_s, TEN + boot_s if unix_s is None else unix_s, synchronised)


def inward(totals: Totals) -> list[int]:
    """Of each hour."""
    return [sum(by_class(hour.counts, "street", What.IN).values()) for hour in totals.hours]


def test_what_is_counted():
    news = counted(
        [
            CROSSED,
            Crossed("street", Way.OUT, 2, "car"),
            Entered("door", 1, "person"),
            Left("door", 1, "person", 3.0),
            Dwelt("door", 1, "person", 3.0),
            Occupied("door", present=True),
        ]
    )
    assert news == {
        ("street", What.IN, "person"): 1,
        ("street", What.OUT, "car"): 1,
        ("door", What.ENTERED, "person"): 1,
    }


def test_each_hour_has_its_own_count_and_all_have_a_total():
    totals = Totals.begin(at(3500.0))
    for boot_s in (3590.0, 3601.0, 3700.0, 7300.0):
        totals = totals.after(at(boot_s), 10.0, [CROSSED])
    assert inward(totals) == [1, 2, 1]
    assert [hour.unix_s - TEN for hour in totals.hours] == [0, 3600, 7200]
    assert [hour.seen_s for hour in totals.hours] == [10.0, 20.0, 10.0]
    assert by_class(totals.counts, "street", What.IN) == {"person": 4}


def test_a_clock_that_is_set_back_a_year_begins_another_entry_and_loses_nothing():
    year_s = 365 * 86_400
    totals = Totals.begin(at(0.0)).after(at(1.0), 1.0, [CROSSED])
    totals = totals.after(at(2.0, TEN + 2.0 - year_s), 1.0, [CROSSED])
    totals = totals.after(at(3.0, TEN + 3.0 - year_s), 1.0, [CROSSED])
    totals = totals.after(at(4.0), 1.0, [CROSSED])
    assert inward(totals) == [1, 2, 1]
    assert [hour.unix_s - TEN for hour in totals.hours] == [0, -year_s // 3600 * 3600, 0]
    assert by_class(totals.counts, "street", What.IN) == {"person": 4}


def test_a_clock_that_is_set_within_the_hour_does_not_mix_two_hours_of_one_name():
    totals = Totals.begin(at(0.0)).after(at(1000.0), 1000.0, [CROSSED])
    totals = totals.after(at(1001.0, TEN + 1.0), 1.0, [CROSSED])
    assert inward(totals) == [1, 1]
    drifted = totals.after(at(2000.0, TEN + 1000.5), 999.0, [CROSSED])
    assert inward(drifted) == [1, 2]


@pytest.mark.parametrize(
    ("restart", "length_s", "by_hour"),
    [
        (at(160.0), 60.0, [2]),
        (at(5.0, TEN + 160.0, "other boot"), 60.0, [2]),
        (at(5.0, TEN + 160.0, "other boot", synchronised=False), None, [1, 1]),
        (at(5.0, 0.0, "other boot", synchronised=False), None, [1, 1]),
    ],
)
def test_after_a_restart_the_time_between_is_named_with_its_length_where_a_clock_tells(
    restart: Moment, length_s: float | None, by_hour: list[int]
):
    stored = Totals.begin(at(0.0)).after(at(100.0), 100.0, [CROSSED])
    stored = Totals.from_json(json.loads(json.dumps(stored.to_json())))
    begun = Totals.begin(restart).after(replace(restart, boot_s=restart.boot_s + 1), 1.0, [CROSSED])
    both = stored.continued(begun)
    assert by_class(both.counts, "street", What.IN) == {"person": 2}
    (blind,) = both.blind
    assert (blind.begin, blind.end, blind.why, blind.length_s) == (stored.until, restart, Why.DOWN, length_s)
    assert both.since == stored.since
    assert inward(both) == by_hour


def test_what_is_kept_is_bounded_and_covers_all_that_was_blind():
    totals = Totals.begin(at(0.0))
    for hour in range(3 * MOST_HOURS):
        totals = totals.after(at(hour * 3600.0), 1.0, [CROSSED])
    for number in range(3 * MOST_BLIND):
        why = Why.CAMERA if number % 2 else Why.FRAMES
        totals = totals.blinded(Blind(at(10.0 * number), at(10.0 * number + 5), why))
    assert len(totals.hours) == MOST_HOURS
    assert by_class(totals.counts, "street", What.IN) == {"person": 3 * MOST_HOURS}
    assert len(totals.blind) == MOST_BLIND
    assert totals.blind[0].begin == at(0.0)
    assert totals.blind[0].why is Why.SEVERAL
    assert totals.blind[-1].why is Why.CAMERA


def test_blind_intervals_that_follow_each_other_for_one_reason_are_one():
    totals = Totals.begin(at(0.0)).blinded(Blind(at(1.0), at(2.0), Why.DOWN))
    totals = totals.blinded(Blind(at(2.0), at(3.0), Why.DOWN)).blinded(Blind(at(3.0), at(4.0), Why.CAMERA))
    assert [(one.length_s, one.why) for one in totals.blind] == [(2.0, Why.DOWN), (1.0, Why.CAMERA)]


def test_totals_are_written_and_read_back():
    totals = Totals.begin(at(0.0)).after(at(1.0), 0.5, [CROSSED, Entered("door", 1, "person")])
    totals = totals.blinded(Blind(at(1.0), at(2.0), Why.CAMERA))
    assert Totals.from_json(json.loads(json.dumps(totals.to_json()))) == totals


def test_an_hour_that_begins_in_its_last_milliseconds_is_the_same_one_after_a_restart():
    totals = Totals.begin(at(3599.99)).after(at(3599.996), 0.005, [CROSSED])
    assert Totals.from_json(json.loads(json.dumps(totals.to_json()))).hours[0].unix_s == TEN


HOUR = {"begin": at(0.0).to_json(), "seen_s": 1.0, "counts": []}
NEVER = {**at(0.0).to_json(), "unix_s": 1e18}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99},
        {"counts": [["street", "sideways", "person", 1]]},
        {"hours": 3},
        {"since": NEVER},
        {"until": {**at(0.0).to_json(), "unix_s": -1e300}},
        {"until": {**at(0.0).to_json(), "boot_s": float("nan")}},
        {"hours": [{**HOUR, "begin": NEVER}]},
        {"hours": [{**HOUR, "seen_s": -1.0}]},
        {"hours": [{**HOUR, "seen_s": float("inf")}]},
        {"hours": [{**HOUR, "counts": [["street", "in", "person", 10**30]]}]},
        {"counts": [["street", "in", "person", -1]]},
        {"counts": [["street", "in", "person", 1.5]]},
    ],
)
def test_a_file_of_another_form_is_refused(change):
    plain = Totals.begin(at(0.0)).to_json() | change
    with pytest.raises((KeyError, TypeError, ValueError)):
        Totals.from_json(plain)
