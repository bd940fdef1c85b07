"""Limits of a build and the ladder below them."""

from __future__ import annotations

import itertools

import pytest
from backends.cuda_standin import CudaStandIn, no_driver
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.backends.tensorrt import limits
from vajra_edge.backends.tensorrt.limits import GIB, MIB, BuildLimits, Memory
from vajra_edge.errors import UnsupportedSpec


@pytest.mark.parametrize(
    ("free_gib", "workspace_mib", "tactic_mib"), [(0.5, 256, 512), (5.0, 1280, 2560), (60.0, 4096, 3072)]
)
def test_without_a_setting_memory_is_taken_from_what_is_free(
    free_gib: float, workspace_mib: int, tactic_mib: int
) -> None:
    found = limits.limits(Memory(64 * GIB, int(free_gib * GIB)), None, 3)
    assert (found.workspace_bytes // MIB, found.tactic_bytes // MIB) == (workspace_mib, tactic_mib)


def test_a_workspace_is_compared_with_the_device() -> None:
    memory = Memory(8 * GIB, 8 * GIB)
    limits.require_workspace(memory, 8.0)
    limits.require_workspace(memory, None)
    said = r"8\.01 GiB is more than this device's 8\.00 GiB \(TensorRT's UNSUPPORTED_STATE\); lower .engine"
    with pytest.raises(UnsupportedSpec, match=said):
        limits.require_workspace(memory, 8.01)


def test_a_workspace_of_which_too_little_is_free_is_lowered_and_said() -> None:
    found = limits.limits(Memory(8 * GIB, 4 * GIB), 6.0, 3)
    assert found.workspace_bytes == 3 * GIB
    assert found.lowered == (
        "workspace 6.0 GiB lowered to 3.0 GiB: of this device's 8.0 GiB 4.0 are free beside the builder"
    )
    rungs = list(limits.ladder(found))
    assert max(rung.workspace_bytes for rung in rungs) == found.workspace_bytes


@pytest.mark.parametrize(
    ("available_gib", "workspace_gib"), [(6.9, 4.0), (5.2, 3.9), (3.5, 2.625), (1.5, 1.125), (0.2, 0.25)]
)
def test_the_seed_s_workspace_of_4_on_a_board_of_8_gb_leaves_a_quarter_of_what_is_free(
    available_gib: float, workspace_gib: float
) -> None:
    """An Orin Nano has 7.4 GiB for Linux; the desktop takes 1.5, the builder 1.7, a plan that serves 0.5."""
    memory = Memory(int(7.4 * GIB), int(available_gib * GIB))
    limits.require_workspace(memory, 4.0)
    found = limits.limits(memory, 4.0, 3)
    assert found.workspace_bytes == pytest.approx(workspace_gib * GIB, abs=4)
    assert bool(found.lowered) == (workspace_gib < 4.0)
    assert found.tactic_bytes <= max(memory.free_bytes // 2, limits.TACTIC_LEAST)


@given(st.integers(1, 64 * GIB), st.integers(0, 5))
def test_no_rung_of_the_ladder_asks_for_more_than_the_one_above(workspace_bytes: int, level: int) -> None:
    rungs = list(limits.ladder(BuildLimits(workspace_bytes, workspace_bytes, level)))
    assert len(rungs) == len(set(rungs)) >= 2
    for above, below in itertools.pairwise(rungs):
        assert below.workspace_bytes <= above.workspace_bytes
        assert below.optimization_level <= above.optimization_level <= level
    assert rungs[-1].max_tactics == limits.FEW_TACTICS


def test_an_integrated_gpu_has_what_the_kernel_can_free(monkeypatch: pytest.MonkeyPatch) -> None:
    CudaStandIn(memory_bytes=8 * GIB).install(monkeypatch)
    monkeypatch.setattr(limits.device, "memory_available_bytes", lambda: 6 * GIB)
    assert limits.look(0) == Memory(8 * GIB, 6 * GIB)


def test_without_cuda_the_machine_s_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    no_driver(monkeypatch)
    monkeypatch.setattr(limits.device, "memory_available_bytes", lambda: 6 * GIB)
    assert limits.look(0).free_bytes == 6 * GIB
    assert limits.look(0).total_bytes > 0
