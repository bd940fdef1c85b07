"""Strikes: how often each plan took the process down, kept over restarts so that a crash loop ends in a rollback."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from vajra_edge import durable

KEPT_PER_PLAN = 16
"""The supervisor counts to three; more are kept for people."""

KEPT_PLANS = 32
"""Older plans have long been pruned."""

_LOGGER = logging.getLogger(__name__)


class Strikes:
    """A small file of crash times, in Unix seconds since they must outlive the process and the boot.

    Args:
        path: the file; absent until the first strike.
        staging: a folder on the same disk, which exists when ``add`` is called.
    """

    def __init__(self, path: Path, staging: Path) -> None:
        self._path = path
        self._staging = staging

    def add(self, fingerprint: str, now_s: float) -> None:
        """Remember a crash, durably.

        Raises:
            OSError: the file cannot be written.
        """
        told = self._read()
        times = [*told.pop(fingerprint, []), now_s][-KEPT_PER_PLAN:]
        kept = dict([*told.items(), (fingerprint, times)][-KEPT_PLANS:])
        durable.replace(self._path, json.dumps(kept).encode(), self._staging)

    def count(self, fingerprint: str, now_s: float, within_s: float) -> int:
        """Crashes in the last ``within_s`` seconds; those that a clock set back left in the future do not count."""
        return sum(now_s - within_s <= at_s <= now_s for at_s in self._read().get(fingerprint, []))

    def _read(self) -> dict[str, list[float]]:
        """What the file says; a damaged one is forgotten, for it must never keep the service from starting."""
        try:
            told: Any = json.loads(self._path.read_bytes())
            return {str(name): [float(at_s) for at_s in times] for name, times in told.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _LOGGER.warning("strikes in %s cannot be read and are forgotten: %s", self._path, error)
            return {}
