"""Who is charged, what serves afterwards and how long frames are missing: one scenario a way to die.

``python tests/faults/crash_matrix.py [NAME ...]`` prints the table; without names, all of it (a quarter of an hour).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import tiny
from faults.supervised import Supervised, gap_s
from station import Ears, Station, build_children
from waiting import wait_for

from vajra_edge.demo.broker import Broker
from vajra_edge.plans.history import History

WATCHDOG_S, UNIT_WATCHDOG_S = 6.0, 30.0
AFTER_S = 5.0
"""Of frames that the last plan has to serve before a scenario is over."""


@dataclass(frozen=True)
class Row:
    """What came of one scenario.

    Attributes:
        name: of it.
        deaths: exit codes of the processes that ended by themselves.
        charged: who is charged with what: old, new, or nobody.
        serves: old or new.
        missing_s: the longest time without a frame.
        before: what the last process said of the one before it.
    """

    name: str
    deaths: tuple[int, ...]
    charged: str
    serves: str
    missing_s: float
    before: str


class Scene:
    """A daemon with an old plan that served well, and a fault that waits for its file.

    Args:
        folder: everything lies below it.
        port: of the broker.
        fault: of ``crashing.py``, without its file; empty: none.
        watchdog_s: patience; None: no watchdog.
        state_dir: None: below the folder.
        beside: a second camera, whose missing frames count alone; empty: there is none.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        fault: str,
        watchdog_s: float | None = None,
        state_dir: Path | None = None,
        beside: str = "",
    ) -> None:
        self.station, self.beside = Station(folder, port), beside
        if beside:
            self.station.camera(beside)
        if state_dir is not None:
            self.station.state_dir = state_dir
            self.station.settings["store"]["state_dir"] = str(state_dir)
        self.only = folder / "only"
        self.supervised = Supervised(self.station, f"{fault}:{self.only}" if fault else "", watchdog_s)
        self.supervised.start()
        self.old = self.supervised.until(_serves)["engine"]["serving"]["fingerprint"]
        self.ears: Ears = self.station.listen()
        self.ears.detections(3)
        self.began_s = time.monotonic()

    def strike(self, whom: str = "") -> None:
        aside = self.only.with_suffix(".new")
        aside.write_text(whom)
        aside.replace(self.only)

    def until_struck(self) -> None:
        wait_for(self.only.with_suffix(".struck").exists)

    def exchange(self) -> str:
        """Other weights; the fingerprint that they ask for."""
        self.station.write_weights(tiny.network(gain=30.0))
        wanted = lambda status: status["engine"]["wanted"] not in (None, self.old)  # noqa: E731
        return str(self.supervised.until(wanted)["engine"]["wanted"])

    def row(self, name: str) -> Row:
        status = self.supervised.until(_serves)
        self.ears.detections(3)
        self.watch(AFTER_S)
        charged = [
            f"{'old' if one.fingerprint == self.old else 'new'}: {one.cause.value} x{len(one.times_s)}"
            for one in History(self.station.state_dir).failures()
        ]
        status = self.supervised.until(_serves)
        serves = "old" if status["engine"]["serving"]["fingerprint"] == self.old else "new"
        deaths = tuple(one.code for one in self.supervised.ended)
        missing_s = round(gap_s(self.ears, self.began_s, self.beside), 1)
        return Row(name, deaths, ", ".join(charged) or "nobody", serves, missing_s, status["before"])

    def until_lost(self, camera: str, times: int, why: str) -> None:
        """Until a camera was lost so often, at last for this reason; the others never were."""

        def lost(status: dict) -> bool:
            self.ears._poll()
            return any(one["losses"] >= times and why in one["reason"] for one in _cameras(status, camera))

        status = self.supervised.until(lost)
        assert [one["losses"] for one in _cameras(status, self.beside)] == [0]

    def until_it_streams(self, camera: str) -> None:
        def streams(status: dict) -> bool:
            self.ears._poll()
            return any(one["state"] == "streaming" for one in _cameras(status, camera))

        self.supervised.until(streams)

    def watch(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.ears._poll()

    def deaths(self, count: int, limit_s: float = 150.0) -> None:
        def died() -> bool:
            self.ears._poll()
            return len(self.supervised.ended) >= count

        wait_for(died, limit_s=limit_s)

    def close(self) -> None:
        self.ears.close()
        self.supervised.stop()


def _cameras(status: dict, name: str) -> list[dict]:
    return [one for one in status["cameras"] if one["id"] == name]


def _serves(status: dict) -> bool:
    return bool(status["engine"]["serving"])


@contextlib.contextmanager
def scene(folder: Path, port: int, fault: str = "", watchdog_s: float | None = None, **more: Any) -> Iterator[Scene]:
    made = Scene(folder, port, fault, watchdog_s, **more)
    try:
        yield made
    finally:
        made.close()


def segv_at_load(folder: Path, port: int) -> Row:
    """The new plan crashes the daemon while it is loaded; by itself it runs."""
    with scene(folder, port, "load:segv") as at:
        at.strike("none")
        new = at.exchange()
        at.strike(new)
        at.deaths(1)
        return at.row("SIGSEGV at load")


def broken_plan(folder: Path, port: int) -> Row:
    """The only plan crashes whoever loads it, until the third time."""
    with scene(folder, port, "load:abort") as at:
        at.strike(at.old)
        at.supervised.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
        at.deaths(2)
        at.only.unlink()
        return at.row("SIGABRT of the library at the only plan's load")


def segv_in_inference(folder: Path, port: int) -> Row:
    """The new plan crashes on its frames."""
    with scene(folder, port, "infer:segv") as at:
        at.strike("none")
        new = at.exchange()
        at.supervised.until(lambda status: status["engine"]["on_probation"])
        at.strike(new)
        at.deaths(3)
        return at.row("SIGSEGV in inference")


def segv_of_the_librarys_own_thread(folder: Path, port: int) -> Row:
    """The new plan crashes on its frames, in a thread that its library started."""
    with scene(folder, port, "infer:native") as at:
        new = at.exchange()
        at.supervised.until(lambda status: status["engine"]["on_probation"])
        at.strike(new)
        at.deaths(3)
        return at.row("SIGSEGV in inference, in the library's own thread")


def segv_of_the_only_plan(folder: Path, port: int) -> Row:
    """The only plan crashes on its frames, four times."""
    with scene(folder, port, "infer:segv") as at:
        at.strike(at.old)
        at.deaths(4)
        at.only.unlink()
        return at.row("SIGSEGV in inference of the only plan, 4 times")


def segv_in_a_camera(folder: Path, port: int) -> Row:
    """The decoder of one camera crashes, four times; another camera is read beside it."""
    with scene(folder, port, "camera:segv", beside="yard") as at:
        at.strike("gate")
        at.until_lost("gate", 4, "SIGSEGV")
        at.only.unlink()
        at.until_it_streams("gate")
        return at.row("SIGSEGV in a camera, 4 times")


def segv_in_the_build_child(folder: Path, port: int) -> Row:
    """The builder crashes while the old plan serves."""
    with scene(folder, port) as at:
        at.exchange()
        pid = at.supervised.process.pid  # type: ignore[union-attr]
        (child,) = wait_for(lambda: build_children(pid))
        os.kill(child, signal.SIGSEGV)
        at.supervised.until(lambda status: "SIGSEGV" in status["reason"])
        return at.row("SIGSEGV in the build child")


def segv_from_outside(folder: Path, port: int) -> Row:
    """Somebody sends SIGSEGV three times."""
    with scene(folder, port) as at:
        for count in range(1, 4):
            at.supervised.until(_serves)
            at.supervised.process.send_signal(signal.SIGSEGV)  # type: ignore[union-attr]
            at.deaths(count)
        return at.row("SIGSEGV sent to the process, 3 times")


def board_stands_still(folder: Path, port: int) -> Row:
    """Three times everything stands still for longer than the watchdog waits."""
    with scene(folder, port, watchdog_s=WATCHDOG_S) as at:
        for count in range(1, 4):
            at.supervised.until(_serves)
            at.watch(2.0)
            at.supervised.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            at.deaths(count)
        return at.row("watchdog, the board stands still, 3 times")


def board_stands_still_shortly(folder: Path, port: int) -> Row:
    """Everything stands still for longer than any loop may, and systemd waits longer."""
    with scene(folder, port) as at:
        process = at.supervised.process
        assert process
        process.send_signal(signal.SIGSTOP)
        at.watch(22.0)
        process.send_signal(signal.SIGCONT)
        row = at.row("the board stands still for 22 s")
        (stall,) = at.station.status()["stalls"]
        return Row(row.name, row.deaths, row.charged, row.serves, row.missing_s, stall["line"])


def plan_hangs(folder: Path, port: int) -> Row:
    """The new plan hangs on a frame, and the watchdog ends the daemon."""
    with scene(folder, port, "infer:hang", WATCHDOG_S) as at:
        at.strike("none")
        new = at.exchange()
        at.supervised.until(lambda status: status["engine"]["on_probation"])
        at.strike(new)
        at.deaths(1)
        at.only.unlink()
        return at.row("watchdog, the plan hangs")


def only_plan_hangs_at_load(folder: Path, port: int) -> Row:
    """The only plan hangs while it is loaded, and the watchdog ends the daemon."""
    with scene(folder, port, "load:hang", WATCHDOG_S) as at:
        return hung_at_load(at, "watchdog, the only plan hangs at load")


def only_plan_holds_python(folder: Path, port: int) -> Row:
    """The same, and the library keeps the interpreter from every other thread, so that nobody can tell who is late."""
    with scene(folder, port, "load:hold", UNIT_WATCHDOG_S) as at:
        return hung_at_load(at, "watchdog, the only plan's load holds the GIL")


def hung_at_load(at: Scene, name: str) -> Row:
    at.strike(at.old)
    at.supervised.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
    at.deaths(2, limit_s=180.0)
    at.only.unlink()
    return at.row(name)


def camera_hangs(folder: Path, port: int) -> Row:
    """The decoder of one camera hangs, twice; another camera is read beside it."""
    with scene(folder, port, "camera:hang", WATCHDOG_S, beside="yard") as at:
        at.strike("gate")
        at.until_lost("gate", 2, "")
        at.only.unlink()
        at.until_it_streams("gate")
        return at.row("a camera hangs, twice")


def broker_hangs(folder: Path, port: int) -> Row:
    """The thread that speaks to the broker hangs."""
    with scene(folder, port, "broker:hang", WATCHDOG_S) as at:
        at.strike()
        at.watch(60.0)
        at.only.unlink()
        return at.row("watchdog, the broker's thread hangs")


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[Path]:
    """An ext4 that can be frozen: whoever writes to it waits (state D)."""
    image, at = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    at.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["fsfreeze", "-u", str(at)], check=False, capture_output=True)
        subprocess.run(["umount", "-l", str(at)], check=True)


