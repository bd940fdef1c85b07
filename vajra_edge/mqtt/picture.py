"""Picture: a camera's snapshot, and which detection message says what was found in that very frame.

A message gets its number where it is kept, which may be later than its picture is made, and may be another one than was
meant at first. So the picture waits for its message's receipt, and nobody draws the boxes of another frame into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from vajra_edge.media.jpeg_comment import with_comment
from vajra_edge.mqtt.messages import SCHEMA, Number


class Receipt:
    """Says which number a detection message has. Only read and settled where the backlog is locked.

    Attributes:
        number: that it keeps; None: not known yet, or it was lost before it had one.
        is_settled: nothing of that changes any more.
    """

    __slots__ = ("is_settled", "number")

    def __init__(self) -> None:
        self.number: Number | None = None
        self.is_settled = False

    def settle(self, number: Number | None) -> None:
        """It has this number, or will never have one."""
        self.number, self.is_settled = number, True


@dataclass(frozen=True)
class Snapshot:
    """One frame as a JPEG.

    Attributes:
        camera: the camera's id.
        taken_at: when the frame was captured, as its detection message says.
        frame_seq: counts the camera's frames, likewise.
        receipt: of that message.
        jpeg: the picture, without a comment.
        asked: somebody asked for it.
        clock_synchronised: ``taken_at`` is by a clock that was known to be right then.
    """

    camera: str
    taken_at: datetime
    frame_seq: int
    receipt: Receipt
    jpeg: bytes
    asked: bool = False
    clock_synchronised: bool = False


@dataclass(frozen=True)
class SnapshotSent:
    """Event: a picture that somebody asked for is on its way to the broker.

    Attributes:
        camera: the camera's id.
        told: what its comment says.
    """

    camera: str
    told: Mapping[str, object]


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as it is sent.

    Attributes:
        payload: the JPEG, with what is known of it as JSON in its comment.
        user: user properties of the message, where the connection has such.
        told: what the comment says.
    """

    payload: bytes
    user: tuple[tuple[str, str], ...]
    told: Mapping[str, object]


def encode_picture(snapshot: Snapshot, device: str) -> EncodedPicture:
    """What is sent, once the receipt is settled; see ``schema.SnapshotComment``."""
    number = snapshot.receipt.number
    comment = orjson.dumps(
        {
            "schema": SCHEMA,
            "device": device,
            "camera": snapshot.camera,
            "epoch": number.epoch if number else None,
            "seq": number.seq if number else None,
            "key": number.key if number else None,
            "taken_at": snapshot.taken_at,
            "clock_synchronised": snapshot.clock_synchronised,
            "frame_seq": snapshot.frame_seq,
        },
        option=orjson.OPT_UTC_Z,
    )
    told = orjson.loads(comment)
    user = tuple((name, str(told[name])) for name in ("key", "seq", "taken_at") if told[name] is not None)
    return EncodedPicture(with_comment(snapshot.jpeg, comment), user, told)
