"""``demo``: ``run`` with packaged settings in a child, and ``watch`` in front of it.

It has no frame, engine or message path of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.live import Live

from vajra_edge.capture.sources.registry import make
from vajra_edge.cli.watch import Lines, Screen, follow
from vajra_edge.config.settings import Settings, load
from vajra_edge.demo.broker import die_with_parent
from vajra_edge.demo.settings import DEVICE, as_toml, broker_settings, overrides
from vajra_edge.errors import VajraError

GRACE_S = 5.0
"""After the daemon ended by itself its last messages may still be on their way through the broker."""


def demo(*, max_frames: int | None, source: str | None, weights: Path | None, broker: str | None, as_json: bool) -> int:
    """Run the daemon on the packaged clip and show what a subscriber receives; returns the daemon's exit code."""
    with ExitStack() as stack:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the daemon too, as Ctrl-C does
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vajra-demo-")))
        config = folder / "config.toml"
        mqtt = broker_settings(broker, stack)
        config.write_text(as_toml(overrides(folder, mqtt, source=source, weights=weights)), encoding="utf-8")
        log = folder / "daemon.log"
        settings = load(config)
        make(settings.cameras[0])
        daemon = stack.enter_context(_daemon(config, max_frames, None if as_json else log))
        stack.callback(_end, daemon)
        shown = _show(settings, daemon, max_frames, as_json=as_json)
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
        return subprocess.Popen(
            command,
            stdout=error or sys.stderr,
            stderr=error,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, through a library that is loaded already
        )


def _show(settings: Settings, daemon: subprocess.Popen[bytes], max_frames: int | None, *, as_json: bool) -> int:
    ended = _ended_since(daemon)
    if as_json:
        return follow(settings.mqtt, DEVICE, Lines(sys.stdout.buffer), max_frames, ended)
    with Live(console=Console(), auto_refresh=False) as live:
        return follow(settings.mqtt, DEVICE, Screen(live), max_frames, ended)


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
