"""Last broker: where the device was last known, kept beside its plans for a start whose settings cannot be read.

A power cut can leave an empty settings file. The broker's place is in it, and so nobody would hear why the device is
gone. No secret is kept: the settings hold none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vajra_edge import durable, state_file
from vajra_edge.config import text_file
from vajra_edge.config.settings import Settings
from vajra_edge.config.text_file import Unreadable

_NAME = "broker.json"
_KEPT = ("device_id", "mqtt")
_MOST_BYTES = 64 * 1024


def keep(settings: Settings) -> None:
    """Write ``device_id`` and ``[mqtt]`` into the state directory, where they are others than there.

    Raises:
        StoreError: it cannot be written.
    """
    folder = settings.store.state_dir
    content = settings.model_dump_json(include=set(_KEPT))
    if text_file.read(folder / _NAME, _MOST_BYTES) == content:
        return
    with durable.reported(folder, "written"):
        durable.make_folder(folder)
        durable.replace(folder / _NAME, content.encode(), folder)


def recall(state_dir: Path) -> dict[str, Any]:
    """What was kept, as nested dicts of settings; nothing where nothing can be read."""
    text = text_file.read(state_dir / _NAME, _MOST_BYTES)
    try:
        kept = {} if isinstance(text, Unreadable) else state_file.parse(text.encode())
    except ValueError:
        return {}
    return {name: kept[name] for name in _KEPT if name in kept} if isinstance(kept, dict) else {}
