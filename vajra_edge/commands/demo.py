"""``demo``: ``run`` with packaged settings in a child, and ``watch`` in front of it.

It has no frame, engine or message path of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from vajra_edge.commands.watch import Lines, Screen, follow
from vajra_edge.demo.packaged import DEVICE, as_toml, broker_settings, overrides
from vajra_edge.errors import ControlError, VajraError
from vajra_edge.service.control_client import ask
from vajra_edge.settings import Settings, load

GRACE_S = 5.0
"""After the daemon ended by itself its last messages may still be on their way through the broker."""


def demo(*, max_frames: int | None, source: str | None, weights: Path | None, broker: str | None, as_json: bool) -> int:
    """Run the daemon on the packaged clip and show what a subscriber receives; returns the daemon's exit code."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vajra-demo-")))
        config = folder / "config.toml"
        mqtt = broker_settings(broker, stack)
        config.write_text(as_toml(overrides(folder, mqtt, source=source, weights=weights)), encoding="utf-8")
        log = folder / "daemon.log"
        daemon = stack.enter_context(_daemon(config, max_frames, None if as_json else log))
        stack.callback(_end, daemon)
        shown = _show(load(config), daemon, max_frames, as_json=as_json)
        code = _end(daemon)
        if code and not as_json:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        if max_frames is not None and shown < max_frames and not code:
            raise VajraError(f"the subscriber received {shown} of {max_frames} messages", remedy="see the log above")
        return code


def _daemon(config: Path, max_frames: int | None, log: Path | None) -> subprocess.Popen[bytes]:
    ends = [] if max_frames is None else ["--max-frames", str(max_frames)]
    command = [sys.executable, "-m", "vajra_edge", "run", "--config", str(config), *ends]
    # Its own session: Ctrl-C ends our view first, and then we end the daemon politely.
    with ExitStack() as stack:
        error = stack.enter_context(log.open("wb")) if log else None
        return subprocess.Popen(command, stdout=error or sys.stderr, stderr=error, start_new_session=True)


def _show(settings: Settings, daemon: subprocess.Popen[bytes], max_frames: int | None, *, as_json: bool) -> int:
    ended = _ended_since(daemon)
    if as_json:
        return follow(settings.mqtt, DEVICE, Lines(sys.stdout.buffer), max_frames, ended)
    console = Console()
    _show_build(settings, daemon, console)
    with Live(console=console, auto_refresh=False) as live:
        return follow(settings.mqtt, DEVICE, Screen(live), max_frames, ended)


def _show_build(settings: Settings, daemon: subprocess.Popen[bytes], console: Console) -> None:
    """A progress bar until the engine serves, from the same control socket that ``status`` asks."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=100)
        while daemon.poll() is None:
            status = _status(settings)
            engine = status.get("engine") or {}
            building = engine.get("building") or {}
            if status.get("phase") == "serving":
                return
            percent = building.get("percent")
            bar.update(
                task, description=str(building.get("stage") or status.get("phase") or "starting"), completed=percent
            )
            time.sleep(0.1)


def _status(settings: Settings) -> dict[str, Any]:
    try:
        for reply in ask(settings.service.control_socket, {"verb": "status"}):
            return dict(reply.get("status") or reply)
    except ControlError:
        pass  # not up yet
    return {}


def _ended_since(daemon: subprocess.Popen[bytes]) -> Callable[[], bool]:
    ended_s: list[float] = []

    def ended() -> bool:
        if daemon.poll() is None:
            return False
        if not ended_s:
            ended_s.append(time.monotonic())
        return time.monotonic() - ended_s[0] > (GRACE_S if daemon.returncode == 0 else 0.0)

    return ended


def _end(daemon: subprocess.Popen[bytes]) -> int:
    """SIGTERM, then SIGKILL for one that does not drain in time; its exit code."""
    if daemon.poll() is None:
        daemon.terminate()
        try:
            daemon.wait(15.0)
        except subprocess.TimeoutExpired:
            daemon.kill()
    return daemon.wait()
