"""Class names: what a user gives as ``names``, for a network that brings none or others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vajra_edge.datasets import data_yaml
from vajra_edge.errors import ArgumentError, VajraError
from vajra_edge.graph.metadata import MAX_CLASSES, MAX_NAME_LENGTH
from vajra_edge.tasks.kinds import shown
from vajra_edge.wording import Argument, say

Names: TypeAlias = "Sequence[str] | Mapping[int, str] | str | Path | None"
"""One name a class in the order of ids, a mapping from id to name, or a data.yaml or text file that has them."""

_REMEDY = "give a list with one name a class, or a data.yaml that has them"
_YAML, _TEXT = frozenset({".yaml", ".yml"}), frozenset({".txt", ".names"})
_MAX_BYTES = MAX_CLASSES * MAX_NAME_LENGTH


def names_of(given: Names) -> tuple[str, ...] | None:
    """Names in the order of class ids; None: what the file has.

    Args:
        given: a list, a mapping, a file, or one text with commas, as on the command line: ``person,car``.

    Raises:
        ArgumentError: of another kind.
        VajraError: an empty name, ids that are not 0, 1, 2 ..., or a file without names.
        DatasetError: the data.yaml cannot be used.
    """
    if given is None:
        return None
    names = _of_text(given) if isinstance(given, (str, Path)) else _of_values(given)
    texts = tuple(str(name).strip() for name in names)
    if not texts or not all(texts) or len(texts) > MAX_CLASSES or max(map(len, texts)) > MAX_NAME_LENGTH:
        raise VajraError(say(Argument.NAMES, f" {shown(given)} has an empty name, or none"), remedy=_REMEDY)
    return texts


def _of_values(given: Any) -> list[Any]:
    if isinstance(given, Mapping):
        by_id = {str(key): name for key, name in given.items()}
        if set(by_id) != {str(index) for index in range(len(by_id))}:
            raise VajraError(say(Argument.NAMES, f" {shown(given)} has ids other than 0, 1, 2 ..."), remedy=_REMEDY)
        given = [by_id[str(index)] for index in range(len(by_id))]
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, (list, tuple)) or not all(_is_name(name) for name in given):
        raise ArgumentError(say(Argument.NAMES, f" {shown(given)} is no list of names"), remedy=_REMEDY)
    return list(given)


def _is_name(value: object) -> bool:
    return isinstance(value, (str, int, np.integer)) and not isinstance(value, (bool, np.bool_))


def _of_text(given: str | Path) -> list[str]:
    suffix = Path(given).suffix.lower()
    if suffix in _YAML:
        found = data_yaml.read(Path(given).expanduser(), "val").class_names
        if found is None:
            raise VajraError(say(Argument.NAMES, f" {given}: there is no 'names' in it"), remedy=_REMEDY)
        return list(found)
    if suffix in _TEXT:
        return [line for line in _read(Path(given).expanduser()).splitlines() if line.strip()]
    return [part.strip().strip("'\"") for part in str(given).strip("[]() ").split(",")]


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise VajraError(say(Argument.NAMES, f" {path} cannot be read: {reason}"), remedy=_REMEDY) from error
