"""Chaos between a device and a real broker: seven kinds of faults, and the device killed at random moments.

    .venv/bin/python tests/faults/chaos.py --faults 28 --kills 12 --commit-every-s 1

The device's outbox is on disk. A subscriber with a session that the broker keeps, and no bad network before it, notes
every message as the broker gives it, before anything is dropped as known. Prints what was offered, committed, received,
received twice, lost and announced, and fails where a message is missing that was committed, where a number is neither
received nor in a gap record, where a camera's messages come in another order, or where 2 % or more come twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import orjson
from faults.bad_network import BadNetwork
from faults.chaos_device import CAMERAS
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from ports import free_port
from waiting import wait_for

KINDS = ("cut", "hole", "half open", "slow", "refuse", "broker restarts", "broker frozen")
DEVICE = Path(__file__).with_name("chaos_device.py")


class KeptBroker:
    """mosquitto with sessions that survive its restart."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence true", "max_queued_messages 0"]
        lines += [f"persistence_location {folder}/", *(["user root"] if os.geteuid() == 0 else [])]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or "mosquitto"
        with (self.folder / "mosquitto.log").open("ab") as log:
            command = [program, "-c", str(self.folder / "mosquitto.conf")]
            self.child = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self.listens)

    def listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def send(self, signum: int) -> None:
        if self.child is not None:
            self.child.send_signal(signum)

    def stop(self) -> None:
        if self.child is not None:
            self.send(signal.SIGCONT)
            self.child.terminate()
            self.child.wait()


class RawLog:
    """Every message as the broker gave it, in its order."""

    def __init__(self, port: int, device: str = "dev") -> None:
        self.payloads: list[bytes] = []
        self.granted = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "raw-log", protocol=paho.MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = lambda _client, _user, message: self.payloads.append(message.payload)
        self.client.on_connect = lambda client, *_: client.subscribe(f"vajra/{device}/camera/+/detections", 1)
        self.client.on_subscribe = lambda *_: self.granted.set()
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self.client.loop_start()
        assert self.granted.wait(30.0)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Device:
    """The process that publishes."""

    def __init__(self, folder: Path, port: int, commit_every_s: float, rate_per_s: float) -> None:
        self.folder = folder
        self.command = [sys.executable, str(DEVICE), str(folder), str(port), str(commit_every_s), str(rate_per_s)]
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, kill_at: str = "") -> None:
        with (self.folder / "device.log").open("ab") as log:
            command = [*self.command, *([kill_at] if kill_at else [])]
            self.child = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        assert self.child is not None
        self.child.terminate()
        return self.child.wait(60.0)

    def lines(self, name: str) -> list[str]:
        """Of a ledger; a kill may have cut the last one short."""
        path = self.folder / name
        return [line for line in path.read_text().split("\n")[:-1] if line] if path.exists() else []


@dataclass
class Account:
    """What came of it.

    Attributes:
        faults: how often each kind happened.
        kills: of the device.
        offered: messages that the device took.
        committed: by camera, numbers that reached the disk.
        received: by camera, numbers in the order of their first arrival.
        frames: ``frame_seq`` of what was received.
        gaps: by camera, ranges that were announced.
        copies: messages and gap records that came again.
        epochs: of all counts.
        out_of_order: by camera, how often a number came for the first time after a higher one.
    """

    faults: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    offered: int = 0
    committed: dict[str, set[int]] = field(default_factory=dict)
    received: dict[str, list[int]] = field(default_factory=dict)
    frames: set[int] = field(default_factory=set)
    gaps: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    copies: int = 0
    epochs: set[str] = field(default_factory=set)
    out_of_order: int = 0

    def hear(self, payloads: list[bytes]) -> None:
        """Everything in the raw log."""
        seen: set[str] = set()
        upto = dict.fromkeys(CAMERAS, -1)
        for message in map(orjson.loads, payloads):
            if message["key"] in seen:
                self.copies += 1
                continue
            seen.add(message["key"])
            camera = message["camera"]
            self.epochs.add(message["epoch"])
            if "gap" in message:
                first, last = message["gap"]["from"], message["gap"]["to"]
                self.gaps.setdefault(camera, []).append((first, last, message["gap"]["why"]))
            else:
                first = last = message["seq"]
                self.received.setdefault(camera, []).append(first)
                self.frames.add(message["frame_seq"])
            self.out_of_order += first <= upto[camera]
            upto[camera] = max(upto[camera], last)

    @property
    def not_delivered(self) -> dict[str, set[int]]:
        """Committed numbers that did not come; must be empty."""
        missing = {name: seqs - set(self.received.get(name, ())) for name, seqs in self.committed.items()}
        return {name: seqs for name, seqs in missing.items() if seqs}

    @property
    def unannounced(self) -> dict[str, set[int]]:
        """Numbers below the highest that neither came nor are in a gap record; must be empty."""
        found = {}
        for name, seqs in self.received.items():
            told = {seq for first, last, _ in self.gaps.get(name, ()) for seq in range(first, last + 1)}
            if missing := set(range(max(seqs))) - set(seqs) - told:
                found[name] = missing
        return found

    @property
    def lost(self) -> int:
        """Offered messages that did not come: what was not committed yet when the device was killed."""
        return self.offered - len(self.frames)

    def told(self) -> str:
        """For people."""
        count = sum(map(len, self.received.values()))
        gaps = Counter(why for each in self.gaps.values() for _, _, why in each)
        return (
            f"{sum(self.faults.values())} faults of {len(self.faults)} kinds, {self.kills} SIGKILL;"
            f" {self.offered} offered, {sum(map(len, self.committed.values()))} committed, {count} received,"
            f" {self.copies} copies"
            f" ({100 * self.copies / max(count, 1):.2f} %), {self.lost} lost before they were committed"
            f" ({self.lost / max(self.kills, 1):.1f} a kill), gap records {dict(gaps)}; committed and not delivered:"
            f" {sum(map(len, self.not_delivered.values()))}, neither received nor announced:"
            f" {sum(map(len, self.unannounced.values()))}, out of order: {self.out_of_order}, epochs {len(self.epochs)}"
        )