def disk_hangs(folder: Path, port: int) -> Row:
    """The disk of the state directory takes no more writes while another plan is to be built, for 100 s."""
    with own_disk(folder) as disk, scene(folder, port, watchdog_s=WATCHDOG_S, state_dir=disk / "state") as at:
        thaw = threading.Timer(100.0, lambda: subprocess.run(["fsfreeze", "-u", str(disk)], check=False))
        thaw.start()
        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
        at.station.write_weights(tiny.network(gain=30.0))
        at.watch(105.0)
        return at.row("watchdog, the disk hangs for 100 s")


SCENARIOS: dict[str, Callable[[Path, int], Row]] = {
    one.__name__: one
    for one in (
        segv_at_load,
        broken_plan,
        segv_in_inference,
        segv_of_the_librarys_own_thread,
        segv_of_the_only_plan,
        segv_in_a_camera,
        segv_in_the_build_child,
        segv_from_outside,
        board_stands_still,
        board_stands_still_shortly,
        plan_hangs,
        only_plan_hangs_at_load,
        only_plan_holds_python,
        camera_hangs,
        broker_hangs,
        disk_hangs,
    )
}


def main(names: list[str]) -> None:
    broker = Broker()
    _, port = broker.open()
    print("| died of | exit codes | charged | serves | frames missing | said of it |\n|---|---|---|---|---|---|")
    for name in names or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="vajra-edge-", ignore_cleanup_errors=True) as folder:
            try:
                row = SCENARIOS[name](Path(folder), port)
            except AssertionError as error:
                print(f"| {name} | did not end: {str(error)[:600]} |", flush=True)
                continue
        codes = ", ".join(map(str, row.deaths)) or "none"
        print(f"| {row.name} | {codes} | {row.charged} | {row.serves} | {row.missing_s} s | {row.before} |", flush=True)
    broker.close()


if __name__ == "__main__":
    main(sys.argv[1:])
