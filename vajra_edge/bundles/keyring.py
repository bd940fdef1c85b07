"""Keyring: whose bundles this device takes. A folder of ``.pub`` files of minisign; ``.revoked`` ones are never taken.

With a key there, unsigned weights are refused. A key is replaced by another file, and revoked by renaming its own to
``.revoked``: it stays refused then, although a copy of it should lie beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vajra_edge import state_file
from vajra_edge.bundles import minisign
from vajra_edge.bundles.minisign import FileSignature, PublicKey
from vajra_edge.errors import BundleError


@dataclass(frozen=True)
class Keyring:
    """Trusted and revoked keys, by their ids.

    Attributes:
        folder: where they lie.
        trusted: by key id.
        revoked: ids.
    """

    folder: Path
    trusted: Mapping[bytes, PublicKey] = field(default_factory=dict)
    revoked: frozenset[bytes] = frozenset()

    @property
    def demands(self) -> bool:
        """Only signed weights are taken."""
        return bool(self.trusted or self.revoked)

    @property
    def digest(self) -> str:
        """Of whom to trust, and whom not: another one where that changed."""
        trusted = sorted(key_id + key.raw for key_id, key in self.trusted.items())
        return hashlib.sha256(b"\0".join((*trusted, b"revoked", *sorted(self.revoked)))).hexdigest()

    @classmethod
    def load(cls, folder: Path) -> Keyring:
        """Read the folder; one that does not exist has no keys.

        Raises:
            BundleError: the folder or a file cannot be read, or is no key: nobody knows then whom to trust.
        """
        try:
            files = sorted(folder.iterdir())
        except FileNotFoundError:
            return cls(folder)
        except OSError as error:
            raise BundleError(
                f"trusted keys {folder} cannot be read: {error.strerror}", remedy="let the service's user read it"
            ) from error
        trusted = [_read(path) for path in files if path.suffix == ".pub"]
        revoked = frozenset(_read(path).key_id for path in files if path.suffix == ".revoked")
        return cls(folder, {key.key_id: key for key in trusted if key.key_id not in revoked}, revoked)

    def verify(self, content: bytes, signature: FileSignature) -> PublicKey:
        """See that a trusted key signed ``content``; returns it.

        Raises:
            BundleError: not so.
        """
        if signature.key_id in self.revoked:
            raise BundleError(
                f"it is signed by key {signature.key_name}, which was revoked", remedy="sign it anew and adopt that"
            )
        key = self.trusted.get(signature.key_id)
        if key is None:
            known = ", ".join(sorted(one.name for one in self.trusted.values())) or "none"
            raise BundleError(
                f"it is signed by key {signature.key_name}, which is not trusted here (trusted: {known})",
                remedy=f"sign it with a trusted key, or put the key into {self.folder}",
            )
        minisign.verify(content, signature, key)
        return key


def _read(path: Path) -> PublicKey:
    try:
        return minisign.parse_public(state_file.read(path, minisign.MOST_FILE_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"key {path} cannot be read: {error}", remedy="mend or delete it") from error
    except BundleError as error:
        raise BundleError(f"key {path}: {error.message}", remedy="mend or delete it") from error
