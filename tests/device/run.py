"""Ask a GPU with NVIDIA's TensorRT what no other machine can answer, cell by cell, within a given time.

    python tests/device/run.py --list                                  every cell and its state
    python tests/device/run.py --data DIR --out DIR --budget-s 500     the cells that have no result yet
    python tests/device/run.py --only A,B --again --level 3            some of them, by letter or part of the name

Results are in ``cells.json`` in ``--out``; those in ``results/`` count as known. A cell that was not run, or whose time
or the budget ended, is due again. Without a GPU and the real TensorRT one line says so; ``--dry`` goes through the
motions with TensorRT-RTX as the builder and ONNX Runtime as the runner, and its results belong nowhere.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import cells  # noqa: E402
import ledger  # noqa: E402
from cells import SLOTS, TIMINGS, Cell  # noqa: E402
from ledger import FAILED, NOT_RUN, PASSED, TIMED_OUT, UNAVAILABLE, Ledger, Record  # noqa: E402

RESULTS = HERE / "results"
MARGIN_S = 3.0
"""For ending children and writing down what they had."""
POLL_S = 0.1
LOG_CHARS = 4000


@dataclass
class Child:
    """A cell at work in a process group of its own."""

    name: str
    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    answer: Path
    began_s: float
    until_s: float
    cut: bool

    def end(self) -> None:
        """The whole group: cells have children too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[[str, Cell, Path, Path, float], "subprocess.Popen[bytes]"]


@dataclass
class Run:
    """Works through cells until they or the time are at an end.

    Attributes:
        book: takes the results.
        start: starts a child for a cell: name, cell, file for the answer, log, seconds it may take.
        machine: written beside every result.
        budget_s: for everything.
        slots: cells side by side, of those that only build.
        clock: seconds, monotonic.
    """

    book: Ledger
    start: Start
    machine: Mapping[str, Any]
    budget_s: float
    slots: int = SLOTS
    clock: Callable[[], float] = time.monotonic
    running: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.until_s = self.clock() + self.budget_s - MARGIN_S

    def work(self, due: Mapping[str, Cell]) -> None:
        """In order; a cell that runs alone waits for those before it, and those behind it wait for it."""
        pending = list(due.items())
        try:
            while pending or self.running:
                while pending and self._may_start(pending[0][1]):
                    self._begin(*pending.pop(0))
                self._settle()
                if self.running:
                    time.sleep(POLL_S)
                elif pending and not self._may_start(pending[0][1]):  # nothing runs: its time does not suffice
                    name, cell = pending.pop(0)
                    left_s = max(self.until_s - self.clock(), 0)
                    self._note(name, f"{left_s:.0f} s of the budget were left, it wants {cell.least_s:.0f} s")
        finally:
            for child in self.running:
                child.end()
                self._note(child.name, "the run was ended while this cell was at work")

    def _may_start(self, cell: Cell) -> bool:
        if self.until_s - self.clock() < cell.least_s:
            return False
        if not self.running:
            return True
        return not cell.alone and not self.running[0].cell.alone and len(self.running) < self.slots

    def _begin(self, name: str, cell: Cell) -> None:
        now_s = self.clock()
        until_s = min(now_s + cell.limit_s, self.until_s)
        answer = self.book.folder / "partial" / f"{ledger.slug(name)}.answer"
        log = self.book.folder / "logs" / f"{ledger.slug(name)}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.unlink(missing_ok=True)
        self._resume(name, cell)
        process = self.start(name, cell, answer, log, until_s - now_s)
        cut = until_s < now_s + cell.limit_s
        self.running.append(Child(name, cell, process, log, answer, now_s, until_s, cut))
        print(f"{name}: started", flush=True)

    def _resume(self, name: str, cell: Cell) -> None:
        """What a cell finds beside it is its own: of an earlier run that did not end, or nothing."""
        partial, known = self.book.partial(name), self.book.records.get(name, Record())
        if not cell.resumes or self.book.has_result(name):
            partial.unlink(missing_ok=True)
        elif known.findings and not partial.is_file():
            ledger.replace_file(partial, known.findings)

    def _settle(self) -> None:
        """Take in what has ended and end what has had its time."""
        for child in list(self.running):
            late = self.clock() > child.until_s
            if child.process.poll() is None and not late:
                continue
            child.end()
            self.running.remove(child)
            record = self._record(child, late=late)
            self.book.put(child.name, record)
            print(f"{child.name}: {record.state} in {record.seconds} s {record.message[:300]}", flush=True)

    def _record(self, child: Child, *, late: bool) -> Record:
        told = ledger.load(child.answer)
        child.answer.unlink(missing_ok=True)
        findings = told.get("findings") or ledger.load(self.book.partial(child.name))
        made = Record(
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(self.clock() - child.began_s, 1),
            machine=dict(self.machine),
            findings=findings,
        )
        if told:
            log = "" if told["state"] == PASSED else _end_of(child.log)
            return replace(made, state=told["state"], message=told["message"], log=log)
        if late and child.cut:
            return replace(made, state=NOT_RUN, message=f"the budget ended after {made.seconds} s of it")
        if late:
            return replace(made, state=TIMED_OUT, message=f"no end after {made.seconds} s", log=_end_of(child.log))
        code = child.process.returncode
        return replace(made, state=FAILED, message=f"the process ended with {code}", log=_end_of(child.log))

    def _note(self, name: str, why: str) -> None:
        known = self.book.records.get(name, Record())
        findings = known.findings or ledger.load(self.book.partial(name))
        self.book.put(name, Record(NOT_RUN, why, machine=dict(self.machine), findings=findings))


