"""Run: the bare engine and the frame path in turns, of one contender or of several, each turn beside the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vajra_edge.benchmark.contender import Contender, bare_ms
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.record import Record
from vajra_edge.benchmark.scenes import Scene

TURN_S = 0.75
"""Long enough for tens of frames of a usual network, short enough that neighbouring turns meet the machine alike."""

_TURN_CALLS = 8  # of the engine: a slower one has longer turns
_LONGEST_TURN_S = 30.0
LEAST_TURNS = 3  # a median that one odd turn does not move


def turn_s(engine_ms: float) -> float:
    """How long a turn is, for an engine that takes so long."""
    return min(max(TURN_S, _TURN_CALLS * engine_ms / 1e3), _LONGEST_TURN_S)


def measure(
    contenders: Sequence[Contender],
    scene: Scene,
    seconds: float,
    meters: Sequence[Meter],
    images_a_call: Sequence[int],
    *,
    least_turns: int = LEAST_TURNS,
    clock_s: Callable[[], float] = time.monotonic,
) -> tuple[list[Record], float]:
    """Take turns for about ``seconds``.

    Args:
        contenders: what is measured; two and more by turns, in the opposite order each time.
        scene: where frames come from.
        seconds: how long.
        meters: one for each.
        images_a_call: of the bare engine, likewise.
        least_turns: of each, however long they take.
        clock_s: passing time.

    Returns:
        One record for each contender, and the length of a turn.
    """
    records = [Record(meter, scene.capture_ms) for meter in meters]
    engines = [(one.detector, count) for one, count in zip(contenders, images_a_call, strict=True)]
    alone_ms = [min(bare_ms(*engine, TURN_S / 3)) for engine in engines]
    scene.suit(min(alone_ms))
    length_s = turn_s(max(alone_ms))
    for contender, meter in zip(contenders, meters, strict=True):
        scene.turn(contender, Meter(meter.gauge), length_s / 3)
    places, until_s = list(range(len(contenders))), clock_s() + seconds
    while len(records[0].turns) < least_turns or clock_s() < until_s:
        for place in places:
            before_ms = bare_ms(*engines[place], length_s / 2)
            path = scene.turn(contenders[place], meters[place], length_s)
            records[place].add(before_ms, path, bare_ms(*engines[place], length_s / 2))
        places.reverse()
    return records, length_s
