"""A .pt file that is something else is named, with the way to a checkpoint."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest

from vajra_edge.errors import WeightsError
from vajra_edge.weights import archive


def zipped(compression: int, *names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as made:
        for name in names:
            made.writestr(name, b"content")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer.*; run 'git lfs pull'",
        ),
        (b"\n<!DOCTYPE html><html>", "a web page; download it again"),
        (b"\x1f\x8b\x08\x00", "a gzip file; unpack it: gunzip"),
        (
            b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": 1}',
            "a safetensors file.*; give a .pt file that torch.save wrote",
        ),
        (b"\x80\x02}.", "older than torch 1.6; give a .pt file"),
        (b"hello", "it starts with b'hell', not with a zip record; give a .pt file"),
        (
            zipped(zipfile.ZIP_STORED, "best.pt"),
            "a zip file: it holds no data.pkl; unpack it, and name the .pt file in it",
        ),
        (zipped(zipfile.ZIP_DEFLATED, "run/best.pt", "run/args.yaml"), "a zip file.*; unpack it"),
        (zipped(zipfile.ZIP_DEFLATED, "best/data.pkl"), "is compressed.*; give the file as torch.save wrote it"),
    ],
)
def test_weights_that_are_something_else_are_named_with_the_remedy(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with archive.opened(path) as file, pytest.raises(WeightsError) as refused:
        archive.check(file, path)
    assert re.search(says, str(refused.value))
