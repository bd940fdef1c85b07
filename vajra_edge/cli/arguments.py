"""Arguments: ``key=value`` beside ordinary options, as upstream's users type them, for the verbs that know them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typer.core import TyperCommand

from vajra_edge.errors import UsageError, told_to
from vajra_edge.wording import Argument, Audience, say

_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_NOTHING = frozenset({"none", "null"})
_WORD = re.compile(r"(?:--)?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
_HELP = frozenset({"--help", "-h"})


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    Attributes:
        on: what sets it, like ``--half``.
        off: what unsets it, like ``--no-half``; empty for an option with a value.
        flag: it takes no value.
    """

    on: str
    off: str = ""
    flag: bool = False


class WordsCommand(TyperCommand):
    """A command whose arguments may be words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Bring words into the form of options, then parse.

        Raises:
            UsageError: a key is not known, or a flag has a value that is neither true nor false.
        """
        options = {}
        for param in self.params:
            flag = bool(getattr(param, "is_flag", False))
            for text in param.opts:
                options[_key(text)] = Option(param.opts[0], next(iter(param.secondary_opts), ""), flag)
        return list(super().parse_args(ctx, plain(args, options)))

    def invoke(self, ctx: Any) -> Any:
        """Run it; its errors name the arguments as they are typed here."""
        with told_to(Audience.COMMAND_LINE):
            return super().invoke(ctx)


def plain(arguments: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """Words and options as options alone.

    ``half=True``, ``--half True`` and ``--half`` are one; ``None`` leaves the default; a hyphen is an underscore.

    Args:
        arguments: as typed.
        options: by key, like ``img_size``.

    Raises:
        UsageError: see ``WordsCommand``.
    """
    made: list[str] = []
    left = list(arguments)
    while left:
        typed = left.pop(0)
        match = _WORD.fullmatch(typed)
        if typed in _HELP:
            made.append("--help")
            continue
        if match is None or not (typed.startswith("--") or "=" in typed):
            raise UsageError(
                f"{typed!r} is neither key=value nor --key value", remedy=f"known are {', '.join(sorted(options))}"
            )
        key, value = _key(match[1]), match[2]
        option = options.get(key)
        if option is None and typed.startswith("--no-") and (off := options.get(_key(typed[5:]))) and off.off:
            made.append(off.off)
            continue
        if option is None:
            raise _unknown(key, options)
        if value is None and _has_value(option, left):
            value = left.pop(0)
        made += _as_option(key, option, value)
    return made


def sides(text: str, argument: Argument = Argument.IMG_SIZE) -> int | tuple[int, int]:
    """``640``, or ``320,256`` as height and width, given for ``argument``.

    Raises:
        UsageError: neither.
    """
    parts = items(text)
    if len(parts) not in {1, 2} or not all(part.isdigit() for part in parts):
        remedy = say("write ", argument.of(640), ", or ", argument.of((320, 256)), " (height,width)")
        raise UsageError(say(argument.of(text), " is not a size"), remedy=remedy)
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def items(text: str) -> list[str]:
    """A list as typed: ``0,2``, ``[0, 2]``, ``person,car``."""
    return [part.strip().strip("'\"") for part in text.strip("[]() ").split(",") if part.strip()]


def _key(text: str) -> str:
    return text.lstrip("-").replace("-", "_").lower()


def _has_value(option: Option, left: Sequence[str]) -> bool:
    if not left:
        return False
    return left[0].lower() in _TRUE | _FALSE if option.flag else not left[0].startswith("--")


def _as_option(key: str, option: Option, value: str | None) -> list[str]:
    if value is None:
        return [option.on]  # a flag; of another, the parser says that it needs a value
    if value.lower() in _NOTHING:
        return []
    if not option.flag:
        return [f"{option.on}={value}"]
    if value.lower() in _TRUE:
        return [option.on]
    if value.lower() in _FALSE:
        return [option.off] if option.off else []
    raise UsageError(f"{key}={value} is neither true nor false", remedy=f"write {key}=True or {key}=False")


def _unknown(key: str, options: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(key, list(options), n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(options))}"
    return UsageError(f"{key} is not an argument of this command", remedy=remedy)
