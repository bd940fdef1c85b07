"""Ears: a paho subscriber that keeps every message with the time it came at."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import paho.mqtt.client as paho

READY_S = 20.0


@dataclass(frozen=True)
class Shot:
    """A detection message."""

    at_s: float
    fingerprint: str
    precision: str
    target: str
    count: int
    key: str

    @property
    def seq(self) -> int:
        return int(self.key.rpartition("/")[2])

    @property
    def epoch(self) -> str:
        return self.key.rpartition("/")[0]


@dataclass(frozen=True)
class Said:
    """Any other message."""

    at_s: float
    topic: str
    content: dict[str, Any]


class Ears:
    """Subscribes to everything below one device.

    Args:
        host: of the broker.
        port: likewise.
        root: topics below it are heard.
    """

    def __init__(self, host: str, port: int, root: str) -> None:
        self._root = root
        self._shots: list[Shot] = []
        self._said: list[Said] = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{root}/#", 0)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._take(message)
        self._client.connect(host, port)
        self._client.loop_start()
        if not self._ready.wait(READY_S):
            raise RuntimeError("the broker does not confirm a subscription")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, message: paho.MQTTMessage) -> None:
        now_s = time.monotonic()
        topic = message.topic.removeprefix(f"{self._root}/")
        content = orjson.loads(message.payload) if message.payload else {}
        if topic.endswith("/detections") and "gap" not in content:
            engine, count = content["engine"], len(content["detections"])
            tag = engine["fingerprint"], engine["precision"], engine["target"]
            self._shots.append(Shot(now_s, *tag, count, content["key"]))
        else:
            self._said.append(Said(now_s, topic, content))

    def shots(self, since_s: float, fingerprint: str | None = None) -> list[Shot]:
        """Detection messages since then, of one plan or of all."""
        wanted = fingerprint[:12] if fingerprint else None
        return [shot for shot in self._shots if shot.at_s >= since_s and wanted in (None, shot.fingerprint)]

    def said(self, since_s: float, topic: str | None = None) -> list[Said]:
        return [said for said in self._said if said.at_s >= since_s and topic in (None, said.topic)]


def largest_gap_s(shots: Sequence[Shot]) -> float | None:
    gaps = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(shots)]
    return round(max(gaps), 3) if gaps else None


def median_gap_s(shots: Sequence[Shot]) -> float | None:
    gaps = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(shots)]
    return round(statistics.median(gaps), 3) if gaps else None


def swaps(shots: Sequence[Shot]) -> list[dict[str, Any]]:
    """Where the plan changes from one message to the next, and the time between the two."""
    return [
        {
            "from": f"{earlier.fingerprint} {earlier.precision} {earlier.target}",
            "to": f"{later.fingerprint} {later.precision} {later.target}",
            "gap_s": round(later.at_s - earlier.at_s, 3),
        }
        for earlier, later in itertools.pairwise(shots)
        if earlier.fingerprint != later.fingerprint
    ]


def lost(shots: Sequence[Shot]) -> int:
    """Numbers that are missing between the first and the last message of each count of a camera."""
    by_epoch: dict[str, list[int]] = {}
    for shot in shots:
        by_epoch.setdefault(shot.epoch, []).append(shot.seq)
    return sum(max(seqs) - min(seqs) + 1 - len(set(seqs)) for seqs in by_epoch.values())
