"""Checkpoint: a VajraV1 ``.pt`` file opened without running anything in it, and which network is in it.

File names are never asked. Upstream's state_dict keys begin with ``model.0.`` (body) and ``model.1.`` (head); the
head's branches tell the task, the first convolution's width and two marker keys tell the size.

The order is: SHA-256, container (``archive``), pickle program (``unpickler``), and only then
``torch.load(weights_only=True)`` with inert classes for the names that passed. A refusal is final: nothing is tried
again with fewer checks. torch itself must be 2.10 or later, since older restricted unpicklers can be made to run code
(CVE-2025-32434) or to write beyond memory (CVE-2026-24747).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from vajra_edge.errors import UnsafeWeights, WeightsError
from vajra_edge.weights import archive, interpreter, unpickler
from vajra_edge.weights.unpickler import Inert, stand_in
from vajra_edge.wording import Setting, say

STEM = "model.0.stem1.conv.weight"
_CLASSES = "model.1.branch_cls.0.2.weight"
_TASKS = {  # a head's own branch -> the task in upstream's words; a detection head has none of them
    "model.1.branch_seg.": "segment",
    "model.1.proto.": "segment",
    "model.1.branch_pose_detect.": "pose",
    "model.1.oriented_branch.": "obb",
}
_SIZES = {16: "nano", 32: "small", 64: "medium"}


@dataclass(frozen=True)
class Identity:
    """One of the five VajraV1 detection networks.

    Attributes:
        size: nano, small, medium, large or xlarge.
        class_count: number of classes its head scores.
    """

    size: str
    class_count: int


def of(shapes: Mapping[str, tuple[int, ...]], where: object, task: str | None = None) -> Identity:
    """Recognise a network.

    Args:
        shapes: state_dict key -> shape, keys as upstream writes them.
        where: the file, named in errors.
        task: what the checkpoint says of itself, if it does.

    Raises:
        WeightsError: the task is not detection, or it is none of the five networks.
    """
    found = next((name for prefix, name in _TASKS.items() if _any_starts(shapes, prefix)), task)
    if found is None and _any_starts(shapes, "model.1.") and not _any_starts(shapes, "model.1.branch_"):
        found = "classify"
    if found not in {None, "detect"}:
        raise WeightsError(
            f"weights {where} are for the task {found!r}; vajra-edge supports detection weights only",
            remedy="give VajraV1 detection weights (nano, small, medium, large or xlarge)",
            path=where,
            task=found,
        )
    size = _size(shapes)
    if size is None or len(shapes.get(_CLASSES, ())) != 4:  # noqa: PLR2004  a convolution's kernel
        raise WeightsError(
            f"weights {where} are not a VajraV1 detection network: {len(shapes)} tensors, none of the five sizes",
            remedy="export them to ONNX with the library they come from and give the .onnx file",
            path=where,
        )
    return Identity(size=size, class_count=shapes[_CLASSES][0])


def _size(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    width = (shapes.get(STEM) or (0,))[0]
    if width != 64:  # noqa: PLR2004  medium, large and xlarge share their stem
        return _SIZES.get(width)
    if _any_starts(shapes, "model.0.cblinear1."):
        return "xlarge"
    return "large" if _any_starts(shapes, "model.0.sppf_attn.attn.1.") else "medium"


def _any_starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


_MAX_DEPTH = 24  # module nesting; VajraV1 has 10
_MAX_MODULES = 50_000
_MAX_NAME_CHARACTERS = 100
_LOAD_ERRORS = (
    *(
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        AssertionError,
        EOFError,
        OverflowError,
    ),
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file says.

    Attributes:
        tensors: upstream's state_dict keys -> torch tensors in the file's own dtype (often float16), on the CPU.
        class_names: one name a class, in the order of class ids; ``class0``, ``class1`` ... where the file has none.
        stride: largest stride in pixels.
        task: always ``detect``.
        size: nano, small, medium, large or xlarge, told from shapes.
        sha256: digest of the file, lower-case hexadecimal.
        resolution_hw: height and width the weights were trained for, in pixels, if the file says.
    """

    tensors: Mapping[str, Any]
    class_names: tuple[str, ...]
    stride: int
    task: str
    size: str
    sha256: str
    resolution_hw: tuple[int, int] | None = None


