"""Archive: the zip container of a ``.pt`` file, checked byte by byte before any library interprets it.

torch reads such a file without comparing a single checksum, and a zip reader believes whatever sizes the file claims.
So the container is held to exactly what ``torch.save`` writes: stored (never compressed) records under one folder, one
after another, each with a right CRC-32, the directory last and nothing around it. Everything is read in small pieces.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vajra_edge.errors import UnsafeWeights, WeightsError
from vajra_edge.weights import file_kinds

MAX_FILE_BYTES = 2 * 1024**3  # an unstripped training checkpoint of xlarge is about 1.2 GB
MAX_PICKLE_BYTES = 8 * 1024**2  # nano's is 0.2 MB; xlarge with optimizer state stays under 3 MB
MAX_RECORDS = 20_000  # xlarge with an EMA copy and optimizer state has about 6,000
_MAX_DIRECTORY_BYTES = MAX_RECORDS * 256
_CHUNK_BYTES = 1024**2
_LOCAL_MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64 = struct.Struct("<4sQ2H2L4Q")  # its zip64 form, which torch always writes
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_BAD_ZIP = (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, RuntimeError, EOFError, OSError)


@dataclass(frozen=True)
class Archive:
    """What a sound container holds.

    Attributes:
        pickle: the record ``data.pkl``: the object tree, with tensors by reference.
        storage_bytes: size of each tensor storage, by its key (``"0"``, ``"1"``, ...).
        sha256: digest of the whole file, lower-case hexadecimal.
    """

    pickle: bytes
    storage_bytes: Mapping[str, int]
    sha256: str


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading; the same descriptor serves the check and the load, so the path may change meanwhile.

    Raises:
        WeightsError: the path cannot be opened, is no regular file, is too large, or was written to while open.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block us
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"weights {path} cannot be read: {reason}", path=path) from error
    before = os.fstat(descriptor)
    try:
        _check_file(before, path)
    except WeightsError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise WeightsError(f"weights {path} was written to while it was read", remedy="try again", path=path)


def _check_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(f"weights {path} is not a regular file", path=path)
    if status.st_size > MAX_FILE_BYTES:
        raise WeightsError(f"weights {path} has {status.st_size} bytes, more than {MAX_FILE_BYTES}", path=path)


def digest(file: BinaryIO) -> str:
    """SHA-256 of the whole file, lower-case hexadecimal."""
    file.seek(0)
    sha256 = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        sha256.update(chunk)
    return sha256.hexdigest()


def check(file: BinaryIO, path: Path) -> Archive:
    """Check the container from its first byte to its last.

    Args:
        file: the weights, from ``opened``.
        path: named in errors.

    Raises:
        WeightsError: the file is no zip archive, damaged, or a TorchScript archive.
        UnsafeWeights: the container is built to mislead a reader (overlaps, foreign names, compression, hidden bytes).
    """
    sha256 = digest(file)
    _check_ends(file, path)
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            _check_is_checkpoint(records, path)
            _check_layout(file, records, archive.start_dir, path)
            names = _record_names([record.orig_filename for record in records], path)
            sizes = {name: record.file_size for name, record in zip(names, records, strict=True)}
            _check_contents(sizes, path)
            pickle = b""
            for name, record in zip(names, records, strict=True):
                content = _read_checked(archive, record, keep=name in {"data.pkl", "byteorder"})
                pickle = content if name == "data.pkl" else pickle
                if name == "byteorder" and content != b"little":
                    raise UnsafeWeights(f"weights {path} declare the byte order {content[:16]!r}", path=path)
    except _BAD_ZIP as error:
        raise _damaged(path, error) from error
    storages = {name[5:]: size for name, size in sizes.items() if name.startswith("data/")}
    return Archive(pickle=pickle, storage_bytes=storages, sha256=sha256)


def _damaged(path: Path, reason: object) -> WeightsError:
    return WeightsError(f"weights {path} are damaged: {reason}", remedy="copy the file again", path=path)


def _check_ends(file: BinaryIO, path: Path) -> None:
    """The magic at the start, and at the end a directory that is small and reaches up to its own end record."""
    file.seek(0)
    head = file.read(file_kinds.HEAD_BYTES)
    if not head.startswith(_LOCAL_MAGIC):
        raise _foreign(head, path)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END64.size - _LOCATOR64.size - _END.size))
    tail = file.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06":
        raise _damaged(path, "its end is missing")
    _, _, _, _, _, directory_bytes, directory_at, comment_bytes = _END.unpack(tail[-_END.size :])
    end_at = size - _END.size
    if tail[: _END64.size][:4] == b"PK\x06\x06" and tail[_END64.size :][:4] == b"PK\x06\x07":
        directory_bytes, directory_at = _END64.unpack(tail[: _END64.size])[8:]
        end_at = size - len(tail)
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise UnsafeWeights(f"weights {path} claim a directory of {directory_bytes} bytes", path=path)
    if comment_bytes or directory_at + directory_bytes != end_at:
        raise _damaged(path, "its zip directory does not end where the file says")


def _foreign(head: bytes, path: Path) -> WeightsError:
    """What the file is instead of a zip archive."""
    kind = file_kinds.kind_of(head)
    if head[:1] == b"\x80":
        what = "is a bare pickle or a checkpoint older than torch 1.6"
    elif kind is not None:
        what = f"is not a checkpoint, it is {kind.what}"
    else:
        what = f"is not a checkpoint: it starts with {head[:4]!r}, not with a zip record"
    remedy = file_kinds.SAVED if kind is None else kind.for_checkpoint
    return WeightsError(f"weights {path} {what}", remedy=remedy, path=path)


def _check_is_checkpoint(records: list[zipfile.ZipInfo], path: Path) -> None:
    """Any other zip archive is named before what is odd about it."""
    below = {record.orig_filename.partition("/")[2] for record in records}
    if not below & {"data.pkl", "constants.pkl"}:
        raise WeightsError(
            f"weights {path} is not a checkpoint, it is {file_kinds.ZIP.what}: it holds no data.pkl",
            remedy=file_kinds.ZIP.for_checkpoint,
            path=path,
        )


def _check_layout(file: BinaryIO, records: list[zipfile.ZipInfo], start_dir: int, path: Path) -> None:
    """Stored records, in order, without overlap: their sizes cannot add up to more than the file."""
    if len(records) > MAX_RECORDS:
        raise UnsafeWeights(f"weights {path} hold {len(records)} records, more than {MAX_RECORDS}", path=path)
    free_at = 0
    for record in sorted(records, key=lambda item: item.header_offset):
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & _ENCRYPTED:
            raise UnsafeWeights(
                f"weights {path}: record {record.filename[:80]!r} is compressed or encrypted; torch.save does neither",
                remedy="give the file as torch.save wrote it",
                path=path,
            )
        if record.compress_size != record.file_size or record.header_offset < free_at:
            raise UnsafeWeights(f"weights {path}: record {record.filename[:80]!r} lies about its place", path=path)
        file.seek(record.header_offset)
        name_bytes, extra_bytes = _LOCAL.unpack(file.read(_LOCAL.size))[-2:]
        free_at = record.header_offset + _LOCAL.size + name_bytes + extra_bytes + record.file_size
    if free_at > start_dir:
        raise UnsafeWeights(f"weights {path}: records reach into the zip directory", path=path)


def _record_names(full_names: list[str], path: Path) -> list[str]:
    """The names below the one folder that torch.save makes."""
    split = [name.partition("/") for name in full_names]
    for name, (folder, _, rest) in zip(full_names, split, strict=True):
        parts = rest.split("/")
        if not (folder and rest and name.isprintable()) or "\\" in name or ":" in name or ".." in (folder, *parts):
            raise UnsafeWeights(f"weights {path}: record name {name[:80]!r} leaves the archive's folder", path=path)
    if len({folder for folder, _, _ in split}) > 1 or len(set(full_names)) != len(full_names):
        raise UnsafeWeights(f"weights {path}: records repeat or lie in several folders", path=path)
    return [rest for _, _, rest in split]


def _check_contents(sizes: Mapping[str, int], path: Path) -> None:
    if "constants.pkl" in sizes or any(name.startswith("code/") for name in sizes):
        raise WeightsError(
            f"weights {path} are a TorchScript program, not a checkpoint",
            remedy="give the checkpoint it was made from, or an ONNX export",
            path=path,
        )
    if sizes["data.pkl"] > MAX_PICKLE_BYTES:
        raise UnsafeWeights(
            f"weights {path}: data.pkl has {sizes['data.pkl']} bytes, over {MAX_PICKLE_BYTES}", path=path
        )
    if any(name.startswith("data/") and not re.fullmatch(r"data/[0-9]{1,6}", name) for name in sizes):
        raise UnsafeWeights(f"weights {path} hold a tensor record without a number", path=path)


def _read_checked(archive: zipfile.ZipFile, record: zipfile.ZipInfo, *, keep: bool) -> bytes:
    """Read to the end, where zipfile compares the CRC-32; the content only if asked for."""
    kept = []
    with archive.open(record) as content:
        while chunk := content.read(_CHUNK_BYTES):
            if keep:
                kept.append(chunk)
    return b"".join(kept)
