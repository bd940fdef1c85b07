"""Refusals: which ways to a plan were refused here before, so that the next build does not spend minutes on them again.

One small file for each fingerprint. It is worth no more than the time it saves: one that is damaged, of another library
release, or cannot be written is as good as none.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from vajra_edge import durable
from vajra_edge.engine import leftovers
from vajra_edge.engine.rung import Rung
from vajra_edge.errors import StoreError

KEPT = 16
"""Refusals of one fingerprint; a ladder has about half as many rungs."""

LONGEST = 500
"""Characters of a reason that are kept."""

MOST_BYTES = 262_144
"""A larger file is not ours."""

_LOGGER = logging.getLogger(__name__)


class Cause(str, Enum):
    """What refused."""

    LIBRARY = "library"
    CHECK = "check"
    SPEED = "speed"


@dataclass(frozen=True)
class Refusal:
    """One way that was refused.

    Attributes:
        rung: the way.
        cause: what refused it.
        reason: in one line.
        seconds: it took to find out.
        at: UTC, ISO 8601.
        layers: names or keys of the layers at fault, as the library gave them.
    """

    rung: Rung
    cause: Cause
    reason: str
    seconds: float
    at: str
    layers: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """For people."""
        return f"refused on {self.at[:10]}: {self.reason}"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Refusal:
        """The inverse of ``asdict``, with the rung's own form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        return cls(
            Rung.from_json(fields["rung"]),
            Cause(fields["cause"]),
            str(fields["reason"]),
            float(fields["seconds"]),
            str(fields["at"]),
            tuple(str(name) for name in fields["layers"]),
        )


class Refusals:
    """What was refused of one fingerprint by one library release.

    Args:
        state_dir: the folder of refusals lies below it.
        fingerprint: hex digest of what is wanted.
        library: name and version, from ``Backend.identity``.
        now_s: Unix time.
    """

    def __init__(self, state_dir: Path, fingerprint: str, library: str, now_s: Callable[[], float] = time.time) -> None:
        self._state_dir, self._fingerprint, self._library, self._now_s = state_dir, fingerprint, library, now_s

    @property
    def path(self) -> Path:
        """The file; absent until the first refusal."""
        return self._state_dir / leftovers.REFUSALS.path / f"{self._fingerprint}{leftovers.REFUSALS.suffix}"

    def all(self) -> dict[Rung, Refusal]:
        """What was refused, the oldest first."""
        try:
            if self.path.stat().st_size > MOST_BYTES:
                return {}
            plain = json.loads(self.path.read_bytes())
            if plain["library"] != self._library:
                return {}
            return {one.rung: one for one in map(Refusal.from_json, plain["refused"])}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _LOGGER.warning("%s cannot be read and is forgotten: %s", self.path, error)
            return {}

    def add(self, rung: Rung, cause: Cause, reason: str, seconds: float, layers: tuple[str, ...] = ()) -> None:
        """Remember one more; a disk that refuses is logged, for the build is worth more."""
        at = datetime.fromtimestamp(self._now_s(), timezone.utc).isoformat(timespec="seconds")
        made = Refusal(rung, cause, reason[:LONGEST], round(seconds, 1), at, layers)
        self._write([*(one for known, one in self.all().items() if known != rung), made][-KEPT:])

    def remove(self, rung: Rung) -> None:
        """This one was tried again and is good."""
        known = self.all()
        if known.pop(rung, None) is not None:
            self._write(list(known.values()))

    def clear(self) -> None:
        """Somebody insists: everything may be tried again."""
        if self.path.exists():
            self._write([])

    def _write(self, refused: list[Refusal]) -> None:
        rows = [{**asdict(one), "rung": one.rung.to_json()} for one in refused]
        content = json.dumps({"library": self._library, "refused": rows}).encode()
        folder = self.path.parent
        try:
            with durable.reported(folder, "written"):
                durable.make_folder(folder)
                durable.replace(self.path, content, folder)
                leftovers.thin(self._state_dir, leftovers.REFUSALS)
        except StoreError as error:
            _LOGGER.warning("what was refused is not remembered: %s", error)
