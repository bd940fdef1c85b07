"""Mistakes: what is wrong with settings, in one line: each field, its value without any secret, and the remedy."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vajra_edge.config import address
from vajra_edge.config.environment import Place, places

_MOST_TOLD = 8
_MOST_CHARS = 60
_NEAR, _VERY_NEAR = 0.6, 0.75

_HIDDEN = frozenset({"username", "password_file", "credentials_file"})
"""Fields into which a secret is typed by mistake; their values are not told."""

_TYPES: Mapping[str, str] = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a text, in quotation marks",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
}
"""Kinds of pydantic's errors in the words of TOML."""

_PATTERNS: Mapping[str, str] = {
    "id": "must be letters, digits, - _ and ., at most 64, the first a letter or digit",
    "device_id": "must be letters, digits, - _ and ., at most 64, the first a letter or digit",
    "sha256": "must be 64 hexadecimal digits",
    "target": "must be auto, cpu, gpu:0, dla:0 or dla:1",
}

_SECRET = ("password_file", "credentials_file")
_MEANT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("password", "pass", "passwd", "pw", "token", "secret"), _SECRET),
    "user": ("username", "credentials_file"),
    "username": ("credentials_file",),
    **dict.fromkeys(("server", "broker"), ("host",)),
    **dict.fromkeys(("address", "url", "path"), ("source", "host")),
    "rtsp": ("source",),
    "name": ("id",),
    "client_id": ("device_id",),
    **dict.fromkeys(("topic", "base_topic", "topic_prefix"), ("root",)),
    "ssl": ("tls",),
    "cafile": ("ca_file",),
    "model": ("path",),
    "conf": ("confidence",),
    "imgsz": ("img_size",),
    "device": ("target",),
    **dict.fromkeys(("half", "int8"), ("precision",)),
}
"""What other programs call a setting, with what it is here: the first that the section has, or the top of the file."""


def in_one_line(
    errors: Sequence[Any], given: Mapping[str, Any], variables: Mapping[Place, str], model: type[BaseModel]
) -> str:
    """Every wrong field in a phrase.

    Args:
        errors: pydantic's.
        given: what was checked, to find a camera's id in.
        variables: environment variables, by the place that they set.
        model: of the settings.
    """
    told = list(dict.fromkeys(_phrase(error, given, variables, model) for error in errors))
    more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
    return "; ".join([*told[:_MOST_TOLD], *more])


def of_one(name: str, leaf: str, errors: Sequence[Any]) -> str:
    """What is wrong with the value of one setting.

    Args:
        name: what the reader calls it.
        leaf: its own name in its section.
        errors: pydantic's.
    """
    shown = value_shown(leaf, errors[0]["input"])
    return f"{name} {f'= {shown}: ' if shown else ''}{_what(errors[0], leaf)}"


def value_shown(leaf: str, value: object) -> str:  # noqa: PLR0911  one return a kind of value
    """A value for people, as TOML has it; empty where it is, or may hold, a secret."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value) if len(str(value)) <= _MOST_CHARS else "a number of many digits"
        case str() | Path():
            return _text_shown(leaf, str(value))
        case Mapping():
            return "a table"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return ""


def _text_shown(leaf: str, text: str) -> str:
    if leaf in _HIDDEN:
        return ""
    if leaf == "source" or "://" in text:
        shown = address.shown(text)
        if shown == address.UNSHOWN:
            return ""
        return f"{shown}/***" if "://" in shown and shown != text else shown
    if len(text) > _MOST_CHARS or re.search(r"[@=?&%]", text) or not text.isprintable():
        return ""
    return f'"{text}"'


def _phrase(error: Any, given: Mapping[str, Any], variables: Mapping[Place, str], model: type[BaseModel]) -> str:
    place = tuple(error["loc"])
    # a union's branches and a tuple's items follow the field's own name
    depth = 3 if place[:1] == ("cameras",) and len(place) > 1 and isinstance(place[1], int) else 2
    place = place[:depth]
    field, leaf = _field(place, given, variables), str(place[-1]) if place else ""
    if error["type"] == "extra_forbidden":
        return f"{field} is not a setting; {_instead(place, model)}"
    if error["type"] == "missing":
        return f"{field} is missing; add {'it' if len(place) > 1 else f'a table [{leaf}]'}"
    what = _what(error, leaf)
    shown = value_shown(leaf, error["input"]) if place else ""
    if error["type"] == "value_error" and len(place) == 1 and isinstance(error["input"], Mapping) and leaf != "cameras":
        return f"{field}.{what}"  # of a whole section: it begins with the field
    return " ".join(part for part in (field, f"= {shown}:" if shown else "", what) if part)


def _field(place: tuple[Any, ...], given: Mapping[str, Any], variables: Mapping[Place, str]) -> str:
    """``mqtt.port``, or ``cameras[1].source (camera gate)``; with the variable that sets it."""
    known = [str(part) for part in place if not isinstance(part, int)]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(str(part))}" for part in place).removeprefix(".")
    if len(place) > 1 and isinstance(place[1], int) and (camera := _camera(given, place[1])):
        name = f"{name} (camera {camera})"
    variable = next((variables[tuple(known[:size])] for size in (2, 1) if tuple(known[:size]) in variables), "")
    return f"{name} (environment variable {variable})" if variable else name


def _camera(given: Mapping[str, Any], place: int) -> str:
    cameras = given.get("cameras")
    camera = cameras[place] if isinstance(cameras, (list, tuple)) and place < len(cameras) else None
    name = camera.get("id") if isinstance(camera, Mapping) else None
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) else ""


def _key(name: str) -> str:
    """A key as it stands, where it looks like one."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name) else "(a key with other characters)"


def _what(error: Any, leaf: str) -> str:
    kind = error["type"]
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(leaf, "is written in another way than this setting is")
    if kind == "too_long":
        return f"holds too many, {error['ctx']['max_length']} at most"
    return _TYPES.get(kind) or str(error["msg"]).replace("Input should be", "must be")


def _instead(place: tuple[Any, ...], model: type[BaseModel]) -> str:
    """What an unknown key was meant to be: in its own section first, then in others."""
    key = str(place[-1]).lower().replace("-", "_")
    inner = [known for known in places(model) if len(known) > 1]
    fields = [name for section, name in inner if section == place[0]] if len(place) > 1 else list(model.model_fields)
    if key in fields:
        return f"write {key}"
    if words := _meant(key, fields, model):
        return words
    if near := difflib.get_close_matches(key, fields, n=1, cutoff=_NEAR):
        return f"did you mean {near[0]}?"
    for section, name in inner:
        if name == key:
            return f"it belongs into [{section}]"
    near = difflib.get_close_matches(key, [name for _, name in inner], n=1, cutoff=_VERY_NEAR)
    return f"did you mean {near[0]}?" if near else "take it out"


def _meant(key: str, fields: Sequence[str], model: type[BaseModel]) -> str:
    for field in _MEANT.get(key, ()):
        if field in fields:
            what = "it" if field == "password_file" else "user:password"
            return (
                f"write {what} into a file, and name that in {field}" if field in _SECRET else f"did you mean {field}?"
            )
        if field in model.model_fields:
            return f"did you mean {field}, at the top of the file?"
    return ""