def load(path: Path, expected_sha256: str | None = None) -> Checkpoint:
    """Open stripped or unstripped checkpoints of upstream, and bare state_dicts.

    Args:
        path: the ``.pt`` file.
        expected_sha256: if given, a file with another digest is refused before it is looked at.

    Raises:
        UnsafeWeights: the file asks for code or memory, or is not the one expected.
        WeightsError: it is damaged, foreign, of another task, or torch is absent or too old.
    """
    torch = _torch()
    with archive.opened(path) as file:
        _check_digest(file, path, expected_sha256)
        sound = archive.check(file, path)
        inert_names = unpickler.check(sound.pickle, sound.storage_bytes, path)
        content = _load(torch, file, inert_names, path)
    root = _Root.of(content, path)
    tensors = {name: value for name, value in root.tensors(path) if isinstance(value, torch.Tensor)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = of(shapes, path, root.text("task"))
    return Checkpoint(
        tensors=MappingProxyType(tensors),
        class_names=_class_names(root.attributes.get("names"), found.class_count),
        stride=32,
        task="detect",
        size=found.size,
        sha256=sound.sha256,
        resolution_hw=_resolution_hw(content),
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"a .pt file needs torch >= 2.10, which this Python lacks ({error})", remedy=interpreter.REMEDY
        ) from error
    if (reason := interpreter.too_old(str(torch.__version__))) is not None:
        raise WeightsError(reason, remedy=interpreter.REMEDY, version=str(torch.__version__))
    return torch


def _check_digest(file: BinaryIO, path: Path, expected: str | None) -> None:
    if expected is not None and (found := archive.digest(file)) != expected.lower():
        raise UnsafeWeights(
            f"weights {path} have the SHA-256 {found}, not {expected.lower()}",
            remedy=say("put the expected file back, or correct ", Setting.WEIGHTS_SHA256),
            path=path,
            sha256=found,
        )


def _load(torch: Any, file: BinaryIO, inert_names: frozenset[str], path: Path) -> Any:
    file.seek(0)
    try:
        with torch.serialization.safe_globals([(stand_in(name), name) for name in sorted(inert_names)]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(f"weights {path} are refused by torch: {reason}", path=path) from error


@dataclass(frozen=True)
class _Root:
    """The object that holds the network: an inert module, or a plain state_dict."""

    module: Inert | None
    state_dict: Mapping[Any, Any]

    @classmethod
    def of(cls, content: Any, path: Path) -> _Root:
        """Upstream's dictionary (its EMA first, as upstream itself prefers), a pickled module, or a state_dict."""
        for key in ("ema", "model", "state_dict", "model_state_dict", None):
            part = content if key is None else content.get(key) if isinstance(content, Mapping) else None
            if isinstance(part, Inert) and isinstance(part.state, Mapping):
                return cls(part, {})
            if isinstance(part, Mapping) and any(str(name).endswith("0.stem1.conv.weight") for name in part):
                return cls(None, part)
        raise WeightsError(
            f"weights {path} hold no network: {type(content).__name__} without the key model, ema or state_dict",
            remedy="give upstream's checkpoint or a state_dict",
            path=path,
        )

    @property
    def attributes(self) -> Mapping[Any, Any]:
        return self.module.state if self.module is not None else {}

    def text(self, name: str) -> str | None:
        value = self.attributes.get(name)
        return value[:_MAX_NAME_CHARACTERS] if isinstance(value, str) else None

    def tensors(self, path: Path) -> Iterator[tuple[str, Any]]:
        """State_dict keys with upstream's prefix ``model.0.`` / ``model.1.``, whatever wrapped the network."""
        pairs = list(_walk(self.module, path)) if self.module is not None else list(self.state_dict.items())
        stem = next((str(name) for name, _ in pairs if str(name).endswith("0.stem1.conv.weight")), "")
        wrapped = stem.removesuffix("0.stem1.conv.weight")
        for name, value in pairs:
            text = str(name)
            yield (f"model.{text[len(wrapped) :]}" if stem and text.startswith(wrapped) else text), value


def _walk(root: Inert, path: Path) -> Iterator[tuple[str, Any]]:
    """Parameters and persistent buffers below a module, as torch's own ``state_dict`` orders and names them."""
    visited = 0
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        prefix, module, depth = waiting.pop()
        visited += 1
        if depth > _MAX_DEPTH or visited > _MAX_MODULES:
            raise UnsafeWeights(f"weights {path} nest modules without end", path=path)
        state = module.state if isinstance(module, Inert) and isinstance(module.state, Mapping) else {}
        passing = state.get("_non_persistent_buffers_set")
        for table in ("_parameters", "_buffers"):
            for name, value in _items(state.get(table)):
                if table == "_parameters" or not (isinstance(passing, set) and name in passing):
                    yield f"{prefix}{name}", value
        children = [(f"{prefix}{name}.", child, depth + 1) for name, child in _items(state.get("_modules"))]
        waiting.extend(reversed(children))


def _items(table: Any) -> list[tuple[Any, Any]]:
    return list(table.items()) if isinstance(table, Mapping) else []


def _class_names(names: Any, count: int) -> tuple[str, ...]:
    """One printable name a class; a missing one is ``class<id>``."""
    table = dict(enumerate(names)) if isinstance(names, list | tuple) else names if isinstance(names, Mapping) else {}
    found = (table.get(index) for index in range(count))
    return tuple(
        "".join(filter(str.isprintable, name))[:_MAX_NAME_CHARACTERS] if isinstance(name, str) else f"class{index}"
        for index, name in enumerate(found)
    )


def _resolution_hw(content: Any) -> tuple[int, int] | None:
    arguments = content.get("train_args") if isinstance(content, Mapping) else None
    side = arguments.get("img_size") if isinstance(arguments, Mapping) else None
    sides = (side, side) if type(side) is int else tuple(side) if isinstance(side, list | tuple) else ()
    height, width = sides if len(sides) == 2 else (0, 0)  # noqa: PLR2004  height and width
    if type(height) is not int or type(width) is not int or not (32 <= height <= 8192 and 32 <= width <= 8192):  # noqa: PLR2004  settings' own range
        return None
    return height, width
