"""The script for a GPU machine, against a stand-in of its CUDA."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "backends")]

import waiting_cost  # noqa: E402
from cuda_standin import CudaStandIn  # noqa: E402


def test_both_ways_are_timed_at_every_length_and_everything_is_given_back(monkeypatch):
    standin = CudaStandIn()
    standin.install(monkeypatch)
    monkeypatch.setattr(waiting_cost, "COPY_BYTES", 64)
    monkeypatch.setattr(waiting_cost, "FRAMES_MS", (0.01, 0.02))
    lines = list(waiting_cost.report(frames=3))
    assert [line["frame_ms"] for line in lines] == [0.01, 0.02]
    assert all({"polling", "sleeping", "sleeps"} <= line.keys() for line in lines)
    assert (standin.held, standin.streams, standin.events) == ({}, set(), set())
