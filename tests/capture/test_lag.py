"""StreamLag: a backlog is told, and nothing else for one."""

from __future__ import annotations

import random

import pytest

from vajra_edge.capture.lag import StreamLag

EVERY_S = 0.05
HOUR_FRAMES = 72_000


def lags(stamps_s: list[float | None], nows_s: list[float], *, waited: bool) -> list[float]:
    lag = StreamLag()
    return [lag.of(stamp_s, now_s, waited=waited) for stamp_s, now_s in zip(stamps_s, nows_s, strict=True)]


def steady(count: int, every_s: float = EVERY_S, first_s: float = 0.0) -> list[float]:
    return [first_s + number * every_s for number in range(count)]


def behind(lag: StreamLag, seconds: float) -> float:
    """Read at half the rate, until the lag is about so large; the stamp after that."""
    lag.of(0.0, 1000.0, waited=True)
    frames = round(seconds / EVERY_S)
    for number in range(1, frames + 1):
        lag.of(number * EVERY_S, 1000.0 + 2 * number * EVERY_S, waited=False)
    return frames * EVERY_S


def test_a_punctual_stream_is_never_late() -> None:
    assert lags(steady(1000), steady(1000, first_s=500.0), waited=True) == pytest.approx([0.0] * 1000)


def test_jitter_is_told_for_no_more_than_it_is() -> None:
    dice = random.Random(1)
    nows_s = [now_s + dice.uniform(0.0, 0.04) for now_s in steady(2000)]
    assert max(lags(steady(2000), nows_s, waited=True)) <= 0.04


def test_frames_that_are_read_at_half_their_rate_are_ever_later() -> None:
    told = lags(steady(100), steady(100, 2 * EVERY_S), waited=False)
    assert told == pytest.approx(steady(100))


def test_a_backlog_that_grows_slowly_is_not_forgotten_over_hours() -> None:
    told = lags(steady(3 * HOUR_FRAMES), steady(3 * HOUR_FRAMES, EVERY_S * 1.001), waited=False)
    assert told[-1] == pytest.approx(0.001 * 3 * 3600.0, rel=0.01)


@pytest.mark.parametrize("speed", [0.6, 0.99, 0.9999, 1.0001, 1.01, 2.0])
def test_a_camera_whose_clock_is_wrong_is_not_late_after_hours(speed: float) -> None:
    told = lags(steady(3 * HOUR_FRAMES, EVERY_S * speed), steady(3 * HOUR_FRAMES), waited=True)
    assert max(told) < 0.2


def test_a_backlog_ends_where_the_reader_catches_up() -> None:
    lag = StreamLag()
    stamp_s = behind(lag, 5.0)
    now_s = 1000.0 + 2 * stamp_s
    told = [lag.of(stamp_s + 2 * number * EVERY_S, now_s + number * EVERY_S, waited=False) for number in range(101)]
    assert told[0] == pytest.approx(5.0)
    assert told[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("jump_s", [-95_000.0, -1.0, 30.0, 86_400.0])
def test_a_jump_of_the_stamps_leaves_the_backlog_as_it_is(jump_s: float) -> None:
    lag = StreamLag()
    stamp_s = behind(lag, 3.0)
    now_s = 1000.0 + 2 * stamp_s
    assert lag.of(stamp_s + jump_s, now_s + EVERY_S, waited=False) == pytest.approx(3.0)
    assert lag.of(stamp_s + jump_s + EVERY_S, now_s + 3 * EVERY_S, waited=False) == pytest.approx(3.0 + EVERY_S)


@pytest.mark.parametrize("jump_s", [-95_000.0, -1.0, 1.0, 86_400.0])
def test_a_jump_of_a_punctual_camera_is_no_backlog(jump_s: float) -> None:
    stamps_s: list[float | None] = [*steady(100), *steady(100, first_s=5.0 + jump_s)]
    assert max(lags(stamps_s, steady(200), waited=True)) < 0.1


def test_one_wild_stamp_costs_nothing_after_it() -> None:
    stamps_s: list[float | None] = [*steady(200)]
    stamps_s[100] = 1e6
    assert max(lags(stamps_s, steady(200), waited=True)) < 0.1


def test_a_frame_without_a_stamp_is_as_late_as_the_one_before() -> None:
    lag = StreamLag()
    assert lag.of(None, 10.0, waited=True) == 0.0
    stamp_s = behind(lag, 3.0)
    assert lag.of(None, 1000.0 + 2 * stamp_s + EVERY_S, waited=False) == pytest.approx(3.0)


def test_stamps_that_end_leave_no_lag_for_ever() -> None:
    lag = StreamLag()
    behind(lag, 3.0)
    told = [lag.of(None, 1010.0 + number * EVERY_S, waited=True) for number in range(100)]
    assert told[-1] < 0.01


def test_the_end_of_the_line_tells_how_long_it_was_when_reading_began() -> None:
    lag = StreamLag()
    lag.of(0.0, 100.0, waited=False)
    lag.newest(1.0, 100.0)
    assert lag.of(0.1, 100.1, waited=False) == pytest.approx(1.0)


@pytest.mark.parametrize("wild_s", [-95_000.0, 86_400.0])
def test_the_end_of_the_line_after_a_jump_says_nothing(wild_s: float) -> None:
    lag = StreamLag()
    stamp_s = behind(lag, 3.0)
    now_s = 1000.0 + 2 * stamp_s
    lag.newest(stamp_s + 3.0 + wild_s, now_s)
    assert lag.of(stamp_s + EVERY_S, now_s + EVERY_S, waited=False) == pytest.approx(3.0)
