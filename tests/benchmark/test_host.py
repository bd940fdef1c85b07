from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.benchmark import host
from vajra_edge.benchmark.gauges import NoGauge
from vajra_edge.benchmark.gpu_reading import GpuReading
from vajra_edge.device import DeviceInfo, Gpu

ORIN = DeviceInfo(
    "aarch64",
    "NVIDIA Jetson Orin Nano",
    "36.4.3",
    (Gpu(0, "Orin", "8.7", "540.4"),),
    "ARM 0x41:0xd42",
    6,
    8 << 30,
    4 << 30,
    "15W",
    (("cpu-thermal", 48.25), ("gpu-thermal", 51.5)),
)


class Fixed(NoGauge):
    def __init__(self, reading):
        object.__setattr__(self, "reading", reading)

    def read(self):
        return self.reading


@pytest.fixture
def root(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: {3, 4})
    for name, text in {
        "proc/loadavg": "0.42 0.50 0.60 1/200 99\n",
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor": "schedutil\n",
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_max_freq": "1510400\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_board_with_its_power_mode_governor_clocks_and_load(root: Path):
    gauge = Fixed(GpuReading(clock_mhz=306.0, max_clock_mhz=624.75, min_clock_mhz=306.0))
    told = host.look("Orin", gauge, root, lambda _: ORIN)
    assert (told.machine, told.l4t, told.power_mode) == ("NVIDIA Jetson Orin Nano", "36.4.3", "15W")
    assert (told.governor, told.max_cpu_mhz, told.load_1min, told.temperature_c) == ("schedutil", 1510.4, 0.42, 51.5)
    assert (told.gpu.name, told.gpu.driver, told.gpu.clock_locked) == ("Orin", "540.4", False)


@pytest.mark.parametrize(
    ("low", "high", "locked"), [(624.75, 624.75, True), (306.0, 624.75, False), (None, 624.75, None)]
)
def test_a_clock_is_locked_where_lowest_and_highest_are_one_and_unknown_where_one_is(root: Path, low, high, locked):
    gauge = Fixed(GpuReading(max_clock_mhz=high, min_clock_mhz=low))
    assert host.look("Orin", gauge, root, lambda _: ORIN).gpu.clock_locked is locked


def test_a_virtual_machine_has_no_governor_and_a_plan_on_the_cpu_no_gpu(tmp_path: Path):
    told = host.look(None, NoGauge(), tmp_path, lambda _: ORIN)
    assert (told.governor, told.max_cpu_mhz, told.load_1min, told.gpu) == (None, None, None, None)
