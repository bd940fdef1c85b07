"""Child: what the process of one camera does, from opening its source to the end of it. One process, one opening.

Here alone a source is touched: name look-ups, connections, decoders and file systems may hang or crash here. It
decodes, keeps the pace of clips, applies the rate cap, and leaves pictures in shared memory.
"""

from __future__ import annotations

import logging
import select
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vajra_edge import clock
from vajra_edge.capture import protocol
from vajra_edge.capture.protocol import Alive, BrokenProtocol, CameraEnded, CameraFailed, CameraOpened, FilledSlot, Note
from vajra_edge.capture.rate import Pace, RateCap
from vajra_edge.capture.ring import WritableRing
from vajra_edge.capture.sources.base import RawFrame, Source
from vajra_edge.capture.url import conceal
from vajra_edge.config import address
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError, VajraError
from vajra_edge.pixel_format import resolution_of

Make = Callable[[CameraSettings], Source]

ALIVE_S = 0.5
"""A process that waits on purpose, or whose pictures nobody takes, says so this often."""

DIGEST_STEP_PX = 16
"""Every 16th pixel of every 16th row: sensor noise alone changes it."""


class _Left(Exception):
    """The parent does not want this camera any more, or is gone."""


class _Lines(logging.Handler):
    """Sends what sources log to the parent; nothing else of this process reaches the journal."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        text = address.shortened(record.getMessage())[: protocol.LONGEST_LINE]
        protocol.send(self._channel, Note(record.levelno, text))


class _Camera:
    """One source, one channel."""

    def __init__(self, channel: socket.socket, camera: CameraSettings, make: Make) -> None:
        self._channel, self._camera, self._make = channel, camera, make
        self._ring = WritableRing(self._say)
        self._pace, self._cap = Pace(), RateCap(camera.fps)
        self._source: Source | None = None
        self._dropped = 0
        self._captured_ns = time.monotonic_ns()
        self._said_s = 0.0

    def run(self) -> None:
        """Give pictures until there are no more, or nobody wants them."""
        try:
            source = self._source = self._make(self._camera)
            source.open()
            self._say(CameraOpened())
            while (picture := source.read()) is not None:
                self._look()
                self._got(picture)
            self._say(CameraEnded(source.decode_errors))
        except _Left:
            return
        except VajraError as error:
            refused = isinstance(error, SourceError) and error.login_refused
            self._fail(str(error.message), str(error.remedy), login_refused=refused)
        except MemoryError:
            self._fail("the decoder asked for more memory than a camera may take", "choose a smaller stream of it")
        except Exception as error:  # noqa: BLE001  the top of a process: a bug is told like any loss
            told = conceal(self._camera, f"unexpected {type(error).__name__}: {error}")  # it may quote the address
            frames = "".join(traceback.format_tb(error.__traceback__))
            logging.getLogger(__name__).error("%s\n%s", told, frames)  # noqa: TRY400  the text of error is in told
            self._fail(told, "")
        finally:
            self._ring.close()
            if self._source is not None:
                self._source.close()

    @property
    def _decode_errors(self) -> int:
        return self._source.decode_errors if self._source else 0

    def _got(self, picture: RawFrame) -> None:
        captured_ns, taken_ns, known = self._moment(picture.age_s)
        self._dropped += picture.left_out
        digest = _digest(picture.image) if self._camera.freeze_s is not None else None
        at_s = captured_ns / 1e9 if picture.position_s is None else picture.position_s
        if not self._cap.admits(at_s):
            self._tell(digest, read=True)
            return
        if picture.position_s is not None and self._camera.realtime:
            self._wait(self._pace.delay_s(picture.position_s, time.monotonic()))
            captured_ns, taken_ns, known = self._moment()
        finite = self._source is not None and not self._source.live
        while finite and not self._camera.realtime and not self._ring.has_room(picture.image):
            self._wait(ALIVE_S, back=True)  # no picture of it is to be lost
        if not self._ring.has_room(picture.image):
            self._dropped += 1
            self._tell(digest, read=True)
            return
        place, size = self._ring.write(picture.image), resolution_of(picture.pixels, picture.image.shape)
        lost, means = (self._dropped, self._decode_errors), (picture.pixels, picture.colorimetry)
        self._say(FilledSlot(*place, *size, captured_ns, taken_ns, known, *lost, *means, digest))

    def _moment(self, age_s: float = 0.0) -> tuple[int, int, bool]:
        """When a frame of this age was captured: by the monotonic clock, in UTC, and whether that clock is right.

        Whether it is right is asked first: see ``clock.now``. Later than the frame before it, whatever the ages say.
        """
        synchronised = clock.is_synchronised()
        now_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        self._captured_ns = max(now_ns - round(age_s * 1e9), self._captured_ns + 1)
        return self._captured_ns, unix_ns - (now_ns - self._captured_ns), synchronised

    def _wait(self, seconds: float, *, back: bool = False) -> None:
        """Wait on purpose, and say so now and then; ``back``: a slot that comes back ends it."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0.0:
            self._tell(None, read=False)
            ready, _, _ = select.select([self._channel], [], [], min(left_s, ALIVE_S))
            if ready and self._look() and back:
                return

    def _tell(self, digest: int | None, *, read: bool) -> None:
        if time.monotonic() - self._said_s >= ALIVE_S:
            self._say(Alive(read, self._decode_errors, digest))

    def _look(self) -> bool:
        """Take back what the parent let go of; whether there was anything.

        Raises:
            _Left: it is time to end.
        """
        any_came = False
        while (came := protocol.receive(self._channel)) is not None:
            if not came[0]:
                raise _Left
            returned = protocol.to_child(came[0])
            self._ring.back(returned.segment, returned.slot, returned.generation)
            any_came = True
        return any_came

    def _say(self, message: protocol.FromChild, descriptor: int | None = None) -> None:
        """Send what must arrive; while the parent does not listen, this waits for it."""
        self._said_s = time.monotonic()
        while not protocol.send(self._channel, message, descriptor):
            if isinstance(message, Alive):
                return
            waiting = select.poll()
            waiting.register(self._channel, select.POLLOUT)
            if any(seen & (select.POLLHUP | select.POLLERR) for _, seen in waiting.poll(ALIVE_S * 1e3)):
                raise _Left

    def _fail(self, message: str, remedy: str, *, login_refused: bool = False) -> None:
        message, remedy = (address.shortened(text)[: protocol.LONGEST_TEXT] for text in (message, remedy))
        self._say(CameraFailed(message, remedy, login_refused, self._decode_errors))


def run(channel: socket.socket, camera: CameraSettings, make: Make) -> None:
    """Be the process of a camera until its source or its parent has enough.

    Args:
        channel: to the parent.
        camera: its settings.
        make: the source of these settings, not yet open.
    """
    root = logging.getLogger()
    root.handlers[:] = [_Lines(channel)]
    root.setLevel(logging.INFO)
    try:
        _Camera(channel, camera, make).run()
    except (BrokenProtocol, _Left) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")


def _digest(image: NDArray[np.uint8]) -> int:
    seen = image[::DIGEST_STEP_PX, ::DIGEST_STEP_PX]
    colours = seen[..., :3] if seen.ndim > 2 else seen  # noqa: PLR2004  the fourth byte of BGRx may hold anything
    return zlib.crc32(colours.tobytes())
