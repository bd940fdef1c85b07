"""Minisign: keys and signatures in its file format, Ed25519 over BLAKE2b-512 (algorithm ``ED``).

The format is that of https://jedisct1.github.io/minisign/. Reading is stricter than the original's: one spelling of a
signature is taken, so that no byte of it can be another. Old signatures without a hash (``Ed``) are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vajra_edge.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

UNTRUSTED = "untrusted comment: signature of a vajra-edge bundle"
"""The first line of a bundle's signature; anything else there would be a byte that nobody signed."""

MOST_FILE_BYTES = 4096
MOST_COMMENT_CHARS = 1024

_COMMENT, _TRUSTED = "untrusted comment:", "trusted comment: "
_ID_BYTES, _KEY_BYTES, _SIGNATURE_BYTES, _SALT_BYTES = 8, 32, 64, 32
_SECRET_BYTES = 2 + 2 + 2 + _SALT_BYTES + 8 + 8 + _ID_BYTES + 2 * _KEY_BYTES + _KEY_BYTES
_SIGNATURE_LINES = 5  # the last is empty: the file ends in a newline
_KEY_LINES = 2
_SCRYPT_BYTES = (2 << 30) - 2
"""Most memory for a password; the format's own default asks for 1 GiB."""


@dataclass(frozen=True)
class PublicKey:
    """Whose signatures are taken.

    Attributes:
        key_id: 8 bytes that a signature names it by.
        raw: 32 bytes, Ed25519.
    """

    key_id: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """As minisign prints it: 16 hex digits."""
        return _name(self.key_id)

    def text(self) -> str:
        """The ``.pub`` file."""
        told = base64.b64encode(b"Ed" + self.key_id + self.raw).decode()
        return f"{_COMMENT} minisign public key {self.name}\n{told}\n"


@dataclass(frozen=True)
class SecretKey:
    """Signs; never on a device.

    Attributes:
        public: its other half.
        seed: 32 bytes, Ed25519.
    """

    public: PublicKey
    seed: bytes


@dataclass(frozen=True)
class FileSignature:
    """Of one file.

    Attributes:
        key_id: of the key that made it.
        raw: 64 bytes over the file's hash.
        comment: the trusted one, signed too.
        over_comment: 64 bytes over ``raw`` and the comment.
    """

    key_id: bytes
    raw: bytes
    comment: str
    over_comment: bytes

    @property
    def key_name(self) -> str:
        """See ``PublicKey.name``."""
        return _name(self.key_id)


def parse_public(text: str) -> PublicKey:
    """Read a ``.pub`` file, or its second line.

    Raises:
        BundleError: it is none.
    """
    told = _decoded(_last_line(text), "public key", canonical=False)
    if len(told) != 2 + _ID_BYTES + _KEY_BYTES or told[:2] != b"Ed":
        raise BundleError("this is no public key of minisign", remedy="give the .pub file")
    return PublicKey(told[2 : 2 + _ID_BYTES], told[2 + _ID_BYTES :])


def parse_secret(text: str, password: Callable[[], str]) -> SecretKey:
    """Read a secret key's file.

    Args:
        text: of the file.
        password: asked for where the key is encrypted.

    Raises:
        BundleError: it is none, or the password is wrong.
    """
    told = _decoded(_last_line(text), "secret key", canonical=False)
    if len(told) != _SECRET_BYTES or told[:2] != b"Ed" or told[4:6] != b"B2":
        raise BundleError("this is no secret key of minisign", remedy="give the file that minisign -G wrote")
    salt, limits, body = told[6:38], told[38:54], told[54:]
    if told[2:4] == b"Sc":
        body = _decrypted(body, password(), salt, int.from_bytes(limits[:8], "little"), limits[8:])
    elif told[2:4] != b"\0\0":
        raise BundleError("this secret key is encrypted in a way that is not known", remedy="make one with minisign -G")
    key_id, seed, public, checksum = body[:8], body[8:40], body[40:72], body[72:]
    sound = hashlib.blake2b(told[:2] + key_id + seed + public, digest_size=32).digest()
    if told[2:4] == b"Sc" and not hmac.compare_digest(sound, checksum):
        raise BundleError("the password of the secret key is wrong")
    if _public_of(seed) != public:
        raise BundleError("this secret key is damaged: its two halves do not belong together")
    return SecretKey(PublicKey(key_id, public), seed)


def sign(content: bytes, key: SecretKey, comment: str) -> bytes:
    """The signature file of ``content``."""
    private = _private(key.seed)
    raw = private.sign(_hashed(content))
    over_comment = private.sign(raw + comment.encode())
    first = base64.b64encode(b"ED" + key.public.key_id + raw).decode()
    return f"{UNTRUSTED}\n{first}\n{_TRUSTED}{comment}\n{base64.b64encode(over_comment).decode()}\n".encode()


