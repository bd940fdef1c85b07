from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vajra_edge import durable
from vajra_edge.clock import Moment
from vajra_edge.plans import caches
from vajra_edge.plans.caches import FOLDERS, RANGES, STALE_S, TIMING
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.report import BuildReport, Int8Report, PlanReport, RangesReport, RefusedWay, TensorRTReport
from vajra_edge.plans.store import EngineStore

Make = Callable[[str], Manifest]


def write(path: Path, at_s: float) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"{}")
    os.utime(path, (at_s, at_s))
    return path.name


def at(unix_s: float) -> Moment:
    """A moment of a device that has been up for a day."""
    return Moment("a", 86_400.0, unix_s, synchronised=True)


def fill(root: Path, folder: caches.CacheFolder, count: int) -> list[str]:
    """Files of a folder, the oldest first."""
    return [write(root / folder.path / f"{number}{folder.suffix}", 1000.0 + number) for number in range(count)]


def left(root: Path, folder: caches.CacheFolder) -> set[str]:
    return {path.name for path in (root / folder.path).iterdir()}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.path)
def test_only_the_newest_few_are_kept(tmp_path: Path, folder: caches.CacheFolder):
    names = fill(tmp_path, folder, folder.kept + 3)
    assert len(caches.prune(tmp_path, (), at(2000.0))) == 3
    assert left(tmp_path, folder) == set(names[3:])
    assert caches.prune(tmp_path, (), at(2000.0)) == ()


def measured(key: str) -> Int8Report:
    return Int8Report(RangesReport("minmax", 20, key, "measured", "ONNX Runtime", "images"))


def timed(cache: str, expected: str | None) -> TensorRTReport:
    made = TensorRTReport("TensorRT 10.3.0", "weak", "", "8.7", "", (), 9, None, 1.0, 9, ())
    return replace(made, timing_cache=cache, timing_expected=expected)


def test_what_the_current_and_the_last_good_plan_were_made_with_stays_however_old(tmp_path: Path, manifest_of: Make):
    store = EngineStore(tmp_path, 1 << 30)
    ranges, timings = fill(tmp_path, RANGES, RANGES.kept + 4), fill(tmp_path, TIMING, TIMING.kept + 4)
    refused = RefusedWay("int8", "int8 by Q/DQ", "no", 1.0, plan=PlanReport(int8=measured("1")))
    reports = (
        BuildReport(PlanReport(tensorrt=timed(timings[0], timings[1]), int8=measured("0"))),
        BuildReport(PlanReport(tensorrt=timed("not kept: No space left on device", None)), refused=(refused,)),
    )
    for name, report in zip("ab", reports, strict=True):
        plan = store.commit(b"plan", replace(manifest_of(name), report=report))
        store.mark_good(plan.fingerprint)
    store.prune()
    assert left(tmp_path, RANGES) == {*ranges[:2], *ranges[-RANGES.kept :]}
    assert left(tmp_path, TIMING) == {*timings[:2], *timings[-TIMING.kept :]}


def test_a_file_that_is_being_written_stays_and_one_that_was_abandoned_goes(tmp_path: Path):
    write(tmp_path / RANGES.path / "5f3a", 1000.0)
    assert caches.prune(tmp_path, (), at(1000.0 + STALE_S - 1)) == ()
    assert len(caches.prune(tmp_path, (), at(1000.0 + STALE_S + 1))) == 1


def test_a_clock_that_was_set_meanwhile_takes_no_file_from_a_build_under_way(tmp_path: Path):
    write(tmp_path / RANGES.path / "5f3a", 60.0)  # begun in 1970, a minute after the boot
    told_the_time = Moment("a", 90.0, 1_800_000_000.0, synchronised=True)
    assert caches.prune(tmp_path, (), told_the_time) == ()
    assert len(caches.prune(tmp_path, (), at(1_800_000_000.0))) == 1


def test_what_was_written_last_is_the_newest_though_the_clock_was_set_back(tmp_path: Path):
    names = fill(tmp_path, RANGES, RANGES.kept)
    last = write(tmp_path / RANGES.path / f"last{RANGES.suffix}", 60.0)
    durable.make_newest(tmp_path / RANGES.path / last, tmp_path / RANGES.path)
    caches.prune(tmp_path, ())
    assert left(tmp_path, RANGES) == {*names[1:], last}


def test_a_store_whose_current_plan_is_damaged_is_pruned_all_the_same(tmp_path: Path, manifest_of: Make):
    store = EngineStore(tmp_path, 1 << 30)
    plan = store.commit(b"plan", manifest_of("a"))
    store.mark_good(plan.fingerprint)
    (plan.path.parent / "manifest.json").write_bytes(b"[")
    fill(tmp_path, TIMING, TIMING.kept + 1)
    store.prune()
    assert len(left(tmp_path, TIMING)) == TIMING.kept


def test_without_any_build_there_is_nothing_to_prune(tmp_path: Path):
    assert caches.prune(tmp_path, ()) == ()
