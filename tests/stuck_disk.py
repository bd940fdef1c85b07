"""A file system that takes every request and answers none: what touches it sleeps in the kernel, beyond any signal.

The least part of FUSE that does so. Needs root and /dev/fuse.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from pathlib import Path

_INIT = 26
_MNT_DETACH = 2


class StuckDisk:
    """Mounted on a folder between ``open`` and ``close``; each look below it hangs.

    Attributes:
        asked: how many requests wait for an answer.
    """

    def __init__(self, folder: Path) -> None:
        self.asked = 0
        self._folder = folder
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def open(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        data = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if self._libc.mount(b"stuck", os.fsencode(self._folder), b"fuse", 0, data) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        self._thread.start()

    def close(self) -> None:
        """Unmount it; whoever sleeps in it wakes up with an error."""
        self._ends.set()
        self._thread.join()
        self._libc.umount2(os.fsencode(self._folder), _MNT_DETACH)

    def _serve(self) -> None:
        while not self._ends.wait(0.01):
            with contextlib.suppress(BlockingIOError):
                self._take(os.read(self._fd, 1 << 20))
        os.close(self._fd)

    def _take(self, request: bytes) -> None:
        _, opcode, unique = struct.unpack_from("=IIQ", request)
        self.asked += opcode != _INIT
        if opcode == _INIT:
            answer = struct.pack("=IIIIHHIIHHI7I", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0, *[0] * 7)
            os.write(self._fd, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)


def is_possible() -> bool:
    """Whether this process may mount one."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)
