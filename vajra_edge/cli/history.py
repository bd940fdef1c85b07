"""``history``: what happened to the engine on this device, when, why, and who asked. Needs no running daemon."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vajra_edge.cli.terminal import inert
from vajra_edge.config.settings import load
from vajra_edge.plans.audit_log import AuditEntry, AuditLog
from vajra_edge.privileges import become_service_user

SHOWN = 50
"""The newest; ``--json`` has them all."""


def history(config: Path, *, as_json: bool) -> int:
    """Print it, the oldest first.

    Returns:
        0; 1 where the file was changed or is damaged, which is told.

    Raises:
        VajraError: the settings or the file cannot be read.
    """
    settings = load(config)
    become_service_user(settings.store.state_dir)
    told = AuditLog(settings.store.state_dir).read()
    if as_json:
        document = {"entries": [one.to_json() for one in told.entries], "doubts": told.doubts}
        print(orjson.dumps(document).decode())  # noqa: T201
    else:
        Console().print(_table(told.entries[-SHOWN:]))
        for doubt in told.doubts:
            print(f"history: {inert(doubt)}", file=sys.stderr)  # noqa: T201
    return int(bool(told.doubts))


def _table(entries: tuple[AuditEntry, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "when", "what", "plan", "took", "why", "asked by"):
        table.add_column(heading, overflow="fold")
    for one in entries:
        took = "" if one.duration_s is None else f"{one.duration_s:.1f} s"
        why = "; ".join(filter(None, (inert(one.reason), _figures(one))))
        plan, by = one.fingerprint[:12], escape(inert(one.asked_by))
        table.add_row(str(one.number), _when(one), one.happened.value, plan, took, escape(why), by)
    return table


def _when(entry: AuditEntry) -> str:
    """In UTC; a clock that nobody had set is told."""
    if entry.at is None or entry.at_utc is None:
        return ""
    return f"{entry.at_utc:%Y-%m-%d %H:%M:%S}" + ("" if entry.at.synchronised else " (clock not set)")


def _figures(entry: AuditEntry) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in entry.figures.items())
