"""Wire: the JSON lines between the build child and the process that started it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from vajra_edge.progress import Progress


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

_EVENTS: Mapping[type[Line], str] = {Progress: "progress", Done: "done", Failed: "failed"}


def encode(line: Line) -> bytes:
    """One line of JSON with its newline."""
    return json.dumps({"event": _EVENTS[type(line)], **asdict(line)}).encode() + b"\n"


def decode(text: bytes) -> Line | None:
    """The inverse of ``encode``; None for anything else, which libraries may print."""
    try:
        plain: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match plain:
        case {
            "event": "progress",
            "stage": str(stage),
            "percent": (int() | float() | None) as percent,
            "message": str(message),
            "eta_s": (int() | float() | None) as eta_s,
            "waiting": bool(waiting),
        }:
            return Progress(stage, percent, message, eta_s, waiting)
        case {"event": "done", "fingerprint": str(fingerprint), "peak_rss_bytes": int(peak_rss_bytes)}:
            return Done(fingerprint, peak_rss_bytes)
        case {
            "event": "failed",
            "message": str(message),
            "permanent": bool(permanent),
            "peak_rss_bytes": int(peak_rss_bytes),
            "images": bool(images),
        }:
            return Failed(message, permanent, peak_rss_bytes, images)
        case _:
            return None
