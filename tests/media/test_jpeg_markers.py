"""The walk over the segments of a JPEG."""

from __future__ import annotations

import pytest
from photos import encoded, texture

from vajra_edge.media.jpeg_markers import END, START, end_of, segments, size
from vajra_edge.media.limits import MAX_STRAY_BYTES


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"orientation": 6}])
def test_the_walk_ends_at_the_end_of_the_picture(options: dict[str, object]) -> None:
    content = encoded(texture(61, 43), **options)
    found = list(segments(content + b"\xff\xda more"))
    assert found[-1].is_end
    assert found[-1].next == len(content) == end_of(content + b" more")
    assert sum(one.is_frame for one in found) == 1
    assert any(one.is_scan for one in found)
    assert size(content) == (61, 43)


def test_the_end_is_found_piece_by_piece() -> None:
    content, buffer, ends = encoded(texture()), bytearray(), []
    for at in range(0, len(content), 1000):
        buffer += content[at : at + 1000]
        ends.append(end_of(buffer, max(0, at - 1)))
    assert ends == [None] * (len(ends) - 1) + [len(content)]
    buffer.clear()


@pytest.mark.parametrize(("stray", "found"), [(0, (61, 43)), (200, (61, 43)), (MAX_STRAY_BYTES + 1, None)])
def test_a_few_stray_bytes_in_the_header_are_passed_by(stray: int, found: tuple[int, int] | None) -> None:
    content = encoded(texture(61, 43))
    assert size(START + bytes(stray) + content[2:]) == found


def test_marks_that_are_filled_up_and_those_without_a_length_are_understood() -> None:
    content = encoded(texture(61, 43))
    assert size(START + b"\xff\x01\xff\xff\xff" + content[3:]) == (61, 43)


@pytest.mark.parametrize("content", [b"", START, START + END, b"no picture" + END])
def test_without_a_scan_there_is_no_end(content: bytes) -> None:
    assert end_of(content) is None
