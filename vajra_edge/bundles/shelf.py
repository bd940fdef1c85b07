"""Shelf: the bundles that lie unpacked on this device, which of them is in force, and what came of the last one.

``<state>/bundles/<digest>/`` appears by one rename. ``current`` is a symlink to the one whose weights served well,
``candidate`` to the one that is being tried; each changes by one rename. So a kill or a power cut at any moment leaves
the old one in force, or the new one being tried, and never a half of anything.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from vajra_edge import durable, state_file
from vajra_edge.bundles import bundle, minisign
from vajra_edge.bundles.bundle import BundleManifest, Verified
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.config.settings import EngineSettings, Settings
from vajra_edge.errors import BundleError, StoreError, UnsignedWeights
from vajra_edge.plans.signing import make_key, read_key, seal, unseal
from vajra_edge.plans.store import BUNDLES

CURRENT, CANDIDATE, OUTCOME = "current", "candidate", "outcome.json"
_KIND = "outcome"
_STAGING = ".staging-"
_DIGEST = re.compile("[0-9a-f]{64}")


class Adopted(str, Enum):
    """What came of a bundle; the words are part of the contract with fleet tools."""

    SERVING = "serving"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class AdoptionOutcome:
    """Of one bundle.

    Attributes:
        bundle: its digest.
        adopted: what came of it.
        reason: why, in one line; empty where it serves.
        serial: of it; 0 where it was not read that far.
    """

    bundle: str
    adopted: Adopted
    reason: str = ""
    serial: int = 0


@dataclass(frozen=True)
class Installed:
    """An unpacked bundle whose signature was checked just now; its weights are checked by whoever reads them.

    Attributes:
        digest: names it.
        manifest: what it holds.
        weights_path: the file.
        candidate: it is being tried.
    """

    digest: str
    manifest: BundleManifest
    weights_path: Path
    candidate: bool

    def over(self, settings: Settings) -> Settings:
        """The settings with this bundle's weights, names and wishes; what the operator wrote himself stays.

        Raises:
            ValueError: a wish contradicts what he wrote.
        """
        weights = settings.weights.model_copy(
            update={
                "path": self.weights_path,
                "sha256": self.manifest.weights_sha256,
                "class_names": settings.weights.class_names or self.manifest.class_names,
            }
        )
        written = {name: getattr(settings.engine, name) for name in settings.engine.model_fields_set}
        engine = EngineSettings.model_validate({**self.manifest.engine, **written})
        return settings.model_copy(update={"weights": weights, "engine": engine})


class Shelf:
    """The folder. Making one touches nothing.

    Args:
        state_dir: of the daemon.
    """

    def __init__(self, state_dir: Path) -> None:
        self.root, self._key = state_dir / BUNDLES, state_dir / "store.key"

    def unpack(self, file: BinaryIO, keyring: Keyring) -> Verified:
        """Check a bundle and put its parts here; one that is here already is not written again.

        Raises:
            BundleError: see ``bundle.read``; or its serial is older than that of the one in force.
            StoreError: the folder cannot be written; nothing is left of it.
        """
        with durable.reported(self.root, "written"), durable.locked(self.root / "lock"):
            self._clear()
            staged = self.root / f"{_STAGING}{uuid.uuid4().hex}"
            staged.mkdir(mode=0o700)
            try:
                verified = bundle.read(file, keyring, staged)
                self.require_newer(verified)
                folder = self.root / verified.digest
                if not self._is_whole(folder, verified.manifest):
                    durable.make_newest(staged, self.root)
                    durable.sync_folder(staged)
                    durable.rename_over(staged, folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        return verified

    def require_newer(self, told: Verified | Installed) -> None:
        """See that a bundle is not older than the one in force.

        Raises:
            BundleError: it is.
        """
        serial, digest = told.manifest.serial, told.digest
        current = self._linked(CURRENT)
        if current is None or current == digest:
            return
        newest = self.serial(current)
        if serial <= newest:
            raise BundleError(
                f"its serial {serial} is not above {newest}, which this device has", remedy="make it with a newer one"
            )

    def installed(self, digest: str, keyring: Keyring, *, candidate: bool = False) -> Installed:
        """An unpacked bundle.

        Raises:
            BundleError: it is not here, or no key that is trusted now signed it.
        """
        if not _DIGEST.fullmatch(digest):
            raise BundleError(f"{digest[:40]!r} names no bundle", remedy="give the digest that bundle verify prints")
        folder = self.root / digest
        try:
            content = state_file.read(folder / bundle.MANIFEST)
            signature = state_file.read(folder / bundle.SIGNATURE)
        except OSError as error:
            raise BundleError(f"bundle {digest[:12]} is not here: {error.strerror}", remedy="adopt it anew") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError(f"bundle {digest[:12]} was changed after it was unpacked", remedy="adopt it anew")
        keyring.verify(content, minisign.parse_signature(signature))
        manifest = BundleManifest.from_bytes(content)
        return Installed(digest, manifest, folder / bundle.weights_file(manifest), candidate)

    def in_force(self, keyring: Keyring) -> Installed | None:
        """The bundle whose weights are wanted; None where no key demands one.

        Raises:
            UnsignedWeights: keys demand one, and there is none, or no trusted key signed it.
        """
        if not keyring.demands:
            return None
        candidate = self.candidate
        name = candidate or self._linked(CURRENT)
        if name is None:
            raise UnsignedWeights(
                f"unsigned weights are refused, for {keyring.folder} has keys",
                remedy="vajra-edge bundle adopt FILE, or take the keys away",
            )
        try:
            minisign.require_library()
            return self.installed(name, keyring, candidate=candidate is not None)
        except BundleError as error:
            raise UnsignedWeights(
                f"bundle {name[:12]} is refused: {error.message}; what served well goes on",
                remedy=error.remedy or "adopt one that a trusted key signed",
            ) from error

    @property
    def candidate(self) -> str | None:
        """The bundle that is being tried, unless it serves already."""
        name = self._linked(CANDIDATE)
        return None if name == self._linked(CURRENT) else name

    @property
    def current(self) -> str | None:
        """The bundle whose weights served well last."""
        return self._linked(CURRENT)

    def try_out(self, digest: str) -> None:
        """Have its weights wanted from now on.

        Raises:
            StoreError: it cannot be written down.
        """
        self._relink(CANDIDATE, digest)

    def settle(self, outcome: AdoptionOutcome) -> None:
        """Keep the candidate that serves, or leave any other; and remember what came of it.

        Raises:
            StoreError: it cannot be written down.
        """
        if outcome.adopted is Adopted.SERVING:
            self._relink(CURRENT, outcome.bundle)
        with durable.reported(self.root, "written"), durable.locked(self.root / "lock"):
            content = seal(_KIND, asdict(outcome), make_key(self._key, self.root))
            durable.replace(self.root / OUTCOME, content, self.root)
            (self.root / CANDIDATE).unlink(missing_ok=True)
            durable.sync_folder(self.root)
            self._clear(done=outcome.bundle)

    def outcome(self, digest: str) -> AdoptionOutcome | None:
        """What came of a bundle, if it was the last one."""
        try:
            told = unseal(_KIND, state_file.read(self.root / OUTCOME), read_key(self._key))
            found = AdoptionOutcome(
                str(told["bundle"]), Adopted(told["adopted"]), str(told["reason"]), int(told["serial"])
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError, StoreError):
            return None
        return found if found.bundle == digest else None

    def serial(self, digest: str) -> int:
        """Of a bundle that lies here, whoever signed it: a revoked key makes it no older. 0 where it cannot be read."""
        try:
            return BundleManifest.from_bytes(state_file.read(self.root / digest / bundle.MANIFEST)).serial
        except (BundleError, OSError):
            return 0

    def _relink(self, name: str, digest: str) -> None:
        with durable.reported(self.root, "written"), durable.locked(self.root / "lock"):
            durable.relink(self.root / name, digest, self.root)

    def _linked(self, name: str) -> str | None:
        try:
            target = (self.root / name).readlink().name
        except OSError:
            return None
        return target if _DIGEST.fullmatch(target) else None

    def _is_whole(self, folder: Path, manifest: BundleManifest) -> bool:
        """What lies there already is as long as it should be; its content is checked whenever it is read."""
        sizes = {bundle.weights_file(manifest): manifest.weights_bytes}
        try:
            same = hashlib.sha256(state_file.read(folder / bundle.MANIFEST)).hexdigest() == folder.name
            return same and all((folder / name).stat().st_size == size for name, size in sizes.items())
        except OSError:
            return False

    def _clear(self, done: str = "") -> None:
        """Delete what a kill left, and bundles that nothing names; called under the lock.

        The newest of those stays unless it is ``done`` with, or too old to be adopted: whoever unpacked it is about to
        ask for it.
        """
        current = self._linked(CURRENT)
        named, serial = {current, self._linked(CANDIDATE)}, -1 if current is None else self.serial(current)
        unpacked = [path for path in self.root.iterdir() if _DIGEST.fullmatch(path.name) and path.name not in named]
        asked = [path for path in unpacked if path.name != done and self.serial(path.name) > serial]
        newest = max(asked, key=lambda path: path.stat().st_mtime_ns, default=None)
        staged = self.root.glob(f"{_STAGING}*")
        for path in (*staged, *(path for path in unpacked if path != newest)):
            if not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
