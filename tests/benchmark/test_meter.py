from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vajra_edge.benchmark import meter as meter_module
from vajra_edge.benchmark.gpu_reading import GpuReading
from vajra_edge.benchmark.meter import Meter, gpu_use

TICKS = os.sysconf("SC_CLK_TCK")
STAT = "{pid} (a (camera) process) S " + "0 " * 10 + "{user} {system} 0 0 20 0 1 0\n"


class Clock:
    def __init__(self):
        self.now_s = self.used_s = 100.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(clock, tmp_path: Path):
    return Meter(None, lambda: clock.now_s, lambda: clock.used_s, tmp_path)


def child(root: Path, pid: int, used_s: float) -> None:
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stat").write_text(STAT.format(pid=pid, user=round(used_s * TICKS) - 1, system=1))


def run(meter, clock, what, passed_s, used_s, **with_child):
    with meter.running(what, **with_child):
        clock.now_s += passed_s
        clock.used_s += used_s


def test_only_the_time_within_turns_counts(meter, clock):
    run(meter, clock, "paced", 2.0, 0.5)
    clock.now_s, clock.used_s = clock.now_s + 50.0, clock.used_s + 50.0
    run(meter, clock, "paced", 2.0, 1.5)
    run(meter, clock, "full", 1.0, 1.75)
    use = meter.use()
    assert (use.cpu_cores, use.full_cpu_cores) == (0.5, 1.75)


def test_the_cameras_process_counts_by_itself(meter, clock, tmp_path: Path):
    child(tmp_path, 42, 7.0)
    with meter.running("paced", lambda: 42):
        clock.now_s += 2.0
        child(tmp_path, 42, 7.5)
    assert meter.use().capture_cpu_cores == 0.25


def test_a_camera_whose_process_was_replaced_or_is_gone_tells_nothing(meter, clock, tmp_path: Path):
    child(tmp_path, 42, 7.0)
    child(tmp_path, 43, 0.5)
    pids = iter((42, 43))
    run(meter, clock, "paced", 2.0, 0.5, child=lambda: next(pids))
    run(meter, clock, "paced", 2.0, 0.5, child=lambda: 44)
    assert meter.use().capture_cpu_cores is None


def test_what_cannot_be_read_is_null(meter):
    use = meter.use()
    assert (use.cpu_cores, use.full_cpu_cores, use.capture_cpu_cores) == (None, None, None)
    assert (use.rss_bytes, use.peak_rss_bytes, use.gpu) == (None, None, None)


def test_memory_is_now_and_at_the_peak(meter, tmp_path: Path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    use = meter.use()
    assert (use.rss_bytes, use.peak_rss_bytes) == (1 << 20, 2 << 20)


class Gauge:
    def __init__(self):
        self.looked = threading.Event()

    def read(self):
        self.looked.set()
        return GpuReading(load_percent=50.0)

    def close(self):
        pass


def test_the_gpu_is_looked_at_while_the_frame_path_runs_and_no_longer(monkeypatch):
    monkeypatch.setattr(meter_module, "SAMPLE_S", 0.001)
    gauge = Gauge()
    meter = Meter(gauge)
    with meter.running("paced"):
        assert gauge.looked.wait(60)
    use = meter.use().gpu
    assert (use.load_percent.p50, use.clock_mhz) == (50.0, None)
    gauge.looked.clear()
    assert not gauge.looked.wait(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu-gauge"]


def test_many_looks_say_median_lowest_clock_and_every_reason_of_slowness():
    looks = [
        GpuReading(90.0, 1900.0, power_w=60.0, memory_used_bytes=5, temperature_c=60.0, throttled=()),
        GpuReading(None, 1200.0, power_w=None, memory_used_bytes=9, temperature_c=None, throttled=("power limit",)),
        GpuReading(98.0, 1950.0, power_w=70.0, memory_used_bytes=7, temperature_c=66.0, throttled=None),
    ]
    use = gpu_use(looks)
    assert (use.load_percent.n, use.load_percent.max) == (2, 98.0)
    assert (use.clock_mhz, use.lowest_clock_mhz, use.power_w) == (1900.0, 1200.0, 65.0)
    assert (use.memory_used_bytes, use.temperature_c, use.throttled) == (9, 66.0, ("power limit",))


def test_a_gpu_that_tells_nothing_is_null_throughout():
    use = gpu_use([GpuReading(), GpuReading()])
    assert set(vars(use).values()) == {None}