def _end_of(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-LOG_CHARS:]
    except OSError:
        return ""


def chosen(known: Mapping[str, Cell], only: str) -> dict[str, Cell]:
    """Cells by letter or by a part of their name; all without ``only``."""
    parts = [part.strip() for part in only.split(",") if part.strip()]
    return {
        name: cell
        for name, cell in known.items()
        if not parts or any(name.startswith(f"{part} ") if len(part) == 1 else part in name for part in parts)
    }


def show(book: Ledger, names: list[str]) -> None:
    """One line a cell."""
    for name in names:
        record = book.records.get(name, Record())
        print(f"{record.state:12} {name}{f'  ({record.message.splitlines()[0][:120]})' if record.message else ''}")
    counts = {state: sum(book.state(name) == state for name in names) for state in ledger.STATES}
    print(", ".join(f"{count} {state}" for state, count in counts.items() if count))


def answer_of(cell: Cell, lab: Any) -> dict[str, Any]:
    """Run one cell in this process."""
    from lab import Unavailable, Unfinished, plain

    try:
        return {"state": PASSED, "message": "", "findings": plain(cell.call(lab))}
    except Unavailable as error:
        return {"state": UNAVAILABLE, "message": str(error), "findings": lab.earlier()}
    except Unfinished as error:
        return {"state": NOT_RUN, "message": str(error), "findings": lab.earlier()}
    except Exception as error:  # noqa: BLE001  the top of the process: whatever it is, it is the cell's answer
        traceback.print_exc()
        return {"state": FAILED, "message": f"{type(error).__name__}: {error}", "findings": lab.earlier()}


def one(options: argparse.Namespace) -> int:
    """The child: one cell, its answer in a file."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    cell = cells.named(options.level)[options.cell]
    partial = Ledger(options.out).partial(options.cell)
    found = answer_of(cell, _lab(options, partial))
    ledger.replace_file(options.answer, found)
    sys.stdout.flush()
    os._exit(0)  # the library's own teardown may hang or crash; the answer is on the disk


def _lab(options: argparse.Namespace, partial: Path) -> Any:
    from lab import Lab

    options.work.mkdir(parents=True, exist_ok=True)
    return Lab(
        options.data.absolute(), options.work.absolute(), partial.absolute(), options.level, options.dry,
        options.search, options.sample, options.limit_s,
    )  # fmt: skip


def _starter(options: argparse.Namespace) -> Start:
    def start(name: str, cell: Cell, answer: Path, log: Path, limit_s: float) -> subprocess.Popen[bytes]:
        del cell
        told = [sys.executable, str(HERE / "run.py"), "--cell", name, "--answer", str(answer.absolute())]
        told += ["--data", str(options.data), "--out", str(options.out), "--work", str(options.work)]
        told += ["--level", str(options.level), "--sample", str(options.sample), "--limit-s", str(limit_s)]
        told += [flag for flag, on in (("--dry", options.dry), ("--search", options.search)) if on]
        paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        if options.timings:
            environment[TIMINGS] = str(options.timings.absolute())
        with log.open("wb") as file:
            return subprocess.Popen(
                told, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )

    return start


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="every cell with its state")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of cells.json")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vajra-device-cells")
    parser.add_argument("--budget-s", type=float, default=500.0)
    parser.add_argument("--slots", type=int, default=SLOTS, help="cells side by side, of those that only build")
    parser.add_argument("--only", default="", help="letters or parts of names, with commas")
    parser.add_argument("--again", action="store_true", help="cells that have a result too")
    parser.add_argument("--level", type=int, default=0, help="optimization level of what is timed (D, F, G, K)")
    parser.add_argument("--sample", type=int, default=0, help="so many small graphs only")
    parser.add_argument("--timings", type=Path, help="folder of TensorRT's timing caches; without it none are kept")
    parser.add_argument("--search", action="store_true", help="INT8 layers by trials in C too")
    parser.add_argument("--dry", action="store_true", help="without a GPU; see above")
    for hidden, kind in (("--cell", str), ("--answer", Path), ("--limit-s", float)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.cell:
        return one(options)
    known = cells.named(options.level)
    if options.list:
        book = Ledger(options.out, (RESULTS,))
        older = sorted(name for name in book.records if name not in known)
        show(book, [*known, *older])
        return 0
    from lab import absence, machine

    if not options.dry and (reason := absence()) is not None:
        print(reason)
        return 0
    if options.dry and options.out == RESULTS:
        print("--dry wants an --out of its own: its figures mean nothing")
        return 2
    book = Ledger(options.out, () if options.dry else (RESULTS,))
    book.recover(list(known))
    book.list_all(list(known))
    due = {
        name: cell for name, cell in chosen(known, options.only).items() if options.again or not book.has_result(name)
    }
    facts = {**machine(), **({"dry": True} if options.dry else {})}
    run = Run(book, _starter(options), facts, options.budget_s, options.slots)
    run.work(due)
    show(book, list(chosen(known, options.only)))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended and noted
    sys.exit(main())
