from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vajra_edge import durable
from vajra_edge.build import refusals as module
from vajra_edge.build.refusals import (
    CRASHED,
    KEPT,
    LONGEST,
    MOST_BYTES,
    REBOOTS,
    RETRY_AFTER_S,
    RefusalCause,
    Refusals,
    excuse,
)
from vajra_edge.build.rung import Rung
from vajra_edge.clock import Moment
from vajra_edge.plans import caches
from vajra_edge.plans.spec import Precision
from vajra_edge.version import VERSION

QDQ = Rung(Precision.INT8, "qdq")
PLAN, LIBRARY = "a" * 64, "TensorRT 10.3.0"
RELEASE = VERSION.encode()
NOW = Moment("this boot", 100.0, 1_764_000_000.0, synchronised=True)


def refusals(folder: Path, library: str = LIBRARY) -> Refusals:
    return Refusals(folder, PLAN, library, now=lambda: NOW)


def after(seconds: float, moment: Moment = NOW) -> Moment:
    return replace(moment, boot_s=moment.boot_s + seconds, unix_s=moment.unix_s + seconds)


def test_what_was_refused_is_known_after_a_restart_until_it_is_good_or_somebody_insists(tmp_path: Path):
    refusals(tmp_path).add(QDQ, RefusalCause.LIBRARY, "no tactic", 257.04, ("conv1",))
    refusals(tmp_path).add(Rung(Precision.FP16), RefusalCause.CHECK, "it finds other boxes", 9.0)
    found = refusals(tmp_path).all()
    assert found[QDQ].line == "refused on 2025-11-24: no tactic"
    assert (found[QDQ].seconds, found[QDQ].cause, found[QDQ].layers) == (257.0, RefusalCause.LIBRARY, ("conv1",))
    refusals(tmp_path).remove(QDQ)
    assert list(refusals(tmp_path).all()) == [Rung(Precision.FP16)]
    refusals(tmp_path).clear()
    assert refusals(tmp_path).all() == {}


def test_a_rung_is_kept_once_and_only_the_newest_are(tmp_path: Path):
    for number in range(KEPT + 3):
        rung = Rung(Precision.INT8, "qdq", high=frozenset({str(number)}))
        refusals(tmp_path).add(rung, RefusalCause.LIBRARY, "first", 1.0)
        refusals(tmp_path).add(rung, RefusalCause.LIBRARY, "x" * 10_000, 1.0)
    found = refusals(tmp_path).all()
    assert len(found) == KEPT
    assert {len(one.reason) for one in found.values()} == {LONGEST}
    assert Rung(Precision.INT8, "qdq", high=frozenset({str(KEPT + 2)})) in found


def test_another_library_release_has_refused_nothing(tmp_path: Path):
    refusals(tmp_path).add(QDQ, RefusalCause.LIBRARY, "no tactic", 1.0)
    assert refusals(tmp_path, "TensorRT 10.4.0").all() == {}


def test_another_release_of_the_product_begins_anew_for_its_graphs_may_be_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refusals(tmp_path).add(QDQ, RefusalCause.LIBRARY, "no tactic", 1.0)
    monkeypatch.setattr(module, "VERSION", "999.0")
    assert refusals(tmp_path).all() == {}


def test_the_time_that_did_not_suffice_is_kept_be_it_without_end(tmp_path: Path):
    for timeout_s in (7200.0, math.inf):
        refusals(tmp_path).add(QDQ, RefusalCause.TIME, "too long", 1.0, timeout_s=timeout_s)
        assert refusals(tmp_path).all()[QDQ].timeout_s == timeout_s


_CRASH = """
import os, pathlib, sys
from vajra_edge.build.refusals import Refusals
from vajra_edge.build.rung import Rung
from vajra_edge.plans.spec import Precision
folder, plan, library = sys.argv[1:]
with Refusals(pathlib.Path(folder), plan, library).attempt(Rung(Precision.INT8, "qdq")):
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), 9)
"""


def crash(folder: Path) -> int:
    """A process that is killed while it tries INT8; its number."""
    command = [sys.executable, "-c", _CRASH, folder, PLAN, LIBRARY]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert told.returncode == -signal.SIGKILL, told.stderr
    return int(told.stdout)


