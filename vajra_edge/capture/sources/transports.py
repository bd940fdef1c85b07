"""Transports: over which one an RTSP camera sends. TCP loses nothing; UDP is tried where TCP may be what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

_MAY_BE_THE_TRANSPORT = frozenset(
    {
        SourceRefusal.TRANSPORT,
        SourceRefusal.STATUS,
        SourceRefusal.HANGS_UP,
        SourceRefusal.NO_PICTURE,
        SourceRefusal.UNKNOWN,
    }
)
"""After these another transport is tried: cameras that speak only one do not all say 461."""


def open_over(asked: Literal["auto", "tcp", "udp"], open_one: Callable[[str], None], deadline: Deadline) -> None:
    """Open a camera over the transport that is asked for; ``auto``: over TCP, else over UDP.

    Args:
        asked: by its settings.
        open_one: opens it over ``tcp`` or ``udp``.
        deadline: of all attempts.

    Raises:
        SourceRefused: it gives no video over any of them.
    """
    try:
        open_one("tcp" if asked == "auto" else asked)
    except SourceRefused as refused:
        if asked != "auto" or refused.why not in _MAY_BE_THE_TRANSPORT or deadline.passed:
            raise
        try:
            open_one("udp")
        except SourceRefused as again:
            if refused.why is again.why is SourceRefusal.TRANSPORT:
                raise SourceRefused(SourceRefusal.NO_TRANSPORT) from None
            raise refused from None  # what the first way says is nearer to what is wrong
