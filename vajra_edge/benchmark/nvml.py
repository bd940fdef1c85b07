"""NVML: what NVIDIA's driver tells of a GPU, through its own library, where that is there."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_uint, c_ulonglong, c_void_p
from typing import Any

from vajra_edge.benchmark.gpu_reading import GpuReading

LIBRARY = "libnvidia-ml.so.1"

_SM_CLOCK, _DIE = 1, 0
_INTEGRATED = " (nvgpu)"  # NVML calls an Orin so, and CUDA does not
_NAME_BYTES, _VERSION_BYTES = 96, 80

THROTTLED = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "too hot (driver)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""Bits of the driver's reasons that are trouble; idle, clocks that somebody set and the like are none."""


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class NvmlGauge:
    """One device of a started library; every call that the library refuses is None.

    Args:
        library: started; ended by ``close``.
        device: its handle.
    """

    def __init__(self, library: ctypes.CDLL, device: c_void_p) -> None:
        self._library, self._device, self._open = library, device, True

    def read(self) -> GpuReading:
        """What the driver says now."""
        if not self._open:
            return GpuReading()
        used, memory = self._ask("nvmlDeviceGetUtilizationRates", _Utilization), self._memory()
        draw_mw = self._number("nvmlDeviceGetPowerUsage")
        limit_mw = self._number("nvmlDeviceGetEnforcedPowerLimit")
        return GpuReading(
            load_percent=None if used is None else float(used.gpu),
            clock_mhz=self._number("nvmlDeviceGetClockInfo", _SM_CLOCK),
            max_clock_mhz=self._number("nvmlDeviceGetMaxClockInfo", _SM_CLOCK),
            memory_used_bytes=memory,
            power_w=None if draw_mw is None else draw_mw / 1e3,
            power_limit_w=None if limit_mw is None else limit_mw / 1e3,
            temperature_c=self._number("nvmlDeviceGetTemperature", _DIE),
            throttled=self._throttled(),
            driver=_text(self._library, "nvmlSystemGetDriverVersion", _VERSION_BYTES),
        )

    def close(self) -> None:
        """End the library; a second call does nothing."""
        if self._open:
            self._open = False
            self._library.nvmlShutdown()

    def _number(self, function: str, *arguments: int) -> float | None:
        found = self._ask(function, c_uint, *arguments)
        return None if found is None else float(found.value)

    def _memory(self) -> int | None:
        found = self._ask("nvmlDeviceGetMemoryInfo", _Memory)
        return int(found.used) if found is not None and found.total else None

    def _throttled(self) -> tuple[str, ...] | None:
        found = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", c_ulonglong)
        return None if found is None else tuple(name for bit, name in THROTTLED.items() if found.value & bit)

    def _ask(self, function: str, kind: Any, *arguments: int) -> Any:
        """What a function of this device fills in; None where it is absent or refuses."""
        call, answer = getattr(self._library, function, None), kind()
        if call is None:
            return None
        call.argtypes = (c_void_p, *(c_uint for _ in arguments), POINTER(kind))
        return answer if call(self._device, *arguments, byref(answer)) == 0 else None


def opened(named: str, name: str, library: str = LIBRARY) -> NvmlGauge | None:
    """The gauge of a device; None where there is no NVML, no such device, or one of another name.

    Args:
        named: index or UUID (``GPU-...``) of it.
        name: that it must have.
        library: to load.
    """
    try:
        loaded = ctypes.CDLL(library)
        if loaded.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):
        return None
    device = _device(loaded, named)
    told = None if device is None else _text(loaded, "nvmlDeviceGetName", _NAME_BYTES, device)
    if device is None or told is None or told.removesuffix(_INTEGRATED) != name:
        loaded.nvmlShutdown()
        return None
    return NvmlGauge(loaded, device)


def _device(library: ctypes.CDLL, named: str) -> c_void_p | None:
    handle = c_void_p()
    if named.isdecimal():
        call, key, kind = library.nvmlDeviceGetHandleByIndex_v2, int(named), c_uint
    else:
        call, key, kind = library.nvmlDeviceGetHandleByUUID, named.encode(), c_char_p  # type: ignore[assignment]
    call.argtypes = (kind, POINTER(c_void_p))
    return handle if call(key, byref(handle)) == 0 else None


def _text(library: ctypes.CDLL, function: str, size: int, *device: c_void_p) -> str | None:
    buffer = ctypes.create_string_buffer(size)
    call = getattr(library, function)
    call.argtypes = (*(c_void_p for _ in device), c_char_p, c_uint)
    return buffer.value.decode(errors="replace") if call(*device, buffer, size) == 0 else None
