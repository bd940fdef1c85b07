"""Chaos and power cuts, small in the everyday run and at full length under ``--all``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from faults import chaos, outbox_kills, power_cuts, power_cuts_state, power_cuts_totals

LONG = pytest.mark.long("takes two minutes; the short one of each runs always")
MOSQUITTO = pytest.mark.skipif(
    not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")), reason="absent here: mosquitto"
)
ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="absent here: the right to mount a disk"
)

ALWAYS = ("writing, before the transaction ends",)


@MOSQUITTO
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("faults", "kills", "commit_every_s"),
    [(3, 3, 1.0), pytest.param(28, 12, 1.0, marks=LONG), pytest.param(28, 12, 0.0, marks=LONG)],
)
def test_what_was_committed_arrives_and_every_other_number_is_announced(
    tmp_path: Path, faults: int, kills: int, commit_every_s: float
) -> None:
    few = faults < len(chaos.KINDS)
    account = chaos.run(
        tmp_path,
        seed=7,
        faults=faults,
        kills=kills,
        commit_every_s=commit_every_s,
        rate_per_s=250.0 if few else 400.0,
        messages=0 if few else 15_000,
    )
    print(account.told())
    chaos.check(account, few=few)
    assert account.kills == kills


@MOSQUITTO
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.long("one of each kind runs always")])
        for name in outbox_kills.POINTS
    ],
)
def test_a_kill_at_any_point_leaves_an_outbox_that_goes_on(tmp_path: Path, name: str) -> None:
    chaos.check(outbox_kills.run(tmp_path, name), few=True)


@ROOT
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("cuts", "commit_every_s"),
    [(6, 0.0), pytest.param(100, 0.0, marks=LONG), pytest.param(100, 1.0, marks=LONG)],
)
def test_no_power_cut_leaves_a_damaged_outbox_or_lets_a_number_be_used_again(
    tmp_path: Path, cuts: int, commit_every_s: float
) -> None:
    account = power_cuts.run(tmp_path, cuts=cuts, commit_every_s=commit_every_s, rate_per_s=200.0, seed=7)
    print(account)
    assert (account.whole, account.used_again, account.unannounced) == (cuts, 0, 0)
    assert account.lost == 0 or commit_every_s > 0.0


@ROOT
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cuts", [6, pytest.param(100, marks=LONG)])
def test_no_power_cut_damages_plans_history_charges_or_calibration_set(tmp_path: Path, cuts: int) -> None:
    account = power_cuts_state.run(tmp_path, cuts=cuts, seed=7)
    print(account)
    assert (account.whole, account.damaged, account.forgotten) == (cuts, [], [])


@ROOT
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cuts", [6, pytest.param(100, marks=LONG)])
def test_no_power_cut_makes_an_hours_number_wrong_or_loses_a_crossing_outside_a_named_interval(
    tmp_path: Path, cuts: int
) -> None:
    account = power_cuts_totals.run(tmp_path, cuts=cuts, seed=7)
    print(account)
    assert (account.whole, account.wrong, account.forgotten) == (cuts, [], [])
