"""DataYaml: which pictures and class names a data.yaml names, as upstream's and Roboflow's users write it.

Names are taken as they are written: YAML takes ``no``, ``on`` and ``1e3`` for something else.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.datasets import labels
from vajra_edge.errors import DatasetError

MAX_YAML_BYTES = 1 << 20
_ALSO = {"val": ("validation", "valid")}
"""Other names of a split."""
_NUMBER = re.compile(r"\d+(?:\.0*)?")
_NEEDS = "it needs val and names"
_POINTS, _COLUMNS = 1 << 16, (2, 3)
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataYaml:
    """One split of a data.yaml.

    Attributes:
        root: what its paths are relative to: its ``path``, which is relative to the file.
        places: folders, lists, patterns, videos, images or COCO files, in order.
        class_names: in the order of class ids; None if the file has none.
        classes: how many there are; None where neither ``names`` nor ``nc`` tells.
        keypoints: numbers that a line of labels has for keypoints, by ``kpt_shape``; None: it is not about poses.
    """

    root: Path
    places: tuple[Path, ...]
    class_names: tuple[str, ...] | None
    classes: int | None = None
    keypoints: int | None = None


@dataclass(frozen=True)
class _Names:
    """``names`` as it is written.

    Attributes:
        texts: the names, of a mapping with the keys before them.
        numbered: it is a mapping.
    """

    texts: tuple[tuple[str, str], ...]
    numbered: bool


def read(source: Path, split: str) -> DataYaml:
    """Read the file; whether its places exist is not looked at.

    Args:
        source: the file.
        split: train, val or test.

    Raises:
        DatasetError: it cannot be read or is no data.yaml; says file, key and line.
        OSError: the system refuses a path that it names.
    """
    content, written = _content(source)
    key = next((name for name in (split, *_ALSO.get(split, ())) if content.get(name)), None)
    if key is None:
        raise DatasetError(f"{source}: no {split!r}", remedy=f"add '{split}: images/{split}'", split=split)
    places = content[key] if isinstance(content[key], list) else [content[key]]
    if not all(isinstance(place, str) for place in places):
        raise DatasetError(f"{source}: {split!r} is {content[key]!r}", remedy="give a path, or a list of paths")
    if address := next((place for place in places if "://" in place), None):
        raise DatasetError(f"{source}: {address} is an address", remedy="unpack it here: nothing is downloaded")
    own = str(content.get("path") or "")
    names = _class_names(source, written)
    count = _count(source, content.get("nc"))
    if names is not None and count not in {None, len(names)}:
        raise DatasetError(f"{source}: nc is {count} but there are {len(names)} names", remedy="make them agree")
    found = tuple(_place(source, own, place) for place in places)
    return DataYaml(
        _root(source, own), found, names, count if names is None else len(names), _keypoints(content.get("kpt_shape"))
    )


def _content(source: Path) -> tuple[Mapping[str, Any], _Names | None]:
    """The file, and its names as they are written."""
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(labels.read_text(source, MAX_YAML_BYTES))
        node = loader.get_single_node()
        _refuse_twice(source, node)
        content = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise DatasetError(f"{source}{line}: {getattr(error, 'problem', None) or error}", remedy="mend it") from error
    except (AttributeError, RecursionError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{source}: not a data.yaml: {error}", remedy=_NEEDS) from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(content, dict):
        raise DatasetError(f"{source}: not a data.yaml", remedy=_NEEDS)
    return content, _written(source, node, content)


def _refuse_twice(source: Path, node: Any) -> None:
    """Of two equal keys YAML takes the last without a word."""
    import yaml

    for mapping in (node, _value(node, "names")):
        if not isinstance(mapping, yaml.MappingNode):
            continue
        seen: set[str] = set()
        for key, _ in mapping.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else ""
            if text in seen:
                where = f"{source}:{key.start_mark.line + 1}"
                raise DatasetError(f"{where}: {text!r} is there twice", remedy="keep one of the two")
            seen.add(text)


def _value(node: Any, wanted: str) -> Any:
    pairs = node.value if node is not None and node.id == "mapping" else ()
    return next((value for key, value in pairs if key.value == wanted), None)


def _written(source: Path, node: Any, content: Mapping[str, Any]) -> _Names | None:
    import yaml

    names = _value(node, "names")
    if names is None or content.get("names") is None:
        return None
    if not isinstance(names, (yaml.MappingNode, yaml.SequenceNode)):
        raise DatasetError(f"{source}: 'names' is neither a list nor a mapping", remedy="write 'names: [person, car]'")
    numbered = isinstance(names, yaml.MappingNode)
    pairs = names.value if numbered else [(None, value) for value in names.value]
    for key, value in pairs:
        if not isinstance(value, yaml.ScalarNode) or not (key is None or isinstance(key, yaml.ScalarNode)):
            where = f"{source}:{value.start_mark.line + 1}"
            raise DatasetError(f"{where}: in 'names' is what is no name", remedy="write 'names: [person, car]'")
    return _Names(tuple(("" if key is None else key.value, value.value) for key, value in pairs), numbered)


def _class_names(source: Path, written: _Names | None) -> tuple[str, ...] | None:
    """Names in the order of class ids; None if the file has none."""
    if written is None:
        return None
    if not written.texts:
        raise DatasetError(f"{source}: 'names' is neither a list nor a mapping", remedy="write 'names: [person, car]'")
    texts = [text for _, text in written.texts]
    if written.numbered:
        keys = [key.strip() for key, _ in written.texts]
        numbers = [int(float(key)) if _NUMBER.fullmatch(key) else -1 for key in keys]
        if set(numbers) != set(range(len(numbers))):
            lacking = next((number for number in range(len(numbers)) if number not in numbers), 0)
            told = f"{source}: class ids in 'names' are not 0, 1, 2, ...: {lacking} is not there"
            raise DatasetError(told, remedy="number them from 0, without gaps")
        texts = [text for _, text in sorted(zip(numbers, texts, strict=True))]
    for number, text in enumerate(texts):
        if not text.strip():
            raise DatasetError(f"{source}: class {number} has no name", remedy="write one into 'names'")
    return tuple(text.strip() for text in texts)


def _count(source: Path, count: Any) -> int | None:
    """``nc``; None where it is not there."""
    if count is None:
        return None
    if isinstance(count, bool) or not _NUMBER.fullmatch(str(count).strip()) or float(count) < 1:
        raise DatasetError(f"{source}: nc is {count!r}", remedy="write how many classes there are, or leave it out")
    return int(float(count))


def _keypoints(shape: Any) -> int | None:
    """Numbers after the box; None where ``kpt_shape`` is not there or tells nothing."""
    try:
        points, columns = (int(side) for side in (shape.strip("[]() ").split(",") if isinstance(shape, str) else shape))
    except (TypeError, ValueError):
        return None
    return points * columns if 0 < points < _POINTS and columns in _COLUMNS else None


def _root(source: Path, own: str) -> Path:
    """``path``, relative to the file; where that is not there and it is so from the working directory, from there."""
    here = Path(_slashes(own, source.parent)).expanduser()
    beside = source.parent / here
    return here.absolute() if own and not beside.is_dir() and here.is_dir() else beside


def _place(source: Path, own: str, named: str) -> Path:
    """One path of the file.

    Roboflow writes ``../valid/images`` for ``valid/images``, and the name of the folder that the file itself is in;
    upstream's users run from the folder that a path begins at. The first that is there is taken; others than the
    first two with a warning.
    """
    root = _root(source, own)
    text = _slashes(named, root)
    first = root / Path(text).expanduser()
    choices = [first]
    if text.startswith("../"):
        choices.append(root / text[3:])
    usual = len(choices)
    if Path(text).parts[:1] == (source.absolute().parent.name,):
        choices.append(source.parent.absolute().parent / text)
    choices += [source.parent / text, Path(own) / text, Path(text)]
    taken = next((path for path in choices if _is_there(path)), first)
    if taken not in choices[:usual]:
        _LOGGER.warning("%s: %s does not exist; %s is taken", source, first, taken.absolute())
        return taken.absolute()
    return taken


def _is_there(path: Path) -> bool:
    return path.exists() or (glob.has_magic(str(path)) and bool(glob.glob(str(path), recursive=True)))  # noqa: PTH207


def _slashes(text: str, root: Path) -> str:
    """With forward slashes, as no Linux path has backslashes in it unless one is there."""
    return text if "\\" not in text or (root / text).exists() else text.replace("\\", "/")
