"""The outbox's points at which a kill could leave something half: the device is killed at each, then started again.

    .venv/bin/python tests/faults/outbox_kills.py [POINT ...]

A healthy broker, and the same account as in ``chaos.py``: what was committed arrives, every other number is announced.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from vajra_edge.mqtt.client import Session
from vajra_edge.mqtt.outbox_file import OutboxFile
from vajra_edge.mqtt.publisher import Publisher


class KillPoint(NamedTuple):
    """Before or after the call of a method, the so-maniest of the process."""

    owner: type
    method: str
    after: bool
    nth: int


POINTS = {
    "opening, before it is read": KillPoint(OutboxFile, "_open", after=False, nth=1),
    "opening, before what was recovered is written": KillPoint(OutboxFile, "_tidy", after=True, nth=1),
    "opening, once it is written": KillPoint(OutboxFile, "_recover", after=True, nth=1),
    "writing, before the transaction ends": KillPoint(OutboxFile, "_insert", after=True, nth=20),
    "writing, once it is committed": KillPoint(OutboxFile, "commit", after=True, nth=20),
    "reserving numbers, before that is committed": KillPoint(OutboxFile, "_tidy", after=True, nth=3),
    "reading what waits": KillPoint(OutboxFile, "read", after=True, nth=1),
    "sent, before it is acknowledged": KillPoint(Session, "publish", after=True, nth=50),
    "acknowledged, before that is written": KillPoint(Publisher, "_acked", after=True, nth=50),
    "closing, before the last commit": KillPoint(OutboxFile, "close", after=False, nth=1),
    "closing, after it": KillPoint(OutboxFile, "close", after=True, nth=1),
}


def arm(name: str) -> None:
    """Let this process be killed at a point."""
    point = POINTS[name]
    method: Callable[..., Any] = getattr(point.owner, point.method)
    calls = [0]

    def deadly(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == point.nth and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = method(*arguments, **named)
        if calls[0] == point.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(point.owner, point.method, deadly)


def run(folder: Path, name: str) -> Any:
    """A start in order, then one that is killed at the point, then another in order; the account of all three."""
    from faults import chaos

    broker = chaos.KeptBroker(folder)
    broker.start()
    raw = chaos.RawLog(broker.port)
    away, here = (chaos.Device(folder, port, 1.0, 200.0) for port in (1, broker.port))
    account = chaos.Account()
    try:
        away.start()  # so that something waits
        chaos.wait_for(lambda: len(away.lines("committed")) > 100)
        assert away.stop() == 0
        here.start(name)
        if name.startswith("closing"):
            before = len(here.lines("committed"))
            chaos.wait_for(lambda: len(here.lines("committed")) > before + 20)
            here.child.terminate()
        assert here.child.wait(60.0) == -signal.SIGKILL, (name, here.lines("device.log")[-3:])
        account.kills = 1
        here.start()
        chaos.settle(here, raw)
        assert here.stop() == 0
        time.sleep(0.5)
    finally:
        for device in (away, here):
            with suppress(ProcessLookupError, AttributeError):
                device.child.kill()
        raw.close()
        broker.stop()
    return chaos.settled(here, raw, account)


def main(names: list[str]) -> None:
    from faults import chaos

    for name in names or POINTS:
        with tempfile.TemporaryDirectory(prefix="vajra-edge-") as folder:
            account = run(Path(folder), name)
        print(f"{name}: {account.told()}", flush=True)
        chaos.check(account, few=True)


if __name__ == "__main__":
    main(sys.argv[1:])
