"""Every cell: its name, where its function is, how long it may take and whether others may run beside it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

SLOTS = 3
"""Cells side by side, of those that only build."""

TIMINGS = "VAJRA_DEVICE_TIMINGS"
"""Variable that names the folder of TensorRT's timing caches to a cell's process."""


@dataclass(frozen=True)
class Cell:
    """One question to the machine.

    Attributes:
        name: letter of its group first.
        module: of the function.
        function: ``function(lab, **arguments)``; returns a frozen dataclass or a dict, raises where the answer is no.
        arguments: JSON values.
        limit_s: it is ended after this.
        least_s: it is not started with less than this left.
        alone: it times something, or fills the GPU.
        leveled: its name ends with the optimization level.
        resumes: it goes on with what an earlier, unfinished run of it kept.
    """

    name: str
    module: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    limit_s: float = 240.0
    least_s: float = 45.0
    alone: bool = False
    leveled: bool = False
    resumes: bool = False

    def call(self, lab: Any) -> Any:
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        return function(lab, **self.arguments)


def _seed() -> list[Cell]:
    written = {"Python": "python_block", "command": "commands"}
    return [
        Cell(f"B {kind} block {number}", "cells_seed", function, {"number": number}, limit_s=500)
        for kind, function in written.items()
        for number in (0, 1)
    ]


def _matrix() -> list[Cell]:
    exports: dict[str, dict[str, Any]] = {
        "fp32": {},
        "half": {"half": True},
        "int8 by Q/DQ": {"int8": True, "quantization": "qdq"},
        "int8 by calibrator": {"int8": True, "quantization": "calibrator"},
        "half, dynamic, batch 4": {"half": True, "dynamic": True, "batch": 4},
        "int8, dynamic, batch 4": {"int8": True, "dynamic": True, "batch": 4},
        "half, batch 4": {"half": True, "batch": 4},
        "half, batch 16": {"half": True, "batch": 16},
        "half, nms": {"half": True, "nms": True},
        "int8, nms": {"int8": True, "nms": True},
        "fp32, nms, dynamic, batch 4": {"nms": True, "dynamic": True, "batch": 4},
        "half, img_size 320x448": {"half": True, "img_size": [320, 448]},
        "half, simplify off": {"half": True, "simplify": False},
    }
    found = [
        Cell(f"C {name}", "cells_matrix", "export", {"arguments": arguments}, limit_s=300)
        for name, arguments in exports.items()
    ]
    found.append(Cell("C workspace above the device", "cells_matrix", "workspace_refused", limit_s=90, least_s=20))
    found.append(Cell("C workspace above what is free", "cells_matrix", "workspace_lowered", alone=True))
    return found


def _figures() -> list[Cell]:
    ways = ("fp32", "fp16", "int8 by Q/DQ", "int8 by calibrator")
    found = [
        Cell(
            f"D {network} {way}", "cells_figures", "build", {"network": network, "way": way}, limit_s=500, leveled=True
        )
        for network in ("nano", "yolox")
        for way in ways
    ]
    times = {"builds": [cell.name for cell in found], "frame": True}
    return [*found, Cell("D times", "cells_figures", "times", times, limit_s=200, alone=True, leveled=True)]


def _pins() -> list[Cell]:
    found = [
        Cell(
            f"F {network}, pinned: {pins}", "cells_pins", "build", {"network": network, "pins": pins},
            limit_s=450, leveled=True,
        )
        for network in ("nano", "yolox")
        for pins in ("nothing", "product", "region")
    ]  # fmt: skip
    times = {"builds": [cell.name for cell in found], "frame": False}
    return [*found, Cell("F times", "cells_figures", "times", times, limit_s=120, alone=True, leveled=True)]


def _nms() -> list[Cell]:
    found = [
        Cell(f"G nano, NMS {where}", "cells_nms", "build", {"where": where}, limit_s=450, leveled=True)
        for where in ("in the graph", "on the host")
    ]
    times = {"builds": [cell.name for cell in found]}
    return [*found, Cell("G times", "cells_nms", "times", times, limit_s=120, alone=True, leveled=True)]


def _larger() -> list[Cell]:
    found = [
        Cell(f"K {network}", "cells_larger", "build", {"network": network}, limit_s=500, leveled=True)
        for network in ("medium", "yolov8n")
    ]
    times = {"builds": [cell.name for cell in found], "frame": False}
    return [*found, Cell("K times", "cells_figures", "times", times, limit_s=120, alone=True, leveled=True)]


def every() -> list[Cell]:
    """All cells, the most valuable first."""
    return [
        Cell("A small graphs", "cells_small", "all_graphs", limit_s=420, least_s=40, resumes=True),
        *_seed(),
        *_matrix(),
        *_figures(),
        Cell("E ranges of 64 photos", "cells_calibration", "ranges", {"images": 64}),
        Cell("E seconds of 500 photos", "cells_calibration", "seconds", {"images": 500}, limit_s=400, alone=True),
        *_pins(),
        *_nms(),
        Cell("H ultralytics opens our engine", "cells_peer", "theirs_of_ours"),
        Cell("H we open an engine of ultralytics", "cells_peer", "ours_of_theirs", limit_s=300),
        *(Cell(f"I {gib} GiB left", "cells_memory", "starved", {"free_gib": gib}, alone=True) for gib in (4, 2, 1)),
        Cell("J daemon", "cells_daemon", "daemon", limit_s=560, least_s=120, alone=True, resumes=True),
        *_larger(),
    ]


def named(level: int) -> dict[str, Cell]:
    """Cells by full name; those whose figures depend on the level have it in the name."""
    return {f"{cell.name}, level {level}" if cell.leveled else cell.name: _timed_for(cell, level) for cell in every()}


def _timed_for(cell: Cell, level: int) -> Cell:
    """Builds above level 0 take minutes each, side by side or not."""
    if not cell.leveled or cell.alone or level == 0:
        return cell
    return replace(cell, limit_s=1500.0, least_s=200.0)
