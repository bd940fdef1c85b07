"""Class names: which class of one list is which of another, such as of a dataset and of a network.

Equal lists match by number, so that a name may occur twice. Else names match: exactly, or with upper and lower case,
runs of blanks, underscores, and hyphens between letters taken for the same (``Traffic_Light`` is ``traffic light``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_BLANKS = re.compile(r"(?:[\s_]|(?<=[^\W\d_])-(?=[^\W\d_]))+")


def folded(name: str) -> str:
    """A name as it is compared: ``-5`` stays another than ``5``, ``hard-hat`` is ``Hard Hat``."""
    return _BLANKS.sub(" ", unicodedata.normalize("NFKC", name)).strip().casefold()


def same(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two lists are equal, class by class."""
    return [folded(name) for name in mine] == [folded(name) for name in theirs]


def match(mine: Sequence[str], theirs: Sequence[str]) -> tuple[int | None, ...]:
    """For each name of ``mine``, its number in ``theirs``; None where there is none, or no telling which."""
    if same(mine, theirs):
        return tuple(range(len(theirs)))
    return tuple(found[0] if len(found := called(name, theirs)) == 1 else None for name in mine)


def called(name: str, names: Sequence[str]) -> tuple[int, ...]:
    """Numbers of all classes of a name: those spelled exactly so, else those spelled likewise."""
    exact = tuple(number for number, other in enumerate(names) if other == name)
    alike = folded(name)
    return exact or tuple(number for number, other in enumerate(names) if folded(other) == alike)
