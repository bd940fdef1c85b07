"""An ext4 of its own over a loop device, whose power is cut again and again while a program writes to it.

A cut stops the writer, copies the image that the file system has written to so far, which is without all that only the
page cache knows, and lets the writer go on. The copy is mounted, which replays the file system's journal. Needs root.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from waiting import wait_for

Known = TypeVar("Known")

LONGEST_S = 0.6
"""Between two cuts."""


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def cuts_of(
    folder: Path,
    *,
    size_mib: int,
    cuts: int,
    dice: random.Random,
    command: Callable[[Path], list[str]],
    ready: Callable[[], bool],
    known: Callable[[], Known],
) -> Iterator[tuple[Path, Known]]:
    """The disk after each cut, and what was known when it came.

    Args:
        folder: on another disk.
        size_mib: of the disk.
        cuts: how many.
        dice: when.
        command: of the writer, which is handed where its disk is mounted.
        ready: whether the writer has begun.
        known: what the writer had told; asked while it stands still.
    """
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with _mounted(image, folder / "disk") as disk:
        with (folder / "log").open("wb") as log:
            writer = subprocess.Popen(command(disk), stdout=log, stderr=log)
        try:
            wait_for(ready)
            for cut in range(cuts):
                copy = folder / f"copy-{cut}.img"  # another name each time: a loop device may outlive its mount
                time.sleep(dice.uniform(0.0, LONGEST_S))
                assert writer.poll() is None, (folder / "log").read_text()[-2000:]
                writer.send_signal(signal.SIGSTOP)
                told = known()
                subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
                writer.send_signal(signal.SIGCONT)
                with _mounted(copy, folder / "seen") as seen:
                    yield seen, told
                copy.unlink()
        finally:
            writer.send_signal(signal.SIGCONT)
            writer.terminate()
            writer.wait()
