"""Keys and bundles for tests; whoever imports this needs the library that signs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="absent here: cryptography")

from vajra_edge.bundles import bundle, minisign
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.minisign import SecretKey


class Signer:
    """Somebody who signs, and a device's folder of trusted keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, folder / "keys"
        self.keys.mkdir(parents=True)
        self.key = self.trust("fleet")

    def trust(self, name: str) -> SecretKey:
        """Another trusted key."""
        key = minisign.make_key()
        (self.keys / f"{name}.pub").write_text(key.public.text())
        return key

    def revoke(self, name: str) -> None:
        (self.keys / f"{name}.pub").rename(self.keys / f"{name}.revoked")

    def keyring(self) -> Keyring:
        return Keyring.load(self.keys)

    def make(self, content: bytes, serial: int = 1, *, key: SecretKey | None = None, **more: Any) -> Path:
        """A bundle of these weights."""
        weights, path = self.folder / "net.onnx", self.folder / f"{serial}.bundle"
        weights.write_bytes(content)
        bundle.make(path, weights, serial, key or self.key, **more)
        return path
