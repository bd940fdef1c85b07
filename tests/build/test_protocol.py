from __future__ import annotations

import pytest

from vajra_edge.build import protocol
from vajra_edge.progress import Progress


@pytest.mark.parametrize(
    "line",
    [
        Progress("verify", 12.5, "frame 2 of 8: Fußgänger\nzwei", 3.0),
        Progress("build"),
        protocol.Done("ab" * 32, 5),
        protocol.Failed("no space", permanent=False, peak_rss_bytes=7),
        protocol.Failed("image 3 of 9", permanent=True, peak_rss_bytes=7, images=True),
    ],
    ids=str,
)
def test_a_line_arrives_as_it_was_sent(line: protocol.Line):
    sent = protocol.encode(line)
    assert sent.count(b"\n") == 1
    assert protocol.decode(sent) == line


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello from a library",
        b"[1, 2]",
        b"5",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"event": "unknown"}',
        b'{"event": "progress"}',
        b'{"event": "progress", "stage": "build", "surprise": 1}',
        b'{"event": "progress", "stage": 5}',
        b'{"event": "progress", "stage": "build", "percent": "half"}',
        b'{"event": "done", "fingerprint": 5, "peak_rss_bytes": 1}',
        b'{"event": "failed", "message": "x", "permanent": "no", "peak_rss_bytes": 1}',
        b'{"event": "failed", "message": "x", "permanent": true, "peak_rss_bytes": 1, "images": "yes"}',
        b'{"event": ["done"]}',
    ],
    ids=lambda text: text[:60].decode(errors="replace"),
)
def test_anything_else_is_no_line(text: bytes):
    assert protocol.decode(text) is None
