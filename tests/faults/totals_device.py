"""A device for ``power_cuts_totals.py``: real watches and totals' files before people who cross a line all the time.

``python totals_device.py STATE_DIR LEDGER SEED``: each step of its clocks is half a second, and takes two milliseconds.
Hours begin, cameras are lost, the wall clock is set (a year back, too), the daemon is stopped or killed and the board
boots anew. The ledger has all that was announced, what each start went on from and what was kept, by a time that
nobody sets: seconds since the first boot.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np
from faults.chaos_device import Ledger

from vajra_edge.analytics.totals import HOUR_S, Totals
from vajra_edge.capture.camera import CameraChanged
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.clock import Moment
from vajra_edge.config.settings import load
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.totals_files import TotalsFiles
from vajra_edge.daemon.watches import Watches
from vajra_edge.mqtt.messages import Draft
from vajra_edge.mqtt.schema import EventMessage, PlacesMessage, TotalsMessage
from vajra_edge.mqtt.topics import Topic, Topics
from vajra_edge.types import Detections, Frame

NAMES = ("person", "car", "bicycle")
STREET = {"name": "street", "start": [0, 0.5], "end": [1, 0.5]}
SETTINGS = load(
    None, {"weights": {"path": "x.onnx"}, "cameras": [{"id": "gate", "source": "x.mp4", "lines": [STREET]}]}
)
HOUR = 1_800_000_000 // HOUR_S * HOUR_S
YEAR_S = 365 * 86_400
STEP_S, LATENCY_S, PACE_S = 0.5, 0.15, 0.002
INSTANT_S = 0.05
"""Between what cannot happen at once, so that the ledger tells which came first."""
IMAGE = np.zeros((100, 100, 3), np.uint8)


class Clocks:
    """Of a board: the boot's own, the wall clock, and the time that the ledger goes by."""

    def __init__(self, boot: int = 0, began_s: float = 0.0, unix_s: float = HOUR, *, synchronised: bool = True) -> None:
        self.boot, self.began_s, self.boot_s = boot, began_s, 10.0
        self.set(unix_s, synchronised=synchronised)

    def set(self, unix_s: float, *, synchronised: bool) -> None:
        self.ahead_s, self.synchronised = unix_s - self.boot_s, synchronised

    def passes(self, seconds: float) -> None:
        self.boot_s = round(self.boot_s + seconds, 2)

    def now_s(self) -> float:
        return self.boot_s

    def now(self) -> Moment:
        return Moment(f"boot-{self.boot}", self.boot_s, self.boot_s + self.ahead_s, self.synchronised)

    @property
    def true_s(self) -> float:
        return self.began_s + self.boot_s


class Broker:
    """Takes the publisher's place, and notes what is announced before it is counted."""

    def __init__(self, note: Callable[..., None]) -> None:
        self.note = note
        self.totals: TotalsMessage | None = None
        self.places: PlacesMessage | None = None

    def event(self, draft: Draft) -> None:
        told = EventMessage.model_validate_json(draft.numbered("e", 0))
        if told.event == "cross":
            self.note("crossed", told.at.timestamp(), told.way, told.class_name)

    def state(self, topic: Topic, payload: bytes) -> None:
        if topic.name.endswith("totals"):
            self.totals = TotalsMessage.model_validate_json(payload)
        else:
            self.places = PlacesMessage.model_validate_json(payload)
            self.note("said", sum(sum({**one.crossed_in}.values()) for one in self.places.lines))


class NotedFiles(TotalsFiles):
    """Says what was read, and what was kept once it is."""

    def __init__(self, state_dir: Path, do: Callable[[str, Callable[[], None]], None], note: Callable[..., None]):
        super().__init__(state_dir, do)
        self._note = note

    def _read(self, camera: str) -> Totals | None:
        totals = super()._read(camera)
        self._note("began", None if totals is None else [totals.until.boot, totals.until.boot_s])
        return totals

    def _write(self, camera: str) -> None:
        totals = self._newest.get(camera)
        super()._write(camera)
        if totals is not None:
            self._note("kept", [totals.until.boot, totals.until.boot_s])


