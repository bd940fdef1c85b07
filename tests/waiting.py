"""Waiting for what must happen: by its event, with one limit that only says that it will never come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 90.0
"""Of one thing that must happen: builds take seconds, and the machine may be busy with other tests."""


def wait_for(condition: Callable[[], Any], limit_s: float = LIMIT_S, step_s: float = 0.02) -> Any:
    """The first true value of ``condition``."""
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if value := condition():
            return value
        time.sleep(step_s)
    raise AssertionError(f"did not happen within {limit_s:.0f} s")


def is_alive(pid: int) -> bool:
    """A zombie that its parent has not collected yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
