from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vajra_edge.errors import StoreError
from vajra_edge.plans.history import PLANS_KEPT, STRIKES, TIMES_KEPT, Cause, Failure, Follows, History
from vajra_edge.plans.store import EngineStore

A, B, C, D, E = (letter * 64 for letter in "abcde")
NOW_S = 1_764_200_300.0

STRIKES_0_1_0 = f'{{"{A}": [1764200000.25, 1764200100.5], "{B}": [1764200000.0]}}'.encode()
REJECTED_0_1_0 = (
    f'{{"{C}": "it crashed 3 times in 10 minutes", '
    f'"{D}": "it found 0.31 boxes a frame where the plan before found 2.50 (2026-11-26 10:00:01 UTC)"}}'
).encode()
"""Both as version 0.1.0 wrote them."""


class Clock:
    """Unix time that stands still until it is moved."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def history(root: Path, clock: Clock) -> History:
    return History(root, clock)


def of(history: History, fingerprint: str, cause: Cause) -> Failure:
    (found,) = [one for one in history.failures() if (one.fingerprint, one.cause) == (fingerprint, cause)]
    return found


def test_a_device_that_upgrades_keeps_strikes_rejections_and_quarantine(root: Path, history: History):
    aside = root / "quarantine" / f"{E}.1795821819108950105"
    aside.mkdir(parents=True)
    (aside / "reason.txt").write_text("plan: its SHA-256 is not that of the manifest\n", encoding="utf-8")
    (root / "strikes.json").write_bytes(STRIKES_0_1_0)
    (root / "rejected.json").write_bytes(REJECTED_0_1_0)
    assert (history.crashes(A), history.crashes(B), history.crashes(C)) == (2, 1, 0)
    assert history.rejection(C) == "it crashed 3 times in 10 minutes"
    assert history.rejection(D).endswith("found 2.50 (2026-11-26 10:00:01 UTC)")
    assert history.rejection(A) == ""
    history.put_aside(EngineStore(root, 1 << 30).put_aside())
    assert [(one.fingerprint, one.cause, one.follows) for one in history.failures()] == [
        (C, Cause.SERVICE, Follows.BLOCKED),
        (B, Cause.CRASH, Follows.RETRY),
        (A, Cause.CRASH, Follows.RETRY),
        (D, Cause.SERVICE, Follows.BLOCKED),
        (E, Cause.DAMAGE, Follows.REBUILD),
    ]
    assert of(history, C, Cause.SERVICE).times_s == (), "0.1.0 did not note it"
    assert of(history, E, Cause.DAMAGE).reason == "plan: its SHA-256 is not that of the manifest"
    assert of(history, E, Cause.DAMAGE).times_s == pytest.approx((1795821819.1,), abs=0.1)


def test_the_files_stay_as_0_1_0_wrote_them(root: Path, history: History, clock: Clock):
    root.mkdir()
    (root / "strikes.json").write_bytes(STRIKES_0_1_0)
    (root / "rejected.json").write_bytes(REJECTED_0_1_0)
    history.crashed(B)
    assert json.loads((root / "strikes.json").read_bytes()) == {
        A: [1764200000.25, 1764200100.5],
        B: [1764200000.0, clock.now_s],
    }
    history.forgive(D)
    history.reject(E, "slow")
    assert (root / "rejected.json").read_text() == (
        f'{{"{C}": "it crashed 3 times in 10 minutes", "{E}": "slow (2025-11-26 23:38:20 UTC)"}}'
    )


def test_strikes_outlive_the_process_and_grow_old(root: Path, history: History, clock: Clock):
    for clock.now_s in (1000.0, 1100.0, 1500.0):
        history.crashed(A)
    history.crashed(B)
    fresh = History(root, clock)
    clock.now_s = 1600.0
    assert fresh.crashes(A, 600.0) == 3
    assert fresh.crashes(B, 600.0) == 1
    clock.now_s = 1650.0
    assert fresh.crashes(A, 600.0) == 2
    clock.now_s = 1200.0
    assert fresh.crashes(A, 600.0) == 2, "a clock set back leaves strikes in the future"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b'{"a": ["x"]}', b"\xff"])
def test_a_damaged_strikes_file_is_forgotten_and_written_anew(root: Path, history: History, content: bytes):
    root.mkdir()
    (root / "strikes.json").write_bytes(content)
    assert history.crashes(A) == 0
    history.crashed(A)
    assert History(root, Clock()).crashes(A) == 1


def test_too_many_crashes_within_ten_minutes_reject_a_plan_for_good(root: Path, history: History, clock: Clock):
    for _ in range(STRIKES - 1):
        history.crashed(A, "Fatal Python error: Segmentation fault")
    assert history.rejection(A) == ""
    history.crashed(A, "Fatal Python error: Segmentation fault")
    assert history.rejection(A) == "it crashed 3 times in 10 minutes"
    clock.now_s += 3600
    assert History(root, clock).rejection(A) == "it crashed 3 times in 10 minutes"


def test_crashes_long_ago_reject_nothing(history: History, clock: Clock):
    for _ in range(STRIKES):
        history.crashed(A)
    clock.now_s += 601
    assert history.rejection(A) == ""


def test_what_was_rejected_is_known_after_a_restart_until_somebody_insists(root: Path, history: History):
    history.reject(A, "it found nothing")
    again = History(root)
    assert again.rejection(A) == "it found nothing (2025-11-26 23:38:20 UTC)"
    assert of(again, A, Cause.SERVICE).times_s == (NOW_S,)
    assert again.rejection(B) == ""
    again.forgive(A)
    again.forgive(B)
    assert History(root).rejection(A) == ""
    assert [entry.name for entry in root.iterdir()] == ["rejected.json"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b"{", b"null"])
def test_a_damaged_file_of_rejections_is_forgotten_and_written_anew(root: Path, history: History, content, caplog):
    root.mkdir()
    (root / "rejected.json").write_bytes(content)
    assert history.rejection(A) == ""
    assert "is forgotten" in caplog.text
    history.reject(A, "slow")
    assert History(root).rejection(A).startswith("slow")


def test_the_oldest_plans_and_times_are_forgotten(root: Path, history: History):
    for number in range(PLANS_KEPT + 1):
        history.reject(f"{number:064x}", "slow")
    assert history.rejection(f"{0:064x}") == History(root).rejection(f"{0:064x}") == ""
    assert History(root).rejection(f"{1:064x}").startswith("slow")
    for _ in range(TIMES_KEPT + 1):
        history.crashed(A)
    assert len(of(history, A, Cause.CRASH).times_s) == TIMES_KEPT


def test_a_folder_that_cannot_be_made_is_one_line_and_still_rejects_until_the_end(tmp_path: Path):
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "state")
    with pytest.raises(StoreError, match="cannot be written"):
        history.reject(A, "slow")
    assert history.rejection(A).startswith("slow")


@pytest.mark.skipif(os.geteuid() == 0, reason="absent here: a user whom the disk refuses (root writes anywhere)")
def test_a_folder_of_somebody_elses_is_one_line(root: Path, history: History):
    root.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="give the folder to the service's user"):
        history.crashed(A)


def test_a_build_that_failed_again_is_one_entry_with_both_times_and_what_follows_now(history: History, clock: Clock):
    history.note(A, Cause.BUILD, "killed by SIGKILL", Follows.RETRY, retry_in_s=30.0)
    clock.now_s += 40
    history.note(A, Cause.BUILD, "truncated", Follows.BLOCKED)
    assert history.failures() == (
        Failure(A, Cause.BUILD, "truncated", Follows.BLOCKED, (NOW_S, NOW_S + 40.0), retry_at_s=None),
    )


def test_what_the_next_start_tries_anew_is_not_written(root: Path, history: History):
    history.note(A, Cause.BUILD, "no memory", Follows.RETRY, retry_in_s=30.0)
    assert of(history, A, Cause.BUILD).retry_at_s == NOW_S + 30.0
    assert not root.exists()
    assert History(root).failures() == ()


def test_a_plan_that_is_not_wanted_any_more_is_not_tried_again(history: History):
    history.note(A, Cause.BUILD, "no memory", Follows.RETRY, retry_in_s=30.0)
    history.note(B, Cause.BUILD, "no memory", Follows.RETRY, retry_in_s=30.0)
    history.note(C, Cause.BUILD, "truncated", Follows.BLOCKED)
    history.crashed(C)
    history.wanted(B)
    assert of(history, A, Cause.BUILD) == Failure(A, Cause.BUILD, "no memory", Follows.DROPPED, (NOW_S,))
    assert of(history, B, Cause.BUILD).retry_at_s == NOW_S + 30.0
    assert of(history, C, Cause.BUILD).follows is Follows.BLOCKED
    assert of(history, C, Cause.CRASH).follows is Follows.RETRY


def test_a_plan_that_serves_has_its_failures_behind_it_but_for_crashes(history: History):
    history.note(A, Cause.BUILD, "no memory", Follows.RETRY, retry_in_s=30.0)
    history.note(B, Cause.LOAD, "no driver", Follows.RETRY)
    history.crashed(A)
    history.served(A)
    assert of(history, A, Cause.BUILD) == Failure(A, Cause.BUILD, "no memory", Follows.MENDED, (NOW_S,))
    assert of(history, B, Cause.LOAD).follows is Follows.RETRY
    assert of(history, A, Cause.CRASH).follows is Follows.RETRY
    assert history.crashes(A) == 1


def test_images_are_in_doubt_until_somebody_trusts_them(history: History):
    history.note(A, Cause.IMAGES, "image 3 of 8 cannot be decoded", Follows.BLOCKED)
    history.note(B, Cause.BUILD, "truncated", Follows.BLOCKED)
    assert (history.doubt(A), history.doubt(B)) == ("image 3 of 8 cannot be decoded", "")
    history.trust()
    assert history.doubt(A) == ""
    assert [one.fingerprint for one in history.failures()] == [B]


def test_a_damaged_plan_that_was_built_anew_is_mended_and_goes_with_its_folder(root: Path, history: History):
    aside = root / "quarantine" / f"{A}.{int(NOW_S * 1e9)}"
    aside.mkdir(parents=True)
    store = EngineStore(root, 1 << 30)
    history.put_aside(store.put_aside())
    assert of(history, A, Cause.DAMAGE) == Failure(A, Cause.DAMAGE, "why was not noted", Follows.REBUILD, (NOW_S,))
    (aside / "succeeded").touch()
    history.put_aside(store.put_aside())
    assert of(history, A, Cause.DAMAGE).follows is Follows.MENDED
    (aside / "succeeded").unlink()
    aside.rmdir()
    history.put_aside(store.put_aside())
    assert history.failures() == ()