def test_a_way_that_ended_its_process_twice_is_refused_and_an_orderly_end_acquits_it(tmp_path: Path):
    crash(tmp_path)
    assert refusals(tmp_path).all() == {}
    crash(tmp_path)
    found = refusals(tmp_path).all()[QDQ]
    assert (found.cause, found.reason) == (RefusalCause.CRASH, CRASHED)
    with pytest.raises(KeyboardInterrupt), refusals(tmp_path).attempt(QDQ):
        raise KeyboardInterrupt
    assert refusals(tmp_path).all() == {}
    assert not refusals(tmp_path).path.exists()


def test_a_process_that_was_killed_because_somebody_cancelled_it_does_not_count(tmp_path: Path):
    refusals(tmp_path).add(Rung(Precision.FP16), RefusalCause.LIBRARY, "no tactic", 1.0, ("conv1",))
    first, second = crash(tmp_path), crash(tmp_path)
    excuse(tmp_path, first + second)
    assert QDQ in refusals(tmp_path).all()
    excuse(tmp_path, second)
    assert list(refusals(tmp_path).all()) == [Rung(Precision.FP16)]
    crash(tmp_path)
    assert refusals(tmp_path).all()[QDQ].cause is RefusalCause.CRASH


@pytest.mark.parametrize("content", [b"[]", b"\xff", b'{"begun": 3}', b'{"begun": [3, {"pids": 3}]}'])
def test_files_that_are_not_ours_hold_nothing_to_excuse(tmp_path: Path, content: bytes):
    path = refusals(tmp_path).path
    path.parent.mkdir()
    path.write_bytes(content)
    excuse(tmp_path, 12)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"\xff", b"{}", b"[" * 100_000, b"x" * (MOST_BYTES + 1), b'{"library": "TensorRT 10.3.0"}',
        b'{"library": "TensorRT 10.3.0", "version": "%s", "refused": [{"rung": {}}], "begun": []}' % RELEASE,
        b'{"library": "TensorRT 10.3.0", "version": "%s", "refused": 3}' % RELEASE,
        b'{"library": "TensorRT 10.3.0", "version": "%s", "refused": [], "begun": [{"pids": 3}]}' % RELEASE,
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_as_good_as_none_and_is_written_anew(tmp_path: Path, content: bytes):
    kept = refusals(tmp_path)
    kept.path.parent.mkdir()
    kept.path.write_bytes(content)
    assert kept.all() == {}
    kept.add(QDQ, RefusalCause.SPEED, "slower", 1.0)
    assert list(refusals(tmp_path).all()) == [QDQ]
    assert [path.name for path in kept.path.parent.iterdir()] == [f"{PLAN}.json"]


def test_a_disk_that_refuses_does_not_end_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    refusals(tmp_path).add(QDQ, RefusalCause.LIBRARY, "no tactic", 1.0)
    assert "what was refused is not remembered" in caplog.text
    assert "No space left on device" in caplog.text


def test_files_of_other_plans_are_pruned_as_new_ones_are_written(tmp_path: Path):
    folder = tmp_path / caches.REFUSALS.path
    folder.mkdir()
    for number in range(caches.REFUSALS.kept + 5):
        path = folder / f"{number:064x}.json"
        path.write_text("{}")
        os.utime(path, (1000.0 + number, 1000.0 + number))
    refusals(tmp_path).add(QDQ, RefusalCause.LIBRARY, "no tactic", 1.0)
    assert len(list(folder.iterdir())) == caches.REFUSALS.kept
    assert json.loads((folder / f"{PLAN}.json").read_bytes())["library"] == LIBRARY


def cut_short(kept: Refusals) -> None:
    """What lies on the disk when the machine goes down in the middle."""
    with kept.attempt(QDQ):
        content = kept.path.read_bytes()
    kept.path.write_bytes(content)


def test_a_power_cut_is_no_crash_and_many_of_them_are(tmp_path: Path):
    for number in range(REBOOTS + 1):
        at_boot = Refusals(tmp_path, PLAN, LIBRARY, now=lambda boot=f"boot {number}": replace(NOW, boot=boot))
        assert at_boot.all() == {}, number
        cut_short(at_boot)
    (found,) = Refusals(tmp_path, PLAN, LIBRARY, now=lambda: replace(NOW, boot="last")).all().values()
    assert (found.cause, found.reason) == (
        RefusalCause.CRASH,
        f"the machine went down {REBOOTS} times during its build",
    )


