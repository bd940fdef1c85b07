"""Ways to die, as real processes under a stand-in of systemd: the guilty alone is charged, and frames come back."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import crash_matrix
from faults.crash_matrix import Row, Scene, scene

from vajra_edge.demo.broker import Broker

LONG = pytest.mark.long("takes a minute or two; the first three of the matrix run always")
ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("fsfreeze"), reason="absent here: the right to mount and freeze a disk"
)


@pytest.fixture(scope="module")
def broker() -> Iterator[int]:
    broker = Broker()
    try:
        yield broker.open()[1]
    finally:
        broker.close()


EXPECTED = {
    "segv_at_load": ((-11,), "new: crash x1", "old"),
    "segv_in_inference": ((-11,) * 3, "new: crash x3", "old"),
    "segv_of_the_librarys_own_thread": ((-11,) * 3, "new: crash x3", "old"),
    "segv_in_the_build_child": ((), "nobody", "old"),
    "broken_plan": ((-9, -6), "nobody", "old"),  # it was acquitted once it served
    "segv_of_the_only_plan": ((-11,) * 4, "old: crash x4", "old"),
    "segv_in_a_camera": ((), "nobody", "old"),
    "segv_from_outside": ((-11,) * 3, "nobody", "old"),
    "board_stands_still": ((-6,) * 3, "nobody", "old"),
    "board_stands_still_shortly": ((), "nobody", "old"),
    "plan_hangs": ((-6,), "new: crash x1", "new"),
    "only_plan_hangs_at_load": ((-9, -6), "nobody", "old"),  # likewise, see SAID
    "only_plan_holds_python": ((-9, -6), "nobody", "old"),
    "camera_hangs": ((), "nobody", "old"),
    "broker_hangs": (None, "nobody", "old"),
    "disk_hangs": (None, "nobody", None),
}
"""Exit codes, who is charged, what serves; None: either may be."""

SAID = {
    "broken_plan": "while plan",
    "only_plan_hangs_at_load": "these were silent: background, while plan",
    "only_plan_holds_python": "a library kept every thread waiting, while plan",
}
"""Of the last death, where the plan that serves again was charged for it."""

ALWAYS = ("segv_at_load", "segv_in_inference", "segv_in_the_build_child")
MARKS = {"disk_hangs": [ROOT]}


def are_as_expected(codes: tuple[int, ...], deaths: tuple[int, ...]) -> bool:
    """Python's fault handler looks at threads that run on: in the midst of a SIGABRT it may die of one by SIGSEGV."""
    same = [
        seen == code or (code, seen) == (-signal.SIGABRT, -signal.SIGSEGV)
        for code, seen in zip(codes, deaths, strict=False)
    ]
    return len(codes) == len(deaths) and all(same)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[*([] if name in ALWAYS else [LONG]), *MARKS.get(name, [])]) for name in EXPECTED],
)
def test_the_guilty_alone_is_charged_and_a_plan_serves_again(tmp_path: Path, broker: int, name: str):
    codes, charged, serves = EXPECTED[name]
    row: Row = crash_matrix.SCENARIOS[name](tmp_path, broker)
    assert row.charged == charged, row
    assert codes is None or are_as_expected(codes, row.deaths), row
    assert serves in (None, row.serves), row
    assert SAID.get(name, "") in row.before, row


def hung_camera(at: Scene) -> None:
    at.strike("gate")
    at.until_struck()


def hung_broker(at: Scene) -> None:
    at.strike()
    at.until_struck()


def hung_load(at: Scene) -> None:
    at.strike(at.exchange())
    at.supervised.until(lambda status: status["engine"]["loading"])
    at.until_struck()


def hung_plan(at: Scene) -> None:
    at.strike(at.old)
    at.until_struck()


@pytest.mark.parametrize(
    ("fault", "hangs", "who"),
    [
        ("camera:hang", hung_camera, ""),  # its process is killed
        ("broker:hang", hung_broker, "mqtt"),
        ("load:hang", hung_load, "background"),
        ("infer:hang", hung_plan, "pipeline"),
    ],
)
def test_a_stop_with_a_thread_that_is_stuck_in_a_library_exits_0_and_names_it(
    tmp_path: Path, broker: int, fault: str, hangs: Callable[[Scene], None], who: str
):
    with scene(tmp_path, broker, fault) as at:
        hangs(at)
        assert at.supervised.stop() == 0
        log = at.station.log
    last = [line for line in log.splitlines() if "stopped after" in line]
    assert len(last) == 1
    _, _, left = last[0].partition("left behind, for they did not end: ")
    assert who in left if who else not left
    assert log.rstrip().splitlines()[-1] == last[0], "the last word"
    assert "Traceback" not in log
