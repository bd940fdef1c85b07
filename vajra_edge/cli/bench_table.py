"""The figures of ``bench`` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vajra_edge.benchmark.compare import Comparison
from vajra_edge.benchmark.figures import Figures, Host, Subject, Use
from vajra_edge.benchmark.spread import Spread
from vajra_edge.cli.terminal import inert

_MIB = 1 << 20
_GIB = 1 << 30
ABSENT = "-"


def show(figures: Figures, console: Console) -> None:
    """Print one run."""
    about = Table(show_header=False, box=None)
    for name, text in _about(figures):
        about.add_row(name, escape(inert(text)))
    console.print(about)
    console.print(_stages(figures))
    rest = Table(show_header=False, box=None)
    for name, text in _rest(figures):
        rest.add_row(name, escape(inert(text)))
    console.print(rest)


def show_comparison(told: Comparison, names: Sequence[str], console: Console) -> None:
    """Print two runs and the verdict."""
    table = Table(box=None)
    a, b = (Path(name).name for name in names)
    for head in ("", f"A: {a}", f"B: {b}", "B by A", "19 times in 20"):
        table.add_column(escape(inert(head)), justify="left" if not head else "right")
    for one in told.figures:
        percent = ABSENT if one.percent is None else f"{one.percent:+.1f} %"
        interval = ABSENT if one.low is None else f"{one.low:+.1f} to {one.high:+.1f} %"
        table.add_row(one.figure, _number(one.a), _number(one.b), percent, interval)
    table.add_row("turns", str(len(told.a.turns)), str(len(told.b.turns)), "", "")
    console.print(table)
    for text in told.differences:
        console.print(escape(inert(f"not alike: {text}")))
    for text in told.plans:
        console.print(escape(inert(f"compared: {text}")))
    if not told.by_turns:
        console.print("two runs at two times: plans that are named take their turns side by side, and tell more")
    console.print(f"[bold]{escape(inert(told.verdict))}[/]")


def _about(figures: Figures) -> Iterator[tuple[str, str]]:
    subject, setup = figures.subject, figures.setup
    yield "plan", _plan(subject)
    yield "by", f"{subject.library or subject.backend} ({subject.backend_reason})"
    width, height = setup.resolution_wh
    many = "camera" if setup.cameras == 1 else "cameras"
    cameras = "" if setup.cameras is None else f"{setup.cameras} {many} at {setup.fps:g} frames/s from memory: "
    threads = "" if setup.threads is None else f", {setup.threads} threads"
    yield "path", subject.path
    yield "on", f"{cameras}{setup.source}, {width} x {height}{threads}"
    yield "machine", _machine(figures.host)
    if (state := _state(figures.host)) != "":
        yield "state", state


def _plan(subject: Subject) -> str:
    height, width = subject.resolution_hw
    nms = "NMS inside" if subject.nms_inside else "NMS outside"
    plan = f"{subject.name} ({subject.fingerprint[:12]})"
    return f"{plan}, {subject.precision} on {subject.target}, {width} x {height}, batch {subject.batch}, {nms}"


def _machine(host: Host) -> str:
    board = f"{host.machine}, " if host.machine else ""
    gpu = "" if host.gpu is None else f", {host.gpu.name}" + (f", driver {host.gpu.driver}" if host.gpu.driver else "")
    l4t = f", Jetson Linux {host.l4t}" if host.l4t else ""
    return f"{board}{host.cpu}, {host.cpus} processors, {host.memory_bytes / _GIB:.1f} GiB{gpu}{l4t}"


def _state(host: Host) -> str:
    told = [f"power mode {host.power_mode}"] if host.power_mode else []
    told += [f"governor {host.governor}"] if host.governor else []
    gpu = host.gpu
    if gpu is not None and gpu.clock_mhz is not None:
        locked = {True: ", locked", False: ", free", None: ""}[gpu.clock_locked]
        told.append(f"GPU clock {gpu.clock_mhz:.0f} of {_number(gpu.max_clock_mhz, 0)} MHz{locked}")
    told += [f"load before {host.load_1min:g}"] if host.load_1min is not None else []
    told += [f"{host.temperature_c:.0f} °C"] if host.temperature_c is not None else []
    return ", ".join(told)


def _stages(figures: Figures) -> Table:
    table = Table(box=None)
    table.add_column("milliseconds")
    for head in ("n", "p50", "p99", "p99.9", "max"):
        table.add_column(head, justify="right")
    rows = {"bare engine": figures.engine_ms}
    rows |= {field.name: getattr(figures.stages, field.name) for field in fields(figures.stages)}
    rows["frame to message"] = figures.latency_ms
    for name, spread in rows.items():
        if spread.n:
            table.add_row(name, *_cells(spread))
    return table


def _cells(spread: Spread) -> Iterator[str]:
    yield str(spread.n)
    for value in (spread.p50, spread.p99, spread.p99_9, spread.max):
        yield _number(value)


def _rest(figures: Figures) -> Iterator[tuple[str, str]]:
    if figures.frame_ms is not None and figures.ratio is not None:
        ratio, turns = figures.ratio, len(figures.turns)
        yield "as fast as it goes", f"{figures.frame_ms:.3f} ms a frame, {figures.frames_per_s:g} frames/s"
        spread = f"{ratio.low:.3f} to {ratio.high:.3f} in {turns} turns"
        yield "ratio", f"{ratio.median:.3f} of the bare engine ({spread}; 1: all but inference is hidden)"
    frames = figures.frames
    share = frames.dropped / frames.arrived if frames.arrived else 0.0
    rate = "" if frames.slowest_fps is None else f", {frames.slowest_fps:.1f}"
    rate += "" if frames.fastest_fps in {None, frames.slowest_fps} else f" to {frames.fastest_fps:.1f}"
    rate += " frames/s a camera" if rate else ""
    told = f"{frames.arrived} arrived, {frames.inferred} with a message, {frames.dropped} dropped"
    yield "at the cameras' pace", f"{told} ({share:.1%}){rate}"
    messages = figures.messages
    each = messages.bytes / messages.count if messages.count else 0.0
    yield "messages", f"{messages.count} of {each:.0f} bytes"
    yield from _use(figures.use)
    for remark in figures.remarks:
        yield "note", remark


def _use(use: Use) -> Iterator[tuple[str, str]]:
    told = [f"{use.cpu_cores:.2f} processors at the cameras' pace"] if use.cpu_cores is not None else []
    told += [f"{use.full_cpu_cores:.2f} as fast as it goes"] if use.full_cpu_cores is not None else []
    told += [f"{use.capture_cpu_cores:.2f} of the camera's process"] if use.capture_cpu_cores is not None else []
    yield "CPU", ", ".join(told) or ABSENT
    resident = [f"{value / _MIB:.0f} MiB {word}" for value, word in _memory(use) if value is not None]
    yield "memory", ", ".join(resident) or ABSENT
    gpu = use.gpu
    if gpu is None:
        return
    told = [f"load {_number(gpu.load_percent.p50, 0)} %"] if gpu.load_percent else ["load unknown"]
    told += [f"clock {gpu.clock_mhz:.0f} MHz, at the least {_number(gpu.lowest_clock_mhz, 0)}"] if gpu.clock_mhz else []
    told += [f"{gpu.memory_used_bytes / _MIB:.0f} MiB"] if gpu.memory_used_bytes is not None else []
    told += [f"{gpu.power_w:g} W"] if gpu.power_w is not None else []
    told += [f"{gpu.temperature_c:g} °C"] if gpu.temperature_c is not None else []
    told += [f"slowed down: {', '.join(gpu.throttled)}"] if gpu.throttled else []
    yield "GPU", ", ".join(told)


def _memory(use: Use) -> tuple[tuple[int | None, str], ...]:
    return (use.rss_bytes, "resident"), (use.peak_rss_bytes, "at the peak")


def _number(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"
