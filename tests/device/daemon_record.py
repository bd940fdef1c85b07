"""Record: what one scenario saw, in a shape that is written as JSON after every check."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Missed(Exception):
    """Something that had to happen did not; the scenario, or its part, ends here."""


class BudgetOver(Exception):
    """The time for the whole run is over."""


class Budget:
    """The time for the whole run."""

    def __init__(self, seconds: float) -> None:
        self._until_s = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return self._until_s - time.monotonic()


class Record:
    """One scenario.

    Args:
        name: of the scenario.
        save: called after every check, so that a kill loses nothing.
    """

    def __init__(self, name: str, save: Callable[[], None]) -> None:
        self.name, self._save = name, save
        self.verdict = "not run"
        self.reason = ""
        self.checks: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}
        self.log: list[list[Any]] = []
        self.began_s = time.monotonic()
        self._ended_s: float | None = None

    def check(self, what: str, passed: Any, seen: Any = "") -> bool:
        """Note whether something holds, with what was seen."""
        self.checks.append({"check": what, "passed": bool(passed), "seen": seen, "t_s": self.since()})
        print(f"    {'ok    ' if passed else 'FAILED'} {what}: {_short(seen)}", flush=True)
        self._save()
        return bool(passed)

    def figure(self, **figures: Any) -> None:
        self.figures.update(figures)
        for name, value in figures.items():
            print(f"           {name} = {_short(value)}", flush=True)

    def say(self, topic: str, text: str, at_s: float | None = None) -> None:
        """A line of the log; what the same topic said last is not said again."""
        last = next((line for line in reversed(self.log) if line[1] == topic), None)
        if last is None or last[2] != text:
            self.log.append([self.since(at_s), topic, text])

    def since(self, at_s: float | None = None) -> float:
        """Seconds since the scenario began."""
        return round((time.monotonic() if at_s is None else at_s) - self.began_s, 2)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose end does not end the scenario."""
        self.say("script", f"part: {name}")
        try:
            yield
        except Missed as missed:
            self.check(f"{name}: comes to its end", passed=False, seen=str(missed))

    def close(self) -> None:
        """The verdict."""
        failed = any(not check["passed"] for check in self.checks)
        done = self.checks and not self.reason
        self.verdict = "failed" if failed else "ok" if done else "not run"
        self._ended_s = time.monotonic()

    def to_json(self) -> dict[str, Any]:
        reason = {"reason": self.reason} if self.reason else {}
        kept = {"checks": self.checks, "figures": self.figures, "log": sorted(self.log, key=lambda line: line[0])}
        return {"name": self.name, "verdict": self.verdict, **reason, "seconds": self.since(self._ended_s), **kept}


def write(path: Path, document: dict[str, Any]) -> None:
    """Beside, then in its place."""
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(document, indent=1, default=str) + "\n")
    aside.replace(path)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) < 300 else text[:297] + "..."
