"""``export``: weights -> an engine or ONNX file."""

from __future__ import annotations

from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape

from vajra_edge.api import Vajra
from vajra_edge.offline.arguments import ExportArguments
from vajra_edge.offline.export import Exported


def export(model: Path, arguments: ExportArguments, *, as_json: bool) -> int:
    """Export, with a progress bar, and print what came of it.

    Raises:
        VajraError: the export failed; nothing was written.
    """
    made = Vajra(model, verbose=True).exported(arguments)
    if as_json:
        print(orjson.dumps(made.to_json()).decode())  # noqa: T201
    else:
        _show(made, arguments)
    return 0


def _show(made: Exported, arguments: ExportArguments) -> None:
    console = Console(soft_wrap=True)
    where = ", ".join(text for text in (made.target, made.built_for) if text)
    size_mb = made.path.stat().st_size / 1e6
    console.print(f"[green]{escape(str(made.path))}[/] ({size_mb:.1f} MB, {made.precision.value} for {where})")
    if made.precision is not arguments.precision:
        for refused in made.report.refused:
            console.print(f"[red]{refused.precision} was refused:[/] {escape(refused.reason)}")
    console.print(f"check: {escape(made.verify.figures.reason)}")
    if speed := made.verify.figures.speed:
        console.print(f"speed: {escape(speed)}")
    following = f"vajra-edge predict model={escape(str(made.path))} source=image.jpg"
    console.print(f"took {made.seconds:.1f} s; next: {following}")
