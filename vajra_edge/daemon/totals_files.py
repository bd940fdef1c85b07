"""Totals' files: one a camera in the state directory, read and replaced in the background."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vajra_edge import durable, state_file
from vajra_edge.analytics.totals import Totals

log = logging.getLogger(__name__)

FOLDER = "totals"


class Do(Protocol):
    """``Background.look``: tasks in order, one of each name at a time."""

    def __call__(self, name: str, task: Callable[[], None], /) -> None:
        """Put a task behind the others."""
        ...


class TotalsFiles:
    """``<state_dir>/totals/<camera>.json``.

    Args:
        state_dir: the folder goes below it.
        do: takes tasks; whoever reads or writes waits for the disk.
    """

    def __init__(self, state_dir: Path, do: Do) -> None:
        self._folder, self._do = state_dir / FOLDER, do
        self._newest: dict[str, Totals] = {}

    def read(self, camera: str, then: Callable[[Totals | None], None]) -> None:
        """Hand what is there to ``then``; None: nothing, or nothing that can be understood, which is put aside."""
        self._do(f"read the totals of camera {camera}", lambda: then(self._read(camera)))

    def write(self, camera: str, totals: Totals) -> None:
        """Put these in the place of what is there; only the newest that wait are written."""
        self._newest[camera] = totals
        self._do(f"keep the totals of camera {camera}", lambda: self._write(camera))

    def _path(self, camera: str) -> Path:
        return self._folder / f"{camera}.json"

    def _read(self, camera: str) -> Totals | None:
        path = self._path(camera)
        with durable.reported(self._folder, "read"):
            for torn in self._folder.glob("*") if self._folder.is_dir() else ():
                if not torn.suffix:  # a power cut left it
                    torn.unlink()
            try:
                return Totals.from_json(state_file.parse(state_file.read(path)))
            except FileNotFoundError:
                return None
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError, state_file.NotAFile) as error:
                log.warning("%s is damaged (%s) and put aside; its camera's totals begin anew", path, error)
                path.replace(path.with_suffix(".damaged"))
                return None

    def _write(self, camera: str) -> None:
        totals = self._newest.pop(camera, None)
        if totals is None:
            return
        content = json.dumps(totals.to_json(), separators=(",", ":")).encode()
        with durable.reported(self._folder, "written"):
            durable.make_folder(self._folder)
            durable.replace(self._path(camera), content, self._folder)
