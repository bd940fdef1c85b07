"""Output: standard output that takes every character, and whose refusal is an error of the operator's, not a bug.

An ``OSError`` of a print looks like one of any file; so what writes to standard output says itself that it was the one.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vajra_edge.errors import OutputError

_ESCAPED = "vajra_edge.escaped"
_NEVER_FAIL = {"replace", "ignore", "backslashreplace", "xmlcharrefreplace", "namereplace"}


@contextmanager
def prepared() -> Iterator[None]:
    """Standard output as ``prepare`` makes it, and written out to its end before the body is left.

    Raises:
        OutputError: it cannot be written; nothing is left in it that would be tried again.
    """
    prepare()
    try:
        yield
        sys.stdout.flush()
    except (OutputError, BrokenPipeError):
        let_go()
        raise


def prepare() -> None:
    r"""Let standard output take every character, and name itself where it cannot be written.

    Characters that its encoding lacks become JSON's escapes (``\u4eba``), which a document in JSON may hold too.
    Where it was closed before the start it leads nowhere. A stream that is not the process's own stays as it is.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for the rest of the process
    if sys.stdout is not sys.__stdout__ or not isinstance(sys.stdout, io.TextIOWrapper):
        return
    codecs.register_error(_ESCAPED, _escaped)
    before = sys.stdout
    before.flush()
    raw = _Raw(before.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        raw if isinstance(before.buffer, io.RawIOBase) else io.BufferedWriter(raw),
        encoding=before.encoding,
        errors=before.errors if before.errors in _NEVER_FAIL else _ESCAPED,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def let_go() -> None:
    """Lead standard output nowhere: the interpreter would try again to write what was refused, and say so."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _Raw(io.FileIO):
    """The descriptor; a reader that left stays a ``BrokenPipeError``, which is no error."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"standard output ({_place(self.fileno())}) cannot be written: {error.strerror}",
                remedy="make room there, or send the output elsewhere",
            ) from error


def _place(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return f"descriptor {descriptor}"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