def test_two_crashes_of_one_boot_count_after_a_power_cut_too(tmp_path: Path):
    cut_short(Refusals(tmp_path, PLAN, LIBRARY, now=lambda: replace(NOW, boot="first")))
    for _ in range(2):
        cut_short(Refusals(tmp_path, PLAN, LIBRARY, now=lambda: replace(NOW, boot="second")))
    (found,) = Refusals(tmp_path, PLAN, LIBRARY, now=lambda: replace(NOW, boot="second")).all().values()
    assert found.reason == CRASHED


def test_what_was_missed_is_tried_again_further_and_further_apart_and_then_not_any_more(tmp_path: Path):
    now = [NOW]
    kept = Refusals(tmp_path, PLAN, LIBRARY, now=lambda: now[0])
    assert not kept.try_missed()
    kept.miss("int8 by Q/DQ was missed: not enough memory")
    assert kept.missed
    assert kept.missed.line == (
        "int8 by Q/DQ was missed: not enough memory; it is tried again after 2025-11-24 17:00 UTC (try 1 of 4)"
    )
    for pause_s in RETRY_AFTER_S:
        now[0] = after(pause_s - 1, now[0])
        assert not kept.try_missed()
        now[0] = after(1, now[0])
        assert kept.try_missed()
        kept.miss("int8 by Q/DQ was missed: not enough memory")
    now[0] = after(1e9, now[0])
    assert not kept.try_missed()
    assert kept.missed.line.endswith("tried 4 times more in vain: vajra-edge rebuild --force tries it once again")
    assert list(RETRY_AFTER_S) == sorted(set(RETRY_AFTER_S))
    kept.clear()
    assert kept.missed is None


def test_a_clock_that_is_set_neither_brings_a_try_forward_nor_puts_it_off(tmp_path: Path):
    """A board that booted in 1970, missed INT8, and was told the time; and one whose clock was far ahead."""
    booted = Moment("this boot", 100.0, 60.0, synchronised=False)
    for wrong_s in (60.0, 4e9):
        Refusals(tmp_path, PLAN, LIBRARY, now=lambda at_s=wrong_s: replace(booted, unix_s=at_s)).miss("int8 was missed")
        kept = Refusals(tmp_path, PLAN, LIBRARY, now=lambda: replace(NOW, boot_s=200.0))
        assert not kept.try_missed()
        assert kept.missed
        assert kept.missed.line == "int8 was missed; it is tried again after 1 h (try 1 of 4)", "by no date of 1970"
        assert Refusals(tmp_path, PLAN, LIBRARY, now=lambda: replace(NOW, boot_s=3701.0)).try_missed()
        kept.clear()


def test_what_was_refused_while_the_clock_was_not_set_says_so(tmp_path: Path):
    unset = replace(NOW, unix_s=60.0, synchronised=False)
    Refusals(tmp_path, PLAN, LIBRARY, now=lambda: unset).add(QDQ, RefusalCause.LIBRARY, "no tactic", 1.0)
    assert refusals(tmp_path).all()[QDQ].line == "refused on 1970-01-01 (clock not set): no tactic"


def test_a_try_counts_before_it_begins_so_that_one_which_takes_the_machine_down_is_no_loop(tmp_path: Path):
    refusals(tmp_path).miss("int8 by Q/DQ was missed: not enough memory")
    later = after(RETRY_AFTER_S[0])
    assert Refusals(tmp_path, PLAN, LIBRARY, now=lambda: later).try_missed()
    assert not Refusals(tmp_path, PLAN, LIBRARY, now=lambda: later).try_missed(), "the process died meanwhile"


def test_what_cannot_be_counted_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refusals(tmp_path).miss("int8 by Q/DQ was missed: not enough memory")
    monkeypatch.setattr(module, "_write", lambda *_: None)
    assert not Refusals(tmp_path, PLAN, LIBRARY, now=lambda: after(1e12)).try_missed()


def test_what_was_missed_and_what_was_refused_leave_each_other_alone(tmp_path: Path):
    refusals(tmp_path).add(QDQ, RefusalCause.LIBRARY, "no tactic", 1.0)
    refusals(tmp_path).miss("fp16 was missed: not enough memory")
    with refusals(tmp_path).attempt(Rung(Precision.FP16)):
        assert refusals(tmp_path).missed
    assert list(refusals(tmp_path).all()) == [QDQ]
    refusals(tmp_path).missed_nothing()
    assert (refusals(tmp_path).missed, list(refusals(tmp_path).all())) == (None, [QDQ])
