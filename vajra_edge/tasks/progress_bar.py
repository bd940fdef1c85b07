"""Progress bars for a person who watches stderr on a terminal, and the same calls without any for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vajra_edge.progress import Progress, Report

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int], None]
"""Takes how many more are done."""


@contextmanager
def counting(shown: bool, what: str, total: int | None) -> Iterator[Advance]:
    """A bar over images or frames.

    Args:
        shown: False gives calls that do nothing.
        what: is counted.
        total: how many there are, or None where nobody knows.
    """
    if not shown:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console, text = _stderr(), TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)


@contextmanager
def building(shown: bool) -> Iterator[Report]:
    """A bar for the stages of an export."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = _stderr()
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("starting", total=100.0)

        def report(progress: Progress) -> None:
            left = f", about {progress.eta_s:.0f} s left" if progress.eta_s is not None else ""
            text = f"{progress.stage}: {progress.message}{left}" if progress.message else progress.stage
            bars.update(task, description=text, completed=progress.percent or 0.0)

        yield report


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)
