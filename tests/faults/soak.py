"""An hour of a whole daemon with a fault a minute: what it lost, and what grew.

    .venv/bin/python tests/faults/soak.py --minutes 60

As root, with mosquitto: the state folder is a disk of its own, which is filled and frozen, and whose outbox is made
read-only. The ledger is what the broker gives a subscriber that has no bad network before it, before anything is
dropped as known. One JSON line a fault and a sample, then the account; exit code 1 where it names something under
``found``. The daemon's journal goes to stderr in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np
import orjson
import tiny
from faults import chaos
from faults.bad_network import BadNetwork
from faults.crash_matrix import own_disk
from faults.hanging_cameras import Feed, descendants
from faults.supervised import Supervised
from station import Station
from waiting import wait_for

FPS = 5.0
GAINS = (20.0, 30.0, 40.0)
"""Of the networks that take turns: what was gone back from, what serves since, and what is new."""
SAMPLE_S = 10.0
HEALTHY_S = 150.0
"""A fault that was ended is over by then: the longest is a broker's password or a connection that nobody closed."""
BLOCK = 1 << 16

# What may grow from the first to the last hour. A frame that leaks is 200 kB: one a minute makes 12 MiB an hour.
MOST_MIB_AN_HOUR = 12.0
MOST_LATER = 2.0
"""The median of the windows' p99 of frame age in the last third over that of the first."""


@dataclass(frozen=True)
class Sample:
    """Of the daemon and its children, without those that build.

    Attributes:
        at_s: since the start.
        pid: of the daemon.
        rss_mib: resident, of the daemon.
        pss_mib: of it, with a share of what others have too; it moves with their number, and so is not judged.
        own_mib: of it, what belongs to no file.
        descriptors: of the daemon.
        threads: of the daemon.
        children: how many.
        children_own_mib: of all together.
        children_descriptors: of all together.
        load: of the whole machine, over a minute: what else runs there makes frames later.
    """

    at_s: float
    pid: int
    rss_mib: float
    pss_mib: float
    own_mib: float
    descriptors: int
    threads: int
    children: int
    children_own_mib: float
    children_descriptors: int
    load: float


