"""Random walks of the outbox and its file: connections that break, and a disk that fails, hangs and comes back.

Every message arrives in the end, under one key, and in the order of each count; the disk forgets none before it has
arrived.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vajra_edge.mqtt.messages import Draft
from vajra_edge.mqtt.outbox import Outbox
from vajra_edge.mqtt.outbox_file import OutboxFile
from vajra_edge.mqtt.outbox_values import DiskBatch, KeptIn, OutboxBounds, Queued, Retry

WINDOW, STEPS = 20, 300
WEIGHTS = {
    "offer": 12,
    "connect": 8,
    "disconnect": 2,
    "send": 16,
    "answer": 16,
    "refuse": 1,
    "write": 20,
    "hang": 2,
    "spoil": 2,
}


class Walk:
    """An outbox, its file, and a broker."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice, self.now_s = random.Random(seed), 1000.0
        self.box = Outbox(OutboxBounds(KeptIn.DISK, 1 << 28, 1e9))
        self.file = OutboxFile(folder, "dev", lambda: self.now_s, lambda: None)
        self.is_open = self.is_connected = self.is_bad = False
        self.batch: DiskBatch | None = None
        self.under_way: list[tuple[int, Queued | None]] = []
        self.arrived: list[tuple[str, str, int, bytes]] = []
        self.offered = 0

    def step(self) -> None:
        self.now_s += 0.01
        getattr(self, self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])()

    def offer(self) -> None:
        for _ in range(self.dice.choice([1, 3, 30])):
            self.box.offer(Draft(self.dice.choice(["gate", "yard"]), "dev", b"%d}" % self.offered), self.now_s)
            self.offered += 1

    def connect(self) -> None:
        if not self.is_connected:
            self.box.connected()
            self.is_connected = True

    def disconnect(self) -> None:
        self.box.disconnected()
        self.is_connected = False
        self.under_way.clear()

    def send(self) -> None:
        while self.is_connected and len(self.under_way) < WINDOW:
            entry = self.box.take(self.now_s)
            if entry is None:
                return
            number, message = (entry.number, entry) if isinstance(entry, Queued) else (entry[0], None)
            assert number not in dict(self.under_way)
            self.under_way.append((number, message))

    def answer(self) -> None:
        for _ in range(min(self.dice.randint(1, WINDOW), len(self.under_way))):
            number, message = self.under_way.pop(0)
            if message is not None:
                text = message.payload.rpartition(b",")[2]
                self.arrived.append((message.camera, message.epoch, message.seq, text))
            self.box.ack(number)

    def refuse(self) -> None:
        while self.under_way:
            self.box.refuse(self.under_way.pop(0)[0], self.now_s, retry=Retry.PATIENT)

    def spoil(self) -> None:
        self.is_bad = not self.is_bad

    def hang(self) -> None:
        if self.batch is not None:
            self.box.failed("the disk does not answer")

    def write(self) -> None:
        """As the writer's turn: what is collected may be written a while later."""
        if self.batch is None and self.is_open and not self.box.is_durable:
            self.lose()
        elif self.batch is None and not self.is_open:
            self.open()
        elif self.batch is None and self.dice.random() < 0.5:
            self.batch = self.box.collect()
        elif self.batch is None or self.commit(self.batch):
            self.batch = None
            self.read()

    def open(self) -> None:
        if self.is_bad:
            self.lose()
        else:
            self.is_open = True
            self.box.opened(self.file.open("disk", self.box.done_upto()))

    def commit(self, batch: DiskBatch) -> bool:
        self.batch = None
        says_no, does = self.is_bad and self.dice.random() < 0.7, self.dice.random() < 0.5
        if says_no and not does:
            self.lose()
            return False
        before = self.file._taken_upto
        self.file.commit(batch, sync=self.dice.random() < 0.3)
        if says_no:  # it has it all the same
            self.file._taken_upto = before
            self.lose()
        elif not self.box.committed(batch):
            self.file.withdraw(batch)
            self.lose()
        return self.is_open

    def read(self) -> None:
        while self.is_open and (after := self.box.wanted()) is not None:
            self.box.read(self.file.read(after))

    def lose(self) -> None:
        self.file.close(tidy=False)
        self.is_open = False
        self.box.failed("the disk is full")

    def end_well(self) -> None:
        self.is_bad = False
        for _ in range(5000):
            self.now_s += 1.0
            self.connect()
            for each in (self.write, self.send, self.answer):
                each()
            if not (len(self.box) or self.under_way or self.batch):
                return
        raise AssertionError(f"something waits for ever: {self.box.counts()}")


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_twice_or_out_of_order_whatever_breaks(tmp_path: Path, seed: int) -> None:
    walk = Walk(tmp_path / "outbox", seed)
    for _ in range(STEPS):
        walk.step()
    walk.end_well()
    walk.file.close(tidy=True)
    keys: dict[bytes, set[tuple[str, str, int]]] = {}
    upto: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, str, int]] = set()
    for camera, epoch, seq, text in walk.arrived:
        keys.setdefault(text, set()).add((camera, epoch, seq))
        if (camera, epoch, seq) not in seen:
            assert seq > upto.get((camera, epoch), -1)
            upto[camera, epoch] = seq
        seen.add((camera, epoch, seq))
    assert sorted(keys, key=lambda text: int(text[:-1])) == [b"%d}" % number for number in range(walk.offered)]
    assert all(len(each) == 1 for each in keys.values())
    assert (walk.box.counts().size_bytes, walk.box.counts().dropped.get("refused", 0)) == (0, 0)
