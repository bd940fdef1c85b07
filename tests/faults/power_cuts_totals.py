"""Power cuts of totals: what a block device holds at a random moment of the numbers by hour.

    .venv/bin/python tests/faults/power_cuts_totals.py --cuts 120      (as root)

As ``power_cuts_state.py`` does with plans. ``totals_device.py`` counts, is killed, and has its clock set. After a cut a
daemon on a board that boots anew has to go on: every crossing that was announced is counted once, in the hour that was
announced with it, or lies in an interval that is named blind; what was kept is there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from faults.cut_disk import cuts_of
from faults.totals_device import HOUR, LATENCY_S, STEP_S, YEAR_S, Clocks, Life
from waiting import wait_for

from vajra_edge.analytics.totals import HOUR_S, MOST_HOURS, Key, Totals, Why
from vajra_edge.clock import Moment
from vajra_edge.daemon.totals_files import FOLDER, TotalsFiles

DEVICE = Path(__file__).with_name("totals_device.py")
EXACT_S = 0.02
"""Moments are kept in hundredths of a second."""

AFTER_BOOT, AFTER_S, AFTER_STEPS = 1_000_000, 1e9, 9
"""Number and time of the boot after a cut, behind all that the device gets to; and how far it is looked on."""


@dataclass
class Cuts:
    """What came of all of them.

    Attributes:
        whole: cuts after which nothing was damaged.
        wrong: numbers that are not right, one line each; must be empty.
        forgotten: what was kept and is not there; must be empty.
        counted: crossings that were there after the last cut.
        lost: crossings that were announced and went with a kill or a cut, each in an interval that is named blind.
        hours: entries that were compared.
        lives: starts of the daemon before the last cut.
        years_back: of the clock between two crossings.
    """

    whole: int = 0
    wrong: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    counted: int = 0
    lost: int = 0
    hours: int = 0
    lives: int = 0
    years_back: int = 0


@dataclass(frozen=True)
class Crossing:
    """One that was announced: when by the ledger's time, and what subscribers were told."""

    true_s: float
    unix_s: float
    way: str
    class_name: str

    @property
    def hour_s(self) -> int:
        return int(self.unix_s // HOUR_S) * HOUR_S


class Known:
    """The ledger, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.read_bytes = path, 0
        self.boots: dict[str, float] = {}
        self.lives: list[float] = []
        self.went_on_s: dict[int, float] = {}
        self.crossings: list[list[Crossing]] = []
        self.kept_s = -1.0

    def update(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self.read_bytes)
            lines = file.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        self.read_bytes += len(lines)
        for line in lines.splitlines():
            self.note(*json.loads(line))

    def note(self, kind: str, true_s: float, *what: Any) -> None:
        match kind:
            case "boot":
                self.boots[what[0]] = what[1]
            case "life":
                self.lives.append(true_s)
                self.crossings.append([])
            case "began":
                self.went_on_s[len(self.lives) - 1] = -1.0 if what[0] is None else self.when_s(*what[0])
            case "kept":
                self.kept_s = max(self.kept_s, self.when_s(*what[0]))
            case "crossed":
                self.crossings[-1].append(Crossing(true_s, *what))

    def when_s(self, boot: str, boot_s: float) -> float:
        return self.boots[boot] + boot_s

    def counted(self, until_s: float) -> tuple[list[Crossing], list[Crossing]]:
        """What a file that is complete up to then has to hold, and what went with a kill or this cut."""
        there: list[Crossing] = []
        lost: list[Crossing] = []
        last = bisect_right(self.lives, until_s + EXACT_S) - 1
        for life, crossings in enumerate(self.crossings):
            limit_s = until_s if life == last else self.limit_s(life, last)
            for one in crossings:
                (there if one.true_s <= limit_s + EXACT_S else lost).append(one)
        return there, lost

    def limit_s(self, life: int, last: int) -> float:
        """Up to when the next life that read anything went on from this one."""
        return next((self.went_on_s[later] for later in range(life + 1, last + 1) if later in self.went_on_s), -1.0)


class After:
    """A board that boots after a cut, and the daemon there, with what it counts itself."""

    def __init__(self, disk: Path, boots: dict[str, float], dice: random.Random) -> None:
        number = AFTER_BOOT + len(boots)
        self.boots, self.crossings = {**boots}, list[Crossing]()
        unix_s = dice.choice([HOUR, HOUR - YEAR_S, 1e6])
        clocks = Clocks(number, AFTER_S + 100.0 * number, unix_s, synchronised=dice.random() < 0.7)
        self.boots[clocks.now().boot] = clocks.began_s
        self.life = Life(disk, clocks, self.note)
        wait_for(lambda: self.watched.read)
        self.life.tick(0.5)

    def note(self, kind: str, *what: Any) -> None:
        if kind == "crossed":
            self.crossings.append(Crossing(self.life.clocks.true_s, *what))

    @property
    def watched(self) -> Any:
        return self.life.watches._watched["gate"]

    def when_s(self, moment: Moment) -> float:
        return self.boots[moment.boot] + moment.boot_s


def judge(disk: Path, known: Known, cuts: Cuts, dice: random.Random) -> None:
    """Open what a cut left, as a start does, and go on."""
    found: list[Totals | None] = []
    TotalsFiles(disk, lambda _, task: task()).read("gate", found.append)
    damaged = [path.name for path in (disk / FOLDER).glob("*.damaged")]
    cuts.wrong += [f"damaged: {name}" for name in damaged]
    cuts.whole += not damaged
    if (stored := found[0]) is None:
        cuts.forgotten += [f"all that was kept at {known.kept_s}"] if known.kept_s >= 0 else []
        return
    until_s = known.when_s(stored.until.boot, stored.until.boot_s)
    if until_s < known.kept_s - EXACT_S:
        cuts.forgotten.append(f"kept at {known.kept_s}, is of {until_s}")
    there, lost = known.counted(until_s)
    after = After(disk, known.boots, dice)
    cuts.wrong += differences(after, there, lost)
    for _ in range(AFTER_STEPS):
        after.life.step()
    after.life.end(killed=False)
    there += after.crossings
    again = After(disk, after.boots, dice)
    cuts.wrong += differences(again, there, lost)
    again.life.end(killed=True)
    note(cuts, known, again.watched.known, there, lost)


def note(cuts: Cuts, known: Known, totals: Totals, there: list[Crossing], lost: list[Crossing]) -> None:
    cuts.counted, cuts.lost, cuts.lives = len(there), len(lost), len(known.lives)
    cuts.hours += len(totals.hours)
    unix_s = [one.unix_s for life in known.crossings for one in life]
    cuts.years_back = sum(later < before - YEAR_S / 2 for before, later in pairwise(unix_s))


def differences(after: After, there: list[Crossing], lost: list[Crossing]) -> list[str]:
    """Between what was announced and the totals, one line each."""
    totals: Totals = after.watched.known
    said = after.life.broker.totals
    assert said is not None
    told = [
        sum(sum(one.values()) for ways in (hour.crossed_in, hour.crossed_out) for one in ways.values())
        for hour in said.hours
    ]
    counts = [sum(hour.counts.values()) for hour in totals.hours]
    wrong = [] if told == counts else [f"told {told}, are {counts}"]
    return [*wrong, *of_all(totals, there), *of_hours(after, totals, there), *of_blind(after, totals, there, lost)]


def of_all(totals: Totals, there: list[Crossing]) -> list[str]:
    expected, counts = Counter((one.way, one.class_name) for one in there), by_way(totals.counts)
    return [] if counts == expected else [f"in all {counts}, announced {expected}"]


def of_hours(after: After, totals: Totals, there: list[Crossing]) -> list[str]:
    """An entry has what was seen between its beginning and the next one's, all of it of its hour."""
    begins = [after.when_s(hour.begin) for hour in totals.hours]
    wrong = [] if begins == sorted(begins) else [f"order {begins}"]
    expected: list[Counter[tuple[str, str]]] = [Counter() for _ in begins]
    for one in there:
        index = bisect_right(begins, one.true_s + EXACT_S) - 1
        if index < 0:
            wrong += [f"{one} is in no hour"] if len(begins) < MOST_HOURS else []
            continue
        expected[index][one.way, one.class_name] += 1
        on_its_way = begins[index] > one.true_s - 2 * LATENCY_S + EXACT_S
        if one.hour_s != totals.hours[index].unix_s and not on_its_way:
            wrong.append(f"{one} is in the hour {totals.hours[index].unix_s}")
    for hour, count in zip(totals.hours, expected, strict=True):
        if by_way(hour.counts) != count:
            wrong.append(f"hour {hour.unix_s}: {by_way(hour.counts)}, announced {count}")
    return wrong


def of_blind(after: After, totals: Totals, there: list[Crossing], lost: list[Crossing]) -> list[str]:
    """What is lost lies in an interval; what is counted in none of a daemon that did not run."""
    spans = [(after.when_s(one.begin), after.when_s(one.end)) for one in totals.blind]
    down = [span for span, one in zip(spans, totals.blind, strict=True) if one.why is Why.DOWN]
    missing = [one for one in lost if not lies_in(spans, one.true_s, EXACT_S)]
    twice = [one for one in there if lies_in(down, one.true_s, -2 * STEP_S)]  # a stop counts who was last seen over
    return [*(f"{one} is silently lost" for one in missing), *(f"{one} was called blind" for one in twice)]


def lies_in(spans: list[tuple[float, float]], true_s: float, margin_s: float) -> bool:
    index = bisect_right(spans, (true_s + margin_s, inf)) - 1
    return index >= 0 and true_s <= spans[index][1] + margin_s


def by_way(counts: Mapping[Key, int]) -> Counter[tuple[str, str]]:
    return Counter({(what.value, name): count for (_, what, name), count in counts.items()})


def run(folder: Path, *, cuts: int, seed: int) -> Cuts:
    """All of them, one device."""
    dice, account, ledger = random.Random(seed), Cuts(), folder / "ledger"
    told = Known(ledger)

    def known() -> Known:
        told.update()
        return told

    for seen, so_far in cuts_of(
        folder,
        size_mib=16,
        cuts=cuts,
        dice=dice,
        command=lambda disk: [sys.executable, str(DEVICE), str(disk / "state"), str(ledger), str(seed)],
        ready=lambda: ledger.exists() and b"kept" in ledger.read_bytes(),
        known=known,
    ):
        judge(seen / "state", so_far, account, dice)
    return account


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vajra-edge-"))
    try:
        account = run(folder, **vars(chosen))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{chosen.cuts} cuts: {account}")
    assert account.whole == chosen.cuts
    assert not account.wrong
    assert not account.forgotten


if __name__ == "__main__":
    main()