def memory_mib(pid: int) -> dict[str, float]:
    """By the kernel's names."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: round(int(value.split()[0]) / 1024, 2) for name, _, value in (line.partition(":") for line in lines)}


def entries(pid: int, folder: str) -> int:
    return len(list(Path(f"/proc/{pid}/{folder}").iterdir()))


def is_builder(pid: int) -> bool:
    return b"vajra_edge.build" in Path(f"/proc/{pid}/cmdline").read_bytes()


def sample(pid: int, at_s: float) -> Sample:
    """Of this moment."""
    children, own_mib, open_there = 0, 0.0, 0
    for child in descendants(pid):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if not is_builder(child):
                own_mib += memory_mib(child)["Anonymous"]
                open_there += entries(child, "fd")
                children += 1
    told = memory_mib(pid)
    daemon = told["Rss"], told["Pss"], told["Anonymous"], entries(pid, "fd"), entries(pid, "task")
    return Sample(round(at_s, 1), pid, *daemon, children, round(own_mib, 2), open_there, os.getloadavg()[0])


class Sampler:
    """Takes a sample every ten seconds, in a thread."""

    def __init__(self, systemd: Supervised) -> None:
        self.samples: list[Sample] = []
        self._systemd, self._began_s, self._over = systemd, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            with contextlib.suppress(OSError):  # the daemon is being restarted, which is told of elsewhere
                assert self._systemd.process is not None
                self.samples.append(sample(self._systemd.process.pid, time.monotonic() - self._began_s))
                say("sample", **asdict(self.samples[-1]))

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def say(what: str, **told: Any) -> None:
    print(json.dumps({what: told}), flush=True)


@dataclass
class Scene:
    """What faults are made of.

    Attributes:
        station: settings and files of the daemon.
        systemd: restarts it, should it die.
        broker: real.
        raw: the ledger.
        network: before the broker.
        wire: before the camera ``yard``.
        disk: where the state folder is mounted.
        dice: for what is left to chance.
        exchanges: of weights, so far.
    """

    station: Station
    systemd: Supervised
    broker: chaos.KeptBroker
    raw: chaos.RawLog
    network: BadNetwork
    wire: BadNetwork
    disk: Path
    dice: random.Random
    exchanges: int = 0

    @property
    def daemon(self) -> int:
        assert self.systemd.process is not None
        return self.systemd.process.pid

    def capture_child(self, camera: str) -> int:
        def pids() -> list[int]:
            cameras = self.station.status()["cameras"]
            return [one["pid"] for one in cameras if one["id"] == camera and one["pid"]]

        return int(wait_for(pids)[0])

    def healthy(self) -> None:
        """Until the broker has everything, each camera streams, and a plan serves that nobody asks to go."""

        def well(status: dict[str, Any]) -> bool:
            engine, broker = status["engine"], status["broker"]
            calm = engine["serving"] and not engine["building"] and not engine["loading"]
            seen = all(one["state"] == "streaming" for one in status["cameras"])
            kept = broker["outbox"]["kept"] == "disk" and broker["outbox"]["queued"] < 10 * FPS
            return bool(calm and seen and broker["connected"] and kept)

        self.systemd.until(well, limit_s=HEALTHY_S)


Fault = Callable[[Scene], Iterator[None]]


def by_network(kind: str) -> Fault:
    return lambda at: chaos.strike(kind, at.network, at.broker, at.dice)


def broker_killed(at: Scene) -> Iterator[None]:
    """With all it knows of its sessions. The network goes first: what the broker has acknowledged and gave nobody yet
    would be lost by the broker."""
    at.network.refusing = True
    at.network.cut()
    time.sleep(1.0)
    at.broker.send(signal.SIGKILL)
    yield
    at.raw.granted.clear()
    at.broker.start()
    assert at.raw.granted.wait(60.0)
    at.network.refusing = False


def camera_lost(at: Scene) -> Iterator[None]:
    at.wire.refusing = True
    at.wire.cut()
    yield
    at.wire.refusing = False


def camera_hung(at: Scene) -> Iterator[None]:
    at.wire.swallowing = True
    yield
    at.wire.cut()
    at.wire.swallowing = False


def capture_child_dies(by: signal.Signals) -> Fault:
    def strike(at: Scene) -> Iterator[None]:
        os.kill(at.capture_child(at.dice.choice(["gate", "yard"])), by)
        yield

    return strike


def daemon_frozen(at: Scene) -> Iterator[None]:
    os.kill(at.daemon, signal.SIGSTOP)
    yield
    os.kill(at.daemon, signal.SIGCONT)


def settings_edited(at: Scene) -> Iterator[None]:
    at.station.write(detect={"confidence": at.dice.choice([0.3, 0.4, 0.5])})
    yield
    at.station.write(detect={"confidence": 0.25})


def settings_broken(at: Scene) -> Iterator[None]:
    good = at.station.config.read_text()
    at.station.config.write_text(good.replace("[detect]", "[detect"))
    yield
    at.station.config.write_text(good)


def camera_added(at: Scene) -> Iterator[None]:
    at.station.camera("shed", fps=FPS)
    at.station.write()
    yield
    del at.station.settings["cameras"]["shed"]
    at.station.write()


def weights_exchanged(at: Scene) -> Iterator[None]:
    """The first times that is a build, then a plan from the store."""
    at.exchanges += 1
    at.station.write_weights(tiny.network(gain=GAINS[at.exchanges % len(GAINS)]))
    yield


def weights_broken(at: Scene) -> Iterator[None]:
    at.station.write_weights(b"no network")
    yield
    at.station.write_weights(tiny.network(gain=GAINS[at.exchanges % len(GAINS)]))


def rebuilt(at: Scene) -> Iterator[None]:
    at.station.ask(verb="rebuild", force=True, wait=False)
    yield


def rolled_back(at: Scene) -> Iterator[None]:
    """By hand, from weights that were exchanged just now: there has to be a plan to go back to."""
    before = at.station.serving()
    next(weights_exchanged(at))
    at.systemd.until(lambda status: status["engine"]["serving"]["fingerprint"] not in (None, before))
    at.station.ask(verb="rebuild", rollback=True, wait=False)
    yield


def disk_full(at: Scene) -> Iterator[None]:
    ballast = at.disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(BLOCK))
    yield
    ballast.unlink()


def disk_frozen(at: Scene) -> Iterator[None]:
    subprocess.run(["fsfreeze", "-f", str(at.disk)], check=True)
    yield
    subprocess.run(["fsfreeze", "-u", str(at.disk)], check=True)


def outbox_read_only(at: Scene) -> Iterator[None]:
    """For whom it is open to, as well: the disk itself cannot be remounted while somebody writes."""
    files = [str(path) for path in (at.disk / "state" / "outbox").iterdir() if path.is_file()]
    subprocess.run(["chattr", "+i", *files], check=True)
    yield
    subprocess.run(["chattr", "-i", *files], check=True)


FAULTS: dict[str, Fault] = {
    **{kind: by_network(kind) for kind in chaos.KINDS},
    "broker killed": broker_killed,
    "camera lost": camera_lost,
    "camera hung": camera_hung,
    "capture child crashes": capture_child_dies(signal.SIGSEGV),
    "capture child killed": capture_child_dies(signal.SIGKILL),
    "daemon frozen": daemon_frozen,
    "settings edited": settings_edited,
    "settings broken": settings_broken,
    "camera added and removed": camera_added,
    "weights exchanged": weights_exchanged,
    "weights broken": weights_broken,
    "rebuilt": rebuilt,
    "rolled back": rolled_back,
    "disk full": disk_full,
    "disk frozen": disk_frozen,
    "outbox read-only": outbox_read_only,
}


@dataclass
class Ledger:
    """What the broker gave, by epoch and camera.

    Attributes:
        received: numbers.
        announced: numbers that gap records named.
        gaps: numbers that they named, by reason.
        pictures: camera and time of each frame that came.
        copies: messages and gap records that came again.
        out_of_order: how often a number came for the first time after a higher one.
        ages_ms: by window of ten seconds.
    """

    received: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    announced: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    gaps: Counter[str] = field(default_factory=Counter)
    pictures: set[tuple[str, str]] = field(default_factory=set)
    copies: int = 0
    out_of_order: int = 0
    ages_ms: dict[int, list[float]] = field(default_factory=dict)

    def hear(self, payloads: Sequence[bytes]) -> None:
        keys: set[str] = set()
        upto: dict[tuple[str, str], int] = {}
        for message in map(orjson.loads, payloads):
            if message["key"] in keys:
                self.copies += 1
                continue
            keys.add(message["key"])
            count = message["epoch"], message["camera"]
            first, last = self._take(count, message)
            self.out_of_order += first <= upto.get(count, -1)
            upto[count] = max(upto.get(count, -1), last)

    def _take(self, count: tuple[str, str], message: dict[str, Any]) -> tuple[int, int]:
        if "gap" in message:
            first, last = int(message["gap"]["from"]), int(message["gap"]["to"])
            self.announced.setdefault(count, set()).update(range(first, last + 1))
            self.gaps[message["gap"]["why"]] += last - first + 1
            return first, last
        seq = int(message["seq"])
        self.received.setdefault(count, set()).add(seq)
        self.pictures.add((message["camera"], message["taken_at"]))
        window = int(datetime.fromisoformat(message["taken_at"].replace("Z", "+00:00")).timestamp() // SAMPLE_S)
        self.ages_ms.setdefault(window, []).append(message["frame_age_ms"])
        return seq, seq

    @property
    def messages(self) -> int:
        return sum(map(len, self.received.values()))

    @property
    def unannounced(self) -> int:
        """Numbers below the highest of their count that neither came nor were named."""
        return sum(
            len(set(range(max(seqs))) - seqs - self.announced.get(count, set()))
            for count, seqs in self.received.items()
        )

    @property
    def p99_ms(self) -> list[float]:
        """Of each window, in order."""
        return [float(np.percentile(self.ages_ms[window], 99)) for window in sorted(self.ages_ms)]


def slope_an_hour(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Median of the slopes between all pairs (Theil and Sen): what a fault adds for a minute does not bend it."""
    pairs = combinations(zip(at_s, values, strict=True), 2)
    return 3600.0 * median((later - earlier) / (end_s - begin_s) for (begin_s, earlier), (end_s, later) in pairs)


