"""Sandbox: one of our commands run as the daemon is, with the user and restrictions of the installed unit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

UNIT = "vajra-edge.service"
RUNTIME = Path("/run/systemd/system")
"""Exists where systemd is the system's manager, see sd_booted(3)."""

LONGEST_S = 600.0
"""For all of it: sixteen cameras that do not answer take ten seconds each."""

_LIFE = re.compile(
    r"Type|NotifyAccess|Exec(?!Paths|SearchPath).*|Restart.*|Timeout.*|Watchdog.*|Kill.*|SendSIG.*|FinalKillSignal|OOMPolicy"
    r"|RemainAfterExit|PIDFile|BusName|GuessMainPID|SuccessExitStatus|RuntimeMaxSec|Standard.*|Sockets|FileDescriptor.*"
    r"|RemoveIPC|RuntimeDirectory(Mode|Preserve)|Slice"
)
"""How a service lives, not what it may do. ``RemoveIPC`` would take the running daemon's at our end."""


class Outside(Exception):
    """There is no sandbox to look from, or it does not open; says why."""


def run(arguments: Sequence[str]) -> bytes:
    """Run ``vajra-edge ARGUMENTS`` in the daemon's place; its stdout.

    Raises:
        Outside: this is not root, systemd does not run, the unit is not installed, or systemd refuses the command.
    """
    if os.geteuid() != 0:
        raise Outside("only root can enter it (type sudo before the command)")
    if not RUNTIME.is_dir():
        raise Outside("systemd does not run here")
    unit = _output(["systemctl", "cat", "--no-pager", UNIT])
    options = [f"--property={line}" for line in properties(unit.decode(errors="replace").splitlines())]
    command = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--property=RuntimeMaxSec={LONGEST_S:.0f}"]
    return _output([*command, *options, sys.executable, "-I", "-m", "vajra_edge", *arguments])


def properties(unit: Iterable[str]) -> Iterator[str]:
    """What the lines of a unit and its drop-ins say a process may do, in their order, as ``NAME=VALUE``."""
    section, rest = "", ""
    for line in unit:
        text = rest + line.strip()
        rest = ""
        if text.startswith(("#", ";")):
            continue
        if text.endswith("\\"):
            rest = f"{text[:-1]} "
        elif text.startswith("["):
            section = text
        elif section == "[Service]" and "=" in text:
            name, _, value = (part.strip() for part in text.partition("="))
            if name == "RuntimeDirectory":  # made and removed by who owns it; here it is only let through
                yield from (f"ReadWritePaths=-/run/{folder}" for folder in value.split())
            elif not _LIFE.fullmatch(name):
                yield f"{name}={value}"


def _output(command: Sequence[str]) -> bytes:
    """The exit code is the command's own, which may fail checks; what it wrote says whether it ran."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=LONGEST_S + 30.0
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Outside(str(error)) from error
    if not ended.stdout:
        said = ended.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {ended.returncode}"]
        raise Outside(f"{command[0]}: {said[-1]}")
    return ended.stdout
