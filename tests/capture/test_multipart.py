"""Parts as cameras really send them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import picture

from vajra_edge.capture.sources.multipart import BodyParts, DamagedPart, EndOfParts
from vajra_edge.media.limits import MAX_SENT_BYTES

JPEG = bytes(cv2.imencode(".jpg", picture(3))[1].tobytes())
SIZED = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
DAMAGED = b"damaged"
UNSIZED = b"--b\r\nContent-Type: image/jpeg\r\n\r\n"


def parts_of(stream: bytes, boundary: str = "b", step: int = 1000) -> BodyParts:
    """The stream arrives in pieces of ``step`` bytes."""
    pieces = iter([stream[at : at + step] for at in range(0, len(stream), step)])
    return BodyParts(lambda: next(pieces, b""), boundary)


def next_of(parts: BodyParts) -> bytes | None:
    """A body, ``DAMAGED``, or None at the end."""
    try:
        return parts.next().body
    except DamagedPart:
        return DAMAGED
    except EndOfParts:
        return None


def read(parts: BodyParts) -> tuple[list[bytes], int]:
    """All bodies, and how many parts were damaged."""
    found = list(iter(lambda: next_of(parts), None))
    bodies = [body for body in found if body is not DAMAGED]
    return bodies, len(found) - len(bodies)


def sized(body: bytes, head: bytes = SIZED, tail: bytes = b"\r\n") -> bytes:
    return head % len(body) + body + tail


@pytest.mark.parametrize("step", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("length", [True, False])
def test_parts_come_whole_however_they_arrive(step: int, *, length: bool) -> None:
    stream = b"".join(sized(JPEG) if length else UNSIZED + JPEG + b"\r\n" for _ in range(4))
    assert read(parts_of(stream, step=step)) == ([JPEG] * 4, 0)


@pytest.mark.parametrize(
    ("stream", "boundary"),
    [
        (sized(JPEG) * 3, "--b"),
        (sized(JPEG) * 3, ""),
        (sized(JPEG) * 3, "another"),
        (sized(JPEG, b"----my=boundary\r\nContent-Length: %d\r\n\r\n") * 3, "--my=boundary"),
        (sized(JPEG, b"b\r\nContent-Length: %d\r\n\r\n") * 3, "b"),
        (sized(JPEG, b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", b"\r\n--b\r\n") * 3, "b"),
        (sized(JPEG, b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n") * 3, ""),
        (sized(JPEG, b"--b\nContent-Length: %d\n\n", b"\n") * 3, "b"),
        (sized(JPEG, tail=b"") * 3, "b"),
        (sized(JPEG, tail=bytes(70)) * 3, "b"),
        (sized(JPEG, b"--b\r\ncontent-LENGTH:%d\r\nX-Time: 1.5\r\n\r\n") * 3, "b"),
        (b"preamble\r\n\r\n" + sized(JPEG) * 3, "b"),
        ((b"--b\r\n\r\n" + JPEG + b"\r\n") * 3, "b"),
        ((b"--b\r\nContent-Length: many\r\n\r\n" + JPEG + b"\r\n") * 3, "b"),
        ((UNSIZED + JPEG) * 3, "b"),
        (sized(JPEG) * 3 + b"--b--\r\n", "b"),
    ],
)
def test_the_habits_of_cameras_are_borne(stream: bytes, boundary: str) -> None:
    assert read(parts_of(stream, boundary)) == ([JPEG] * 3, 0)


def test_a_part_that_claims_gigabytes_is_refused_at_its_head() -> None:
    """None of it is waited for: the next part is read at once."""
    claim = b"--b\r\nContent-Length: 2147483648\r\n\r\n"
    assert read(parts_of(claim + JPEG + b"\r\n" + sized(JPEG))) == ([JPEG], 1)


def test_an_empty_part_is_damaged() -> None:
    assert read(parts_of(sized(JPEG) + sized(b"") + sized(JPEG))) == ([JPEG, JPEG], 1)
    assert read(parts_of(UNSIZED + b"\r\n" + UNSIZED + JPEG)) == ([JPEG], 1)


def test_a_part_without_an_end_takes_no_more_than_a_part_may() -> None:
    held = 0
    chunk = b"\xff\xd8" + bytes(1024 * 1024)

    def endless() -> bytes:
        nonlocal held
        held += len(chunk)
        return UNSIZED + chunk if held == len(chunk) else chunk

    with pytest.raises(DamagedPart, match="without an end"):
        BodyParts(endless, "b").next()
    assert held < MAX_SENT_BYTES + 3 * len(chunk)


def test_a_part_of_no_picture_ends_at_the_boundary() -> None:
    bodies, damaged = read(parts_of(UNSIZED + b"<html>busy</html>\r\n" + UNSIZED + JPEG))
    assert (bodies, damaged) == ([b"<html>busy</html>", JPEG], 0)


def test_a_length_that_is_too_short_costs_its_own_part() -> None:
    short = b"--b\r\nContent-Length: 100\r\n\r\n" + JPEG + b"\r\n"
    bodies, damaged = read(parts_of(sized(JPEG) + short + sized(JPEG)))
    assert (bodies[0], bodies[-1], damaged) == (JPEG, JPEG, 0)
    assert bodies[1] == JPEG[:100]


def test_the_type_of_a_part_is_told() -> None:
    part = parts_of(b"--b\r\nContent-Type: Audio/Basic; rate=8\r\nContent-Length: 3\r\n\r\nabc").next()
    assert (part.content_type, part.body) == ("audio/basic", b"abc")


def test_noise_between_parts_is_passed_by_in_bounded_memory() -> None:
    noise = np.random.default_rng(5).bytes(300_000).replace(b"--b", b"...")
    assert read(parts_of(sized(JPEG) + noise + b"\r\n" + sized(JPEG)))[0] == [JPEG, JPEG]


def test_the_end_is_told() -> None:
    with pytest.raises(EndOfParts):
        parts_of(b"").next()
    with pytest.raises(EndOfParts):
        parts_of(sized(JPEG)[:-50]).next()