def thirds(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The first and the last."""
    third = max(len(values) // 3, 1)
    return values[:third], values[-third:]


def growth(samples: Sequence[Sample]) -> dict[str, Any]:
    """Of each figure: slope an hour, and the lowest of the first and last third, which no passing fault raises."""
    at_s, told = [one.at_s for one in samples], {}
    for name in tuple(asdict(samples[0]))[2:]:
        values = [float(getattr(one, name)) for one in samples]
        first, last = map(min, thirds(values))
        slope = round(slope_an_hour(at_s, values), 3)
        told[name] = {"an_hour": slope, "lowest_first": first, "lowest_last": last, "highest": max(values)}
    return told


@contextlib.contextmanager
def scene(folder: Path, seed: int) -> Iterator[Scene]:
    """A daemon that serves two cameras."""
    with contextlib.ExitStack() as held:
        broker = chaos.KeptBroker(folder)
        broker.start()
        held.callback(broker.stop)
        raw, network, feed = chaos.RawLog(broker.port, "test"), BadNetwork(broker.port), Feed(FPS)
        held.callback(feed.shutdown)
        held.callback(network.close)
        held.callback(raw.close)
        wire, disk = BadNetwork(feed.server_address[1]), held.enter_context(own_disk(folder))
        held.callback(wire.close)
        station = described(folder, network.port, wire.port, disk)
        systemd = Supervised(station, watchdog_s=60.0).start()
        held.callback(systemd.stop)
        yield Scene(station, systemd, broker, raw, network, wire, disk, random.Random(seed))


def described(folder: Path, broker: int, yard: int, disk: Path) -> Station:
    station = Station(folder, broker)
    station.settings["store"]["state_dir"] = str(disk / "state")
    station.settings["service"] |= {"log_level": "info", "threads": 1, "poll_s": 1.0, "settle_s": 1.0}
    station.settings["mqtt"] |= {"keepalive_s": 5}
    patience = {"stall_s": 5.0, "backoff_max_s": 5.0}
    station.camera("gate", fps=FPS)
    station.settings["cameras"]["yard"] = {"source": f"http://127.0.0.1:{yard}/good/0", **patience}
    return station


def soak(at: Scene, minutes: float, every_s: float) -> list[str]:
    """Faults until the time is over; what did not become healthy again."""
    until_s, sick, due = time.monotonic() + 60.0 * minutes, [], []
    while (began_s := time.monotonic()) < until_s:
        due = due or at.dice.sample(sorted(FAULTS), len(FAULTS))
        kind, hold_s = due.pop(), at.dice.uniform(5.0, 20.0)
        fault = FAULTS[kind](at)
        next(fault)
        time.sleep(hold_s)
        next(fault, None)
        try:
            at.healthy()
        except AssertionError:
            sick.append(kind)
        say("fault", kind=kind, held_s=round(hold_s, 1), healthy_after_s=round(time.monotonic() - began_s - hold_s, 1))
        time.sleep(max(0.0, began_s + every_s - time.monotonic()))
    return sick


def told_in_the_end(at: Scene) -> int:
    """With no camera any more and nothing that waits: the messages that the daemon says it published."""
    for camera in at.station.settings["cameras"].values():
        camera["enabled"] = False
    at.station.write()

    def done(status: dict[str, Any]) -> bool:
        outbox = status["broker"]["outbox"]
        return not outbox["queued"] and not outbox["in_flight"] and all(c["state"] == "off" for c in status["cameras"])

    status = at.systemd.until(done, limit_s=HEALTHY_S)
    time.sleep(2.0)  # of a frame that was on its way when the cameras were closed
    status = at.systemd.until(done)
    say("status", **status)
    return sum(status["pipeline"]["published"].values())


def findings(ledger: Ledger, published: int, grown: dict[str, Any], sick: list[str], ended: list[int]) -> list[str]:
    """What must not be."""
    found = [f"not healthy after {kind}" for kind in sick]
    found += [f"the daemon ended with {ended}"] if ended != [0] else []
    lost, again = published - len(ledger.pictures), ledger.messages - len(ledger.pictures)
    found += [f"{lost} of {published} lost"] if lost else []
    found += [f"{again} of {len(ledger.pictures)} twice, under another key"] if again else []
    found += [f"{ledger.unannounced} neither received nor announced"] if ledger.unannounced else []
    found += [f"{ledger.out_of_order} out of order"] if ledger.out_of_order else []
    found += [f"{ledger.copies} of {ledger.messages} twice"] if ledger.copies >= 0.02 * ledger.messages else []
    for name in ("own_mib", "children_own_mib"):
        found += [f"{name} grows"] if grown[name]["an_hour"] > MOST_MIB_AN_HOUR else []
    for name in ("descriptors", "threads", "children", "children_descriptors"):
        found += [f"{name} grow"] if grown[name]["lowest_last"] > grown[name]["lowest_first"] else []
    first, last = map(median, thirds(ledger.p99_ms))
    load = grown["load"]
    later = f"frames are later; the least load was {load['lowest_first']}, then {load['lowest_last']}"
    return [*found, *([later] if last > MOST_LATER * first else [])]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every-s", type=float, default=60.0, help="from one fault to the next")
    parser.add_argument("--settle-minutes", type=float, default=10.0, help="before growth is judged")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vajra-edge-") as name, scene(Path(name), chosen.seed) as at:
        wait_for(at.station.answers)
        at.healthy()
        sampler = Sampler(at.systemd)
        try:
            sick = soak(at, chosen.minutes, chosen.every_s)
            published = told_in_the_end(at)
        finally:
            sampler.close()
            at.systemd.stop()
            sys.stderr.write(at.station.log)
        time.sleep(1.0)
        ended, payloads = [one.code for one in at.systemd.ended], list(at.raw.payloads)
        log = at.station.log
    ledger = Ledger()
    ledger.hear(payloads)
    grown = growth([one for one in sampler.samples if one.at_s > 60.0 * chosen.settle_minutes])
    found = findings(ledger, published, grown, sick, ended)
    found += ["a traceback in the journal"] if "Traceback" in log else []
    first, last = map(median, thirds(ledger.p99_ms))
    say(
        "account",
        published=published,
        received=ledger.messages,
        lost=published - len(ledger.pictures),
        announced=dict(ledger.gaps),
        unannounced=ledger.unannounced,
        copies=ledger.copies,
        out_of_order=ledger.out_of_order,
        epochs=len({epoch for epoch, _ in ledger.received}),
        frame_age_p99_ms={"first_third": round(first, 1), "last_third": round(last, 1)},
        grown=grown,
        ended=ended,
        found=found,
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
