"""GpuReading: one look at a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuReading:
    """One look at a GPU. None: it does not tell, which is another thing than 0.

    Attributes:
        load_percent: share of the last moments in which it worked.
        clock_mhz: of its processors.
        max_clock_mhz: the highest that it is allowed.
        min_clock_mhz: the lowest that it is allowed.
        memory_used_bytes: by everybody.
        power_w: what it draws.
        power_limit_w: what its driver holds it to.
        temperature_c: of its die.
        throttled: reasons for a lower clock than it could have; empty: there is none.
        driver: version of the kernel driver.
    """

    load_percent: float | None = None
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    min_clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None
    driver: str | None = None
