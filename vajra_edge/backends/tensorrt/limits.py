"""Limits: how much memory and effort a TensorRT build may take, and the ladder down when memory did not suffice.

On a Jetson the GPU's memory is the board's. Left alone, the builder takes all of it as workspace and 75 % of it for one
tactic, and the kernel then ends whatever else runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vajra_edge import device
from vajra_edge.backends import cuda
from vajra_edge.errors import BackendUnavailable, InferenceError, UnsupportedSpec
from vajra_edge.wording import Setting, say

GIB = 1 << 30
MIB = 1 << 20

AUTO_WORKSPACE_SHARE, AUTO_WORKSPACE_LEAST, AUTO_WORKSPACE_MOST = 0.25, 256 * MIB, 4 * GIB
"""Detection networks need tens to hundreds of MiB; 512 MiB to 1 GiB is usual on 8 GB boards."""

WORKSPACE_SHARE = 0.75
"""Of what is free, the most that a workspace may be; it is a bound, and detection networks stay far below."""

TACTIC_SHARE, TACTIC_LEAST, TACTIC_MOST = 0.5, 512 * MIB, 3 * GIB
"""Half of what is free, since the tactic's inputs, outputs and the builder itself need the rest."""

FEW_TACTICS = 8
"""Tactics tried for each layer on the last rung."""

DLA_LOCAL_BYTES = 256 * MIB
"""Upper bound of a loadable's intermediate tensors, a power of two; the library's 1 GiB starves 8 GB boards. The pool
beside it, DLA_GLOBAL_DRAM, keeps the library's 512 MiB: a loadable's weights have to fit it."""

SCARCE_BYTES = 3 * GIB // 2
"""With less free than this a build that gives no reason failed for it: VajraV1-nano is built with 2 GiB free and not
with 1 (10.6, on an H200)."""


@dataclass(frozen=True)
class BuildLimits:
    """What one attempt may use.

    Attributes:
        workspace_bytes: scratch memory of any layer.
        tactic_bytes: memory that trying out one tactic may take.
        optimization_level: builder effort, 0 to 5.
        max_tactics: tactics tried for a layer, or None for all.
        lowered: what was asked for and is not free, in words; empty where everything is granted.
    """

    workspace_bytes: int
    tactic_bytes: int
    optimization_level: int
    max_tactics: int | None = None
    lowered: str = ""

    def __str__(self) -> str:
        tactics = "all tactics" if self.max_tactics is None else f"{self.max_tactics} tactics a layer"
        return f"workspace {self.workspace_bytes // MIB} MiB, optimization level {self.optimization_level}, {tactics}"


@dataclass(frozen=True)
class Memory:
    """Memory of the device that builds.

    Attributes:
        total_bytes: all of it.
        free_bytes: what can be taken now without swapping.
    """

    total_bytes: int
    free_bytes: int


def look(gpu: int) -> Memory:
    """Ask CUDA, and the kernel where the memory is the host's too or CUDA is absent."""
    host = Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), device.memory_available_bytes())
    try:
        with cuda.device(gpu):
            free, total = cuda.call("cudaMemGetInfo")
        integrated = cuda.describe(gpu).integrated
    except (BackendUnavailable, InferenceError):
        return host
    # On a Jetson CUDA counts the page cache as used; the kernel knows that it can be dropped.
    return Memory(int(total), max(int(free), host.free_bytes) if integrated else int(free))


def require_workspace(memory: Memory, workspace_gib: float | None) -> None:
    """Refuse a workspace that this device can never have.

    Raises:
        UnsupportedSpec: it is larger than the device; TensorRT itself would only say UNSUPPORTED_STATE.
    """
    if workspace_gib is not None and workspace_gib * GIB > memory.total_bytes:
        raise UnsupportedSpec(
            f"a workspace of {workspace_gib:.2f} GiB is more than this device's {memory.total_bytes / GIB:.2f} GiB "
            "(TensorRT's UNSUPPORTED_STATE)",
            remedy=say("lower ", Setting.WORKSPACE_GIB, ", or leave it unset"),
            workspace_bytes=int(workspace_gib * GIB),
            total_bytes=memory.total_bytes,
        )


def limits(memory: Memory, workspace_gib: float | None, optimization_level: int) -> BuildLimits:
    """The first attempt's limits.

    A workspace of which the device has too little free is lowered, so that what the network's tensors, the tactics and
    the rest of the machine need is not promised twice: on a Jetson the kernel would end a process for it.

    Args:
        memory: of the device, looked at once the ``Builder`` is there.
        workspace_gib: what is asked for, or None.
        optimization_level: likewise.
    """
    lowered = ""
    tactic = _share(memory.free_bytes, TACTIC_SHARE, TACTIC_LEAST, TACTIC_MOST)
    if workspace_gib is None:
        workspace = _share(memory.free_bytes, AUTO_WORKSPACE_SHARE, AUTO_WORKSPACE_LEAST, AUTO_WORKSPACE_MOST)
    else:
        workspace = int(workspace_gib * GIB)
    most = max(int(memory.free_bytes * WORKSPACE_SHARE), AUTO_WORKSPACE_LEAST)
    if workspace_gib is not None and workspace > most:
        lowered = (
            f"workspace {workspace_gib:.1f} GiB lowered to {most / GIB:.1f} GiB: of this device's "
            f"{memory.total_bytes / GIB:.1f} GiB {memory.free_bytes / GIB:.1f} are free beside the builder"
        )
        workspace = most
    return BuildLimits(workspace, tactic, optimization_level, lowered=lowered)


def ladder(first: BuildLimits) -> Iterator[BuildLimits]:
    """``first``, then with half the workspace, then with less effort, then with few tactics; equal rungs once."""
    half = replace(first, workspace_bytes=first.workspace_bytes // 2, tactic_bytes=first.tactic_bytes // 2)
    easier = replace(half, optimization_level=min(half.optimization_level, 2))
    least = replace(easier, optimization_level=min(half.optimization_level, 1), max_tactics=FEW_TACTICS)
    yield from dict.fromkeys((first, half, easier, least))


def _share(free_bytes: int, share: float, least: int, most: int) -> int:
    return max(least, min(int(free_bytes * share), most))
