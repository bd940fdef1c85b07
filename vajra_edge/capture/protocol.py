"""Protocol: what a camera's process and its parent say to each other, one datagram a message.

Pictures themselves lie in shared memory (see ``ring``); messages only say whose a slot is. What the process of a camera
says is foreign: it may have been taken over by what it decoded, so every field is checked before anything acts on it.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import socket
import struct
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_args, get_type_hints

import orjson

from vajra_edge.errors import VajraError
from vajra_edge.pixel_format import Colorimetry, Matrix, PixelFormat

LONGEST_BYTES = 64 * 1024
"""Of one message: a camera's settings with a long pipeline take some thousand bytes."""

LONGEST_TEXT = 500
"""Characters of a reason; the rest of a longer one is cut off."""

LONGEST_LINE = 4000
"""Likewise of what goes to the log, tracebacks among it."""


class BrokenProtocol(VajraError):
    """The other side said what makes no sense, and is not to be trusted any further."""


@dataclass(frozen=True)
class Spawn:
    """To the fork server, with the process's end of its channel: start a process for this camera.

    Attributes:
        number: names the process between us, from its first to its last day.
        camera: ``CameraSettings`` as JSON.
    """

    number: int
    camera: str


@dataclass(frozen=True)
class KillChild:
    """To the fork server: end this process at once, whatever it does."""

    number: int


@dataclass(frozen=True)
class Hello:
    """From a process: it runs."""

    pid: int


@dataclass(frozen=True)
class CameraOpened:
    """From a process: the source is open."""


@dataclass(frozen=True)
class Slots:
    """From a process, with the memory: pictures from now on lie in this segment.

    Attributes:
        segment: counts the segments of a process, from 0.
        slot_bytes: of each of ``ring.SLOTS`` slots.
    """

    segment: int
    slot_bytes: int


@dataclass(frozen=True)
class FilledSlot:
    """From a process: a slot holds a picture, and is not touched there until ``Back`` comes for it.

    Attributes:
        segment: of ``Slots``.
        slot: within it, from 0.
        generation: how often the slot was filled, from 1.
        width_px: of the picture, which lies without padding between its rows.
        height_px: of the picture.
        captured_ns: CLOCK_MONOTONIC, when it was captured, as far as the source can tell.
        taken_ns: the same moment in UTC, since 1970.
        clock_synchronised: the clock that says so was known to be right.
        dropped: pictures that found no free slot or were left out undecoded, since the process began.
        decode_errors: of the source, since the process began.
        pixels: its format.
        colorimetry: what its numbers mean, where that is NV12.
        digest: of its pixels, where freezes are looked for.
    """

    segment: int
    slot: int
    generation: int
    width_px: int
    height_px: int
    captured_ns: int
    taken_ns: int
    clock_synchronised: bool
    dropped: int
    decode_errors: int
    pixels: PixelFormat
    colorimetry: Colorimetry
    digest: int | None


@dataclass(frozen=True)
class Back:
    """To a process: nobody looks at the picture any more."""

    segment: int
    slot: int
    generation: int


@dataclass(frozen=True)
class Alive:
    """From a process: it waits on purpose, or (``read``) gets pictures, above the rate cap or without a free slot."""

    read: bool
    decode_errors: int
    digest: int | None


@dataclass(frozen=True)
class Note:
    """From a process: a line for the log, of a level of ``logging``."""

    level: int
    text: str


@dataclass(frozen=True)
class CameraEnded:
    """From a process: the source had no more pictures; it ends."""

    decode_errors: int


@dataclass(frozen=True)
class CameraFailed:
    """From a process: the source is lost, see ``SourceError``; it ends."""

    message: str
    remedy: str
    login_refused: bool
    decode_errors: int


@dataclass(frozen=True)
class Exited:
    """From the fork server: a process is gone, and this is the last message of its channel.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        words: what it wrote last, with passwords; empty: nothing.
    """

    code: int
    words: str


FromChild: TypeAlias = Hello | CameraOpened | Slots | FilledSlot | Alive | Note | CameraEnded | CameraFailed | Exited
ToServer: TypeAlias = Spawn | KillChild
Message: TypeAlias = FromChild | ToServer | Back


def _shape_of(kind: type[Any]) -> tuple[tuple[type, ...], ...]:
    """The types that each field allows."""
    hints = get_type_hints(kind)
    return tuple(get_args(hints[one.name]) or (hints[one.name],) for one in fields(kind))


_PICTURE, _BACK = struct.Struct("=c2IQ2I2q?QQ2B?BI"), struct.Struct("=c2IQ")
_PICTURE_TAG, _BACK_TAG = b"P", b"B"  # the two of each frame cost less than JSON, which begins with a bracket
_MEANINGS = {
    (int(pixels), int(matrix), full_range): (pixels, Colorimetry(matrix, full_range))
    for pixels, matrix, full_range in itertools.product(PixelFormat, Matrix, (False, True))
}
"""All that the three numbers may say; looked up, for making them anew took longer than all the rest of a picture's."""

_SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_RECEIVE_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_TRUNC)
_DESCRIPTOR_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(_DESCRIPTOR_BYTES)
_FROM_CHILD, _TO_SERVER = get_args(FromChild), get_args(ToServer)
_SHAPES = {kind.__name__: (kind, _shape_of(kind)) for kind in (*_FROM_CHILD, *_TO_SERVER)}


def encode(message: Message) -> bytes:
    """One datagram."""
    if isinstance(message, FilledSlot):
        *numbers, means, digest = vars(message).values()
        return _PICTURE.pack(_PICTURE_TAG, *numbers, means.matrix, means.full_range, digest is not None, digest or 0)
    if isinstance(message, Back):
        return _BACK.pack(_BACK_TAG, message.segment, message.slot, message.generation)
    return orjson.dumps([type(message).__name__, *vars(message).values()])


def from_child(datagram: bytes) -> FromChild:
    """What a process or its server said.

    Raises:
        BrokenProtocol: it makes no sense.
    """
    if len(datagram) == _PICTURE.size and datagram[:1] == _PICTURE_TAG:
        return _picture(_PICTURE.unpack(datagram)[1:])
    message: FromChild = _decode(datagram, _FROM_CHILD)
    return message


def _picture(told: tuple[Any, ...]) -> FilledSlot:
    *numbers, pixels, matrix, full_range, has_digest, digest = told
    means = _MEANINGS.get((pixels, matrix, full_range))
    if means is None:
        raise BrokenProtocol(f"a picture of format {pixels} with matrix {matrix} makes no sense")
    return FilledSlot(*(*numbers, *means, digest if has_digest else None))


def to_child(datagram: bytes) -> Back:
    """What the parent says to a process.

    Raises:
        BrokenProtocol: it makes no sense.
    """
    if len(datagram) != _BACK.size or datagram[:1] != _BACK_TAG:
        raise BrokenProtocol(f"a message of {len(datagram)} bytes makes no sense")
    return Back(*_BACK.unpack(datagram)[1:])


def to_server(datagram: bytes) -> ToServer:
    """What the parent says to the fork server.

    Raises:
        BrokenProtocol: it makes no sense.
    """
    message: ToServer = _decode(datagram, _TO_SERVER)
    return message


def _decode(datagram: bytes, expected: tuple[type, ...]) -> Any:
    try:
        name, *values = orjson.loads(datagram)
        kind, shape = _SHAPES[name]
        sound = kind in expected and len(values) == len(shape)
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenProtocol(f"a message of {len(datagram)} bytes makes no sense") from error
    if not sound or not all(_is_sound(value, allowed) for value, allowed in zip(values, shape, strict=True)):
        raise BrokenProtocol(f"a message {name} of {len(datagram)} bytes makes no sense")
    return kind(*values)


def _is_sound(value: object, allowed: tuple[type, ...]) -> bool:
    """Whether a value has a type that is allowed, exactly: for ``isinstance`` True is a number."""
    return type(value) in allowed


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel that keeps datagrams apart and in order, and tells when the other end is gone."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Message, descriptor: int | None = None) -> bool:
    """Send without ever waiting; whether it was sent.

    Args:
        channel: an end of ``pair``.
        message: to the other end.
        descriptor: goes with it, as a copy.
    """
    ancillary = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    try:
        channel.sendmsg([encode(message)], ancillary, _SEND_FLAGS)
    except OSError:  # the other end is gone, or does not listen: who waits for its answer notices
        return False
    return True


def receive(channel: socket.socket) -> tuple[bytes, int | None] | None:
    """One datagram without waiting, and the descriptor that came with it; None: nothing is there yet.

    Returns:
        Empty bytes where the other end is gone.
    """
    try:
        datagram, ancillary, flags, _ = _received(channel)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b"", None
    if flags & _TRUNCATED:
        datagram = b"too long"
    return datagram, _descriptor_in(ancillary) if ancillary else None


def _received(channel: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
    """The next datagram.

    An end that is closed with datagrams unread resets the other one, before what it had sent is heard: Linux tells that
    once (unix_release_sock), and its last words come then.
    """
    try:
        return channel.recvmsg(LONGEST_BYTES, _ANCILLARY_BYTES, _RECEIVE_FLAGS)
    except ConnectionResetError:
        return channel.recvmsg(LONGEST_BYTES, _ANCILLARY_BYTES, _RECEIVE_FLAGS)


def _descriptor_in(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The first descriptor; there is room for one, and the kernel closes what does not fit."""
    got = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            got.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_BYTES])
    for spare in got[1:]:  # where the space was rounded up there was room for two
        with contextlib.suppress(OSError):
            os.close(spare)
    return got[0] if got else None
