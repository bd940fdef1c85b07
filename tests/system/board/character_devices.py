"""Character devices whose driver registers a given name in /proc/devices: CUSE, the kernel's devices from user space.

It stands alone, with nothing but the standard library, because it runs on the emulated board:

    python3 character_devices.py NAME ...     makes /dev/NAME for each, open to everybody, until it is ended

Nothing is behind them but that they open. See the kernel's include/uapi/linux/fuse.h, whose structures these are.
"""

from __future__ import annotations

import os
import selectors
import struct
import sys
from collections.abc import Sequence

REQUEST = struct.Struct("<IIQQIIII")
"""Length, opcode, unique, node, user, group, process, padding."""
ANSWER = struct.Struct("<IiQ")
"""Length, negative error, unique."""
INITIAL = struct.Struct("<IIIIIIII40x")
"""Version and its minor, unused, flags, longest read and write, major and minor number of the device (0: any)."""
OPENED = struct.Struct("<QII")
"""Handle, flags, padding."""

INIT, OPEN, RELEASE, INTERRUPT = 4096, 14, 18, 36
VERSION = (7, 11)
LONGEST_BYTES = 1 << 17
NOT_IMPLEMENTED = 38


def answered(request: bytes, name: str) -> bytes | None:
    """What the kernel is told; None where it asks for no answer."""
    _, opcode, unique, *_ = REQUEST.unpack_from(request)
    if opcode == INTERRUPT:
        return None
    error, said = 0, b""
    if opcode == INIT:
        said = INITIAL.pack(*VERSION, 0, 0, LONGEST_BYTES, LONGEST_BYTES, 0, 0) + f"DEVNAME={name}\0".encode()
    elif opcode == OPEN:
        said = OPENED.pack(0, 0, 0)
    elif opcode != RELEASE:
        error = -NOT_IMPLEMENTED
    return ANSWER.pack(ANSWER.size + len(said), error, unique) + said


def serve(names: Sequence[str]) -> None:
    """Make a device of each name, then answer whoever opens one."""
    chosen = selectors.DefaultSelector()
    for name in names:
        chosen.register(os.open("/dev/cuse", os.O_RDWR), selectors.EVENT_READ, name)
    while True:
        for key, _ in chosen.select():
            said = answered(os.read(key.fd, 2 * LONGEST_BYTES), key.data)
            if said is not None:
                os.write(key.fd, said)


if __name__ == "__main__":
    serve(sys.argv[1:])
