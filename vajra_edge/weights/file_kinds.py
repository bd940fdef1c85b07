"""File kinds: what a file that is called .onnx or .pt is instead, told by its first bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 4096
"""Enough to tell every kind here; a zip file names its first entry there."""

SAVED = "give a .pt file that torch.save wrote, or export to ONNX where it was trained"


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Attributes:
        what: for people, with its article.
        for_onnx: what to do to get an ONNX file.
        for_checkpoint: what to do to get a checkpoint.
    """

    what: str
    for_onnx: str
    for_checkpoint: str = SAVED


def _same(what: str, remedy: str) -> FileKind:
    return FileKind(what, remedy, remedy)


ZIP = FileKind(
    "a zip file", "unpack it, and name the .onnx file in it", f"unpack it, and name the .pt file in it; or {SAVED}"
)


def kind_of(head: bytes) -> FileKind | None:
    """What the bytes begin like, if it is something that is known and is not ONNX; else None.

    Args:
        head: the first ``HEAD_BYTES`` of the file, or all of it.
    """
    return next((kind for is_it, kind in _KINDS if is_it(head)), None)


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginnings)


def _is_web_page(head: bytes) -> bool:
    return (
        head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<body"))
    )


def _is_checkpoint(head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04") and b"/data.pkl" in head


def _is_safetensors(head: bytes) -> bool:
    return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32


def _is_engine(head: bytes) -> bool:
    """TensorRT's own mark, or upstream's header before it: a length, then JSON."""
    return head.startswith((b"ftrt", b"ptrt")) or (head[4:5] == b"{" and int.from_bytes(head[:4], "little") < 1 << 24)


_AGAIN = "download it again, as the file itself"

_KINDS: tuple[tuple[Callable[[bytes], bool], FileKind], ...] = (
    (
        _starts(b"version https://git-lfs"),
        _same("a Git LFS pointer, not the file", "run 'git lfs pull' where it is from"),
    ),
    (_is_web_page, _same("a web page", f"{_AGAIN} ('raw' or 'download', not the page about it)")),
    (_is_checkpoint, FileKind("a PyTorch checkpoint", "name it .pt")),
    (_starts(b"PK\x03\x04"), ZIP),
    (_starts(b"\x1f\x8b"), _same("a gzip file", "unpack it: gunzip")),
    (_starts(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), FileKind("a Python pickle", "export it to ONNX")),
    (_is_safetensors, FileKind("a safetensors file: weights without a network", "export the network to ONNX")),
    (_is_engine, FileKind("a TensorRT engine", "name it .engine, and give it to val or predict")),
    (lambda head: head[4:8] == b"TFL3", FileKind("a TensorFlow Lite network", "export it to ONNX")),
    (
        lambda head: head[4:8] == b"ORTM",
        FileKind("a network in ONNX Runtime's own format", "give the .onnx file that it was made of"),
    ),
    (_starts(b"\x89HDF"), FileKind("a Keras file (HDF5)", "export it to ONNX: tf2onnx")),
    (_starts(b"<?xml", b"<net"), FileKind("an XML file, like OpenVINO's", "give the ONNX file that it was made of")),
)
