"""Pickle values: descriptions of what a checkpoint holds, and the few calls that may make them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

_MAX_DIMENSIONS = 8
_MAX_ENCODED_CHARACTERS = 64  # a numpy scalar's bytes; torch would hand longer text to any codec, some quadratic
_DEVICE = re.compile(r"[a-z]{2,12}(:\d{1,3})?")


class Refused(Exception):
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
        raise Refused("a dictionary or set has a key that is no plain value")


def check_device(name: object) -> None:
    """A device is ``cpu``, ``cuda:0`` and the like.

    Raises:
        Refused: it is not.
    """
    if type(name) is not str or not _DEVICE.fullmatch(name):
        raise Refused("a tensor lies on no known device")


def _set(arguments: tuple[Any, ...]) -> Made:
    (items,) = arguments or ([],)
    if type(items) is not list:
        raise Refused("a set is not made of a list")
    check_keys(items)
    return Made()


def _ordered(arguments: tuple[Any, ...]) -> Ordered:
    if arguments not in ((), ([],)):
        raise Refused("an OrderedDict is not made empty")
    return Ordered()


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, size, stride, requires_grad, hooks = arguments
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise Refused(f"a tensor has {len(size)} dimensions and {len(stride)} strides")
    if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise Refused("a tensor's shape is not made of whole numbers")
    if type(storage) is not Storage or type(requires_grad) is not bool or type(hooks) is not Ordered:
        raise Refused("a tensor is not described as torch does")
    span = 1 + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) if all(size) else 0
    if prod(size) > storage.elements or offset + span > storage.elements:
        raise Refused(f"a tensor of shape {list(size)} does not fit its {storage.elements} elements")
    return Tensor()


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    tensor, requires_grad, hooks = arguments
    if type(tensor) is not Tensor or type(requires_grad) is not bool or type(hooks) is not Ordered:
        raise Refused("a parameter is not described as torch does")
    return tensor


def _shape(arguments: tuple[Any, ...]) -> Made:
    (sides,) = arguments
    if type(sides) not in {tuple, list} or any(type(side) is not int for side in sides):
        raise Refused("a shape is not made of whole numbers")
    return Made()


def _device(arguments: tuple[Any, ...]) -> Made:
    name, *index = arguments
    check_device(name)
    if [type(number) for number in index] not in ([], [int]):
        raise Refused("a device has no whole number")
    return Made()


def _encoded(arguments: tuple[Any, ...]) -> Made:
    text, codec = arguments
    if type(text) is not str or len(text) > _MAX_ENCODED_CHARACTERS or type(codec) is not str or codec != "latin1":
        raise Refused("it encodes text as no numpy scalar does")
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
