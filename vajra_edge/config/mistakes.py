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
_NEAR = 0.6

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

_ELSEWHERE: Mapping[str, str] = {
    "password": "write it into a file, and name that in {secret}",
    "pass": "write it into a file, and name that in {secret}",
    "passwd": "write it into a file, and name that in {secret}",
    "pw": "write it into a file, and name that in {secret}",
    "token": "write it into a file, and name that in {secret}",
    "secret": "write it into a file, and name that in {secret}",
    "username": "write user:password into a file, and name that in {secret}",
    "user": "did you mean {user}?",
    "server": "did you mean host?",
    "broker": "did you mean host?",
    "address": "did you mean {place}?",
    "url": "did you mean {place}?",
    "path": "did you mean {place}?",
    "rtsp": "did you mean source?",
    "name": "did you mean id?",
    "client_id": "did you mean device_id, at the top of the file?",
    "topic": "did you mean root?",
    "base_topic": "did you mean root?",
    "topic_prefix": "did you mean root?",
    "ssl": "did you mean tls?",
    "cafile": "did you mean ca_file?",
    "model": "did you mean path?",
    "conf": "did you mean confidence?",
    "imgsz": "did you mean img_size?",
    "device": "did you mean target?",
    "half": "did you mean precision?",
    "int8": "did you mean precision?",
}
"""What other programs call a setting, with what it is here; applied where the section has it."""


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
    section = str(place[0]) if len(place) > 1 else ""
    key = str(place[-1]).lower().replace("-", "_")
    fields = [
        known[-1] for known in places(model) if len(known) == len(place[:1]) + bool(section) and known[0] == section
    ]
    if not section:
        fields = list(model.model_fields)
    if key in fields:
        return f"write {key}"
    if words := _elsewhere(key, section, fields):
        return words
    if near := difflib.get_close_matches(key, fields, n=1, cutoff=_NEAR):
        return f"did you mean {near[0]}?"
    for known in places(model):
        if len(known) > 1 and known[-1] == key:
            return f"it belongs into [{known[0]}]"
    names = [known[-1] for known in places(model)]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else "take it out"


def _elsewhere(key: str, section: str, fields: Sequence[str]) -> str:
    secret = "credentials_file" if section == "cameras" else "password_file"
    user = "credentials_file" if section == "cameras" else "username"
    place = "source" if section == "cameras" else "host"
    words = _ELSEWHERE.get(key, "").format(secret=secret, user=user, place=place)
    named = re.search(r"mean (\w+)\?|name that in (\w+)", words)
    target = next((one for one in named.groups() if one), "") if named else ""
    return words if target in fields or (words and not named) else ""
