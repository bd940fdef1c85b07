"""What processes of cameras say: everything arrives as it was, and nothing that makes no sense."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path

import pytest

from vajra_edge.capture import protocol
from vajra_edge.capture.protocol import (
    Alive,
    Back,
    BrokenProtocol,
    CameraEnded,
    CameraFailed,
    CameraOpened,
    Exited,
    FilledSlot,
    FromChild,
    Hello,
    KillChild,
    Note,
    Slots,
    Spawn,
)
from vajra_edge.pixel_format import USUAL, Colorimetry, Matrix, PixelFormat

NV12 = PixelFormat.NV12, Colorimetry(Matrix.FCC, full_range=True)
PICTURE = FilledSlot(1, 5, 2**40, 1920, 1080, 2**62, 2**61, True, 7, 3, *NV12, 2**32 - 1)
FORMAT_AT = 58  # in its datagram, with the matrix behind it


def altered(at: int, value: int) -> bytes:
    """A picture's datagram with another number at a place."""
    datagram = bytearray(protocol.encode(PICTURE))
    datagram[at] = value
    return bytes(datagram)


def test_a_format_lies_where_these_tests_alter_it() -> None:
    for at, value, told in (
        (FORMAT_AT, 1, (PixelFormat.BGRX, NV12[1])),
        (FORMAT_AT + 1, 2, (NV12[0], Colorimetry(Matrix.BT2020, full_range=True))),
        (FORMAT_AT + 2, 0, (NV12[0], Colorimetry(Matrix.FCC))),
    ):
        picture = protocol.from_child(altered(at, value))
        assert isinstance(picture, FilledSlot)
        assert (picture.pixels, picture.colorimetry) == told


@pytest.mark.parametrize(
    "message",
    [
        Hello(7),
        CameraOpened(),
        Slots(0, 4096),
        PICTURE,
        FilledSlot(0, 0, 1, 64, 48, 0, 0, False, 0, 0, PixelFormat.BGR, USUAL, None),
        Alive(read=True, decode_errors=2, digest=None),
        Note(30, "low light ü"),
        CameraEnded(0),
        CameraFailed("401", "set credentials_file", True, 1),
        Exited(-11, "Fatal Python error"),
    ],
)
def test_what_a_process_says_arrives(message: FromChild) -> None:
    assert protocol.from_child(protocol.encode(message)) == message


def test_what_the_parent_says_arrives() -> None:
    assert protocol.to_child(protocol.encode(Back(1, 2, 3))) == Back(1, 2, 3)
    for order in (Spawn(1, '{"id": "gate"}'), KillChild(2)):
        assert protocol.to_server(protocol.encode(order)) == order


@pytest.mark.parametrize(
    "datagram",
    [
        b"x",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'["Nobody"]',
        b'["Hello"]',
        b'["Hello",1,2]',
        b'["Hello","1"]',
        b'["Hello",true]',
        b'["Hello",1.5]',
        b'["Hello",null]',
        b'["Hello",[1]]',
        b'["Kill",1]',
        b'["Spawn",1,""]',
        b'[["Hello"],1]',
        b'["Alive",1,0,null]',
        b"[" * 5000,
        protocol.encode(PICTURE)[:-1],
        protocol.encode(PICTURE) + b"\0",
        protocol.encode(Back(1, 2, 3)),
        b'["FilledSlot",1,5,2,64,48,0,0,false,0,0,0,0,null]',
        altered(FORMAT_AT, len(PixelFormat)),
        altered(FORMAT_AT, 255),
        altered(FORMAT_AT + 1, len(Matrix)),
        altered(FORMAT_AT + 1, 255),
    ],
)
def test_what_makes_no_sense_from_a_process_is_refused(datagram: bytes) -> None:
    with pytest.raises(BrokenProtocol, match="makes no sense"):
        protocol.from_child(datagram)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_descriptors_travel_and_surplus_ones_do_not_stay() -> None:
    ours, theirs = protocol.pair()
    with ours, theirs:
        before = open_files()
        read, write = os.pipe()
        assert protocol.send(theirs, Slots(0, 4096), read)
        came = protocol.receive(ours)
        assert came is not None
        datagram, descriptor = came
        assert protocol.from_child(datagram) == Slots(0, 4096)
        assert descriptor is not None
        assert os.fstat(descriptor).st_ino == os.fstat(read).st_ino
        for one in (read, write, descriptor):
            os.close(one)
        read, write = os.pipe()
        theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read, write, read]))])
        _, descriptor = protocol.receive(ours) or (b"", None)
        for one in (read, write, descriptor):
            os.close(one or 0)
        assert open_files() == before


def test_nothing_there_and_nobody_there_differ() -> None:
    ours, theirs = protocol.pair()
    with ours:
        assert protocol.receive(ours) is None
        theirs.close()
        assert protocol.receive(ours) == (b"", None)
        assert not protocol.send(ours, Back(0, 0, 1))


def test_a_message_that_is_too_long_is_none() -> None:
    ours, theirs = protocol.pair()
    with ours, theirs:
        theirs.send(b'["Note",30,"' + b"x" * 2 * protocol.LONGEST_BYTES + b'"]')
        datagram, _ = protocol.receive(ours) or (b"", None)
        with pytest.raises(BrokenProtocol):
            protocol.from_child(datagram)


def test_a_send_to_somebody_who_does_not_listen_never_waits() -> None:
    ours, theirs = protocol.pair()
    with ours, theirs:
        while protocol.send(theirs, Alive(read=False, decode_errors=0, digest=None)):
            pass
        assert protocol.receive(ours)


def test_last_words_are_heard_although_their_speaker_left_something_unheard() -> None:
    ours, theirs = protocol.pair()
    with ours:
        assert protocol.send(ours, Back(1, 2, 3))
        assert protocol.send(theirs, Exited(-11, "Segmentation fault"))
        theirs.close()
        came = protocol.receive(ours)
        assert came is not None
        assert protocol.from_child(came[0]) == Exited(-11, "Segmentation fault")
        assert protocol.receive(ours) == (b"", None)
