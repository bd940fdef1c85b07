"""Metadata: the words an exporter writes beside the network: class names, stride, size, task.

Exporters write them as JSON or as Python literals. Both are parsed as values, never run, and only up to a size and
depth that real metadata stays far below. Importing this loads no ONNX library.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vajra_edge.errors import GraphError
from vajra_edge.wording import Setting, say, shown

if TYPE_CHECKING:
    import onnx

MAX_TEXT_BYTES = 1 << 18
"""Names of a thousand classes take about 30 kB."""
MAX_DEPTH = 4
"""Lists in a mapping is the deepest that any known exporter writes."""
MAX_CLASSES = 10_000
MAX_NAME_LENGTH = 256
SIZES = ("img_size", "imgsz")
"""Keys of the input size, upstream's and the one that its tools know from before; the first that is there counts."""
LARGEST = ("max_img_size",)
"""Key of the largest input size of a network with open sizes."""


_NOTHING = frozenset({"", "None", "null", "{}", "[]"})
"""What an exporter writes that has no names."""
_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_NUMPY = re.compile(rf"\bnp\.(?:str_|u?int\d+|float\d+|bool_?)\(({_TEXT}|[-+.\w]+)\)|({_TEXT})")
"""How numpy 2 writes its numbers and texts: ``np.int64(0)``, ``np.str_('car')``."""


def fields_of(proto: onnx.ModelProto) -> dict[str, str]:
    """All metadata of an ONNX file, unparsed."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def put(proto: onnx.ModelProto, fields: Mapping[str, object]) -> None:
    """Write metadata as JSON (text as it is), keeping every other entry."""
    merged: dict[str, str] = {**fields_of(proto), **{key: _written(value) for key, value in fields.items()}}
    del proto.metadata_props[:]
    for key, value in merged.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def drop(proto: onnx.ModelProto, keys: Sequence[str]) -> None:
    """Remove metadata that is not true any more."""
    kept = {key: value for key, value in fields_of(proto).items() if key not in keys}
    del proto.metadata_props[:]
    put(proto, kept)


def parse(key: str, text: str) -> Any:
    """One value, from JSON or from a Python literal.

    Raises:
        GraphError: too long, too deep, or neither.
    """
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise GraphError(f"metadata {key!r} has more than {MAX_TEXT_BYTES} bytes", remedy="export the network again")
    if _bracket_depth(text) > MAX_DEPTH:
        raise GraphError(f"metadata {key!r} is nested deeper than {MAX_DEPTH}", remedy="export the network again")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(_NUMPY.sub(lambda found: found[1] or found[2], text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise GraphError(
            f"metadata {key!r} is neither JSON nor a Python literal: {text[:60]!r}", remedy="export the network again"
        ) from error


def class_names_of(fields: Mapping[str, str]) -> tuple[str, ...] | None:
    """Names in the order of class ids from ``names``: a list, or a mapping from id to name. None if absent.

    Raises:
        GraphError: not names, ids that are not 0, 1, 2 ..., or too many.
    """
    if fields.get("names", "").strip() in _NOTHING:
        return None
    remedy = say(Setting.CLASS_NAMES.given())
    value = parse("names", fields["names"])
    if isinstance(value, dict):
        by_id = {str(key): name for key, name in value.items()}
        if set(by_id) != {str(index) for index in range(len(value))}:
            raise GraphError("class ids in metadata 'names' are not 0, 1, 2, ... without gaps", remedy=remedy)
        value = [by_id[str(index)] for index in range(len(by_id))]
    if isinstance(value, (list, tuple)):  # whose names are numbers calls them so: "7"
        value = [str(name) if isinstance(name, int) and not isinstance(name, bool) else name for name in value]
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
        raise GraphError(f"metadata 'names' is not a list of names: {fields['names'][:60]!r}", remedy=remedy)
    if len(value) > MAX_CLASSES or max(map(len, value)) > MAX_NAME_LENGTH:
        raise GraphError(
            f"metadata 'names' exceeds {MAX_CLASSES} classes or {MAX_NAME_LENGTH} letters a name", remedy=remedy
        )
    return tuple(map(shown, value))


def resolution_hw_of(fields: Mapping[str, str], keys: Sequence[str] = SIZES) -> tuple[int, int] | None:
    """Height and width in pixels from the first of ``keys`` that is there, one side or [height, width]; else None.

    Raises:
        GraphError: neither one nor two positive integers.
    """
    key = next((key for key in keys if key in fields), None)
    if key is None:
        return None
    value = parse(key, fields[key])
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, (list, tuple)) or len(sides) not in {1, 2} or not all(map(_is_positive, sides)):
        raise GraphError(
            f"metadata {key!r} is not a size in pixels: {fields[key][:60]!r}", remedy=say(Setting.IMG_SIZE.given())
        )
    return int(sides[0]), int(sides[-1])


def positive_int_of(fields: Mapping[str, str], key: str) -> int | None:
    """A count such as ``stride`` or ``batch``; None if absent. Exporters write 32 as ``32.0`` too.

    Raises:
        GraphError: not a positive whole number.
    """
    if key not in fields:
        return None
    value = parse(key, fields[key])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _is_positive(value):
        raise GraphError(
            f"metadata {key!r} is not a positive whole number: {fields[key][:60]!r}", remedy="export the network again"
        )
    return int(value)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _bracket_depth(text: str) -> int:
    depth = deepest = 0
    for letter in text:
        if letter in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]}":
            depth = max(0, depth - 1)
    return deepest