def parse_signature(content: bytes, *, any_comment: bool = False) -> FileSignature:
    """Read a signature file.

    Args:
        content: of it.
        any_comment: take the untrusted comment that minisign itself writes, too.

    Raises:
        BundleError: it is none, or not spelt as ``sign`` spells it.
    """
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise BundleError("its signature is damaged") from error
    first_line = (any_comment and lines[0].startswith(_COMMENT)) or lines[0] == UNTRUSTED
    if len(lines) != _SIGNATURE_LINES or not first_line or not lines[2].startswith(_TRUSTED) or lines[-1]:
        raise BundleError("its signature is damaged")
    first, over_comment = _decoded(lines[1], "signature"), _decoded(lines[3], "signature")
    comment = lines[2].removeprefix(_TRUSTED)
    if len(first) != 2 + _ID_BYTES + _SIGNATURE_BYTES or len(over_comment) != _SIGNATURE_BYTES:
        raise BundleError("its signature is damaged")
    if first[:2] != b"ED" or len(comment) > MOST_COMMENT_CHARS:
        raise BundleError("its signature is of a kind that is not taken", remedy="sign with bundle make")
    return FileSignature(first[2:10], first[10:], comment, over_comment)


def verify(content: bytes, signature: FileSignature, key: PublicKey) -> None:
    """See that the owner of ``key`` signed ``content`` and the comment.

    Raises:
        BundleError: not so, or the library that tells is missing.
    """
    from cryptography.exceptions import InvalidSignature

    public = _public(key.raw)
    try:
        public.verify(signature.raw, _hashed(content))
        public.verify(signature.over_comment, signature.raw + signature.comment.encode())
    except InvalidSignature as error:
        raise BundleError(f"its signature is not that of key {key.name}: it was changed after it was signed") from error


def require_library() -> None:
    """See that signatures can be checked here.

    Raises:
        BundleError: they cannot, so that nothing signed can be told from anything else.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise BundleError(
            f"signatures cannot be checked: {error}",
            remedy="pip install 'vajra-edge[bundles]'; of a device: sudo EXTRAS=bundles bash deploy/install.sh",
        ) from error
    del ed25519


def _hashed(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=64).digest()


def _decrypted(body: bytes, password: str, salt: bytes, opslimit: int, memlimit: bytes) -> bytes:
    """With libsodium's parameters, as crypto_pwhash_scryptsalsa208sha256 picks N, r and p from its two limits."""
    log2_n, r, p = _scrypt_of(opslimit, int.from_bytes(memlimit, "little"))
    try:
        stream = hashlib.scrypt(
            password.encode(), salt=salt, n=1 << log2_n, r=r, p=p, maxmem=_SCRYPT_BYTES, dklen=len(body)
        )
    except (ValueError, MemoryError) as error:
        raise BundleError(f"the secret key cannot be decrypted: {error}") from error
    return bytes(one ^ other for one, other in zip(body, stream, strict=True))


def _scrypt_of(opslimit: int, memlimit_bytes: int) -> tuple[int, int, int]:
    """log2 N, r, p; the algorithm of libsodium's ``pickparams``, which minisign's files rely on."""
    opslimit, r = max(opslimit, 32768), 8
    if opslimit < memlimit_bytes // 32:
        most, p = opslimit // (r * 4), 1
        return _log2_above(most), r, p
    log2_n = _log2_above(memlimit_bytes // (r * 128))
    most_rp = min((opslimit // 4) // (1 << log2_n), 0x3FFFFFFF)
    return log2_n, r, most_rp // r


def _log2_above(most: int) -> int:
    """The first power of two above half of ``most``, from 2 on."""
    return next(log2_n for log2_n in range(1, 63) if (1 << log2_n) > most // 2)


def _decoded(text: str, what: str, *, canonical: bool = True) -> bytes:
    try:
        told = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BundleError(f"its {what} is damaged") from error
    if canonical and base64.b64encode(told).decode() != text:
        raise BundleError(f"its {what} is damaged")
    return told


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    return lines[-1] if lines and len(lines) <= _KEY_LINES else ""


def _name(key_id: bytes) -> str:
    return f"{int.from_bytes(key_id, 'little'):016X}"


def _private(seed: bytes) -> Ed25519PrivateKey:
    require_library()
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519.Ed25519PrivateKey.from_private_bytes(seed)


def _public(raw: bytes) -> Ed25519PublicKey:
    require_library()
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


def _public_of(seed: bytes) -> bytes:
    return bytes(_private(seed).public_key().public_bytes_raw())
