"""What is known of every cell, in one JSON file that is whole at any moment, however the run ends."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

FILE = "cells.json"
NOT_RUN = "not run"
PASSED = "passed"
FAILED = "failed"
TIMED_OUT = "timed out"
UNAVAILABLE = "unavailable"
STATES = (NOT_RUN, PASSED, FAILED, TIMED_OUT, UNAVAILABLE)


@dataclass(frozen=True)
class Record:
    """One cell's result.

    Attributes:
        state: one of ``STATES``; ``unavailable`` needs something that the machine lacks.
        message: why, where the state is not ``passed``.
        date: when it ended, UTC.
        seconds: it took.
        machine: card, driver, clocks and library versions that it ran with.
        findings: figures of the cell; of one that was ended early those that it had by then.
        log: the end of what it printed, where it failed.
    """

    state: str = NOT_RUN
    message: str = ""
    date: str = ""
    seconds: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)
    log: str = ""


class Ledger:
    """Records by cell name.

    Args:
        folder: of ``cells.json`` and of the partial findings.
        known: other folders whose results count too; earlier ones give way to later ones and to ``folder``.
    """

    def __init__(self, folder: Path, known: tuple[Path, ...] = ()) -> None:
        self.folder = folder
        self.records: dict[str, Record] = {}
        for place in (*known, folder):
            self.records |= _read(place / FILE)

    def state(self, name: str) -> str:
        return self.records.get(name, Record()).state

    def has_result(self, name: str) -> bool:
        """Whether the cell came to an end of its own; one that ran out of time or could not run is due again."""
        return self.state(name) in {PASSED, FAILED}

    def put(self, name: str, record: Record) -> None:
        """Keep a result; it is on the disk when this returns. A result is never replaced by having none."""
        if record.state == NOT_RUN and self.has_result(name):
            return
        self.records[name] = record
        replace_file(self.folder / FILE, {key: asdict(self.records[key]) for key in sorted(self.records)})

    def list_all(self, names: list[str]) -> None:
        """Write down every cell that there is: those without a result as not run."""
        for name in names:
            if name not in self.records:
                self.records[name] = Record()
        self.put(names[0], self.records[names[0]])
        replace_file(self.folder / FILE, {key: asdict(self.records[key]) for key in sorted(self.records)})

    def partial(self, name: str) -> Path:
        """Where a running cell keeps what it has found so far."""
        return self.folder / "partial" / f"{slug(name)}.json"

    def recover(self, names: list[str]) -> None:
        """Take in what the cells of a run that was killed had found."""
        for name in names:
            found = load(self.partial(name))
            if found and not self.has_result(name):
                record = self.records.get(name, Record())
                message = record.message or "the run ended while this cell was at work"
                self.put(name, replace(record, findings=found, message=message))


def slug(name: str) -> str:
    """A file's name for a cell's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")


def load(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is absent or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def replace_file(path: Path, content: dict[str, Any]) -> None:
    """Write JSON aside, then put it in the file's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.new")
    with aside.open("w") as file:
        file.write(json.dumps(content, indent=1, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _read(path: Path) -> dict[str, Record]:
    return {name: Record(**fields) for name, fields in load(path).items()}
