"""Pickle machine: the pickle stack over plain values and descriptions; nothing is imported, made or called."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from vajra_edge.weights.inert import STORAGE_ITEM_BYTES, is_inert
from vajra_edge.weights.pickle_values import CALLS, Made, Name, Ordered, Refused, Storage, check_device, check_keys

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
            raise Refused(f"data.pkl has pickle protocol {protocol} where {_PROTOCOL} is expected at its start")

    def _stop(self, _: None) -> None:
        if len(self._stack) != 1 or self._below:
            raise Refused("data.pkl ends in the middle")

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
            raise Refused("it appends to what is no list")
        self._stack[-1].extend(items)

    def _set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _set_items(self, _: None) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in {dict, Ordered} or len(items) % 2:
            raise Refused("it sets items of what is no dictionary")
        check_keys(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def _make(self, _: None) -> None:
        arguments, made = self._stack.pop(), self._stack.pop()
        if type(made) is not Name or not is_inert(made.full) or type(arguments) is not tuple:
            raise Refused("it makes an object of what is no class")
        self._stack.append(Made())

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is Made:
            return
        if type(target) is not Ordered or type(state) is not dict or any(type(key) is not str for key in state):
            raise Refused("it sets the state of what is no plain object")

    def _call(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise Refused("it calls what is no function")
        if is_inert(function.full):
            self._stack.append(Made())
        elif function.full in CALLS:
            self._stack.append(CALLS[function.full](arguments))
        else:
            raise Refused(f"it calls {function.full}")

    def _storage(self, _: None) -> None:
        kind, typed, key, location, elements = self._stack.pop()
        full = typed.full if type(typed) is Name else ""
        texts = type(kind) is str and kind == "storage" and type(key) is str
        if not texts or full not in STORAGE_ITEM_BYTES or type(elements) is not int:
            raise Refused("a tensor's storage is not described as torch does")
        check_device(location)
        if self._storage_bytes.get(key) != elements * STORAGE_ITEM_BYTES[full]:
            raise Refused(f"storage {key[:20]!r} claims {elements} elements, not what its record holds")
        earlier, storage = self._storages.setdefault(key, (full, Storage(elements)))
        if earlier != full:
            raise Refused(f"storage {key[:20]!r} is used as two types")
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
