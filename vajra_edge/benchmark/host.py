"""Host: what the figures are of, looked at before anything runs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

from vajra_edge import device
from vajra_edge.benchmark.figures import Host, HostGpu
from vajra_edge.benchmark.gauges import GpuGauge
from vajra_edge.device import DeviceInfo

_CPUFREQ = "sys/devices/system/cpu/cpu{}/cpufreq/{}"


def look(
    gpu_name: str | None, gauge: GpuGauge, root: Path = Path("/"), probe: Callable[[Path], DeviceInfo] = device.probe
) -> Host:
    """Look at this machine.

    Args:
        gpu_name: of the plan's GPU; None: it runs on a CPU.
        gauge: of that GPU.
        root: where /proc and /sys are.
        probe: tells what does not change.
    """
    info = probe(root)
    hottest = max((degrees for _, degrees in info.temperatures_c), default=None)
    first = min(os.sched_getaffinity(0))
    khz = _read(root, _CPUFREQ.format(first, "scaling_max_freq"))
    return Host(
        machine=info.machine,
        arch=info.arch,
        kernel=platform.release(),
        cpu=info.cpu,
        cpus=info.cpus,
        governor=_read(root, _CPUFREQ.format(first, "scaling_governor")),
        max_cpu_mhz=int(khz) / 1e3 if khz is not None and khz.isdecimal() else None,
        memory_bytes=info.memory_bytes,
        load_1min=_load(root),
        l4t=info.l4t,
        power_mode=info.power_mode,
        temperature_c=hottest,
        gpu=None if gpu_name is None else _gpu(gpu_name, gauge, info),
    )


def _gpu(name: str, gauge: GpuGauge, info: DeviceInfo) -> HostGpu:
    now = gauge.read()
    told = next((gpu.driver for gpu in info.gpus if gpu.name == name), None)
    both = now.min_clock_mhz is not None and now.max_clock_mhz is not None
    locked = now.min_clock_mhz == now.max_clock_mhz if both else None
    return HostGpu(name, now.driver or told, now.clock_mhz, now.max_clock_mhz, locked, now.power_limit_w)


def _load(root: Path) -> float | None:
    found = re.match(r"\d+\.\d+", _read(root, "proc/loadavg") or "")
    return float(found[0]) if found else None


def _read(root: Path, path: str) -> str | None:
    try:
        return (root / path).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
