"""Cameras whose frames lie in memory: so many, at such a rate, with no decoder that would take the processors.

One kind has a frame whenever it is asked for. A frame of the other arrives when its time has come, not when the feeder
gets round to it: one that comes late because the frame loop held the interpreter is as late for its subscribers.
Cameras are spread over the time of a frame, as real ones are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame, Memory


@dataclass(frozen=True)
class Due:
    """One frame that is to arrive.

    Attributes:
        camera: number of the camera.
        seq: number of its frame.
        at_ns: when, after the first of all.
    """

    camera: int
    seq: int
    at_ns: int


def due(number: int, cameras: int, fps: float) -> Due:
    """The ``number``-th frame of all cameras together, from 0."""
    seq, camera = divmod(number, cameras)
    return Due(camera, seq, round(number * 1e9 / (cameras * fps)))


def laid_together(images: Sequence[NDArray[np.uint8]]) -> tuple[Memory, tuple[NDArray[np.uint8], ...]]:
    """Images one after the other in one memory, as a camera's lie; a GPU then reads them there."""
    whole = np.concatenate([image.reshape(-1) for image in images])
    memory, views, begin = Memory(whole), [], 0
    for image in images:
        views.append(whole[begin : begin + image.nbytes].reshape(image.shape))
        begin += image.nbytes
    return memory, tuple(views)


class EndlessCamera:
    """A source that has a frame whenever one is asked for, and no other: whoever takes from it sets the pace.

    Args:
        images: what it sees, in turn; copied once, to where a camera's frames lie.
        name: of the camera.
        clock_ns: the clock of ``Frame.captured_ns``.
    """

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], name: str, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._memory, self._images = laid_together(images)
        self._name, self._clock_ns, self._taken = name, clock_ns, 0

    def take(self, limit: int, timeout_s: float, gather_s: float = 0.0) -> list[Frame]:
        """One frame, as from one camera's mailbox; it arrives now."""
        del limit, timeout_s, gather_s
        seq, self._taken = self._taken, self._taken + 1
        image, at_ns = self._images[seq % len(self._images)], self._clock_ns()
        return [Frame(image, at_ns, datetime.now(timezone.utc), seq, self._name, memory=self._memory)]


class MemoryCameras:
    """One thread that leaves frames in the mailboxes at their times, until it is closed.

    Args:
        images: what the cameras see, in turn; copied once.
        cameras: how many.
        fps: frames a second of each.
        mailboxes: where frames go.
        clock_ns: the clock of ``Frame.captured_ns``.
        wait: waits for seconds; True where it is time to end.

    Attributes:
        arrived: frames that came so far.
        late_ms: how late each of them was put.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        cameras: int,
        fps: float,
        mailboxes: Mailboxes,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._memory, self._images = laid_together(images)
        self._cameras, self._fps, self._mailboxes = cameras, fps, mailboxes
        self._clock_ns, self._stop = clock_ns, threading.Event()
        self._wait = wait or self._stop.wait
        self._thread = threading.Thread(target=self.run, name="memory-cameras", daemon=True)
        self.arrived = 0
        self.late_ms: list[float] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the cameras."""
        return tuple(f"memory-{number}" for number in range(self._cameras))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; no frame comes afterwards."""
        self._stop.set()
        self._thread.join()

    def run(self) -> None:
        """Leave frames until it is time to end."""
        names = self.names
        for name in names:
            self._mailboxes.add(name)
        began_ns = self._clock_ns()
        while True:
            one = due(self.arrived, self._cameras, self._fps)
            left_ns = began_ns + one.at_ns - self._clock_ns()
            if self._wait(max(left_ns, 0) / 1e9):
                return
            at_ns = began_ns + one.at_ns
            self.late_ms.append(max(self._clock_ns() - at_ns, 0) / 1e6)
            image = self._images[(one.seq + one.camera) % len(self._images)]
            taken_at, camera = datetime.now(timezone.utc), names[one.camera]
            self._mailboxes.put(Frame(image, at_ns, taken_at, one.seq, camera, memory=self._memory))
            self.arrived += 1
