"""DeviceInfo: what this machine is. Read from files, without loading any NVIDIA or ONNX library."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Run = Callable[[Sequence[str]], "str | None"]
"""Runs a program and returns its stdout; None if it is absent, fails or hangs."""

TEGRA_GPUS = {
    "nvidia,tegra194": ("Xavier (Volta iGPU)", "7.2"),
    "nvidia,tegra234": ("Orin (Ampere iGPU)", "8.7"),
    "nvidia,tegra264": ("Thor (Blackwell iGPU)", "11.0"),
}
"""Integrated GPU of a system on chip, by the device tree's ``compatible`` (NVIDIA's compute capability list)."""

GPU_NODES = ("dev/nvgpu/*/ctrl", "dev/nvhost-gpu", "dev/nvhost-ctrl-gpu", "dev/nvidia[0-9]*")
"""Device files of which a Jetson has at least one while its GPU works: of nvgpu, as it was and is, and of a Thor."""

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,name,compute_cap,driver_version", "--format=csv,noheader")
_SMI_LINE = re.compile(
    r"(?P<index>\d+|\[[^],]*\]|N/A|ERR!)\s*,\s*(?P<name>.+?)\s*,\s*(?P<capability>[^,]+?)\s*,\s*(?P<driver>[^,]+)"
)
_NO_VALUE = re.compile(r"^\[.*\]$|N/A|Not Supported|^ERR!$")
"""``[N/A]``, ``[Unknown Error]`` and ``[GPU is lost]`` among others."""

PROGRAM_TIMEOUT_S = 20.0
"""nvidia-smi without the persistence daemon takes seconds on a machine of several GPUs."""


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: CUDA's number where PCI order holds.
        name: as the driver or the device tree names it.
        compute_capability: like ``8.7``, or None where nothing told it.
        driver: version of the kernel driver, or None.
    """

    index: int
    name: str
    compute_capability: str | None = None
    driver: str | None = None


@dataclass(frozen=True)
class DeviceInfo:
    """One look at the machine; memory and temperatures are those of that moment.

    Attributes:
        arch: like ``aarch64``.
        machine: the board's name in the device tree, or None where there is none.
        l4t: Jetson Linux release like ``36.4.3``, or None.
        gpus: visible NVIDIA GPUs.
        cpu: name of the processor.
        cpus: processors this process may use: affinity and cgroup quota, at least 1.
        memory_bytes: installed memory.
        memory_available_bytes: what can be taken without swapping, within the cgroup's limit.
        power_mode: name of the nvpmodel mode, or None.
        temperatures_c: thermal zone -> degrees Celsius.
    """

    arch: str
    machine: str | None
    l4t: str | None
    gpus: tuple[Gpu, ...]
    cpu: str
    cpus: int
    memory_bytes: int
    memory_available_bytes: int
    power_mode: str | None
    temperatures_c: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for ``doctor`` and ``status``."""
        return {**asdict(self), "temperatures_c": dict(self.temperatures_c)}


def _run(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def probe(root: Path = Path("/"), run: Run = _run) -> DeviceInfo:
    """Look at the machine; what cannot be read is None or empty, never an error.

    Args:
        root: where /proc, /sys, /etc and /var are looked for.
        run: how nvidia-smi is asked.
    """
    return DeviceInfo(
        arch=platform.machine(),
        machine=(_read(root, "proc/device-tree/model") or "").strip("\0\n ") or None,
        l4t=l4t(root),
        gpus=gpus(root, run),
        cpu=cpu_name(root),
        cpus=usable_cpus(root),
        memory_bytes=_meminfo(root, "MemTotal"),
        memory_available_bytes=memory_available_bytes(root),
        power_mode=power_mode(root),
        temperatures_c=_temperatures(root),
    )


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def l4t(root: Path = Path("/")) -> str | None:
    """Jetson Linux release like ``36.4.3``, from ``# R36 (release), REVISION: 4.3, ...``; None off a Jetson."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _read(root, "etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None


