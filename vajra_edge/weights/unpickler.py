"""Unpickler: runs a checkpoint's pickle program over descriptions instead of objects, before torch runs it for real.

A pickled checkpoint names the classes it wants made and the functions it wants called. A name passes only if it is
listed here. Names of VajraV1's own classes, of torch's layers and of a few value types become classes that keep their
state and do nothing; the remaining ones are torch's own tensor and storage names, whose arguments are held to
their meaning. Nothing is imported, made or called.

torch's restricted unpickler keeps foreign code out, but not foreign sizes: a two-byte storage may be viewed as a
terabyte tensor (the view grows the storage), ``bytearray`` takes any length, a tuple nested a million deep crashes the
interpreter when it becomes a dictionary key. Here the same opcodes work on plain values and on descriptions of
tensors, and each call is held to the arguments that ``torch.save`` writes. What passes costs no more memory than the
file has bytes.
"""

from __future__ import annotations

import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar

from vajra_edge.errors import UnsafeWeights, WeightsError

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


_MAX_DIMENSIONS = 8
_MAX_ENCODED_CHARACTERS = 64  # a numpy scalar's bytes; torch would hand longer text to any codec, some quadratic
_DEVICE = re.compile(r"[a-z]{2,12}(:\d{1,3})?")


class PickleRefused(Exception):
    """The pickle asks for what no checkpoint needs."""


@dataclass(frozen=True)
class Name:
    """A class or function, by its dotted name."""

    full: str


@dataclass(frozen=True)
class Storage:
    """A tensor's memory, whose size its record confirms."""

    elements: int


class Tensor:
    """A tensor that fits its storage."""


class Made:
    """An inert object, or a value type whose arguments were checked."""


class Ordered(dict[Any, Any]):
    """An OrderedDict."""


def check_keys(keys: list[Any]) -> None:
    """Keys must hash in constant time and without recursion.

    Raises:
        Refused: one is no plain value.
    """
    if any(key is not None and type(key) not in {str, int, float, bool} for key in keys):
        raise PickleRefused("a dictionary or set has a key that is no plain value")


def check_device(name: object) -> None:
    """A device is ``cpu``, ``cuda:0`` and the like.

    Raises:
        Refused: it is not.
    """
    if type(name) is not str or not _DEVICE.fullmatch(name):
        raise PickleRefused("a tensor lies on no known device")


def _set(arguments: tuple[Any, ...]) -> Made:
    (items,) = arguments or ([],)
    if type(items) is not list:
        raise PickleRefused("a set is not made of a list")
    check_keys(items)
    return Made()


def _ordered(arguments: tuple[Any, ...]) -> Ordered:
    if arguments not in ((), ([],)):
        raise PickleRefused("an OrderedDict is not made empty")
    return Ordered()


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, size, stride, requires_grad, hooks = arguments
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise PickleRefused(f"a tensor has {len(size)} dimensions and {len(stride)} strides")
    if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise PickleRefused("a tensor's shape is not made of whole numbers")
    if type(storage) is not Storage or type(requires_grad) is not bool or type(hooks) is not Ordered:
        raise PickleRefused("a tensor is not described as torch does")
    span = 1 + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) if all(size) else 0
    if prod(size) > storage.elements or offset + span > storage.elements:
        raise PickleRefused(f"a tensor of shape {list(size)} does not fit its {storage.elements} elements")
    return Tensor()


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    tensor, requires_grad, hooks = arguments
    if type(tensor) is not Tensor or type(requires_grad) is not bool or type(hooks) is not Ordered:
        raise PickleRefused("a parameter is not described as torch does")
    return tensor


def _shape(arguments: tuple[Any, ...]) -> Made:
    (sides,) = arguments
    if type(sides) not in {tuple, list} or any(type(side) is not int for side in sides):
        raise PickleRefused("a shape is not made of whole numbers")
    return Made()


def _device(arguments: tuple[Any, ...]) -> Made:
    name, *index = arguments
    check_device(name)
    if [type(number) for number in index] not in ([], [int]):
        raise PickleRefused("a device has no whole number")
    return Made()


