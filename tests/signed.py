"""Keys and bundles for tests; whoever imports this needs the library that signs."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="absent here: cryptography")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vajra_edge.bundles import bundle
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.minisign import PublicKey, SecretKey


def make_key() -> SecretKey:
    """A new pair, as ``minisign -G`` makes one."""
    seed = secrets.token_bytes(32)
    raw = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return SecretKey(PublicKey(secrets.token_bytes(8), raw), seed)


def secret_text(key: SecretKey) -> str:
    """The secret key's file, without a password, as ``minisign -G -W`` writes it."""
    told = b"Ed\0\0B2" + bytes(32 + 16) + key.public.key_id + key.seed + key.public.raw + bytes(32)
    return f"untrusted comment: minisign secret key {key.public.name}\n{base64.b64encode(told).decode()}\n"


class Signer:
    """Somebody who signs, and a device's folder of trusted keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, folder / "keys"
        self.keys.mkdir(parents=True)
        self.key = self.trust("fleet")

    def trust(self, name: str) -> SecretKey:
        """Another trusted key."""
        key = make_key()
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
