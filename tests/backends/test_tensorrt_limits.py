"""Limits of a build and the ladder below them."""

from __future__ import annotations

import itertools

import pytest
from backends.cuda_standin import CudaStandIn
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.backends import cuda
from vajra_edge.backends.tensorrt import limits
from vajra_edge.backends.tensorrt.limits import GIB, MIB, BuildLimits, Memory
from vajra_edge.errors import BackendUnavailable, UnsupportedSpec


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
    assert limits.limits(memory, 8.0, 3) == BuildLimits(8 * GIB, 3 * GIB, 3)
    said = r"8\.01 GiB is more than this device's 8\.00 GiB \(TensorRT's UNSUPPORTED_STATE\); lower .engine"
    with pytest.raises(UnsupportedSpec, match=said):
        limits.limits(memory, 8.01, 3)


def test_a_workspace_that_is_not_free_is_lowered_to_what_is_and_said() -> None:
    found = limits.limits(Memory(8 * GIB, int(3.125 * GIB)), 6.0, 3)
    assert found.workspace_bytes == int(3.125 * GIB)
    assert found.lowered == "workspace 6.0 GiB lowered to 3.1 GiB, which is free"
    rungs = list(limits.ladder(found))
    assert max(rung.workspace_bytes for rung in rungs) == found.workspace_bytes


@given(st.integers(1, 64 * GIB), st.integers(0, 5))
def test_no_rung_of_the_ladder_asks_for_more_than_the_one_above(workspace_bytes: int, level: int) -> None:
    rungs = list(limits.ladder(BuildLimits(workspace_bytes, workspace_bytes, level)))
    assert len(rungs) == len(set(rungs)) >= 2
    for above, below in itertools.pairwise(rungs):
        assert below.workspace_bytes <= above.workspace_bytes
        assert below.optimization_level <= above.optimization_level <= level
    assert rungs[-1].max_tactics == limits.FEW_TACTICS


def test_an_integrated_gpu_has_what_the_kernel_can_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "runtime", lambda: CudaStandIn(memory_bytes=8 * GIB))
    monkeypatch.setattr(limits.device, "memory_available_bytes", lambda: 6 * GIB)
    assert limits.look(0) == Memory(8 * GIB, 6 * GIB)


def test_without_cuda_the_machine_s_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise BackendUnavailable("no CUDA")

    monkeypatch.setattr(cuda, "runtime", absent)
    monkeypatch.setattr(limits.device, "memory_available_bytes", lambda: 6 * GIB)
    assert limits.look(0).free_bytes == 6 * GIB
    assert limits.look(0).total_bytes > 0
