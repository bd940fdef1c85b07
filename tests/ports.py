"""Ports of loopback for servers that tests start, stop, and start again under the same number."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, EACH = 20_000, 1_000
"""Below the ports that the kernel lends to clients, so that none is taken between two starts of its server; each
process of pytest-xdist has a thousand of its own."""

_OWN = FIRST + EACH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_NUMBERS = itertools.count(os.getpid())  # another run of the suite beside this one begins elsewhere


def free_port() -> int:
    """A port at which nothing listens, given to nobody else in this run."""
    while True:
        port = _OWN + next(_NUMBERS) % EACH
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) != 0:
                return port
