"""Identity: which network a table of tensor names and shapes belongs to; file names are never asked.

Upstream's state_dict keys begin with ``model.0.`` (body) and ``model.1.`` (head); the head's branches tell the task,
the first convolution's width and two marker keys tell the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vajra_edge.errors import WeightsError

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
