"""DataYaml: which pictures and class names a data.yaml names, as upstream's and Roboflow's users write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.datasets import labels
from vajra_edge.errors import DatasetError

MAX_YAML_BYTES = 1 << 20


@dataclass(frozen=True)
class DataYaml:
    """One split of a data.yaml.

    Attributes:
        root: what its paths are relative to: its ``path``, which is relative to the file.
        places: folders, lists, videos, images or COCO files, in order.
        class_names: in the order of class ids; None if the file has none.
    """

    root: Path
    places: tuple[Path, ...]
    class_names: tuple[str, ...] | None


def read(source: Path, split: str) -> DataYaml:
    """Read the file; whether its places exist is not looked at.

    Args:
        source: the file.
        split: train, val or test.

    Raises:
        DatasetError: it cannot be read or is no data.yaml; says file, key and line.
        OSError: the system refuses a path that it names.
    """
    content = _content(source)
    if split == "val" and "val" not in content and "validation" in content:
        split = "validation"
    if not content.get(split):
        raise DatasetError(f"{source}: no {split!r}", remedy=f"add '{split}: images/{split}'", split=split)
    places = content[split] if isinstance(content[split], list) else [content[split]]
    if not all(isinstance(place, str) for place in places):
        raise DatasetError(f"{source}: {split!r} is {content[split]!r}", remedy="give a path, or a list of paths")
    root = source.parent / str(content.get("path") or "")
    return DataYaml(root, tuple(_place(root, place) for place in places), _class_names(source, content))


def _content(source: Path) -> Mapping[str, Any]:
    import yaml

    text = labels.read_text(source, MAX_YAML_BYTES)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise DatasetError(f"{source}{line}: {getattr(error, 'problem', None) or error}", remedy="mend it") from error
    except (RecursionError, ValueError) as error:
        raise DatasetError(f"{source}: not a data.yaml: {error}", remedy="it needs val and names") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{source}: not a data.yaml", remedy="it needs val and names")
    return content


def _class_names(source: Path, content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names in the order of class ids; None if the file has none."""
    names, count = content.get("names"), content.get("nc")
    if names is None:
        return None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DatasetError(f"{source}: class ids in 'names' are not 0, 1, 2, ...", remedy="number them from 0")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{source}: 'names' is neither a list nor a mapping", remedy="write 'names: [person, car]'")
    if count is not None and count != len(names):
        raise DatasetError(f"{source}: nc is {count} but there are {len(names)} names", remedy="make them agree")
    return tuple(str(name) for name in names)


def _place(root: Path, place: str) -> Path:
    """A path of a data.yaml. Roboflow writes ``../valid/images`` for ``valid/images``; upstream mends that too."""
    path = root / place
    if not path.exists() and place.startswith("../") and (root / place[3:]).exists():
        return root / place[3:]
    return path