@dataclass
class Frames:
    """What the camera shows: each of three stands on the other side of the line in every second picture."""

    number: int = 0

    def next(self, clocks: Clocks) -> tuple[Frame, Detections]:
        self.number += 1
        feet = [70.0 if (self.number + index) // 2 % 2 else 30.0 for index in range(len(NAMES))]
        boxes = np.array([[20 * index, y - 20, 20 * index + 10, y] for index, y in enumerate(feet)], np.float32)
        found = Detections(boxes, np.full(3, 0.9, np.float32), np.arange(3, dtype=np.int32))
        now = clocks.now()
        taken_at = datetime.fromtimestamp(now.unix_s, timezone.utc)
        synchronised = now.synchronised
        captured_ns = round(clocks.now_s() * 1e9)
        return Frame(IMAGE, captured_ns, taken_at, self.number, "gate", clock_synchronised=synchronised), found


class Life:
    """One start of the daemon, as far as totals go."""

    def __init__(self, state_dir: Path, clocks: Clocks, note: Callable[..., None]) -> None:
        self.clocks, self.alive, self.frames = clocks, True, Frames()
        self.background: Background[None] = Background(lambda _: None)
        self.background.start()
        self.broker = Broker(note)
        files = NotedFiles(state_dir, self._do, note)
        self.watches = Watches(
            self.broker,  # type: ignore[arg-type]
            Topics("vajra", "dev"),
            files,
            SETTINGS,
            clocks.now,
            clocks.now_s,
        )
        self.phase(CameraPhase.STREAMING)

    def _do(self, name: str, task: Callable[[], None], /) -> None:
        self.background.look(name, lambda: task() if self.alive else None)

    def phase(self, phase: CameraPhase) -> None:
        self.watches.changed(CameraChanged("gate", phase, "", attempts=0, retry_in_s=None))

    def tick(self, passes_s: float) -> None:
        self.clocks.passes(passes_s)
        self.watches.tick(self.clocks.now_s())

    def step(self, between: Callable[[], None] = lambda: None) -> None:
        """Half a second: a frame is taken, inferred and shown; ``between`` comes while it is on its way."""
        frame, found = self.frames.next(self.clocks)
        self.clocks.passes(LATENCY_S)
        between()
        self.clocks.passes(LATENCY_S)
        self.watches.see(frame, found, np.arange(1, 4), NAMES)
        self.tick(STEP_S - 2 * LATENCY_S)

    def end(self, *, killed: bool) -> None:
        """Stop in order, or with whatever waits undone."""
        self.alive = not killed
        self.clocks.passes(INSTANT_S)
        if not killed:
            self.watches.close()
        assert self.background.close(60.0)


class Device:
    """Lives and boots, one after the other."""

    def __init__(self, state_dir: Path, ledger: Ledger, dice: random.Random) -> None:
        self.state_dir, self.ledger, self.dice, self.clocks = state_dir, ledger, dice, Clocks()
        self.note("boot", "boot-0", 0.0)
        self.life = self.begin()

    def note(self, kind: str, *what: Any) -> None:
        self.ledger.write(json.dumps([kind, round(self.clocks.true_s, 2), *what]))

    def begin(self) -> Life:
        self.note("life")
        return Life(self.state_dir, self.clocks, self.note)

    def set_clock(self) -> None:
        """To where it should be, a year back, to where a board without a battery begins, or shortly before an hour."""
        unix_s = HOUR + self.clocks.true_s
        near_s = (
            self.clocks.now().unix_s // HOUR_S * HOUR_S
            + HOUR_S
            - self.dice.choice([0.004, self.dice.uniform(0.0, 3.0)])
        )
        to_s = self.dice.choice([unix_s, unix_s - YEAR_S, unix_s + 120.0, unix_s - HOUR_S, 1e6, near_s, near_s, near_s])
        self.clocks.set(to_s, synchronised=self.dice.random() < 0.7)

    def restart(self) -> None:
        """The daemon, or the board."""
        self.life.end(killed=self.dice.random() < 0.7)
        self.clocks.passes(self.dice.choice([1.0, 30.0, 4000.0]))
        if self.dice.random() < 0.5:
            began_s = round(self.clocks.true_s + 20.0, 2)
            self.clocks = Clocks(self.clocks.boot + 1, began_s)
            self.note("boot", f"boot-{self.clocks.boot}", began_s)
            self.set_clock()
        self.life = self.begin()

    def lose_the_camera(self) -> None:
        self.clocks.passes(INSTANT_S)
        self.life.phase(CameraPhase.BACKOFF)
        for _ in range(3):
            self.life.tick(self.dice.choice([0.5, 60.0, 2000.0]))
        self.life.phase(CameraPhase.STREAMING)

    def tick_meanwhile(self) -> None:
        self.life.watches.tick(self.clocks.now_s())

    def step(self) -> None:
        happens = self.dice.random()
        if happens < 0.01:
            self.restart()
        elif happens < 0.02:
            self.lose_the_camera()
        elif happens < 0.05:
            self.set_clock()
        if self.dice.random() < 0.02:
            self.life.step(self.dice.choice([self.set_clock, self.tick_meanwhile]))
        else:
            self.life.step()
        time.sleep(PACE_S)


def main() -> None:
    state_dir, ledger, seed = Path(sys.argv[1]), Ledger(Path(sys.argv[2])), int(sys.argv[3])
    device = Device(state_dir, ledger, random.Random(seed))
    while True:
        device.step()


if __name__ == "__main__":
    main()
