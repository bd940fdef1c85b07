"""Terminal: what cameras, brokers and the daemon said, as text that cannot steer the terminal of who reads it."""

from __future__ import annotations

from typing import Any


def inert(text: str) -> str:
    """``text`` with control characters in sight, but for the line feed, and with marks that turn its direction so, too.

    A terminal obeys them: it moves, hides and renames, and some answer as if somebody had typed.
    """
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def inert_document(document: Any) -> Any:
    """A document of JSON's types with all its texts inert, keys too."""
    match document:
        case str():
            return inert(document)
        case dict():
            return {inert(str(name)): inert_document(value) for name, value in document.items()}
        case list():
            return [inert_document(value) for value in document]
        case _:
            return document