def gpus(root: Path = Path("/"), run: Run = _run) -> tuple[Gpu, ...]:
    """Visible NVIDIA GPUs: as nvidia-smi lists them, else the driver's own folder, else the device tree."""
    integrated = _tegra_gpu(root)
    listed = [found for line in (run(NVIDIA_SMI) or "").splitlines() if (found := _SMI_LINE.fullmatch(line.strip()))]
    if listed:
        return tuple(_from_smi(row, place, integrated) for place, row in enumerate(listed))
    names = [_model(path) for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    driver = re.search(r"Kernel Module\D*(\d+\.[\d.]+)", _read(root, "proc/driver/nvidia/version") or "")
    if names:
        return tuple(Gpu(index, name, None, driver[1] if driver else None) for index, name in enumerate(names))
    return (integrated,) if integrated else ()


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether the device tree names one of NVIDIA's systems on chip."""
    return _tegra_gpu(root) is not None


def gpu_made_no_node(root: Path = Path("/")) -> bool:
    """Whether this is a Jetson whose kernel made no device file for its GPU: the driver's start failed."""
    return is_jetson(root) and not any(next(root.glob(pattern), None) for pattern in GPU_NODES)


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name, on ARM its implementer and part numbers; ``unknown`` if neither is told."""
    fields: dict[str, str] = dict(
        re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", _read(root, "proc/cpuinfo") or "", re.MULTILINE)
    )
    if "model name" in fields:
        return fields["model name"].strip()
    if "CPU part" in fields:
        return f"ARM {fields.get('CPU implementer', '?')}:{fields['CPU part']}"
    return "unknown"


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Instruction sets of the processor, as the kernel names them on x86; empty elsewhere."""
    found = re.search(r"^flags\s*:\s*(.*)$", _read(root, "proc/cpuinfo") or "", re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def usable_cpus(root: Path = Path("/")) -> int:
    """Processors this process may use at once: its affinity, and its cgroup's quota rounded down; at least 1."""
    quotas = [_quota(text) for text in _cgroup_files(root, "cpu.max")]
    legacy = [_read(root, f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]
    if all(legacy):
        quotas.append(_quota(" ".join(text or "" for text in legacy)))
    allowed = float(len(os.sched_getaffinity(0)))
    return max(1, int(min([allowed, *[quota for quota in quotas if quota is not None]])))


def memory_available_bytes(root: Path = Path("/")) -> int:
    """The kernel's MemAvailable, or what the tightest cgroup limit leaves of it."""
    limits = _cgroup_files(root, "memory.max")
    used = _cgroup_files(root, "memory.current")
    left = [int(limit) - int(now) for limit, now in zip(limits, used, strict=False) if limit.strip().isdigit()]
    return max(0, min([_meminfo(root, "MemAvailable"), *left]))


def power_mode(root: Path = Path("/")) -> str | None:
    """The nvpmodel mode by name (by number where the table lacks it); None off a Jetson. Needs no rights."""
    mode = re.search(r"pmode:(\d+)", _read(root, "var/lib/nvpmodel/status") or "")
    if mode is None:
        return None
    table = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _read(root, "etc/nvpmodel.conf") or "")
    names: dict[int, str] = {int(number): name for number, name in table}
    return names.get(int(mode[1]), f"mode {int(mode[1])}")


def _read(root: Path, path: str) -> str | None:
    try:
        return (root / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _tegra_gpu(root: Path) -> Gpu | None:
    compatible = (_read(root, "proc/device-tree/compatible") or "").split("\0")
    known = next((TEGRA_GPUS[name] for name in compatible if name in TEGRA_GPUS), None)
    return Gpu(0, known[0], known[1]) if known else None


def _from_smi(row: re.Match[str], place: int, integrated: Gpu | None) -> Gpu:
    """A line of nvidia-smi. Instead of a value it may say why it has none; a Jetson's device tree knows better then."""
    capability = row["capability"] if re.fullmatch(r"\d+\.\d+", row["capability"]) else None
    driver = row["driver"] if re.fullmatch(r"\d[\d.]*", row["driver"]) else None
    name = None if _NO_VALUE.search(row["name"]) else row["name"]
    return Gpu(
        int(row["index"]) if row["index"].isdecimal() else place,
        name or (integrated.name if integrated else "NVIDIA GPU"),
        capability or (integrated.compute_capability if integrated else None),
        driver,
    )


def _model(information: Path) -> str:
    found = re.search(r"^Model:\s*(.+)$", information.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found[1].strip() if found else "NVIDIA GPU"


def _cgroup_files(root: Path, name: str) -> list[str]:
    """The file ``name`` of this process's cgroup (version 2) and of every cgroup above it."""
    own = re.search(r"^0::/(.*)$", _read(root, "proc/self/cgroup") or "", re.MULTILINE)
    parts = Path(own[1]).parts if own else ()
    folders = [Path("sys/fs/cgroup").joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    texts = [_read(root, str(folder / name)) for folder in folders]
    return [text for text in texts if text is not None]


def _quota(text: str) -> float | None:
    """Processors that ``<quota> <period>`` in microseconds allows; None for ``max`` and -1."""
    numbers = text.split()
    if len(numbers) != 2 or not numbers[0].isdigit():  # noqa: PLR2004  the file's two columns
        return None
    return int(numbers[0]) / int(numbers[1])


def _meminfo(root: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _read(root, "proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _temperatures(root: Path) -> tuple[tuple[str, float], ...]:
    """Thermal zones that answer; a zone whose sensor is off gives an I/O error and is left out."""
    zones = []
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        relative = folder.relative_to(root)
        name, value = _read(root, str(relative / "type")), _read(root, str(relative / "temp"))
        if name and value and re.fullmatch(r"-?\d+", value.strip()):
            zones.append((name.strip(), int(value) / 1000))
    return tuple(zones)
