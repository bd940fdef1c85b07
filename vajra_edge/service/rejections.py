"""Rejections: plans that failed in service and are not tried again by themselves, kept over restarts."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path

from vajra_edge import durable

log = logging.getLogger(__name__)

KEPT = 32
"""Older plans have long been pruned."""


class Rejections:
    """A small file of fingerprints with their reasons.

    Args:
        path: the file; absent until the first rejection.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def reason(self, fingerprint: str) -> str:
        """Why a plan was rejected; empty if it was not."""
        return self._read().get(fingerprint, "")

    def add(self, fingerprint: str, reason: str) -> None:
        """Reject a plan, durably.

        Raises:
            StoreError: the file cannot be written.
        """
        told = {name: why for name, why in self._read().items() if name != fingerprint}
        self._write(dict([*told.items(), (fingerprint, reason)][-KEPT:]))

    def remove(self, fingerprint: str) -> None:
        """Somebody insists: the plan may be tried again.

        Raises:
            StoreError: the file cannot be written.
        """
        told = self._read()
        if told.pop(fingerprint, None) is not None:
            self._write(told)

    def _read(self) -> dict[str, str]:
        """What the file says; a damaged one is forgotten, for it must never keep the service from starting."""
        try:
            return {str(name): str(reason) for name, reason in json.loads(self._path.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            log.warning("%s cannot be read and is forgotten: %s", self._path, error)
            return {}

    def _write(self, told: dict[str, str]) -> None:
        with durable.reported(self._path.parent, "written"):
            durable.make_folder(self._path.parent)
            aside = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
            try:
                durable.write(aside, json.dumps(told).encode())
                aside.replace(self._path)
            finally:
                aside.unlink(missing_ok=True)
            durable.sync_folder(self._path.parent)
