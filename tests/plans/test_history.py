from __future__ import annotations

import os
from pathlib import Path

import pytest

from vajra_edge.clock import Moment
from vajra_edge.errors import StoreError
from vajra_edge.plans.charges import BESIDE_S, KEPT, STRIKES, Charged
from vajra_edge.plans.history import PLANS_KEPT, Cause, Failure, Follows, History
from vajra_edge.plans.signing import KEY_BYTES
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
    """One boot that knows the time, which stands still until it is moved."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> Moment:
        return Moment("this", self.now_s - NOW_S + 1000.0, self.now_s, synchronised=True)


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


def test_what_0_1_0_charged_is_told_and_only_what_it_saw_in_service_makes_a_plan_wait(root: Path, history: History):
    aside = root / "quarantine" / f"{E}.1795821819108950105"
    aside.mkdir(parents=True)
    (aside / "reason.txt").write_text("plan: its SHA-256 is not that of the manifest\n", encoding="utf-8")
    (root / "strikes.json").write_bytes(STRIKES_0_1_0)
    (root / "rejected.json").write_bytes(REJECTED_0_1_0)
    history.put_aside(EngineStore(root, 1 << 30).put_aside())
    assert [(one.fingerprint, one.cause, one.follows) for one in history.failures()] == [
        (B, Cause.CRASH, Follows.RETRY),
        (A, Cause.CRASH, Follows.RETRY),
        (D, Cause.SERVICE, Follows.RETRY),
        (E, Cause.DAMAGE, Follows.REBUILD),
    ]
    assert [history.hold(name) for name in (A, B, C)] == [None] * 3
    hold = history.hold(D)
    assert hold is not None
    assert hold.reason == "it found 0.31 boxes a frame where the plan before found 2.50"
    assert history.left_s(D) == 0.0, "this boot is older than the pause"
    assert of(history, E, Cause.DAMAGE).times_s == pytest.approx((1795821819.1,), abs=0.1)


@pytest.mark.parametrize("content", [STRIKES_0_1_0, f'{{"{A}": [{NOW_S}, {NOW_S}]}}'.encode()])
def test_a_crash_beside_those_that_0_1_0_counted_is_a_first_one(root: Path, history: History, content: bytes):
    root.mkdir()
    (root / "strikes.json").write_bytes(content)
    (root / "rejected.json").write_bytes(REJECTED_0_1_0)
    history.charge(A, Charged.CRASH, "SIGSEGV")
    assert history.hold(A) is None
    assert sorted(path.name for path in root.iterdir()) == ["charges.json", "store.key"], "it is read no more"
    assert len(of(History(root), A, Cause.CRASH).times_s) == 3
    assert of(History(root), D, Cause.SERVICE).reason.startswith("it found 0.31 boxes")


def test_charges_outlive_the_process_and_the_pause_ends(root: Path, history: History, clock: Clock):
    for _ in range(STRIKES - 1):
        history.charge(A, Charged.CRASH, "SIGSEGV")
    assert (history.hold(A), history.left_s(A)) == (None, 0.0)
    history.charge(A, Charged.CRASH, "SIGSEGV")
    fresh = History(root, clock)
    assert fresh.left_s(A) == BESIDE_S[0]
    assert fresh.left_s(A, alone=True) < BESIDE_S[0]
    assert fresh.left_s(B) == 0.0
    clock.now_s += BESIDE_S[0]
    assert fresh.left_s(A) == 0.0
    assert fresh.hold(A) is not None, "it is tried by itself before it is loaded"


@pytest.mark.parametrize("who", ["a hand", "another device"])
def test_charges_that_this_device_did_not_write_hold_no_plan_back(root: Path, history: History, who: str, caplog):
    history.charge(A, Charged.UNFIT, "slow")
    assert History(root).hold(A) is not None
    if who == "a hand":
        path = root / "charges.json"
        path.write_bytes(path.read_bytes().replace(b"slow", b"fast"))
    else:
        (root / "store.key").write_bytes(bytes(KEY_BYTES))
    assert History(root).hold(A) is None
    assert "was not written by this device" in caplog.text


def test_a_failure_whose_time_nobody_vouched_for_says_so_from_then_on(root: Path):
    for synchronised in (True, False, True):
        history = History(root, lambda known=synchronised: Moment("a", 100.0, NOW_S, known))
        history.charge(A, Charged.UNFIT, "slow")
        history.note(B, Cause.BUILD, "no memory", Follows.RETRY, 30.0)
        told = {one.fingerprint: one.unsure for one in history.failures()}
        assert told[B] is not synchronised
    assert told[A]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"null", b'{"a": 1}', b'{"a": [{"charged": "x"}]}', b"\xff\xfe"]
)
def test_a_damaged_file_is_forgotten_and_written_anew(root: Path, history: History, content: bytes, caplog):
    root.mkdir()
    (root / "charges.json").write_bytes(content)
    assert history.hold(A) is None
    assert "is forgotten" in caplog.text
    history.charge(A, Charged.LOAD, "SIGSEGV")
    assert History(root).hold(A) is not None


@pytest.mark.parametrize("name", ["strikes.json", "rejected.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b'{"a": ["x"]}', b"\xff"])
def test_a_damaged_file_of_0_1_0_is_no_obstacle(root: Path, history: History, name: str, content: bytes):
    root.mkdir()
    (root / name).write_bytes(content)
    assert history.hold(A) is None
    history.charge(A, Charged.LOAD, "SIGSEGV")
    assert History(root).hold(A) is not None


def test_a_plan_that_loads_and_serves_well_keeps_only_what_it_did_in_service(root: Path, history: History):
    for charged in (Charged.LOAD, Charged.BROKEN, Charged.CRASH):
        history.charge(A, charged, "SIGSEGV")
    assert history.is_broken(A)
    history.loads(A)
    again = History(root)
    assert not again.is_broken(A)
    assert [one.cause for one in again.failures()] == [Cause.CRASH]
    again.acquit(A)
    again.acquit(B)
    assert History(root).failures() == ()


def test_the_oldest_plans_and_charges_are_forgotten(root: Path, history: History):
    for number in range(PLANS_KEPT + 1):
        history.charge(f"{number:064x}", Charged.UNFIT, "slow")
    assert history.hold(f"{0:064x}") is History(root).hold(f"{0:064x}") is None
    assert History(root).hold(f"{1:064x}") is not None
    for _ in range(KEPT + 1):
        history.charge(A, Charged.CRASH, "SIGSEGV")
    assert len(of(history, A, Cause.CRASH).times_s) == KEPT


def test_a_folder_that_cannot_be_made_is_one_line_and_still_counts_until_the_end(tmp_path: Path):
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "state")
    with pytest.raises(StoreError, match="cannot be written"):
        history.charge(A, Charged.UNFIT, "slow")
    assert history.hold(A) is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="absent here: a user whom the disk refuses (root writes anywhere)")
def test_a_folder_of_somebody_elses_is_one_line(root: Path, history: History):
    root.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="give the folder to the service's user"):
        history.charge(A, Charged.CRASH, "SIGSEGV")


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
    history.charge(C, Charged.CRASH, "SIGSEGV")
    history.wanted(B)
    assert of(history, A, Cause.BUILD) == Failure(A, Cause.BUILD, "no memory", Follows.DROPPED, (NOW_S,))
    assert of(history, B, Cause.BUILD).retry_at_s == NOW_S + 30.0
    assert of(history, C, Cause.BUILD).follows is Follows.BLOCKED
    assert of(history, C, Cause.CRASH).follows is Follows.RETRY


def test_a_plan_that_serves_has_its_failures_behind_it_but_for_crashes(history: History):
    history.note(A, Cause.BUILD, "no memory", Follows.RETRY, retry_in_s=30.0)
    history.note(B, Cause.LOAD, "no driver", Follows.RETRY)
    history.charge(A, Charged.CRASH, "SIGSEGV")
    history.served(A)
    assert of(history, A, Cause.BUILD) == Failure(A, Cause.BUILD, "no memory", Follows.MENDED, (NOW_S,))
    assert of(history, B, Cause.LOAD).follows is Follows.RETRY
    assert of(history, A, Cause.CRASH).follows is Follows.RETRY


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
