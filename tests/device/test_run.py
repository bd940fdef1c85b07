"""The bookkeeping of device/run.py, with cells that need no GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from waiting import wait_for

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import cells  # noqa: E402
import ledger  # noqa: E402
import run as device_run  # noqa: E402
from cells import Cell  # noqa: E402
from ledger import FAILED, NOT_RUN, PASSED, TIMED_OUT, UNAVAILABLE, Ledger  # noqa: E402

FAKE = """
import time
from dataclasses import dataclass
from lab import Unavailable, Unfinished

@dataclass(frozen=True)
class Found:
    value: int

def good(lab, value=1):
    return Found(value)

def bad(lab):
    lab.keep({"half": 1})
    raise ValueError("seven is not eight")

def absent(lab):
    raise Unavailable("no such library")

def steps(lab):
    done = lab.earlier().get("done", 0) + 1
    lab.keep({"done": done})
    if done < 3:
        raise Unfinished(f"{done} of 3")
    return {"done": done}

def slow(lab):
    lab.keep({"steps": 3})
    time.sleep(600)

def dies(lab):
    import os
    os.abort()
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Starts cells of a module of this test, in children that are as real as run.py's."""
    (tmp_path / "fake_cells.py").write_text(FAKE)
    driver = tmp_path / "driver.py"
    driver.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(HERE)!r}, {str(tmp_path)!r}]
        import cells, run
        cells.named = lambda level: {{name: cells.Cell(name, "fake_cells", name) for name in
            ("good", "bad", "absent", "slow", "steps", "dies")}}
        sys.exit(run.main(sys.argv[1:]))
        """)
    )

    def start(name, cell, answer, log, limit_s):
        told = [sys.executable, str(driver), "--cell", cell.function, "--answer", str(answer)]
        told += ["--out", str(tmp_path / "out"), "--work", str(tmp_path), "--limit-s", str(limit_s)]
        paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        with log.open("wb") as file:
            return subprocess.Popen(
                told,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )

    return start


def fake(function: str, **more: object) -> Cell:
    return Cell(function, "fake_cells", function, **{"least_s": 0.1, "limit_s": 60.0, **more})


def worked(tmp_path, start, wanted: dict[str, Cell], budget_s: float = 100.0) -> dict[str, dict[str, object]]:
    book = Ledger(tmp_path / "out")
    device_run.Run(book, start, {"name": "card"}, budget_s).work(wanted)
    return json.loads((tmp_path / "out" / "cells.json").read_text())


def test_without_a_gpu_one_line_says_so_and_nothing_is_run(tmp_path, capsys, monkeypatch):
    import lab

    monkeypatch.setattr(lab, "absence", lambda: "no GPU here (none): nothing was run")
    assert device_run.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no GPU here (none): nothing was run\n"
    assert not list(tmp_path.iterdir())


def test_this_machine_has_an_answer_to_whether_there_is_something_to_measure():
    import lab

    reason = lab.absence()
    assert reason is None or ("nothing was run" in reason and "\n" not in reason)


def test_the_list_names_every_cell_and_none_as_passed_that_was_not_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(device_run, "RESULTS", tmp_path / "none")
    assert device_run.main(["--list", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(cells.every()) + 1
    assert all(line.startswith(NOT_RUN) for line in lines[:-1])
    assert lines[-1] == f"{len(cells.every())} {NOT_RUN}"


def test_every_cell_has_a_function_and_a_name_of_its_own():
    known = cells.named(0)
    assert len(known) == len(cells.every())
    for name, cell in known.items():
        assert (HERE / f"{cell.module}.py").is_file(), name
        assert f"def {cell.function}(" in (HERE / f"{cell.module}.py").read_text(), name
        json.dumps(cell.arguments)
    assert {name[0] for name in known} == set("ABCDEFGHIJK")


def test_results_of_other_levels_are_other_cells():
    three = [name for name in cells.named(3) if name not in cells.named(0)]
    assert three
    assert all(name.endswith("level 3") for name in three)


def test_a_letter_or_a_part_of_a_name_chooses_cells():
    known = {"A one": fake("good"), "B one": fake("good"), "B two": fake("good")}
    assert list(device_run.chosen(known, "B")) == ["B one", "B two"]
    assert list(device_run.chosen(known, "A, two")) == ["A one", "B two"]
    assert device_run.chosen(known, "") == known


def test_each_outcome_is_recorded_as_what_it_is(tmp_path, fakes):
    wanted = {name: fake(name) for name in ("good", "bad", "absent", "dies")}
    found = worked(tmp_path, fakes, wanted)
    assert {name: record["state"] for name, record in found.items()} == {
        "good": PASSED,
        "bad": FAILED,
        "absent": UNAVAILABLE,
        "dies": FAILED,
    }
    assert found["good"]["findings"] == {"value": 1}
    assert found["good"]["machine"] == {"name": "card"}
    assert found["bad"]["message"] == "ValueError: seven is not eight"
    assert found["bad"]["findings"] == {"half": 1}
    assert "Traceback" in str(found["bad"]["log"])
    assert found["absent"]["message"] == "no such library"
    assert "-6" in str(found["dies"]["message"])


def test_a_cell_that_takes_too_long_is_ended_and_keeps_what_it_had(tmp_path, fakes):
    found = worked(tmp_path, fakes, {"slow": fake("slow", limit_s=15.0)})
    assert found["slow"]["state"] == TIMED_OUT
    assert found["slow"]["findings"] == {"steps": 3}


def test_what_the_budget_cuts_off_was_not_run(tmp_path, fakes):
    began_s = time.monotonic()
    wanted = {"slow": fake("slow"), "good": fake("good", alone=True, least_s=50.0)}
    found = worked(tmp_path, fakes, wanted, budget_s=device_run.MARGIN_S + 15.0)
    assert time.monotonic() - began_s < 300
    assert found["slow"]["state"] == found["good"]["state"] == NOT_RUN
    assert "the budget ended" in str(found["slow"]["message"])
    assert "of the budget were left" in str(found["good"]["message"])
    assert found["slow"]["findings"] == {"steps": 3}


def test_a_cell_that_resumes_goes_on_where_it_was_even_from_the_results_alone(tmp_path, fakes):
    wanted = {"steps": fake("steps", resumes=True)}
    first = worked(tmp_path, fakes, wanted)["steps"]
    assert (first["state"], first["message"], first["findings"]) == (NOT_RUN, "1 of 3", {"done": 1})
    Ledger(tmp_path / "out").partial("steps").unlink()
    assert worked(tmp_path, fakes, wanted)["steps"]["findings"] == {"done": 2}
    assert worked(tmp_path, fakes, wanted)["steps"]["state"] == PASSED


def test_a_cell_that_does_not_resume_begins_anew(tmp_path, fakes):
    for _ in range(2):
        assert worked(tmp_path, fakes, {"steps": fake("steps")})["steps"]["findings"] == {"done": 1}


def test_a_result_is_not_lost_to_a_later_run_without_time(tmp_path, fakes):
    worked(tmp_path, fakes, {"good": fake("good")})
    found = worked(tmp_path, fakes, {"good": fake("good", least_s=50.0)}, budget_s=device_run.MARGIN_S + 1.0)
    assert found["good"]["state"] == PASSED


def test_results_and_partial_findings_survive_a_kill(tmp_path, fakes):
    worked(tmp_path, fakes, {"good": fake("good")})
    book = Ledger(tmp_path / "out")
    log = tmp_path / "slow.log"
    child = fakes("slow", fake("slow"), tmp_path / "answer", log, 60.0)
    wait_for(book.partial("slow").is_file)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    later = Ledger(tmp_path / "out")
    later.recover(["good", "slow"])
    assert later.state("good") == PASSED
    assert later.records["slow"].state == NOT_RUN
    assert later.records["slow"].findings == {"steps": 3}
    assert "at work" in later.records["slow"].message


def test_a_file_cut_short_costs_no_more_than_itself(tmp_path):
    (tmp_path / ledger.FILE).write_text('{"good": {"state"')
    book = Ledger(tmp_path)
    assert book.records == {}
    book.list_all(["one"])
    assert Ledger(tmp_path).state("one") == NOT_RUN


def test_cells_that_time_run_alone_and_builds_side_by_side(tmp_path):
    """With processes that do nothing, and a clock that only this test moves."""
    at_once, most, seen = set(), 0, []

    class Process:
        def __init__(self, name):
            self.pid, self.returncode, self.polls, self.name = 0, 0, 0, name
            at_once.add(name)
            seen.append(set(at_once))

        def poll(self):
            self.polls += 1
            return 0 if self.polls > 2 else None

        def wait(self):
            at_once.discard(self.name)

    book = Ledger(tmp_path)
    run = device_run.Run(book, lambda name, *_: Process(name), {}, 1000.0)
    original, device_run.os.killpg = device_run.os.killpg, lambda *_: None
    try:
        wanted = {f"build {n}": fake("good") for n in range(5)}
        run.work({**wanted, "time": fake("good", alone=True), "build 5": fake("good")})
    finally:
        device_run.os.killpg = original
    most = max(map(len, seen))
    assert most == cells.SLOTS
    assert {"time"} in seen
    assert not any("time" in group and len(group) > 1 for group in seen)
