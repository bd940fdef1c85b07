"""How long a plan waits for its next try, by tables; and that no walk through boots and clocks makes it for ever."""

from __future__ import annotations

import random

import pytest

from vajra_edge.clock import Moment
from vajra_edge.plans.charges import ALONE_S, BESIDE_S, STRIKES, STRIKES_WITHIN_S, Charge, Charged, hold_of

YEAR_S = 365 * 86400.0


def at(boot_s: float, boot: str = "b1", unix_s: float = 0.0, *, synchronised: bool = False) -> Moment:
    return Moment(boot, boot_s, unix_s, synchronised)


def crash(moment: Moment, charged: Charged = Charged.CRASH) -> Charge:
    return Charge(charged, "SIGSEGV", moment)


def synced(boot: str, unix_s: float) -> Moment:
    return at(20.0, boot, unix_s, synchronised=True)


HELD = {
    "three within ten minutes of one boot": [at(10), at(300), at(600)],
    "three boots that knew the time, within ten minutes": [synced("b1", 0), synced("b2", 200), synced("b3", 590)],
}
FREE = {
    "two": [at(10), at(20)],
    "three that took longer than ten minutes": [at(10), at(300), at(700)],
    "three boots whose clocks begin at the same second": [
        at(20, "b1", 86460),
        at(20, "b2", 86460),
        at(20, "b3", 86461),
    ],
    "three boots, of which one did not know the time": [synced("b1", 0), at(20, "b2", 200), synced("b3", 400)],
    "three boots that knew the time, weeks apart": [synced("b1", 0), synced("b2", 7 * 86400), synced("b3", 14 * 86400)],
    "a clock that was set back between two boots": [synced("b1", 900), synced("b2", 400), synced("b3", 500)],
    "boots that the kernel does not name": [at(10, ""), at(20, ""), at(30, "")],
}


@pytest.mark.parametrize("name", HELD)
def test_crashes_in_service_hold_a_plan_that_were_near_each_other(name: str):
    hold = hold_of([crash(moment) for moment in HELD[name]])
    assert hold is not None
    assert hold.level == 1
    assert hold.reason.startswith("it crashed 3 times in 10 minutes (SIGSEGV")


@pytest.mark.parametrize("name", FREE)
def test_crashes_in_service_hold_no_plan_otherwise(name: str):
    assert hold_of([crash(moment) for moment in FREE[name]]) is None


@pytest.mark.parametrize("charged", [Charged.LOAD, Charged.UNFIT, Charged.BROKEN])
def test_one_of_any_other_kind_holds_at_once(charged: Charged):
    hold = hold_of([crash(at(10), charged)])
    assert hold is not None
    assert hold.charged is charged


def test_the_pauses_grow_while_each_try_fails_soon_and_are_short_where_nothing_else_can_serve():
    charges, now_s = [], 0.0
    for level in range(1, 7):
        now_s += 5.0
        charges.append(crash(at(now_s), Charged.LOAD))
        hold = hold_of(charges)
        assert hold is not None
        alone_s, beside_s = (pauses[min(level, len(pauses)) - 1] for pauses in (ALONE_S, BESIDE_S))
        assert hold.left_s(at(now_s), alone=True) == alone_s
        assert hold.left_s(at(now_s), alone=False) == beside_s
        assert hold.left_s(at(now_s + beside_s), alone=False) == 0.0
        now_s += beside_s
    assert hold_of([*charges, crash(at(now_s + 2 * BESIDE_S[-1]), Charged.LOAD)]).level == 1, "long after is anew"


def test_a_single_crash_soon_after_a_pause_begins_the_next_one_and_long_after_it_none():
    three = [crash(at(second)) for second in (10, 20, 30)]
    again = hold_of([*three, crash(at(30 + BESIDE_S[0] + 60))])
    assert again is not None
    assert (again.level, again.reason) == (2, "SIGSEGV")
    assert hold_of([*three, crash(at(30 + BESIDE_S[0] + STRIKES_WITHIN_S + 1))]) is None


def test_of_a_charge_in_another_boot_this_boot_counts_where_no_clock_tells():
    hold = hold_of([crash(at(5000, "b1", 10.0), Charged.LOAD)])
    assert hold is not None
    assert hold.left_s(at(100, "b2", 10.0), alone=False) == BESIDE_S[0] - 100
    assert hold.left_s(at(700, "b2", 10.0), alone=False) == 0.0


class Walk:
    """A board that boots, crashes, sleeps and guesses the time; two plans of which one is innocent."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.true_s, self.boot_s, self.boot = 1e6, 0.0, 0
        self.synchronised, self.skew_s = False, 0.0
        self.charges: dict[str, list[Charge]] = {"guilty": [], "innocent": []}

    def now(self) -> Moment:
        wall_s = self.true_s if self.synchronised else 86460.0 + self.boot_s + self.skew_s
        return Moment(f"b{self.boot}", self.boot_s, wall_s, self.synchronised)

    def step(self) -> None:
        passed_s = self.dice.choice([1.0, 20.0, 300.0, 4000.0, 100_000.0])
        self.true_s += passed_s
        self.boot_s += passed_s
        match self.dice.randrange(4):
            case 0:
                self.boot, self.boot_s, self.synchronised = self.boot + 1, self.dice.uniform(1, 20), False
            case 1:
                self.synchronised = self.dice.random() < 0.7
            case 2:
                self.skew_s = self.dice.uniform(-1e6, 1e6)
            case _:
                charged = self.dice.choice(list(Charged))
                self.charges["guilty"].append(Charge(charged, "no", self.now()))


@pytest.mark.parametrize("block", range(10))
def test_no_walk_leaves_a_plan_waiting_for_good_and_an_innocent_one_waits_never(block: int):
    for seed in range(block * 50, (block + 1) * 50):
        walk = Walk(seed)
        for _ in range(60):
            walk.step()
            assert hold_of(walk.charges["innocent"]) is None
            hold = hold_of(walk.charges["guilty"])
            if hold is None:
                continue
            here = walk.now()
            assert 0.0 <= hold.left_s(here, alone=True) <= hold.left_s(here, alone=False) <= max(BESIDE_S)
            later = Moment(here.boot, here.boot_s + max(BESIDE_S) + 1.0, here.unix_s, here.synchronised)
            assert hold.left_s(later, alone=False) == 0.0


@pytest.mark.parametrize("block", range(10))
def test_what_a_walk_holds_together_really_was_near(block: int):
    """Crashes in service alone: a first hold has three of them within ten minutes of true time."""
    for seed in range(block * 50, (block + 1) * 50):
        walk, true_s = Walk(seed), []
        for _ in range(60):
            before = len(walk.charges["guilty"])
            walk.step()
            if len(walk.charges["guilty"]) > before:
                one = walk.charges["guilty"][-1]
                walk.charges["guilty"][-1] = Charge(Charged.CRASH, "no", one.at)
                true_s.append(walk.true_s)
                hold = hold_of(walk.charges["guilty"])
                if hold is not None and hold.level == 1:
                    last = true_s[-STRIKES:]
                    assert last[-1] - last[0] <= STRIKES_WITHIN_S
