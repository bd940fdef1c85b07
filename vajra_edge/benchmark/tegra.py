"""The integrated GPU of a Jetson, by the kernel's files, which anybody may read.

The devfreq folder is named after the device (``17000000.ga10b`` with Jetson Linux 35, ``17000000.gpu`` with 36 on an
Orin, ``57000000.gpu`` on a Nano, ``gpu-gpc-0`` on a Thor), so that it is known by its device tree node or its ending.
The load is in tenths of a percent, below the device, or below its older names ``platform/gpu.0`` and ``gpu.0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vajra_edge.benchmark.gpu_reading import GpuReading

_NODES = {"gm20b", "gp10b", "gv11b", "ga10b", "gb10b", "gpu"}
_FOLDER = re.compile(r"[0-9a-f]+\.(gm20b|gp10b|gv11b|ga10b|gb10b|gpu)|gpu-gpc-0")
_LOADS = ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")


class TegraGauge:
    """The files of one GPU.

    Args:
        devfreq: its devfreq folder; None: there is none.
        loads: where its load may stand.
        zone: its thermal zone; None: there is none.
    """

    def __init__(self, devfreq: Path | None, loads: tuple[Path, ...], zone: Path | None) -> None:
        self._devfreq, self._loads, self._zone = devfreq, loads, zone

    def read(self) -> GpuReading:
        """What the files say now."""
        loads = (_number(path) for path in self._loads)
        load = next((one for one in loads if one is not None), None)
        heat = None if self._zone is None else _number(self._zone / "temp")
        return GpuReading(
            load_percent=None if load is None else load / 10,
            clock_mhz=self._mhz("cur_freq"),
            max_clock_mhz=self._mhz("max_freq"),
            min_clock_mhz=self._mhz("min_freq"),
            temperature_c=None if heat is None else heat / 1000,
        )

    def close(self) -> None:
        """Nothing is open."""

    def _mhz(self, name: str) -> float | None:
        hz = None if self._devfreq is None else _number(self._devfreq / name)
        return None if hz is None else hz / 1e6


def opened(root: Path = Path("/")) -> TegraGauge | None:
    """The gauge of this board's GPU; None where it has no such GPU."""
    folder = next(_folders(root), None)
    below = () if folder is None else (folder / "device/load",)
    loads = tuple(path for path in (*below, *(root / name for name in _LOADS)) if path.exists())
    if folder is None and not loads:
        return None
    return TegraGauge(folder, loads, _zone(root))


def _folders(root: Path) -> Iterator[Path]:
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        node = _text(folder / "device/of_node/name").strip("\0\n ")
        if node in _NODES or _FOLDER.fullmatch(folder.name):
            yield folder


def _zone(root: Path) -> Path | None:
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    return next((zone for zone in zones if _text(zone / "type").lower().startswith("gpu")), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    """The number in a file; a sensor that is off gives an I/O error, and is None."""
    text = _text(path).strip()
    return float(text) if re.fullmatch(r"-?\d+", text) else None
