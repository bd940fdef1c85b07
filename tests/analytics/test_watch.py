"""What happens at zones and lines, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from vajra_edge.analytics.places import Line, Zone
from vajra_edge.analytics.watch import (
    Blinded,
    Crossed,
    Dwelt,
    Entered,
    Happening,
    Left,
    Occupied,
    Places,
    Seen,
    State,
    Way,
    advance,
)

DOOR = Zone("door", np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]), dwell_s=5.0)
LINE = Line("street", (0.0, 0.5), (1.0, 0.5))
PLACES = Places((DOOR,), (LINE,))


def seen(now_s: float, **tracks: tuple[float, float]) -> Seen:
    """Tracks by number, as ``t7=(x, y)``."""
    numbers = np.array([int(name[1:]) for name in tracks], np.int64)
    return Seen(now_s, numbers, ["person"] * len(tracks), np.array(list(tracks.values()), float).reshape(-1, 2))


class Watch:
    """The machine and what it said, without the news of an empty zone at the beginning."""

    def __init__(self, places: Places = PLACES) -> None:
        self.places = places
        self.state, _ = advance(places, State(), seen(0.0))

    def told(self, *observations: Seen | Blinded) -> list[Happening]:
        told: list[Happening] = []
        for observation in observations:
            self.state, happened = advance(self.places, self.state, observation)
            told += happened
        return told


def stays(begin_s: float, seconds: float, fps: float = 10.0, **tracks: tuple[float, float]) -> Iterable[Seen]:
    return [seen(begin_s + frame / fps, **tracks) for frame in range(round(seconds * fps))]


def test_an_empty_zone_is_known_to_be_empty_once_it_is_seen():
    _, happened = advance(PLACES, State(), seen(0.0))
    assert happened == (Occupied("door", present=False),)


def test_a_visit_begins_is_told_after_its_dwell_and_ends():
    watch = Watch()
    told = watch.told(*stays(1.0, 8.0, t1=(0.2, 0.2)))
    entered, occupied, dwelt = told
    assert (entered, occupied) == (Entered("door", 1, "person"), Occupied("door", present=True))
    assert isinstance(dwelt, Dwelt)
    assert dwelt.dwell_s == pytest.approx(5.0)
    left, empty = watch.told(*stays(9.0, 4.0, t1=(0.9, 0.2)))
    assert isinstance(left, Left)
    assert (left.track, left.reason) == (1, "")
    assert left.dwell_s == pytest.approx(7.9)
    assert empty == Occupied("door", present=False)


def test_who_only_touches_a_zone_was_never_in_it():
    watch = Watch()
    assert watch.told(seen(1.0, t1=(0.2, 0.2)), *stays(1.1, 4.0, t1=(0.9, 0.2))) == []


def test_a_box_that_flickers_at_the_edge_is_one_visit():
    watch = Watch()
    told = watch.told(*(seen(1 + frame / 10, t1=(0.49 if frame % 3 else 0.51, 0.2)) for frame in range(50)))
    assert told == [Entered("door", 1, "person"), Occupied("door", present=True)]


def test_a_zone_stays_present_while_one_follows_the_other_and_counts_by_class():
    watch = Watch()
    watch.told(*stays(1.0, 1.0, t1=(0.2, 0.2), t2=(0.3, 0.2)))
    assert watch.state.counts("door") == {"person": 2}
    told = watch.told(*stays(2.0, 3.0, t2=(0.3, 0.2)))
    assert [type(one) for one in told] == [Left]
    assert watch.state.counts("door") == {"person": 1}
    told = watch.told(*stays(5.0, 1.2, t3=(0.2, 0.2)))
    assert Occupied("door", present=False) not in told


@pytest.mark.parametrize(("begin", "end", "way"), [(0.3, 0.7, Way.IN), (0.7, 0.3, Way.OUT)])
def test_a_crossing_is_told_once_with_its_direction(begin: float, end: float, way: Way):
    watch = Watch()
    path = np.linspace(begin, end, 20)
    told = watch.told(*(seen(1 + k / 10, t1=(0.8, y)) for k, y in enumerate(path)))
    assert told == [Crossed("street", way, 1, "person")]


def test_who_jumps_the_line_between_two_frames_of_a_slow_camera_has_crossed_it():
    watch = Watch()
    assert watch.told(seen(1.0, t1=(0.8, 0.1)), seen(3.0, t1=(0.8, 0.9))) == []
    assert watch.told(seen(5.0, t1=(0.8, 0.95))) == [Crossed("street", Way.IN, 1, "person")]


def test_who_stands_on_the_line_and_trembles_crosses_nothing():
    watch = Watch()
    told = watch.told(
        seen(0.9, t1=(0.8, 0.45)), *(seen(1 + k / 10, t1=(0.8, 0.5 + 0.009 * (-1) ** k)) for k in range(50))
    )
    assert told == []
    assert watch.told(seen(7.0, t1=(0.8, 0.45))) == []
    assert watch.told(*stays(7.1, 0.5, t1=(0.8, 0.55))) == [Crossed("street", Way.IN, 1, "person")]


def test_who_is_hidden_while_it_crosses_is_counted_and_who_was_forgotten_is_not():
    watch = Watch()
    told = watch.told(seen(1.0, t1=(0.8, 0.45)), *stays(1.1, 1.0), *stays(2.2, 0.5, t1=(0.8, 0.6)))
    assert told == [Crossed("street", Way.IN, 1, "person")]
    assert watch.told(*stays(2.8, 6.0), *stays(9.0, 0.5, t1=(0.8, 0.4))) == []


def test_who_goes_round_the_end_of_a_line_has_not_crossed_it():
    short = Places((), (Line("gate", (0.4, 0.5), (0.6, 0.5)),))
    watch = Watch(short)
    assert watch.told(seen(1.0, t1=(0.1, 0.4)), *stays(1.1, 0.5, t1=(0.1, 0.6)), seen(2.0, t1=(0.5, 0.6))) == []


def test_feet_that_are_hidden_for_a_moment_cross_nothing():
    watch = Watch()
    told = watch.told(
        *stays(1.0, 1.0, t1=(0.8, 0.6)),
        *stays(2.0, 0.2, t1=(0.8, 0.4)),
        *stays(2.2, 1.0, t1=(0.8, 0.6)),
        *stays(3.2, 0.2, t1=(0.8, 0.4)),
        *stays(3.4, 5.0, t1=(0.8, 0.6)),
    )
    assert told == []


def test_who_crosses_and_is_seen_no_more_has_crossed():
    crossed = [Crossed("street", Way.IN, 1, "person")]
    over = seen(1.0, t1=(0.8, 0.4)), seen(1.1, t1=(0.8, 0.6))
    assert Watch().told(*over, *stays(1.2, 3.0)) == crossed
    assert Watch().told(*over, Blinded(1.2, "camera"))[0] == crossed[0]


def test_a_blind_camera_sees_no_empty_zone_and_everybody_leaves_for_its_reason():
    watch = Watch()
    watch.told(*stays(1.0, 1.0, t1=(0.2, 0.2)))
    left, unknown = watch.told(Blinded(2.0, "camera"))
    assert isinstance(left, Left)
    assert left.reason == "camera"
    assert unknown == Occupied("door", None)
    assert not watch.state.counts("door")
    assert watch.told(Blinded(3.0, "camera")) == []
    assert watch.told(seen(4.0)) == [Occupied("door", present=False)]


def test_whoever_stands_inside_when_sight_returns_enters_anew():
    watch = Watch()
    watch.told(*stays(1.0, 1.0, t1=(0.2, 0.2)), Blinded(2.0, "camera"))
    told = watch.told(*stays(4.0, 1.0, t2=(0.2, 0.2)))
    assert Entered("door", 2, "person") in told
    assert told[-1] == Occupied("door", present=True)


def test_a_place_that_is_no_more_is_forgotten_without_a_word():
    watch = Watch()
    watch.told(*stays(1.0, 1.0, t1=(0.2, 0.2)))
    watch.places = Places()
    assert watch.told(seen(2.0)) == []
    assert watch.state == State()
