"""Bundle: one file of three parts, as ``bundle make`` writes it and no other way: signature, manifest, weights.

It is a POSIX tar file, which any tar lists. Reading compares each header with the one that ``make`` would have written,
so that there are no links, paths, other names, duplicates, odd sizes or data behind the end: every byte is signed, or
covered by a digest that is, or can be only what it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from vajra_edge import durable
from vajra_edge.bundles import minisign
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.minisign import SecretKey
from vajra_edge.config.settings import EngineSettings, Names
from vajra_edge.errors import BundleError

SCHEMA = 1
SIGNATURE, MANIFEST, WEIGHTS = "manifest.minisig", "manifest.json", "weights"

MOST_MANIFEST_BYTES = 1024 * 1024
MOST_WEIGHTS_BYTES = (8 << 30) - 1
"""Where the size field of a tar header ends, and far beyond any network here."""

MOST_SERIAL = 2**53
"""Whole numbers beyond are not the same in every reader of JSON."""

_BLOCK_BYTES, _CHUNK_BYTES = 512, 1024 * 1024
_SIZE = re.compile(rb"[0-7]{11}\0")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.(pt|onnx)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(Names)


@dataclass(frozen=True)
class BundleManifest:
    """What a bundle holds; what is signed.

    Attributes:
        serial: grows from bundle to bundle; a device takes no lower one.
        weights_name: file name, ``.pt`` or ``.onnx``.
        weights_sha256: hex digest of the file.
        weights_bytes: its length.
        class_names: in the place of the file's own; None: those.
        engine: wishes for ``[engine]``, where the device's settings say nothing.
        created_at: UTC, ISO 8601.
    """

    serial: int
    weights_name: str
    weights_sha256: str
    weights_bytes: int
    class_names: tuple[str, ...] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""

    def to_bytes(self) -> bytes:
        """The part ``manifest.json``."""
        weights = {"name": self.weights_name, "sha256": self.weights_sha256, "size_bytes": self.weights_bytes}
        plain = {"schema": SCHEMA, "serial": self.serial, "weights": weights, "class_names": self.class_names}
        return json.dumps({**plain, "engine": dict(self.engine), "created_at": self.created_at}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> BundleManifest:
        """The inverse; what is in it was signed, and is checked all the same.

        Raises:
            BundleError: a field is missing, unknown, of another type, or names no setting.
        """
        try:
            plain = json.loads(content)
            if plain["schema"] != SCHEMA:
                raise BundleError(f"its manifest has schema {plain['schema']}, expected {SCHEMA}", remedy="upgrade")
            weights = plain["weights"]
            names = plain["class_names"]
            told = cls(
                serial=plain["serial"],
                weights_name=weights["name"],
                weights_sha256=weights["sha256"],
                weights_bytes=weights["size_bytes"],
                class_names=None if names is None else _NAMES.validate_python(names),
                engine=_wishes(plain["engine"]),
                created_at=str(plain["created_at"]),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BundleError(f"its manifest cannot be used: {_words(error)}", remedy="make it anew") from error
        told._check()
        return told

    def _check(self) -> None:
        for name, value, most in (
            ("serial", self.serial, MOST_SERIAL),
            ("size of the weights", self.weights_bytes, MOST_WEIGHTS_BYTES),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
                raise BundleError(f"its {name} {value!r} is not a whole number from 1 to {most}", remedy="make it anew")
        if not isinstance(self.weights_name, str) or not _NAME.fullmatch(self.weights_name):
            raise BundleError(f"its weights are called {str(self.weights_name)[:40]!r}", remedy="name them NAME.onnx")
        if not isinstance(self.weights_sha256, str) or not _DIGEST.fullmatch(self.weights_sha256):
            raise BundleError("its manifest has no SHA-256 of the weights", remedy="make it anew")


@dataclass(frozen=True)
class Verified:
    """A bundle that a trusted key signed and that is whole.

    Attributes:
        digest: SHA-256 of the manifest in hex; names the bundle, for the manifest covers all of it.
        manifest: what it holds.
        key_name: who signed it.
    """

    digest: str
    manifest: BundleManifest
    key_name: str


def make(
    path: Path,
    weights: Path,
    serial: int,
    key: SecretKey,
    class_names: tuple[str, ...] | None = None,
    engine: Mapping[str, Any] | None = None,
) -> BundleManifest:
    """Write a bundle, in one step.

    Raises:
        BundleError: a wish is no setting, the serial or the file's name will not do, or a file cannot be used.
    """
    try:
        with weights.open("rb") as source:
            sha256, size_bytes = _hash(source)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            wishes = _wishes(engine or {})
            manifest = BundleManifest(serial, weights.name, sha256, size_bytes, class_names, wishes, now)
            manifest._check()  # noqa: SLF001  its own
            content = manifest.to_bytes()
            signature = minisign.sign(content, key, f"vajra-edge bundle, serial {serial}")
            source.seek(0)
            _write(path, {SIGNATURE: signature, MANIFEST: content}, source, size_bytes)
    except OSError as error:
        raise BundleError(f"{error.filename or path} cannot be read or written: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise BundleError(f"the bundle cannot be made: {_words(error)}") from error
    return manifest


def open_file(path: Path) -> BinaryIO:
    """A bundle's file, for ``read``.

    Raises:
        BundleError: it cannot be read, or is no file.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise BundleError(f"bundle {path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleError(f"bundle {path} is no file")
    return file


def read(file: BinaryIO, keyring: Keyring, into: Path | None = None) -> Verified:
    """Check a bundle from the first byte to the last; the manifest is not looked at before its signature is.

    Args:
        file: at its beginning.
        keyring: whom to trust.
        into: an empty folder that gets its parts, synced; None: they are only checked.

    Raises:
        BundleError: no trusted key signed it, or any byte of it is not as it was made.
        OSError: it cannot be read, or ``into`` cannot be written.
    """
    require_keys(keyring)
    signature = file.read(_part(file, SIGNATURE, minisign.MOST_FILE_BYTES))
    _padding(file, len(signature))
    content = file.read(_part(file, MANIFEST, MOST_MANIFEST_BYTES))
    _padding(file, len(content))
    key = keyring.verify(content, minisign.parse_signature(signature))
    manifest = BundleManifest.from_bytes(content)
    size_bytes = _part(file, WEIGHTS, MOST_WEIGHTS_BYTES)
    if size_bytes != manifest.weights_bytes:
        raise BundleError(f"its weights have {size_bytes} bytes, signed are {manifest.weights_bytes}")
    if into is not None:
        durable.write(into / SIGNATURE, signature)
        durable.write(into / MANIFEST, content)
    _copy_weights(file, manifest, into)
    _padding(file, size_bytes)
    if file.read(2 * _BLOCK_BYTES) != bytes(2 * _BLOCK_BYTES) or file.read(1):
        raise BundleError("it does not end where it should: it was cut off, or something was put behind it")
    return Verified(hashlib.sha256(content).hexdigest(), manifest, key.name)


def require_keys(keyring: Keyring) -> None:
    """See that there is anybody to trust.

    Raises:
        BundleError: nobody.
    """
    if not keyring.demands:
        raise BundleError(
            f"no key is trusted on this device: {keyring.folder} has no .pub file",
            remedy="put the public key there that your bundles are signed with",
        )


def weights_file(manifest: BundleManifest) -> str:
    """Its name in an unpacked bundle: the end says what it is."""
    return f"{WEIGHTS}{Path(manifest.weights_name).suffix}"


def _copy_weights(file: BinaryIO, manifest: BundleManifest, into: Path | None) -> None:
    digest, left_bytes = hashlib.sha256(), manifest.weights_bytes
    aside = os.devnull if into is None else into / weights_file(manifest)
    with open(aside, "wb") as target:  # noqa: PTH123  a path or a device
        while left_bytes:
            chunk = file.read(min(left_bytes, _CHUNK_BYTES))
            if not chunk:
                raise BundleError("it ends within the weights: it was cut off")
            left_bytes -= len(chunk)
            digest.update(chunk)
            target.write(chunk)
        if into is not None:
            target.flush()
            os.fsync(target.fileno())
    if digest.hexdigest() != manifest.weights_sha256:
        raise BundleError("its weights are not those that were signed: the SHA-256 differs")


def _part(file: BinaryIO, name: str, most_bytes: int) -> int:
    """Length of the next part, whose header must be the one that ``make`` writes."""
    block = file.read(_BLOCK_BYTES)
    told = block[124:136]
    size_bytes = int(told[:11], 8) if _SIZE.fullmatch(told) else -1
    if not 0 < size_bytes <= most_bytes or block != _header(name, size_bytes):
        raise BundleError(f"this is no bundle, or a damaged one: no {name} where it should be")
    return size_bytes


def _header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(file: BinaryIO, size_bytes: int) -> None:
    count = -size_bytes % _BLOCK_BYTES
    if file.read(count) != bytes(count):
        raise BundleError("it is damaged, or was cut off, between two parts")


def _write(path: Path, parts: Mapping[str, bytes], weights: BinaryIO, size_bytes: int) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("xb") as target:
            for name, content in parts.items():
                target.write(_header(name, len(content)) + content + bytes(-len(content) % _BLOCK_BYTES))
            target.write(_header(WEIGHTS, size_bytes))
            for chunk in _chunks(weights):
                target.write(chunk)
            target.write(bytes(-size_bytes % _BLOCK_BYTES + 2 * _BLOCK_BYTES))
            target.flush()
            os.fsync(target.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _hash(file: BinaryIO) -> tuple[str, int]:
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in _chunks(file):
        digest.update(chunk)
        size_bytes += len(chunk)
    return digest.hexdigest(), size_bytes


def _wishes(told: Any) -> dict[str, Any]:
    """Settings of ``[engine]`` by name, each with a value that it takes."""
    if not isinstance(told, Mapping):
        raise TypeError("engine is no table")
    EngineSettings.model_validate(dict(told))
    return dict(told)


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
