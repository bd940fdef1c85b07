"""EngineFile: a plan with upstream's header: 4 bytes little-endian length, JSON metadata, then the plan.

JSON is parsed, never evaluated, and every size is checked before memory is taken. A plan without a header is accepted
too. The version of the library that built a plan stands in the plan's own header, readable without that library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge import durable
from vajra_edge.errors import PlanError
from vajra_edge.wording import say

MAGIC = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}
"""First four bytes of a plan; ``ftrt`` as trtexec's printPlanVersion reads it, ``vtrt`` seen in plans of 1.7.1."""

VERSION_AT = 24
"""Offset of major, minor, patch and build, one byte each (trtexec; seen in plans of TensorRT-RTX 1.7.1.116)."""

LENGTH_BYTES = 4
MAX_METADATA_BYTES = 1 << 20
MAX_FILE_BYTES = 4 << 30
"""The largest detection plan seen is below 300 MB."""

REBUILD = "build the engine on this device"


@dataclass(frozen=True)
class PlanHeader:
    """Who built a plan.

    Attributes:
        library: ``TensorRT`` or ``TensorRT-RTX``.
        version: (major, minor, patch, build).
    """

    library: str
    version: tuple[int, int, int, int]

    def __str__(self) -> str:
        return f"{self.library} {'.'.join(str(part) for part in self.version)}"

    def same_release(self, version: str) -> bool:
        """Whether a library of ``version``, like ``10.3.0`` or ``10.13.3.9``, is the one that built the plan."""
        parts = tuple(int(part) for part in version.split(".")[:4] if part.isdigit())
        return bool(parts) and self.version[: len(parts)] == parts


@dataclass(frozen=True)
class EngineFile:
    """A plan and what its maker wrote beside it.

    Attributes:
        metadata: ``names``, ``stride``, ``task``, ``img_size``, ``batch`` ...; empty for a plan without a header.
        plan: the serialized engine.
    """

    metadata: Mapping[str, Any]
    plan: bytes


def plan_header(plan: bytes) -> PlanHeader:
    """Read a plan's own header.

    Raises:
        PlanError: too short, or not a plan.
    """
    library = MAGIC.get(plan[:4])
    if library is None or len(plan) < VERSION_AT + 4:
        raise PlanError(
            f"not a TensorRT plan: {len(plan)} bytes that begin with {plan[:4].hex(' ') or 'nothing'}", remedy=REBUILD
        )
    major, minor, patch, build = plan[VERSION_AT : VERSION_AT + 4]
    return PlanHeader(library, (major, minor, patch, build))


def read(path: Path) -> EngineFile:
    """Read an ``.engine`` file.

    Raises:
        PlanError: unreadable, too large, a damaged header, or no plan behind it; the message names the file.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise PlanError(f"{path} has {size} bytes, more than the limit of {MAX_FILE_BYTES}", remedy=REBUILD)
        content = path.read_bytes()
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}", remedy="check the path", path=path) from error
    try:
        return parse(content)
    except PlanError as error:
        raise PlanError(say(f"{path}: ", error.message), remedy=error.remedy, path=path) from error


def parse(content: bytes) -> EngineFile:
    """Split the bytes of an ``.engine`` file.

    Raises:
        PlanError: a damaged header, or no plan behind it.
    """
    if content[:4] in MAGIC:
        plan_header(content)
        return EngineFile({}, content)
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    end = LENGTH_BYTES + length
    if not 0 < length <= MAX_METADATA_BYTES or len(content) < end:
        raise PlanError(
            f"damaged header: metadata of {length} bytes in a file of {len(content)}", remedy=REBUILD, length=length
        )
    metadata = _metadata(content[LENGTH_BYTES:end])
    plan = content[end:]
    plan_header(plan)
    return EngineFile(metadata, plan)


def write(path: Path, engine: EngineFile) -> None:
    """Write an ``.engine`` file beside its place and move it there; an old file stays until then.

    Raises:
        PlanError: the folder cannot be written, or the metadata is too large or not JSON.
    """
    try:
        header = json.dumps(dict(engine.metadata), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise PlanError(f"the metadata for {path} is not JSON: {error}") from error
    if len(header) > MAX_METADATA_BYTES:
        raise PlanError(f"metadata of {len(header)} bytes is more than the limit of {MAX_METADATA_BYTES}")
    plan_header(engine.plan)
    try:
        content = len(header).to_bytes(LENGTH_BYTES, "little") + header + engine.plan
        durable.replace(path, content, path.parent, mode=0o644)
    except OSError as error:
        raise PlanError(
            f"{path} cannot be written: {error.strerror}", remedy="check the folder and its space", path=path
        ) from error


def _metadata(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"damaged header: the metadata is not JSON ({error})", remedy=REBUILD) from error
    if not isinstance(fields, dict):
        raise PlanError(f"damaged header: the metadata is a {type(fields).__name__}, not an object", remedy=REBUILD)
    return fields
