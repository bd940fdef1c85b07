"""Pace, RateCap and Rate."""

from __future__ import annotations

import random

import pytest

from vajra_edge.capture.rate import Pace, Rate, RateCap


def test_the_first_frame_is_due_at_once_and_the_others_by_their_place() -> None:
    pace = Pace()
    assert pace.delay_s(5.0, 100.0) == 0.0
    assert pace.delay_s(5.5, 100.1) == pytest.approx(0.4)
    assert pace.delay_s(6.0, 101.2) == 0.0


def test_a_little_late_catches_up_and_keeps_the_rate() -> None:
    pace = Pace()
    pace.delay_s(0.0, 100.0)
    assert pace.delay_s(1.0, 101.9) == 0.0
    assert pace.delay_s(2.0, 101.95) == pytest.approx(0.05)


def test_after_a_long_pause_the_clip_goes_on_without_a_burst() -> None:
    pace = Pace()
    pace.delay_s(0.0, 100.0)
    assert pace.delay_s(0.1, 150.0) == 0.0
    assert pace.delay_s(0.2, 150.0) == pytest.approx(0.1)


def test_no_cap_lets_everything_through() -> None:
    assert all(RateCap(None).admits(0.0) for _ in range(10))


@pytest.mark.parametrize(
    ("source_fps", "cap_fps", "expected"), [(25.0, 10.0, 100), (30.0, 15.0, 150), (10.0, 25.0, 100)]
)
def test_a_cap_keeps_the_average_rate(source_fps: float, cap_fps: float, expected: int) -> None:
    cap = RateCap(cap_fps)
    passed = sum(cap.admits(number / source_fps) for number in range(int(source_fps * 10)))
    assert passed == pytest.approx(expected, abs=1)


def test_a_jittering_camera_at_the_capped_rate_loses_next_to_nothing() -> None:
    cap, dice = RateCap(10.0), random.Random(1)
    passed = sum(cap.admits(number / 10.0 + dice.uniform(-0.009, 0.009)) for number in range(1000))
    assert passed >= 990


def test_rounding_does_not_shift_the_frames_of_an_exact_multiple() -> None:
    cap = RateCap(10.0)
    assert [number for number in range(300) if cap.admits(number / 30.0)] == list(range(0, 300, 3))


def test_a_pause_does_not_save_up_frames() -> None:
    cap = RateCap(10.0)
    cap.admits(0.0)
    assert cap.admits(100.0)
    assert not cap.admits(100.01)


def test_the_rate_counts_the_last_five_seconds() -> None:
    rate = Rate()
    assert rate.per_second(0.0) == 0.0
    for number in range(100):
        rate.count(number * 0.1)
    assert rate.per_second(9.9) == pytest.approx(10.0)
    assert rate.per_second(19.9) == pytest.approx(0.1), "it falls while the next one is late"


def test_a_camera_of_one_frame_in_20_s_has_a_rate() -> None:
    rate = Rate()
    rate.count(0.0)
    assert rate.per_second(19.0) == 0.0
    rate.count(20.0)
    assert rate.per_second(20.0) == pytest.approx(0.05)
    assert rate.per_second(39.0) == pytest.approx(0.05)


def test_two_frames_at_one_moment_are_no_rate() -> None:
    rate = Rate()
    rate.count(1.0)
    rate.count(1.0)
    assert rate.per_second(1.0) == 0.0
