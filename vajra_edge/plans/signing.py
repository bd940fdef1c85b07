"""Signing: the proof that this device built a plan. A plan is code that runs; a foreign one is never loaded."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vajra_edge import durable, state_file
from vajra_edge.errors import PlanError, StoreError
from vajra_edge.plans.manifest import SCHEMA, Manifest

KEY_BYTES = 32
"""The block that HMAC-SHA256 gains nothing beyond (RFC 2104: the hash's length)."""

_LARGEST_BYTES = 4 * 1024 * 1024
"""A manifest is some kilobytes; the sensitivity curve of a large INT8 network some hundred."""

_CHUNK_BYTES = 1024 * 1024
_ANEW = "delete it; plans are then built anew"


def read_key(path: Path) -> bytes | None:
    """The device's key, or None where none was made yet.

    Raises:
        StoreError: the file is not a key.
        OSError: it cannot be read.
    """
    try:
        key = state_file.read(path)
    except FileNotFoundError:
        return None
    except state_file.NotAFile as error:
        raise StoreError(f"{path} is no key: {error.strerror}", remedy=_ANEW, path=path) from error
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} has {len(key)} bytes and is no key", remedy=_ANEW, path=path)
    return key


def make_key(path: Path, staging: Path) -> bytes:
    """The device's key, made with mode 0600 on first use; of two processes that make one, the first name wins.

    Raises:
        StoreError: the file is not a key.
        OSError: it cannot be written.
    """
    key = read_key(path)
    if key is None:
        aside = staging / uuid.uuid4().hex
        durable.write(aside, secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(aside)
        aside.unlink()
        durable.sync_folder(path.parent)
    return key or state_file.read(path)


def sign(manifest: Manifest, key: bytes) -> bytes:
    """The manifest file: the manifest and an HMAC-SHA256 over its canonical text."""
    plain = manifest.to_json()
    signed = {"hmac": _mac(plain, key), "manifest": plain}
    return json.dumps(signed, indent=1, ensure_ascii=False).encode()


def open_signed(path: Path, key: bytes) -> Manifest:
    """Read a manifest file.

    Raises:
        PlanError: it is damaged, of another version, or was not signed with ``key``.
        OSError: it cannot be read.
    """
    try:
        signed = json.loads(state_file.read(path, _LARGEST_BYTES))
        plain = signed["manifest"]
        if not hmac.compare_digest(str(signed["hmac"]), _mac(plain, key)):
            raise PlanError("its manifest was not signed by this device", path=path)
        if plain["schema"] != SCHEMA:
            raise PlanError(f"its manifest has schema {plain['schema']}, expected {SCHEMA}", path=path)
        return Manifest.from_json(plain)
    except FileNotFoundError as error:
        raise PlanError("it has no manifest", path=path) from error
    except state_file.NotAFile as error:
        raise PlanError(f"its manifest is damaged: {error.strerror}", path=path) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise PlanError(f"its manifest is damaged: {type(error).__name__}", path=path) from error


def seal(kind: str, plain: Any, key: bytes) -> bytes:
    """A small file of this device: plain values under an HMAC, with ``kind`` in it so that none stands for another."""
    return json.dumps({"hmac": _seal(kind, plain, key), kind: plain}).encode()


def unseal(kind: str, content: bytes, key: bytes | None) -> Any:
    """The inverse.

    Raises:
        StoreError: the device has no key, or did not write this.
        KeyError, TypeError, ValueError, RecursionError: it is damaged.
    """
    sealed = json.loads(content)
    plain = sealed[kind]
    if key is None or not hmac.compare_digest(str(sealed["hmac"]), _seal(kind, plain, key)):
        raise StoreError("it was not written by this device", remedy="delete it")
    return plain


def _seal(kind: str, plain: Any, key: bytes) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()


def check_plan(path: Path, manifest: Manifest) -> None:
    """See that the plan file is the one its manifest describes.

    Raises:
        PlanError: length or SHA-256 differ, or there is no such file.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with state_file.opened(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != manifest.size_bytes:
                raise PlanError(f"its plan has {size_bytes} bytes, expected {manifest.size_bytes}", path=path)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise PlanError("it has no plan file", path=path) from error
    except state_file.NotAFile as error:
        raise PlanError(f"its plan is damaged: {error.strerror}", path=path) from error
    if digest.hexdigest() != manifest.sha256:
        raise PlanError("its plan's SHA-256 differs", path=path)


def _mac(plain: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
