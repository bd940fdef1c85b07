"""Phrasing: errors name the settings of the daemon; whoever calls export, val or predict knows their arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from vajra_edge.errors import VajraError

_SECTION = r"\[?(?:engine|weights|calibration)(?:\] |\.)"
_WORDS: tuple[tuple[str, str], ...] = (
    (r"check \[weights\] path and", "check the path and"),
    (rf"unset {_SECTION}img_size", "pass the img_size it has"),
    (r"\[weights\] class_names to their names", "the names in the file's metadata"),
    (r"set \[weights\] class_names", "write 'names' into the file's metadata"),
    (r"set \[weights\] stride(, for VajraV1 32)?", "write 'stride' into the file's metadata"),
    (rf"{_SECTION}precision = fp16", "half=True"),
    (rf"{_SECTION}precision = fp32", "neither half nor int8"),
    (rf"{_SECTION}precision", "half or int8"),
    (rf"{_SECTION}simplify = false", "simplify=False"),
    (rf"{_SECTION}dynamic = false", "dynamic=False"),
    (rf"{_SECTION}quantization = (\w+)", r"quantization=\1"),
    (rf"{_SECTION}backend = onnxruntime", "format=onnx"),
    (rf"{_SECTION}backend = tensorrt", "format=engine"),
    (r"(?<=, or )backend = tensorrt", "format=engine"),
    (rf"{_SECTION}target = ([a-z0-9:]+)", r"device=\1"),
    (r"(?<=, or )target = ([a-z0-9:]+)", r"device=\1"),
    (rf"{_SECTION}target", "device"),
    (rf"{_SECTION}workspace_gib", "workspace"),
    (rf"{_SECTION}batch = (\d+)", r"batch=\1"),
    (rf"{_SECTION}(img_size|batch|fraction)", r"\1"),
)
"""Patterns in the order they are tried; what is left over stays as it is."""


@contextmanager
def users_words() -> Iterator[None]:
    """Let errors of the body through with settings called by the arguments that set them here."""
    try:
        yield
    except VajraError as error:
        error.message, error.remedy = _said(error.message), _said(error.remedy)
        raise


def _said(text: str) -> str:
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text
