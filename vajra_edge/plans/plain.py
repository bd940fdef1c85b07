"""Plain: JSON values as a file or a pipe gave them, perhaps written by another version of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""What ``json.dumps`` writes."""


class Fields:
    """A JSON object whose fields may be missing or of another type; such a one reads as its default.

    Args:
        plain: what was read; anything but an object has no fields.
    """

    def __init__(self, plain: object) -> None:
        self._plain: Mapping[object, object] = plain if isinstance(plain, Mapping) else {}

    def __bool__(self) -> bool:
        return bool(self._plain)

    def __contains__(self, name: str) -> bool:
        return name in self._plain

    def text(self, name: str) -> str:
        """A string; empty by default."""
        value = self._plain.get(name)
        return value if isinstance(value, str) else ""

    def text_or_none(self, name: str) -> str | None:
        """A string, or None."""
        value = self._plain.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        """True or False, the default."""
        return self._plain.get(name) is True

    def count(self, name: str) -> int:
        """An integer; 0 by default."""
        value = self.count_or_none(name)
        return 0 if value is None else value

    def count_or_none(self, name: str) -> int | None:
        """An integer, or None."""
        value = self._plain.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def number(self, name: str) -> float:
        """A number; 0 by default."""
        value = self.number_or_none(name)
        return 0.0 if value is None else value

    def number_or_none(self, name: str) -> float | None:
        """A number, or None."""
        value = self._plain.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """The strings of a list; none by default."""
        return tuple(value for value in self._values(name) if isinstance(value, str))

    def counts(self, name: str) -> tuple[int, ...]:
        """The integers of a list; none by default."""
        return tuple(value for value in self._values(name) if isinstance(value, int))

    def inside(self, name: str) -> Fields:
        """An object; one without fields by default."""
        return Fields(self._plain.get(name))

    def each(self, name: str) -> tuple[Fields, ...]:
        """The objects of a list; none by default."""
        return tuple(Fields(value) for value in self._values(name))

    def named(self) -> dict[str, Fields]:
        """Every field that may be an object, in order."""
        return {name: Fields(value) for name, value in self._plain.items() if isinstance(name, str)}

    def named_texts(self) -> dict[str, str]:
        """Every field that is a string, in order."""
        return {name: value for name, value in self._plain.items() if isinstance(name, str) and isinstance(value, str)}

    def _values(self, name: str) -> Sequence[object]:
        value = self._plain.get(name)
        return value if isinstance(value, list | tuple) else ()
