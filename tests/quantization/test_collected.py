from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.quantization.camera_samples import Kept
from vajra_edge.quantization.collection import Collected, lacking

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
NO_CLOCK = datetime(2023, 4, 27, tzinfo=timezone.utc)
"""Where a Jetson without an RTC battery begins."""


def pictures(*groups: tuple[datetime, int, float]) -> list[Kept]:
    """Groups of a beginning, a count and the minutes from one picture to the next; eight boxes each."""
    times = [start + timedelta(minutes=number * every) for start, count, every in groups for number in range(count)]
    return [Kept(number, "gate", at, 8) for number, at in enumerate(times)]


def awaited(there: list[Kept], settings: CalibrationSettings | None = None) -> str:
    return " and ".join(lacking(there, settings or CalibrationSettings(), 1))


def test_a_day_that_was_seen_is_enough():
    assert awaited(pictures((NOON, 100, 7))) == ""


@pytest.mark.parametrize("before", [NO_CLOCK, NOON + timedelta(days=900)], ids=["past", "future"])
def test_a_clock_that_is_set_meanwhile_is_no_day_that_was_seen(before: datetime):
    assert awaited(pictures((before, 3, 1), (NOON, 97, 1))) == "pictures of 11.4 hours (4.5 so far)"


def test_several_boots_in_the_past_are_one_jump():
    boots = [(NO_CLOCK + timedelta(seconds=boot), 4, 1) for boot in range(10)]
    assert "(4.5 so far)" in awaited(pictures(*boots, (NOON, 97, 1)))


def test_a_night_in_which_nothing_is_kept_does_not_hold_a_set_up_for_long():
    working_day = (NOON - timedelta(hours=5), 80, 7)
    next_morning = (NOON + timedelta(hours=19), 6, 10)
    assert awaited(pictures(working_day)) == "pictures of 11.4 hours (9.2 so far)"
    assert awaited(pictures(working_day, next_morning)) == ""


def test_the_smallest_set_can_be_completed():
    smallest = CalibrationSettings(max_images=8, sample_s=60.0)
    assert "pictures of 0.5 hours (0.5 so far)" in awaited(pictures((NOON, 7, 5)), smallest)
    assert awaited(pictures((NOON, 8, 5)), smallest) == ""


def test_pictures_from_before_the_clock_was_set_are_counted_and_their_time_is_told_to_nobody(tmp_path: Path):
    for one in pictures((NO_CLOCK, 2, 1), (NOON, 2, 1)):
        (tmp_path / one.name).write_bytes(b"")
    told = Collected.of(tmp_path, CalibrationSettings(), 1)
    assert (told.images, told.since) == (4, NOON)
    assert "since 2026-11-23 12:00 UTC" in told.line()
