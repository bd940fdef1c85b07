"""Inline image: a picture that is given as text itself, base64 as browsers and web interfaces pass it."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import SourceError
from vajra_edge.media import image_file

_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*,", re.ASCII | re.IGNORECASE)
_LONGEST_PATH = 4096
"""Of Linux (PATH_MAX); a longer text is no path."""
_LONGEST_NAME = 255
_SHOWN = 40


def of(source: object) -> NDArray[np.uint8] | None:
    """The picture that a text is; None where it is something else, such as a path.

    Returns:
        (height, width, 3) uint8, BGR.

    Raises:
        SourceError: it is empty, or too long for a path and no picture either.
    """
    if not isinstance(source, str):
        return None
    text = source.strip()
    if not text or "\0" in text:
        raise SourceError(f"the source is {source!r}", remedy="name images, folders, videos or cameras")
    head = _DATA_URL.match(text)
    if head is None and "://" in text[:_LONGEST_NAME]:
        return None
    is_path = len(text) <= _LONGEST_PATH and all(
        len(part.encode(errors="replace")) <= _LONGEST_NAME for part in text.split("/")
    )
    if head is None and is_path:
        return None
    return _decoded(text, "" if head is None else head[0])


def _decoded(text: str, head: str) -> NDArray[np.uint8]:
    told = f"the source is a text of {len(text)} letters, {text[:_SHOWN]!r}..."
    remedy = "give a path, or a picture as a BGR array"
    try:
        content = base64.b64decode("".join(text[len(head) :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        kind = "no picture in base64" if head else "too long for a path, and no picture in base64"
        raise SourceError(f"{told}: {kind}", remedy=remedy) from error
    try:
        return image_file.decode(content, Path("base64")).whole()
    except image_file.UnusableImage as error:
        raise SourceError(f"{told}: {error.what}", remedy=remedy) from error
