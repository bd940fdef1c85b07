"""Frigate labels: whose number was said on Frigate's topics, kept for the process after this one.

Those counts are not retained, as Frigate's are not, so that who heard ``1`` shows it until a ``0`` comes. A process
that ends while somebody is there says none; the next one has to know of whom.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from vajra_edge import durable, state_file
from vajra_edge.config import text_file
from vajra_edge.config.text_file import Unreadable
from vajra_edge.outputs.frigate import Labels

NAME = "frigate_labels.json"
_MOST_BYTES = 1024 * 1024
_READ = TypeAdapter(Labels)


class FrigateLabels:
    """One file.

    Args:
        state_dir: has it.
        do: performs in the background, where a disk may be slow; callable from any thread.
    """

    def __init__(self, state_dir: Path, do: Callable[[str, Callable[[], None]], None]) -> None:
        self._state_dir, self._do = state_dir, do

    def read(self) -> Labels:
        """What was kept; none where nothing can be read."""
        content = text_file.read_bytes(self._state_dir / NAME, _MOST_BYTES)
        try:
            return Labels() if isinstance(content, Unreadable) else _READ.validate_python(state_file.parse(content))
        except ValueError:
            return Labels()

    def keep(self, labels: Labels) -> None:
        """Put these in the place of what is there."""
        content = _READ.dump_json(labels)
        self._do("keep what Frigate's topics count", lambda: self._write(content))

    def _write(self, content: bytes) -> None:
        with durable.reported(self._state_dir, "written"):
            durable.make_folder(self._state_dir)
            durable.replace(self._state_dir / NAME, content, self._state_dir)
