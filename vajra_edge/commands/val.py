"""``val``: mAP and speed on a dataset."""

from __future__ import annotations

from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from vajra_edge.api import Vajra
from vajra_edge.evaluate.report import Report


def val(model: str, data: str, asked: dict[str, Any], *, as_json: bool) -> int:
    """Score, with a progress bar, and print the figures.

    Args:
        model: file or fingerprint.
        data: a data.yaml or COCO json.
        asked: the other arguments of ``Vajra.val``.
        as_json: one document on stdout.

    Raises:
        VajraError: weights or dataset cannot be used.
    """
    with Vajra(model, verbose=True) as network:
        made = network.val(data, **asked)
    if as_json:
        print(orjson.dumps(made.to_json()).decode())  # noqa: T201
    else:
        _show(made)
    return 0


def _show(made: Report) -> None:
    console = Console(soft_wrap=True)
    table = Table("class", "objects", "mAP50", "mAP50-95", box=None)
    table.add_row("all", str(made.scores.objects), f"{made.map50:.3f}", f"{made.map50_95:.3f}", style="bold")
    for one in made.per_class:
        table.add_row(one.name, str(one.objects), f"{one.map50:.3f}", f"{one.map50_95:.3f}")
    console.print(table)
    stages = ", ".join(f"{stage} {spent_ms:.1f}" for stage, spent_ms in made.speed_ms.items())
    console.print(f"{made.scores.images} images; ms an image: {stages}")
    for note in made.notes:
        console.print(f"note: {note}")
