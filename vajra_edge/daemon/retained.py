"""Retained: what stays at the broker by our doing, so that it goes once it is meant no longer, over restarts too.

What was said outlives the process at the broker. What is meant no longer may be so since the daemon was down, or the
broker away until it ended. So a file tells what was said, until the broker is rid of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from vajra_edge import durable
from vajra_edge.config import text_file
from vajra_edge.config.text_file import Unreadable
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topic

Said: TypeAlias = "Mapping[str, Mapping[str, str]]"
"""By the name of each message, what whoever said it has to know of it later."""

_MOST_BYTES = 1024 * 1024
_READ = TypeAdapter(dict[str, dict[str, str]])


class Retained:
    """One kind of retained messages. Called by one thread.

    Args:
        publisher: keeps the newest value of each topic.
        file: tells what was said; its folder is the state folder.
        at: the topic of a name.
        do: performs in the background, where a disk may be slow.

    Attributes:
        known: what the broker has, or may have still.
    """

    def __init__(
        self,
        publisher: Publisher,
        file: Path,
        at: Callable[[str], Topic],
        do: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self.known: Said = {}
        self._publisher, self._file, self._at, self._do = publisher, file, at, do
        self._leaving: frozenset[str] = frozenset()

    def open(self, is_ours: Callable[[str], bool] = lambda _: True) -> None:
        """Begin, with what an earlier process left at the broker.

        Args:
            is_ours: whether a name of the file can be one: whatever else it may hold is nothing to take off a broker.
        """
        self.known = {name: kept for name, kept in _recall(self._file).items() if is_ours(name)}

    def mean(self, now: Said, order: Callable[[str], Any] = str) -> None:
        """Take off the broker what is not among these any more, in this order. Whoever means them says them."""
        leaving = self.known.keys() - now.keys()
        for name in sorted(leaving - self._leaving, key=order):
            self._publisher.state(self._at(name), b"")
        self._leaving = frozenset(leaving)
        self._remember({**{name: self.known[name] for name in leaving}, **now})

    def forget(self) -> None:
        """No longer know of what the broker was rid of."""
        if left := {name for name in self._leaving if not self._publisher.holds(self._at(name))}:
            self._leaving -= left
            self._remember({name: kept for name, kept in self.known.items() if name not in left})

    def _remember(self, known: Said) -> None:
        if known != self.known:
            self.known = known
            content = _READ.dump_json({name: dict(kept) for name, kept in known.items()})
            self._do(f"keep {self._file.name}", lambda: self._write(content))

    def _write(self, content: bytes) -> None:
        folder = self._file.parent
        with durable.reported(folder, "written"):
            durable.make_folder(folder)
            durable.replace(self._file, content, folder)


def _recall(file: Path) -> Said:
    """What was kept; nothing where nothing can be read: then only what is said from now on is ever taken back."""
    text = text_file.read(file, _MOST_BYTES)
    try:
        return {} if isinstance(text, Unreadable) else _READ.validate_json(text)
    except ValidationError:
        return {}
