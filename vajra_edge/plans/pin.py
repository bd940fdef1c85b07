"""Pin: the plan that an operator rolled back to. It serves until weights or settings ask for something else.

One small file in the state directory, ``rollback.json``, under an HMAC of the store's key; it outlives restarts.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge import durable, state_file
from vajra_edge.errors import StoreError
from vajra_edge.plans.manifest import Plan
from vajra_edge.plans.signing import make_key, read_key, seal, unseal
from vajra_edge.plans.store import EngineStore

NAME = "rollback.json"
_KIND = "pin"

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pin:
    """What serves in the place of what is asked for.

    Attributes:
        fingerprint: of the plan that serves.
        instead_of: digest of the weights and settings that ask for another, see ``digest_of``; with others it ends.
    """

    fingerprint: str
    instead_of: str

    def to_json(self) -> dict[str, str]:
        """Plain values for JSON."""
        return {"fingerprint": self.fingerprint, "instead_of": self.instead_of}


def digest_of(weights_sha256: str, wishes: Mapping[str, Any]) -> str:
    """Names what an operator asks for: the weights, and plain values of the settings that a plan depends on.

    Neither what ``auto`` means at the moment nor the calibration images are in it: nobody asked for those to change.
    """
    text = json.dumps({"weights": weights_sha256, "wishes": wishes}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read(root: Path) -> Pin | None:
    """The pin of this device; None where there is none. One that was not written here counts for nothing."""
    try:
        told = unseal(_KIND, state_file.read(root / NAME), read_key(root / "store.key"))
        return Pin(str(told["fingerprint"]), str(told["instead_of"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError, StoreError) as error:
        _LOGGER.warning("%s cannot be read and is passed over: %s", root / NAME, error)
    return None


def kept(root: Path) -> tuple[str, ...]:
    """Fingerprint of the plan that is pinned, which is not deleted to make room; none where none is."""
    pin = read(root)
    return () if pin is None else (pin.fingerprint,)


def write(root: Path, pin: Pin) -> None:
    """Keep a pin, durably, in the place of the one before.

    Raises:
        StoreError: it cannot be written.
    """
    with durable.reported(root, "written"):
        durable.make_folder(root)
        durable.replace(root / NAME, seal(_KIND, pin.to_json(), make_key(root / "store.key", root)), root)


def delete(root: Path) -> None:
    """There is none any more.

    Raises:
        StoreError: it cannot be deleted.
    """
    if (root / NAME).exists():
        with durable.reported(root, "written"):
            (root / NAME).unlink(missing_ok=True)
            durable.sync_folder(root)


def target(store: EngineStore, wanted: str) -> Plan:
    """The plan to go back to: the newest that served well, other than the one that is wanted now.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    served_well = store.served_well()
    name = next((name for name in served_well if name != wanted), None)
    if name is None:
        raise StoreError("no other plan served well on this device: there is nothing to go back to")
    plan = store.get(name)
    if plan is None:
        aside = {one.fingerprint: one.reason for one in store.put_aside()}
        reason = aside.get(name, "it was deleted")
        raise StoreError(
            f"the plan before, {name[:12]}, cannot serve: {reason}", remedy="what serves stays; give other weights"
        )
    return plan
