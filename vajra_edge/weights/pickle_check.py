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
import warnings
from collections.abc import Mapping
from pathlib import Path

from vajra_edge.errors import UnsafeWeights, WeightsError
from vajra_edge.weights.inert import DTYPES, STORAGE_ITEM_BYTES, is_foreign, is_inert
from vajra_edge.weights.pickle_machine import Machine
from vajra_edge.weights.pickle_values import CALLS, Refused

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
    except Refused as refusal:
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
