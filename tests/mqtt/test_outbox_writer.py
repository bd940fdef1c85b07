from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import wait_for

from vajra_edge.errors import PublishError
from vajra_edge.mqtt import outbox_writer
from vajra_edge.mqtt.backlog import Backlog
from vajra_edge.mqtt.outbox_file import OutboxFile
from vajra_edge.mqtt.outbox_values import KeptIn, OutboxBounds
from vajra_edge.mqtt.outbox_writer import OutboxWriter


class Hands:
    """A clock that stands still until it is moved on."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def busy(folder: Path, clock: Hands, monkeypatch) -> Iterator[OutboxWriter]:
    """A writer whose file is being opened, by a disk that does not answer."""
    asked, answers = threading.Event(), threading.Event()

    def silent(_file: OutboxFile, *_arguments: object) -> None:
        asked.set()
        answers.wait(60.0)
        raise PublishError("too late")

    monkeypatch.setattr(OutboxFile, "open", silent)
    monkeypatch.setattr(outbox_writer, "OPENING_S", 5.0)
    backlog = Backlog(OutboxBounds(KeptIn.DISK, 1_000_000, 60.0))
    writer = OutboxWriter(folder, "dev", backlog, 0.0, lambda: None, clock)
    writer.start()
    try:
        wait_for(asked.is_set, 30.0)
        yield writer
    finally:
        answers.set()
        writer.close(30.0)


def looks(writer: OutboxWriter, clock: Hands, seconds: float) -> list[str]:
    """What is told while the publisher looks every half second."""
    told = []
    for _ in range(int(2 * seconds)):
        clock.now_s += 0.5
        told += writer.news()
    return told


def test_a_disk_that_is_silent_while_we_look_is_told(tmp_path, monkeypatch):
    clock = Hands()
    with busy(tmp_path, clock, monkeypatch) as writer:
        assert looks(writer, clock, 5.0) == []
        [told] = looks(writer, clock, 1.0)
    assert "the disk of the outbox does not answer for 5 s" in told


def test_time_in_which_this_process_stood_still_is_not_the_disks(tmp_path, monkeypatch):
    """Seen on an emulated board: a library loaded for six seconds, and the disk was called silent."""
    clock = Hands()
    with busy(tmp_path, clock, monkeypatch) as writer:
        assert looks(writer, clock, 1.0) == []
        clock.now_s += 60.0
        assert looks(writer, clock, 1.5) == []
        assert looks(writer, clock, 3.0) != []
