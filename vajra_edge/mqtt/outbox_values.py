"""Values of the outbox: what it is given, what it gives to the disk, and what it tells of itself."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vajra_edge.mqtt.gaps import Gap
from vajra_edge.mqtt.messages import Draft, Number
from vajra_edge.mqtt.picture import Receipt

ENTRY_BYTES = 400
"""Memory of one entry beside its payload (objects, deque and dict slots), counted so that the bound is honest."""

DISK_BYTES, MEMORY_BYTES = 256 * 1024**2, 16 * 1024**2
"""Room for what waits, where the settings name none: that of Greengrass' stream manager on disk."""


class Retry(Enum):
    """Whether a message that the broker refused is sent again."""

    NEVER = "it is not wanted"
    BOUNDED = "a few times: it may be the message"
    PATIENT = "a few times, of which those count after which a later one was taken: it is the broker, or it is this one"


class KeptIn(str, Enum):
    """Where messages wait for the broker."""

    DISK = "disk"
    MEMORY = "memory"
    LIVE = "live"


@dataclass(frozen=True)
class OutboxBounds:
    """How much may wait.

    Attributes:
        kept: where.
        max_bytes: room; the oldest goes first.
        max_age_s: an older message goes.
    """

    kept: KeptIn
    max_bytes: int
    max_age_s: float


@dataclass(frozen=True)
class UnnumberedMessage:
    """A message without a number.

    Attributes:
        camera: whose it is.
        draft: the message.
        offered_s: monotonic seconds.
        receipt: says which number it got, once it keeps that.
    """

    camera: str
    draft: Draft
    offered_s: float
    receipt: Receipt

    def settle(self, epoch: str, seq: int) -> None:
        """It keeps this number."""
        self.receipt.settle(Number(self.draft.device, epoch, self.camera, seq))


@dataclass(frozen=True)
class Queued:
    """One message that waits or is under way.

    Attributes:
        number: the order of sending; more than that of any message before it.
        camera: whose it is.
        epoch: names the count of ``seq``.
        seq: counts the camera's messages.
        payload: as it is sent while it is live.
        offered_s: monotonic seconds; before this process began, negative ones.
        attempts: how often the broker refused it for the moment.
        passed_upto: the highest number that the broker had taken when it refused it last.
    """

    number: int
    camera: str
    epoch: str
    seq: int
    payload: bytes
    offered_s: float
    attempts: int = 0
    passed_upto: int = 0

    @property
    def size_bytes(self) -> int:
        """What counts against the bound."""
        return len(self.payload) + ENTRY_BYTES


@dataclass(frozen=True)
class DeadLetter:
    """A message that the broker does not want, kept for somebody to look at; ``code`` is that of its PUBACK, or 0."""

    message: Queued
    why: str
    code: int


@dataclass(frozen=True)
class DiskBatch:
    """What goes to the disk in one transaction.

    Attributes:
        messages: new ones, in order.
        upto: every message up to this number is done with.
        gaps: all that are not told yet; None: as before.
        dead: letters to be kept.
        cameras: may give messages from now on: their numbers are to be reserved before there is one.
    """

    messages: tuple[Queued, ...]
    upto: int
    gaps: tuple[Gap, ...] | None = None
    dead: tuple[DeadLetter, ...] = ()
    cameras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recovered:
    """What the disk held when it was opened.

    Attributes:
        epoch: of its counts.
        next_seq: by camera, the next number to give.
        last: number of the newest message.
        messages: that wait.
        size_bytes: of those, as ``Queued`` counts.
        gaps: that nobody was told of.
        fresh_gaps: those of them that the end of the last process, or this opening, made.
    """

    epoch: str
    next_seq: Mapping[str, int]
    last: int
    messages: int
    size_bytes: int
    gaps: tuple[Gap, ...] = ()
    fresh_gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class OutboxCounts:
    """What became of the messages.

    Attributes:
        queued: waiting to be sent.
        in_flight: sent, not yet acknowledged.
        size_bytes: room that both take.
        acked: acknowledged by the broker (for quality of service 0: written to it).
        dropped: by reason: ``bytes``, ``age``, ``live``, ``refused``, ``too_large``, ``died``, ``disk``, ``damaged``,
            ``moved``, and ``closed``, which is what a process in whose memory they waited took with it.
        kept: where messages wait: ``disk``, ``memory`` or ``live``.
        trouble: why they are not kept where the settings say; empty while they are.
    """

    queued: int
    in_flight: int
    size_bytes: int
    acked: int
    dropped: Mapping[str, int]
    kept: str = "memory"
    trouble: str = ""


@dataclass
class Numbering:
    """A count for each camera.

    Attributes:
        epoch: names these counts.
        next_seq: by camera.
    """

    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    next_seq: dict[str, int] = field(default_factory=dict)

    def take(self, camera: str) -> int:
        """The camera's next number."""
        seq = self.next_seq.get(camera, 0)
        self.next_seq[camera] = seq + 1
        return seq
