"""Stand-ins for TensorRT, made from listings of its real Python surface.

``trt_listings.json`` holds, for each release, the classes that this package uses: enum members, attributes and
signatures as the real bindings' docstrings give them (10.3.0, 10.13.3, 10.16.1, 11.4.0, TensorRT-RTX 1.7.1). A
stand-in knows these names and no others, takes calls that fit a signature and no others, and answers with what the
signature says.
``trt_simulation`` puts behaviour behind a few of its methods.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

LISTINGS: Mapping[str, Mapping[str, Any]] = json.loads(Path(__file__).with_name("trt_listings.json").read_text())

PLAIN: Mapping[str, Any] = {
    "int": int,
    "typing.SupportsInt": int,
    "float": (int, float),
    "typing.SupportsFloat": (int, float),
    "str": str,
    "bool": bool,
    "buffer": (bytes, bytearray, memoryview),
}


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: str
    required: bool

    def takes(self, value: object, classes: Mapping[str, type]) -> bool:
        if value is None:
            return not self.required
        if self.kind in {"Dims", "tuple", "list"}:
            return isinstance(value, (tuple, list)) and all(isinstance(side, int) for side in value)
        kind = "buffer" if "buffer" in self.kind.lower() else self.kind.rpartition("::")[2]
        known = PLAIN.get(kind) or classes.get(kind)
        return known is None or isinstance(value, known)


@dataclass(frozen=True)
class Signature:
    parameters: tuple[Parameter, ...]
    returns: str

    def accepts(self, args: tuple[object, ...], kwargs: Mapping[str, object], classes: Mapping[str, type]) -> bool:
        if len(args) > len(self.parameters) or not set(kwargs) <= {p.name for p in self.parameters[len(args) :]}:
            return False
        given = dict(zip((p.name for p in self.parameters), args, strict=False)) | dict(kwargs)
        if any(p.required and p.name not in given for p in self.parameters):
            return False
        return all(p.takes(given[p.name], classes) for p in self.parameters if p.name in given)


def signature(text: str) -> Signature:
    """``set_flag(self: IBuilderConfig, flag: BuilderFlag) -> None`` and the like."""
    inside, _, returns = text.partition("(")[2].rpartition(") -> ")
    parts = re.split(r",\s*(?![^\[(<]*[\])>])", inside)
    parameters = []
    for part in (part for part in parts if part and not part.startswith("self")):
        name, _, rest = part.partition(":")
        kind, _, default = rest.partition("=")
        parameters.append(Parameter(name.strip(), kind.strip(), not default))
    return Signature(tuple(parameters), returns.strip())


class StandIn:
    """An object of a listed class. What the simulation needs to remember has a name that begins with ``_sim``."""

    _listed: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._listed and not name.startswith("_sim"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name} to set")
        object.__setattr__(self, name, value)


def _method(name: str, signatures: list[Signature], classes: dict[str, type], act: Callable[..., Any] | None) -> Any:
    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        fitting = [entry for entry in signatures if entry.accepts(args, kwargs, classes)]
        if not fitting:
            raise TypeError(f"{type(self).__name__}.{name} does not take {args} {kwargs}")
        if act is not None:
            return act(self, *args, **kwargs)
        return _default(fitting[0].returns, classes)

    return call


def _default(returns: str, classes: Mapping[str, type]) -> object:
    simple = {"bool": True, "int": 0, "str": "", "list": [], "None": None}
    if returns in simple:
        return simple[returns]
    known = classes.get(returns.rpartition("::")[2])
    return None if known is None else object.__new__(known)


def standin(version: str, behaviour: Mapping[str, Callable[..., Any]] | None = None) -> ModuleType:
    """A module like ``tensorrt`` of this release.

    Args:
        version: a key of ``LISTINGS``.
        behaviour: ``Class.method`` -> function of (self, ...), or ``Class.property`` -> function of (self).
    """
    module = ModuleType("tensorrt")
    classes: dict[str, type] = {}
    for name, entry in LISTINGS[version].items():
        made = (
            _enum(name, entry["members"]) if entry["kind"] == "enum" else _class(name, entry, classes, behaviour or {})
        )
        classes[name] = made
        setattr(module, name, made)
    module.__dict__["__version__"] = version.removeprefix("rtx-")
    return module


def _enum(name: str, members: list[str]) -> type:
    made = enum.Enum(name, {member: index for index, member in enumerate(members)})
    made.__int__ = lambda self: self.value  # type: ignore[attr-defined]
    return made


def _class(
    name: str, entry: Mapping[str, Any], classes: dict[str, type], behaviour: Mapping[str, Callable[..., Any]]
) -> type:
    body: dict[str, Any] = {"_listed": frozenset(entry["members"])}
    for member, texts in entry["members"].items():
        act = behaviour.get(f"{name}.{member}")
        if texts:
            body[member] = _method(member, [signature(text) for text in texts], classes, act)
        elif act is not None:
            body[member] = property(act)
        elif member != "__init__":
            body[member] = None
    if "Severity" in entry["members"]:
        severity = _enum("Severity", sorted(member for member in entry["members"] if member.isupper()))
        body |= {"Severity": severity, **{member.name: member for member in severity}}  # type: ignore[attr-defined]
    layer = name != "ILayer" and name.endswith("Layer") and "ILayer" in classes
    return type(name, (classes["ILayer"] if layer else StandIn,), body)
