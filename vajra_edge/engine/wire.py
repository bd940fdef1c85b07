"""Wire: the JSON lines between the build child and the process that started it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vajra_edge.engine.backend import Progress


@dataclass(frozen=True)
class Done:
    """The plan is in the store; ``peak_rss_bytes`` is the child's largest resident memory."""

    fingerprint: str
    peak_rss_bytes: int


@dataclass(frozen=True)
class Failed:
    """There is no plan; ``permanent``: trying again cannot help; ``images``: those of the calibration are why."""

    message: str
    permanent: bool
    peak_rss_bytes: int
    images: bool = False


Line = Progress | Done | Failed

_KINDS: Mapping[str, type[Any]] = {"progress": Progress, "done": Done, "failed": Failed}
_EVENTS = {kind: event for event, kind in _KINDS.items()}


def encode(line: Line) -> bytes:
    """One line of JSON with its newline."""
    return json.dumps({"event": _EVENTS[type(line)], **asdict(line)}).encode() + b"\n"


def decode(text: bytes) -> Line | None:
    """The inverse of ``encode``; None for anything else, which libraries may print."""
    try:
        fields = json.loads(text)
        line: Line = _KINDS[fields.pop("event")](**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return line if _typed(line) else None


def _typed(line: Line) -> bool:
    """Whether the fields that others rely on have their types."""
    if isinstance(line, Progress):
        numbers = (line.percent, line.eta_s)
        typed = isinstance(line.stage, str) and isinstance(line.waiting, bool)
        return typed and all(value is None or isinstance(value, (int, float)) for value in numbers)
    if isinstance(line, Done):
        return isinstance(line.fingerprint, str) and isinstance(line.peak_rss_bytes, int)
    return isinstance(line.message, str) and isinstance(line.permanent, bool) and isinstance(line.images, bool)
