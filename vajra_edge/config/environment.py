"""Environment: ``VAJRA_EDGE_<SECTION>__<FIELD>`` over the settings file, for containers and drop-ins.

A variable is read as what its field is: a text as it stands, anything else as JSON (``4``, ``true``, ``["person"]``);
a whole section or the cameras as a JSON object or list. The same checks follow as for the file.
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource

from vajra_edge.errors import SettingsError

PREFIX = "VAJRA_EDGE_"
_BETWEEN = "__"
_OTHERS = frozenset({"config"})
"""Variables that are no settings: VAJRA_EDGE_CONFIG names the file."""

_NEAR = 0.85
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}

Place: TypeAlias = "tuple[str, ...]"
"""The names of a field, section first."""


@dataclass(frozen=True)
class FromEnvironment:
    """What the environment sets.

    Attributes:
        values: nested dicts, to be put over the file's.
        variables: the variable that each place comes from.
    """

    values: Mapping[str, Any]
    variables: Mapping[Place, str]


def read(environ: Mapping[str, str], model: type[BaseSettings]) -> FromEnvironment:
    """Every variable that is a setting of ``model``.

    Raises:
        SettingsError: one is nearly a setting, or not valid JSON where it must be.
    """
    own: dict[Place, Any] = {}
    variables: dict[Place, str] = {}
    known = {_variable(place): place for place in (*((name,) for name in model.model_fields), *places(model))}
    for name in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        place = known.get(name.upper())
        if place is None or (len(place) > 1 and place[0] == "cameras"):
            _require_foreign(name, known)
            continue
        own[place] = _value(name, environ[name], _annotation(model, place))
        variables[place] = name
    values = _whole(environ, (variables[place] for place in own if len(place) == 1), model)
    for place, value in own.items():
        table = values.get(place[0], {})
        if len(place) > 1 and isinstance(table, Mapping):  # what is no table is refused by what checks the values
            values[place[0]] = {**table, place[1]: value}
    return FromEnvironment(values, variables)


def _whole(environ: Mapping[str, str], names: Iterable[str], model: type[BaseSettings]) -> dict[str, Any]:
    """Sections, and settings at the top, of which each has one variable.

    Single fields of sections are not the library's: it leaves some numbers as text, and fails on others.
    """
    source = EnvSettingsSource(model, case_sensitive=True, env_prefix=PREFIX.lower())
    source.env_vars = {name.lower(): environ[name] for name in names}
    return source()


def places(model: type[BaseModel]) -> Iterator[Place]:
    """Every field that is no section, a camera's as ``("cameras", field)``."""
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section is None:
            yield (name,)
        else:
            yield from ((name, field) for field in section.model_fields)


def _variable(place: Place) -> str:
    return PREFIX + _BETWEEN.join(place).upper()


def _require_foreign(name: str, known: Mapping[str, Place]) -> None:
    """A variable of ours that is no setting is somebody else's, unless it was meant to be one."""
    rest = name.upper().removeprefix(PREFIX)
    if rest.lower() in _OTHERS:
        return
    if rest.startswith("CAMERAS" + _BETWEEN):
        raise SettingsError(
            f"environment variable {name} is not a setting", remedy=f"{PREFIX}CAMERAS takes all cameras as JSON"
        )
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_NEAR)
    if near or _BETWEEN in rest:
        remedy = f"did you mean {near[0]}?" if near else "unset it"
        raise SettingsError(f"environment variable {name} is not a setting", remedy=remedy)


def _value(name: str, text: str, annotation: object) -> Any:
    parts = set(_parts(annotation))
    if _section(annotation) is not None:
        return _json(name, text)
    if parts & {str, Path}:
        return text
    if bool in parts and text.strip().lower() in _TRUE | _FALSE:
        return text.strip().lower() in _TRUE
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if list in parts:
            return _json(name, text)
        return text


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        field = name.upper().removeprefix(PREFIX).lower().replace(_BETWEEN, ".")
        raise SettingsError(
            f"{field} (environment variable {name}) is not valid JSON",
            remedy='write a list as ["a", "b"], a table as {"a": "b"}, or unset it',
        ) from None


def _annotation(model: type[BaseModel], place: Place) -> object:
    found: object = model.model_fields[place[0]].annotation
    section = _section(found)
    return section.model_fields[place[1]].annotation if section is not None and len(place) > 1 else found


def _section(annotation: object) -> type[BaseModel] | None:
    """The model of a section, also of one that stands in a tuple."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _parts(annotation: object) -> Iterator[object]:
    """The plain types in an annotation; ``list`` for any list, so that its members are none of them."""
    origin = get_origin(annotation)
    if origin is Literal:
        yield from (type(choice) for choice in get_args(annotation))
    elif origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _parts(one)
    elif origin in (tuple, list):
        yield list
    else:
        yield annotation