def _encoded(arguments: tuple[Any, ...]) -> Made:
    text, codec = arguments
    if type(text) is not str or len(text) > _MAX_ENCODED_CHARACTERS or type(codec) is not str or codec != "latin1":
        raise PickleRefused("it encodes text as no numpy scalar does")
    return Made()


CALLS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    "__builtin__.set": _set,
    "builtins.set": _set,
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _shape,
    "torch.device": _device,
    "_codecs.encode": _encoded,
}

_PROTOCOL = 2  # torch.save's own; torch's restricted unpickler knows no opcode of a later one
_OPERANDS: Mapping[str, Any] = {
    "NONE": None,
    "NEWFALSE": False,
    "NEWTRUE": True,
    "TUPLE1": 1,
    "TUPLE2": 2,
    "TUPLE3": 3,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


class Machine:
    """The stack machine.

    Args:
        storage_bytes: size of each storage record, by key.
    """

    def __init__(self, storage_bytes: Mapping[str, int]) -> None:
        self._storage_bytes = storage_bytes
        self._storages: dict[str, tuple[str, Storage]] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> None:
        """Run the whole program.

        Args:
            pickle: a program whose names and opcodes were checked; ``STEPS`` lists those that are known.

        Raises:
            Refused: a call, key or tensor is none that ``torch.save`` writes.
            ValueError, IndexError, KeyError, TypeError: it is not well formed.
        """
        for opcode, argument, _ in pickletools.genops(pickle):
            self.STEPS[opcode.name](self, _OPERANDS.get(opcode.name, argument))

    def _start(self, protocol: int) -> None:
        if protocol != _PROTOCOL or self._stack or self._memo:
            raise PickleRefused(f"data.pkl has pickle protocol {protocol} where {_PROTOCOL} is expected at its start")

    def _stop(self, _: None) -> None:
        if len(self._stack) != 1 or self._below:
            raise PickleRefused("data.pkl ends in the middle")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _fresh(self, kind: type) -> None:
        self._stack.append(kind())

    def _get(self, slot: int) -> None:
        self._stack.append(self._memo[slot])

    def _put(self, slot: int) -> None:
        self._memo[slot] = self._stack[-1]

    def _name(self, spaced: str) -> None:
        self._stack.append(Name(spaced.replace(" ", ".")))

    def _mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise IndexError
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _tuple_of_marked(self, _: None) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise PickleRefused("it appends to what is no list")
        self._stack[-1].extend(items)

    def _set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _set_items(self, _: None) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in {dict, Ordered} or len(items) % 2:
            raise PickleRefused("it sets items of what is no dictionary")
        check_keys(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def _make(self, _: None) -> None:
        arguments, made = self._stack.pop(), self._stack.pop()
        if type(made) is not Name or not is_inert(made.full) or type(arguments) is not tuple:
            raise PickleRefused("it makes an object of what is no class")
        self._stack.append(Made())

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is Made:
            return
        if type(target) is not Ordered or type(state) is not dict or any(type(key) is not str for key in state):
            raise PickleRefused("it sets the state of what is no plain object")

    def _call(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise PickleRefused("it calls what is no function")
        if is_inert(function.full):
            self._stack.append(Made())
        elif function.full in CALLS:
            self._stack.append(CALLS[function.full](arguments))
        else:
            raise PickleRefused(f"it calls {function.full}")

    def _storage(self, _: None) -> None:
        kind, typed, key, location, elements = self._stack.pop()
        full = typed.full if type(typed) is Name else ""
        texts = type(kind) is str and kind == "storage" and type(key) is str
        if not texts or full not in STORAGE_ITEM_BYTES or type(elements) is not int:
            raise PickleRefused("a tensor's storage is not described as torch does")
        check_device(location)
        if self._storage_bytes.get(key) != elements * STORAGE_ITEM_BYTES[full]:
            raise PickleRefused(f"storage {key[:20]!r} claims {elements} elements, not what its record holds")
        earlier, storage = self._storages.setdefault(key, (full, Storage(elements)))
        if earlier != full:
            raise PickleRefused(f"storage {key[:20]!r} is used as two types")
        self._stack.append(storage)

    STEPS: ClassVar[Mapping[str, Callable[[Machine, Any], None]]] = {
        "PROTO": _start,
        "STOP": _stop,
        "GLOBAL": _name,
        "BINPERSID": _storage,
        "REDUCE": _call,
        "NEWOBJ": _make,
        "BUILD": _build,
        "MARK": _mark,
        "TUPLE": _tuple_of_marked,
        "APPEND": _append,
        "APPENDS": _appends,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), _tuple),
        **dict.fromkeys(("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), _fresh),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
        **dict.fromkeys(("NONE", "NEWFALSE", "NEWTRUE", "BINUNICODE", "SHORT_BINSTRING"), _push),
        **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"), _push),
    }


MAX_OPCODES = 2_000_000  # nano: 88,000; xlarge with EMA and optimizer state: about 500,000
_NAME = re.compile(r"[\w.]+ [\w.]+")
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, OverflowError)


def check(pickle: bytes, storage_bytes: Mapping[str, int], path: Path) -> frozenset[str]:
    """Check every opcode, name, call and tensor of the program.

    Args:
        pickle: the record ``data.pkl``.
        storage_bytes: size of each storage record, by key.
        path: named in errors.

    Returns:
        The names for which torch needs inert stand-ins.

    Raises:
        UnsafeWeights: it asks for code, for memory the file does not hold, or is not a well-formed program.
        WeightsError: it belongs to another detection library.
    """
    try:
        names, odd = _survey(pickle)
    except _MALFORMED as error:
        raise _malformed(path, error) from error
    unknown = sorted(name for name in names if not _is_known(name) and not is_foreign(name))
    if unknown:
        raise UnsafeWeights(
            f"weights {path} ask for {_listed(unknown)}, which no VajraV1 checkpoint needs; nothing of it was run",
            remedy="use weights from a source you trust, or an ONNX export of them",
            path=path,
            names=tuple(unknown),
        )
    foreign = sorted(filter(is_foreign, names))
    if foreign:
        raise WeightsError(
            f"weights {path} are not VajraV1: they hold {_listed(foreign)}",
            remedy=f"export them to ONNX with their own library ({foreign[0].split('.')[0]}) and give the .onnx file",
            path=path,
            names=tuple(foreign),
        )
    if odd is not None:
        raise _refused(path, f"data.pkl holds {odd}, which torch.save does not write")
    try:
        Machine(storage_bytes).run(pickle)
    except PickleRefused as refusal:
        raise _refused(path, str(refusal)) from refusal
    except _MALFORMED as error:
        raise _malformed(path, error) from error
    return frozenset(filter(is_inert, names))


def _is_known(name: str) -> bool:
    return name in CALLS or name in DTYPES or name in STORAGE_ITEM_BYTES or is_inert(name)


def _refused(path: Path, reason: str) -> UnsafeWeights:
    return UnsafeWeights(
        f"weights {path}: {reason}; nothing of it was run",
        remedy="give the file as training wrote it, or an ONNX export",
        path=path,
    )


def _malformed(path: Path, error: Exception) -> UnsafeWeights:
    return UnsafeWeights(f"weights {path}: data.pkl is not a well-formed pickle ({type(error).__name__})", path=path)


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown  # noqa: PLR2004  three names make the point


def _survey(pickle: bytes) -> tuple[frozenset[str], str | None]:
    """Every name in the program, and the first thing in it that torch.save does not write by itself.

    Raises:
        ValueError and the like: it cannot be read as a pickle.
    """
    names, odd = set(), None
    with warnings.catch_warnings():  # of an odd escape in a text that is about to be refused
        warnings.simplefilter("ignore")
        for count, (opcode, operand, _) in enumerate(pickletools.genops(pickle)):
            if opcode.name == "GLOBAL" and _NAME.fullmatch(str(operand)):
                names.add(str(operand).replace(" ", "."))
            elif opcode.name == "GLOBAL":
                odd = odd or f"the name {str(operand)[:80]!r}"
            elif opcode.name not in Machine.STEPS:
                odd = odd or f"opcode {opcode.name}"
            if count > MAX_OPCODES:
                return frozenset(names), f"over {MAX_OPCODES} opcodes"
    return frozenset(names), odd
