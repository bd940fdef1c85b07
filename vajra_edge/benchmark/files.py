"""Figures as files: JSON with a schema, written by ``bench --json`` and read by ``bench --compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from vajra_edge.benchmark.figures import SCHEMA, Figures
from vajra_edge.errors import VajraError

_FIGURES: TypeAdapter[Figures] = TypeAdapter(Figures)
_REMEDY = "write it with bench --json"
MOST_BYTES = 16 << 20


def written(figures: Figures) -> bytes:
    """JSON of one line."""
    return orjson.dumps(figures, option=orjson.OPT_UTC_Z)


def json_schema() -> dict[str, Any]:
    """Of ``written``."""
    return _FIGURES.json_schema()


def read(path: Path) -> Figures:
    """The figures of a file.

    Raises:
        VajraError: it cannot be read, or is not what ``bench --json`` wrote.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise VajraError(f"{path} is too large to be figures", remedy=_REMEDY)
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise VajraError(f"{path} cannot be read: {error.strerror}", remedy="check the path") from error
    except orjson.JSONDecodeError as error:
        raise VajraError(f"{path} is no JSON: {error}", remedy=_REMEDY) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        raise VajraError(f"{path} holds no figures of bench", remedy=_REMEDY)
    if schema != SCHEMA:
        remedy = "measure again with this release, or read it with the one that wrote it"
        raise VajraError(f"{path} has figures of schema {schema!r}, and this release reads {SCHEMA}", remedy=remedy)
    try:
        return _FIGURES.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise VajraError(f"{path} holds no figures of bench: {place}: {first['msg']}", remedy=_REMEDY) from error
