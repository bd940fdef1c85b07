from __future__ import annotations

from dataclasses import replace

import pytest
from benchmark.known import HOST, L4, SETUP, SUBJECT

from vajra_edge.benchmark.gauges import NoGauge
from vajra_edge.benchmark.gpu_reading import GpuReading
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.record import Path, Record
from vajra_edge.benchmark.sink import Heard
from vajra_edge.inference.detector import StageTimes


def heard(at_ms, latency_ms=15.0, camera="yard", times=None):
    return Heard(camera, at_ms / 1e3, latency_ms, 0.5, times or StageTimes(1.0, 8.0, 0.5))


def path(full=(), paced=(), **changed):
    known = Path(tuple(full), tuple(paced), len(paced), 0, 2.0, 100 * (len(full) + len(paced)), ("yard",))
    return replace(known, **changed)


@pytest.fixture
def record():
    return Record(Meter(None), capture_ms=[2.0, 3.0])


def test_a_turn_is_judged_by_the_engine_before_and_after_it(record):
    record.add([10.0, 12.0], path(full=[heard(at) for at in (0, 20, 40, 63)], paced=[heard(0, 30.0)]), [9.0])
    (turn,) = record.turns
    assert turn.engine_ms == pytest.approx((11.0 + 9.0) / 2)
    assert turn.frame_ms == pytest.approx(21.0)
    assert turn.latency_p50_ms == 30.0


def test_the_ratio_is_the_median_of_the_turns_and_no_quotient_of_medians(record):
    for engine_ms, frame_ms in ((10.0, 11.0), (20.0, 24.0), (10.0, 13.0)):
        record.add([engine_ms], path(full=[heard(0), heard(frame_ms)]), [engine_ms])
    told = record.figures(HOST, SUBJECT, SETUP)
    assert (told.ratio.median, told.ratio.low, told.ratio.high) == (1.2, 1.1, 1.3)
    assert told.frame_ms == pytest.approx(13.0)
    assert told.frames_per_s == pytest.approx(76.92)
    assert told.engine_ms.n == 6


def test_batches_count_once_in_the_stages_however_many_messages_they_gave(record):
    shared = StageTimes(4.0, 9.0, 1.0)
    record.add([9.0], path(paced=[heard(at, times=shared) for at in range(4)] + [heard(9)]), [9.0])
    stages = record.figures(HOST, SUBJECT, SETUP).stages
    assert (stages.inference.n, stages.publish.n, stages.waiting.n, stages.capture.n) == (2, 5, 5, 2)


def test_equal_times_of_two_batches_are_two(record):
    record.add([9.0], path(paced=[heard(0), heard(1)]), [9.0])
    assert record.figures(HOST, SUBJECT, SETUP).stages.inference.n == 2


def test_drops_and_the_camera_that_was_served_least(record):
    paced = [heard(at, camera="memory-0") for at in range(40)] + [heard(at, camera="memory-1") for at in range(10)]
    cameras = ("memory-0", "memory-1", "memory-2")
    record.add([9.0], path(paced=paced, arrived=80, dropped=30, cameras=cameras, late_ms=(0.0, 1.0)), [9.0])
    told = record.figures(HOST, SUBJECT, replace(SETUP, cameras=3, fps=20.0))
    assert (told.frames.arrived, told.frames.inferred, told.frames.dropped) == (80, 50, 30)
    assert (told.frames.slowest_fps, told.frames.fastest_fps) == (0.0, 20.0)
    assert told.frames.late_ms.max == 1.0
    assert (told.frame_ms, told.ratio, told.frames_per_s) == (None, None, 25.0)


def test_what_whoever_quotes_it_has_to_know_is_remarked(record):
    record.add([9.0], path(paced=[heard(0)], arrived=100), [9.0])
    busy = replace(HOST, load_1min=1.5, gpu=replace(L4, clock_locked=False))
    remarks = record.figures(busy, SUBJECT, replace(SETUP, cameras=64, fps=30.0)).remarks
    assert remarks == (
        "the machine had other work before (load 1.5 on 2 processors)",
        "the feeder gave 100 of 3840 frames: this machine cannot feed so many",
        "the GPU's clock may move; jetson_clocks holds it",
    )
    assert record.figures(HOST, SUBJECT, SETUP).remarks == ()


def test_a_run_whose_turns_disagree_or_whose_gpu_was_slowed_down_says_so():
    record = Record(Meter(NoGauge()))
    record.meter._readings.append(GpuReading(throttled=("power limit",)))
    for frame_ms in (10.0, 11.0, 14.0):
        record.add([10.0], path(full=[heard(0), heard(frame_ms)]), [10.0])
    assert record.figures(HOST, SUBJECT, SETUP).remarks == (
        "the ratio moved from 1.00 to 1.40 between turns: other work came and went",
        "the GPU was slowed down: power limit",
    )


def test_a_run_without_a_message_has_no_figures_and_no_failure(record):
    record.add([9.0], path(arrived=4, dropped=3), [9.0])
    told = record.figures(HOST, SUBJECT, SETUP)
    assert (told.latency_ms.n, told.frames_per_s, told.frames.slowest_fps) == (0, 0.0, 0.0)
