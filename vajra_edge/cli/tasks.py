"""``export``, ``predict`` and ``val``: what an ML engineer types."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vajra_edge.api import Vajra
from vajra_edge.tasks.arguments import ExportArguments
from vajra_edge.tasks.export import Exported
from vajra_edge.tasks.results import Results
from vajra_edge.tasks.val import ValReport
from vajra_edge.wording import shown


def export(model: Path, arguments: ExportArguments, *, as_json: bool) -> int:
    """Export, with a progress bar, and print what came of it.

    Raises:
        VajraError: the export failed; nothing was written.
    """
    made = Vajra(model, verbose=True).exported(arguments)
    if as_json:
        print(orjson.dumps(made.to_json()).decode())  # noqa: T201
    else:
        _show_exported(made, arguments)
    return 0


def _show_exported(made: Exported, arguments: ExportArguments) -> None:
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


def predict(model: str, source: str, asked: dict[str, Any], *, as_json: bool) -> int:
    """Run, and print one line an image, or one JSON document.

    Args:
        model: file or fingerprint.
        source: see ``Vajra.predict``.
        asked: its other arguments.
        as_json: one document on stdout at the end; Ctrl-C ends a camera.

    Raises:
        VajraError: weights or source cannot be used.
    """
    console = Console(soft_wrap=True)
    with Vajra(model, verbose=as_json) as network, closing(_stream(network, source, asked)) as found:
        if as_json:
            images = list(_until_interrupted(found))
            print(orjson.dumps({"images": images}).decode())  # noqa: T201
            return 0
        _show_results(console, found)
    return 0


def _stream(network: Vajra, source: str, asked: dict[str, Any]) -> Generator[Results, None, None]:
    yield from network.predict(source, **asked, stream=True)


def _until_interrupted(found: Iterable[Results]) -> Iterator[dict[str, Any]]:
    try:
        for one in found:
            yield one.to_json()
    except KeyboardInterrupt:
        return


def _show_results(console: Console, found: Iterable[Results]) -> None:
    began_s, count, saved = time.perf_counter(), 0, None
    for one in found:
        count, saved = count + 1, one.saved
        counted = Counter(one.names[int(label)] for label in one.class_id)
        what = ", ".join(f"{number} {name}" for name, number in counted.most_common()) or "nothing"
        frame = "" if one.frame is None else f" frame {one.frame}"
        console.print(
            f"{escape(shown(one.path))}{frame}: {escape(what)} ({sum(one.speed.values()):.1f} ms)", highlight=False
        )
    took_s = time.perf_counter() - began_s
    console.print(f"{count} images in {took_s:.1f} s, {count / max(took_s, 1e-9):.1f} a second")
    if saved is not None:
        console.print(f"saved in {escape(shown(str(saved.parent)))}")


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
        _show_scores(made)
    return 0


def _show_scores(made: ValReport) -> None:
    console = Console(soft_wrap=True)
    table = Table("class", "objects", "mAP50", "mAP50-95", box=None)
    table.add_row("all", str(made.scores.objects), f"{made.map50:.3f}", f"{made.map50_95:.3f}", style="bold")
    for one in made.per_class:
        table.add_row(escape(one.name), str(one.objects), f"{one.map50:.3f}", f"{one.map50_95:.3f}")
    console.print(table)
    stages = ", ".join(f"{stage} {spent_ms:.1f}" for stage, spent_ms in made.speed_ms.items())
    console.print(f"{made.scores.images} images, {made.background} without objects; ms an image: {stages}")
    for lost in made.left_out:
        console.print(f"left out: {escape(str(lost))}", highlight=False)
    for read in made.read_as:
        console.print(f"read: {escape(str(read))}", highlight=False)
    for note in made.notes:
        console.print(f"note: {note}")
