"""Pickle check: runs a checkpoint's pickle program over descriptions instead of objects, before torch runs it for real.

torch's restricted unpickler keeps foreign code out, but not foreign sizes: a two-byte storage may be viewed as a
terabyte tensor (the view grows the storage), ``bytearray`` takes any length, a tuple nested a million deep crashes the
interpreter when it becomes a dictionary key. Here the same opcodes work on plain values and on descriptions of
tensors, and each call is held to the arguments that ``torch.save`` writes. What passes costs no more memory than the
file has bytes.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Mapping
from pathlib import Path

from vajra_edge.errors import UnsafeWeights, WeightsError
from vajra_edge.weights.inert import DTYPES, STORAGE_ITEM_BYTES, is_foreign, is_inert
from vajra_edge.weights.pickle_machine import Machine
from vajra_edge.weights.pickle_values import CALLS, Refused

MAX_OPCODES = 4_000_000  # nano: 88,000; xlarge with EMA and optimizer state: under a million
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
    names = _names(pickle, path)
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
    try:
        Machine(storage_bytes).run(pickle)
    except Refused as refusal:
        raise UnsafeWeights(f"weights {path}: {refusal}; nothing of it was run", path=path) from refusal
    except _MALFORMED as error:
        raise _malformed(path, error) from error
    return frozenset(filter(is_inert, names))


def _is_known(name: str) -> bool:
    return name in CALLS or name in DTYPES or name in STORAGE_ITEM_BYTES or is_inert(name)


def _malformed(path: Path, error: Exception) -> UnsafeWeights:
    return UnsafeWeights(f"weights {path}: data.pkl is not a well-formed pickle ({type(error).__name__})", path=path)


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown  # noqa: PLR2004  three names make the point


def _names(pickle: bytes, path: Path) -> frozenset[str]:
    """Every name in the program; one that hides from a plain reading is refused."""
    names = set()
    try:
        for count, (opcode, operand, _) in enumerate(pickletools.genops(pickle)):
            if opcode.name == "GLOBAL":
                spaced = str(operand)
                if not re.fullmatch(r"[\w.]+ [\w.]+", spaced):
                    raise UnsafeWeights(f"weights {path} ask for the odd name {spaced[:80]!r}", path=path)
                names.add(spaced.replace(" ", "."))
            elif opcode.name in {"INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}:
                raise UnsafeWeights(
                    f"weights {path} name a class by opcode {opcode.name}, which torch.save never writes", path=path
                )
            if count > MAX_OPCODES:
                raise UnsafeWeights(f"weights {path}: data.pkl has over {MAX_OPCODES} opcodes", path=path)
    except _MALFORMED as error:
        raise _malformed(path, error) from error
    return frozenset(names)
