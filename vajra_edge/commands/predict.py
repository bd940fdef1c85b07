"""``predict``: what is in images, folders, videos and cameras."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape

from vajra_edge.api import Vajra
from vajra_edge.results import Results


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
        _show(console, found)
    return 0


def _stream(network: Vajra, source: str, asked: dict[str, Any]) -> Generator[Results, None, None]:
    yield from network.predict(source, **asked, stream=True)


def _until_interrupted(found: Iterable[Results]) -> Iterator[dict[str, Any]]:
    try:
        for one in found:
            yield one.to_json()
    except KeyboardInterrupt:
        return


def _show(console: Console, found: Iterable[Results]) -> None:
    began_s, count, saved = time.perf_counter(), 0, None
    for one in found:
        count, saved = count + 1, one.saved
        counted = Counter(one.names[int(label)] for label in one.class_id)
        what = ", ".join(f"{number} {name}" for name, number in counted.most_common()) or "nothing"
        frame = "" if one.frame is None else f" frame {one.frame}"
        console.print(f"{escape(one.path)}{frame}: {escape(what)} ({sum(one.speed.values()):.1f} ms)", highlight=False)
    took_s = time.perf_counter() - began_s
    console.print(f"{count} images in {took_s:.1f} s, {count / max(took_s, 1e-9):.1f} a second")
    if saved is not None:
        console.print(f"saved in {escape(str(saved.parent))}")