def strike(kind: str, network: BadNetwork, broker: KeptBroker, dice: random.Random) -> Iterator[None]:
    """Begin a fault, then, when asked again, end it."""
    if kind == "cut":
        network.cut()
        yield
    elif kind in ("hole", "half open"):
        network.swallowing = True
        if kind == "half open":
            network.half_open()
        yield
        network.cut()  # what was swallowed never comes back on that connection
        network.swallowing = False
    elif kind == "slow":
        network.slow = True
        yield
        network.slow = False
    elif kind == "refuse":
        network.refusing = True
        network.cut()
        yield
        network.refusing = False
    elif kind == "broker restarts":
        broker.stop()
        yield
        broker.start()
    else:
        broker.send(signal.SIGSTOP)
        yield
        broker.send(signal.SIGCONT)


def run(
    folder: Path, *, seed: int, faults: int, kills: int, commit_every_s: float, rate_per_s: float, messages: int = 0
) -> Account:
    """All of it, in a folder of its own; goes on until so many messages were offered."""
    dice, account = random.Random(seed), Account()
    broker = KeptBroker(folder)
    broker.start()
    network, raw = BadNetwork(broker.port), RawLog(broker.port)
    device = Device(folder, network.port, commit_every_s, rate_per_s)
    device.start()
    plan = [KINDS[number % len(KINDS)] for number in range(faults)]
    dice.shuffle(plan)
    amid = set(dice.sample(range(faults), min(kills // 2, faults)))
    healthy = set(dice.sample(range(faults), min(kills - len(amid), faults)))
    try:
        for number, kind in enumerate(plan):
            time.sleep(dice.uniform(1.0, 2.5))
            if number in healthy:
                restart(device, account, dice)
                time.sleep(dice.uniform(1.0, 2.0))
            fault = strike(kind, network, broker, dice)
            next(fault)
            account.faults[kind] += 1
            time.sleep(dice.uniform(0.2, 2.0))
            if number in amid:
                restart(device, account, dice)
                time.sleep(dice.uniform(0.2, 1.0))
            with contextlib.suppress(StopIteration):
                next(fault)
        wait_for(lambda: len(device.lines("offered")) >= messages, limit_s=300.0, step_s=0.5)
        settle(device, raw)
    finally:
        code = device.stop()
        broker.send(signal.SIGCONT)
        time.sleep(1.0)
        raw.close()
        network.close()
        broker.stop()
    assert code == 0, (code, device.lines("device.log")[-3:])
    return settled(device, raw, account)


def settled(device: Device, raw: RawLog, account: Account) -> Account:
    """With what the ledgers and the raw log say."""
    account.offered = len(device.lines("offered"))
    for line in device.lines("committed"):
        camera, _, seq = line.partition("/")
        account.committed.setdefault(camera, set()).add(int(seq))
    account.hear(raw.payloads)
    return account


def restart(device: Device, account: Account, dice: random.Random) -> None:
    device.kill()
    account.kills += 1
    time.sleep(dice.uniform(0.0, 0.5))
    device.start()


def settle(device: Device, raw: RawLog) -> None:
    """Until what waited has come: the newest message that was committed a while ago is there."""
    before = len(device.lines("committed"))
    wait_for(lambda: len(device.lines("committed")) > before, limit_s=120.0, step_s=0.2)
    camera, _, seq = device.lines("committed")[-1].partition("/")
    wanted = f'"camera":"{camera}"'.encode(), f'"seq":{seq},'.encode()
    wait_for(lambda: any(all(part in one for part in wanted) for one in list(raw.payloads)), limit_s=120.0, step_s=0.5)


def check(account: Account, *, few: bool = False) -> None:
    """What must hold, see the module; of few messages the share that comes twice says nothing."""
    assert not account.not_delivered, account.told()
    assert not account.unannounced, account.told()
    assert account.out_of_order == 0, account.told()
    assert len(account.epochs) == 1, account.told()
    count: Any = sum(map(len, account.received.values()))
    assert few or account.copies < 0.02 * count, account.told()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=28)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--commit-every-s", type=float, default=1.0)
    parser.add_argument("--rate-per-s", type=float, default=400.0)
    parser.add_argument("--messages", type=int, default=15_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vajra-edge-") as folder:
        account = run(Path(folder), **vars(chosen))
    print(account.told())
    check(account)


if __name__ == "__main__":
    main()
