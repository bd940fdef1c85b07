"""OneOf: the words that a field of a message may have, for its schema; to everybody else it is an ordinary value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class OneOf:
    """Stands in ``Annotated``."""

    words: tuple[str | int, ...]

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.literal_schema(list(self.words))
