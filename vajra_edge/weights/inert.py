"""Inert: which names a checkpoint may mention, and the empty classes that stand in for them.

A pickled checkpoint names the classes it wants made and the functions it wants called. A name passes only if it is
listed here. Names of VajraV1's own classes, of torch's layers and of a few value types become classes that keep their
state and do nothing; the remaining ones are torch's own tensor and storage names, whose arguments ``pickle_values``
holds to their meaning.
"""

from __future__ import annotations

import re
from typing import Any

STORAGE_ITEM_BYTES = {
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
}
DTYPES = frozenset(
    f"torch.{name}"
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
)
_INERT = re.compile(
    r"vajra(\.\w+)+|torch\.nn\.modules\.\w+\.\w+|numpy\.(_core|core)\.multiarray\.scalar|numpy\.dtype"
    r"|pathlib\.(Pure)?(Posix|Windows)?Path|types\.SimpleNamespace|argparse\.Namespace"
)
_FOREIGN = re.compile(
    r"(ultralytics|models|yolov\d+\w*|yolox|utils|mmdet|mmengine|mmcv|nets|damo|super_gradients|transformers|timm|torchvision|rfdetr"
    r"|detectron2)(\.\w+)+"
)


def is_inert(name: str) -> bool:
    """Whether the name stands for a class that VajraV1 checkpoints contain and that is made as an empty one here."""
    return _INERT.fullmatch(name) is not None


def is_foreign(name: str) -> bool:
    """Whether the name is a class of another detection library: no attack, but no VajraV1 either."""
    return _FOREIGN.fullmatch(name) is not None


class Inert:
    """Stands in for a pickled object: swallows its constructor's arguments and keeps its state unread.

    Attributes:
        pickled_name: the class name in the file.
        state: what the pickle hands to the object, usually a dict of its attributes.
    """

    pickled_name = ""
    state: Any = None

    def __new__(cls, *_: object) -> Inert:  # noqa: PYI034  Self is newer than Python 3.10, and we need torch alone
        """Accept whatever arguments the file gives."""
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


def stand_in(name: str) -> type[Inert]:
    """An empty class of its own for one pickled name."""
    return type("Inert", (Inert,), {"pickled_name": name})
