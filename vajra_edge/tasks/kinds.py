"""Kinds: what people write for a number, a switch, a size or a path, and what none of these can be.

Numbers of numpy are numbers; None leaves a default. A text in the place of a switch is refused: "False" is true.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vajra_edge.errors import ArgumentError, VajraError
from vajra_edge.wording import Argument, say

NOTHING = frozenset({"", "none", "null"})
SIZE = (int, np.integer, str, list, tuple, np.ndarray)
"""What a size may be made of; the rest is of the wrong kind, whatever its value."""
DEVICE = (int, np.integer, str)
_BOTH = 2


def wrong(argument: Argument, value: object, what: str, remedy: str, right: type | tuple[type, ...]) -> VajraError:
    """The error for a value: an ``ArgumentError`` where its kind is wrong, else one about the value.

    Args:
        argument: which.
        value: given.
        what: is wrong with it, like ``is not a size``.
        remedy: what to give instead.
        right: kinds that it could be.
    """
    fits = isinstance(value, right) and not isinstance(value, (bool, np.bool_))
    return (VajraError if fits else ArgumentError)(say(argument, f" {shown(value)} {what}"), remedy=remedy)


def shown(value: object) -> str:
    """A value for a message: short, and on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004  a message stays one line


def switch(argument: Argument, value: Any, *, default: bool = False) -> bool:
    """A switch: a bool, or 0 or 1; None: the default.

    Raises:
        ArgumentError: anything else, a text above all.
    """
    if value is None:
        return default
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in {0, 1}):
        return bool(value)
    raise ArgumentError(say(argument, f" {shown(value)} is neither True nor False"), remedy="use True or False")


def number(argument: Argument, value: Any, what: str, remedy: str) -> float:
    """A number.

    Raises:
        ArgumentError: it is none; ``what`` it should be.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(say(argument, f" {shown(value)} is not {what}"), remedy=remedy)
    return float(value)


def count(argument: Argument, value: Any, what: str) -> int:
    """A whole number of 1 or more.

    Raises:
        ArgumentError: it is no whole number.
        VajraError: it is below 1.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if not whole or value < 1:
        kind = VajraError if whole else ArgumentError
        raise kind(say(argument, f" {shown(value)} is not {what}"), remedy="use 1 or more")
    return value if isinstance(value, int) else int(value)


def sides(value: Any) -> tuple[int, int] | None:
    """Height and width of what is given as a size: ``640``, ``(320, 256)``, ``[320, 256]``, ``"640"``, ``"320,256"``.

    None: it is neither one whole number nor two.
    """
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("[]() ").split(",")]
        value = [int(part) for part in value if part.isascii() and part.isdigit()] if all(value) else []
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    parts = list(value) if isinstance(value, (list, tuple)) else [value]
    whole = all(isinstance(part, (int, np.integer)) and not isinstance(part, (bool, np.bool_)) for part in parts)
    if not whole or len(parts) not in {1, _BOTH}:
        return None
    return int(parts[0]), int(parts[-1])


def only(value: Any) -> Any:
    """The one thing in a list of one; anything else as it is."""
    alone = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and len(value) == 1
    return value[0] if alone else value


def path(argument: Argument, value: Any) -> str | Path:
    """A path.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(value, (str, Path)):
        return value
    if isinstance(value, os.PathLike) and isinstance(text := os.fspath(value), str):
        return text
    raise ArgumentError(say(argument, f" {shown(value)} is not a path"), remedy="give the path of a file")
