"""FFmpeg, through PyAV: one video track opened, its frames one after the other as BGR, each damage counted.

PyAV is loaded when chosen. Its log stays off: FFmpeg's lines hold passwords, and a line that comes out of a decoder's
thread can lock the interpreter up.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.limits import MAX_IMAGE_PX
from vajra_edge.media.opencv import load_cv2
from vajra_edge.media.pixels import check_image, check_size
from vajra_edge.media.refusals import SourceRefusal, SourceRefused, of_errno, of_status

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MOST_FAILURES = 200
"""So many reads in a row that fail are an end: a broken container gives them for ever."""

_ONE_THREAD_PX = 2048 * 1152  # above, one core does not always keep up with a camera
_LARGE_THREADS = 3
_FILE_THREADS = 4
_IDR, _AVCC = 5, b"\1"
_VP8 = frozenset({"vp8", "libvpx"})
_VP8_SHOWN = 0x10  # show_frame in the first byte of a frame (RFC 6386, section 9.1)
_PEEK_S = 0.2  # for a packet that is there already
_IN_BURSTS = frozenset({"hls", "dash"})  # segments, of which each comes as a whole: a line of them is no backlog
_MOST_AHEAD_BYTES = 64 * 2**20  # 30 s of a large stream; without a key frame in it a line could grow for ever
_BEYOND_S = 1.0  # how much longer than it is known to be the line of a stream is read, which has no end in a file


@dataclass
class Timeouts:
    """How long to wait for a stream. As a number it is ``read_s``, which PyAV asks for before it reads.

    Attributes:
        opening: until when it must be open.
        read_s: for each packet.
    """

    opening: Deadline
    read_s: float

    def __float__(self) -> float:
        return self.read_s


@dataclass(frozen=True)
class CaughtUp:
    """What came of reading ahead.

    Attributes:
        left_out: packets that are not decoded any more.
        newest_s: the time stamp of a packet that had to be waited for, by the camera; None: there was no such.
    """

    left_out: int
    newest_s: float | None


class ToBgr:
    """Converts frames to BGR, with the matrix and range that each says it has, and upright."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()  # keeps what swscale worked out for this size and format
        self._matrices: dict[int, tuple[int, int, int, int]] = {0: _UPRIGHT}  # by the angle that a frame tells

    def bgr(self, frame: VideoFrame, name: str) -> NDArray[np.uint8]:
        """A picture of its own memory, (height, width, 3) uint8.

        Bicubic as in OpenCV, whose captures give the same numbers. One thread: the default is one a core.

        Raises:
            SourceError: it is larger than anything that a camera sends.
        """
        check_size(frame.width, frame.height, name)
        image = self._reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC", threads=1).to_ndarray()
        if (
            frame.rotation not in self._matrices
        ):  # looked at once: it ties a frame into a circle, which lives on for long
            self._matrices[frame.rotation] = _matrix(frame)
        return check_image(turned(image, self._matrices[frame.rotation]), name)


_UPRIGHT = (1, 0, 0, 1)
_QUARTERS = (_UPRIGHT, (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))
"""Display matrices by counterclockwise quarters of a turn."""


def turned(image: Any, matrix: tuple[int, int, int, int]) -> Any:
    """The image as its display matrix wants it shown: quarters of a turn, and mirrored.

    Args:
        image: as decoded.
        matrix: a, b, c, d of x' = ax + cy, y' = bx + dy.
    """
    a, b, c, d = matrix
    if matrix == _UPRIGHT:
        return image
    cv2 = load_cv2()  # ten times as fast as numpy's copy of a transposed image
    if abs(b) > abs(a):  # x and y change places
        image = cv2.transpose(image)
        a, d = c, b
    if a < 0:
        image = cv2.flip(image, 1)
    return cv2.flip(image, 0) if d < 0 else image


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """The display matrix of a frame that is to be turned."""
    try:
        held: Any = frame.side_data  # its stub takes it for a dictionary
    except ValueError:  # beside EXIF, which PyAV has no name for, it only tells the angle
        return _QUARTERS[round(frame.rotation / 90) % 4]
    found = next(data for data in held if data.type.name == "DISPLAYMATRIX")
    numbers = np.frombuffer(bytes(found), np.int32)
    return int(numbers[0]), int(numbers[1]), int(numbers[3]), int(numbers[4])


class DecodedVideo:
    """The video track of a file or stream, open until ``close``. Used by one thread.

    Args:
        name: how errors call it, without user, path and password.

    Attributes:
        damaged: packets and frames that were damaged, whether or not something could be shown of them.
        waited: for the last frame a packet had to be waited for: nothing more was there.
    """

    def __init__(self, name: str) -> None:
        self.damaged = 0
        self.waited = False
        self._name = name
        self._container: InputContainer | None = None
        self._ready: deque[VideoFrame] = deque()
        self._ahead: deque[Packet[Any]] = deque()  # read, and not yet decoded
        self._failures = 0  # reads in a row

    def open(
        self,
        target: str,
        options: Mapping[str, str],
        *,
        live: bool,
        timeouts: Timeouts | None = None,
        transport: str = "",
    ) -> None:
        """Open it.

        Args:
            target: a path, or an address with credentials.
            options: FFmpeg's, of demuxer and protocol.
            live: begin at the first key frame, and hold no frame back for the sake of speed.
            timeouts: None: it is a file.
            transport: that RTSP was asked for.

        Raises:
            SourceRefused: it gives no video; says why as far as FFmpeg does.
            SourceError: its images are larger than anything that a camera sends.
        """
        import av

        self.close()
        try:
            given: Any = None if timeouts is None else (timeouts.opening, timeouts)  # PyAV makes numbers of them
            self._container = av.open(target, "r", options=dict(options), timeout=given)
        except av.error.FFmpegError as error:
            raise refusal_of(error, transport) from None  # its text holds the target, with the password
        self._stream = stream = self._choose(self._container)
        self._set_up(stream, live=live)
        self._started = not live
        self._to_bgr = ToBgr()
        self._packets = self._demuxed()
        if timeouts is not None and stream.codec_context.width == 0 and timeouts.opening.passed:
            self._check_that_packets_came(timeouts)

    @property
    def stream(self) -> VideoStream:
        """The track."""
        return self._stream

    @property
    def container(self) -> InputContainer:
        """What holds it.

        Raises:
            SourceError: it is not open.
        """
        if self._container is None:
            raise SourceError(f"{self._name} is not open")
        return self._container

    def frame(self, deadline: Deadline | None = None) -> VideoFrame | None:
        """The next frame; None at the end. What cannot be decoded is counted and left out.

        Args:
            deadline: until when a frame must be there.

        Raises:
            SourceRefused: the connection failed or fell silent, or nothing could be decoded before the deadline.
        """
        came, damaged, began_s = False, self.damaged, time.monotonic()
        self.waited = False
        while not self._ready:
            packet = self._ahead.popleft() if self._ahead else self._fresh()
            if packet is None:
                return None
            came = came or packet.stream_index == self._stream.index
            self._decode(packet)
            if deadline is not None and deadline.passed and not self._ready:
                waited = f"{time.monotonic() - began_s:.1f} s"
                raise SourceRefused(self._why_nothing(came=came, damaged=self.damaged > damaged), waited)
        return self._ready.popleft()

    @property
    def comes_in_bursts(self) -> bool:
        """Whether many frames come at once by design, so that a line of them says nothing of the decoder."""
        return bool(_IN_BURSTS & set(self.container.format.name.split(",")))

    def catch_up(self, stamp_s: float, behind_s: float) -> CaughtUp:
        """Read ahead to the newest packet, and leave out what is older than the newest key frame, undecoded.

        Where no key frame is in the line, nothing is left out. At most one packet is waited for.

        Args:
            stamp_s: of the last frame.
            behind_s: how late that was.

        Raises:
            SourceRefused: the connection failed or fell silent.
        """
        left_out, newest_s, held_bytes = 0, None, sum(one.size for one in self._ahead)
        self.waited = False
        while not self.waited and held_bytes < _MOST_AHEAD_BYTES and (packet := self._fresh()) is not None:
            if packet.stream_index != self._stream.index:
                continue
            if packet.is_keyframe and self._is_whole(packet):
                left_out, held_bytes = left_out + len(self._ahead), 0
                self._begin_anew()
            self._ahead.append(packet)
            held_bytes += packet.size
            newest_s = _stamp_s(packet)
            if newest_s is not None and newest_s > stamp_s + behind_s + _BEYOND_S:
                break
        return CaughtUp(left_out, newest_s if self.waited else None)

    def count_packets(self) -> int:
        """How many packets of the track are left that show something; none is decoded."""
        found = 0
        try:
            while (packet := self._packet()) is not None:
                found += packet.stream_index == self._stream.index and self._shows(packet)
        except SourceRefused:  # it cannot be read any further
            pass
        return found

    def bgr(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A frame of it as an image."""
        return self._to_bgr.bgr(frame, self._name)

    def rewind(self) -> bool:
        """Go back to the start; False where that cannot be done, and it must be opened anew."""
        import av

        try:
            self.container.seek(self._stream.start_time or 0, stream=self._stream)
        except (av.error.FFmpegError, OverflowError):
            return False
        self._ready.clear()
        self._ahead.clear()
        self._packets = self._demuxed()
        return True

    def close(self) -> None:
        """Release it; idempotent."""
        container, self._container = self._container, None
        self._ready.clear()
        self._ahead.clear()
        self._packets = iter(())
        if container is not None:
            container.close()

    def _check_that_packets_came(self, timeouts: Timeouts) -> None:
        """The analysis of a stream just ends when its time is over, whether or not anything came.

        Raises:
            SourceRefused: nothing did.
        """
        read_s, timeouts.read_s = timeouts.read_s, _PEEK_S
        try:
            packet = self._packet()
        finally:
            timeouts.read_s = read_s
        if packet is None:
            raise SourceRefused(SourceRefusal.SILENT)
        self._packets = chain((packet,), self._demuxed())

    def _why_nothing(self, *, came: bool, damaged: bool) -> SourceRefusal:
        if came and not self._started:
            return SourceRefusal.NO_KEY_FRAME
        return (
            SourceRefusal.UNDECODABLE if damaged else SourceRefusal.SILENT
        )  # a lone packet is the rest of what came before

    def _set_up(self, stream: VideoStream, *, live: bool) -> None:
        """How it is decoded. Each thread beyond the first holds a frame back.

        Slice threads would hide which frames of H.264 are damaged, and hardly any camera sends slices.
        """
        context = stream.codec_context
        check_known_size(context.width, context.height, self._name)
        context.options = {"max_pixels": str(MAX_IMAGE_PX)}
        large = context.width * context.height > _ONE_THREAD_PX
        context.thread_type = "FRAME"
        context.thread_count = (_LARGE_THREADS if large else 1) if live else min(_FILE_THREADS, os.cpu_count() or 1)

    def _choose(self, container: InputContainer) -> VideoStream:
        best = container.streams.best("video")
        stream = best if best is not None else next(iter(container.streams.video), None)
        if stream is None:
            raise SourceRefused(SourceRefusal.NO_VIDEO)
        if stream.codec_context is None:
            raise SourceRefused(SourceRefusal.CODEC, "video in an unknown codec")
        return stream  # type: ignore[return-value]

    def _begin_anew(self) -> None:
        """Forget what is still to be decoded and what it would be built upon: the next packet is a key frame."""
        self._ahead.clear()
        self._ready.clear()
        self._stream.codec_context.flush_buffers()
        self._started = False

    def _is_whole(self, packet: Packet[Any]) -> bool:
        """Whether a packet that is marked as a key frame needs none before it.

        Of H.264 the first of a refresh bit by bit is marked too, and shows nothing whole by itself.
        """
        context = self._stream.codec_context
        with_lengths = (context.extradata or b"").startswith(_AVCC)
        return context.name != "h264" or has_idr(bytes(packet), with_lengths=with_lengths)

    def _fresh(self) -> Packet[Any] | None:
        """The next packet that the demuxer gives. While it has to wait for one, this thread sleeps."""
        slept = _times_slept()
        packet = self._packet()
        self.waited = self.waited or _times_slept() > slept
        return packet

    def _packet(self) -> Packet[Any] | None:
        import av

        try:
            packet = next(self._packets, None)
        except av.error.InvalidDataError:
            self.damaged += 1
            self._failures += 1
            self._packets = self._demuxed() if self._failures < _MOST_FAILURES else iter(())
            return self._packet()
        except av.error.FFmpegError as error:
            raise refusal_of(error) from None
        self._failures = 0
        return packet

    def _demuxed(self) -> Iterator[Packet[Any]]:
        """Packets of every track: while sound keeps coming, a picture that does not must still be missed."""
        return iter(self.container.demux())

    def _shows(self, packet: Packet[Any]) -> bool:
        """Whether a packet is more than the mark of an end, and not only for others to be built upon."""
        if not packet.size or packet.is_discard:
            return False
        return self._stream.codec_context.name not in _VP8 or bool(bytes(packet)[0] & _VP8_SHOWN)

    def _decode(self, packet: Packet[Any]) -> None:
        import av

        if packet.stream_index != self._stream.index:
            return
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.BlockingIOError):
            self.damaged += self._started  # before the first key frame there is nothing to build upon
            return
        except av.error.FFmpegError as error:
            raise refusal_of(error) from None
        self._started = self._started or any(frame.key_frame for frame in frames)
        if self._started:
            self.damaged += max(sum(frame.is_corrupt for frame in frames), int(packet.is_corrupt))
            self._ready.extend(frames)


def _times_slept() -> int:
    """How often this thread gave its core away; one whose core was taken did not wait for anything."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def has_idr(data: bytes, *, with_lengths: bool) -> bool:
    """Whether an access unit of H.264 holds a slice of an IDR picture (ITU-T H.264, table 7-1).

    Args:
        data: its NAL units.
        with_lengths: they are behind their lengths in four bytes, as in MP4 and FLV; else behind start codes (annex B).
    """
    if not with_lengths:
        return any(unit[0] & 31 == _IDR for unit in data.split(b"\0\0\1")[1:] if unit)
    at = 0
    while at + 4 < len(data):
        if data[at + 4] & 31 == _IDR:
            return True
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return False


def _stamp_s(packet: Packet[Any]) -> float | None:
    return None if packet.pts is None else float(packet.pts * packet.time_base)


def check_known_size(width_px: int, height_px: int, name: str) -> None:
    """Refuse what a header claims; some formats only know after the first frame, which is checked too."""
    if width_px > 0 and height_px > 0:
        check_size(width_px, height_px, name)


def refusal_of(error: av.error.FFmpegError, transport: str = "") -> SourceRefused:
    """What an error of FFmpeg means, as far as it tells."""
    import av

    known = {
        av.error.HTTPUnauthorizedError: 401,
        av.error.HTTPForbiddenError: 403,
        av.error.HTTPNotFoundError: 404,
    }
    for kind, status in known.items():
        if isinstance(error, kind):
            return of_status(status)
    if isinstance(error, (av.error.ExitError, av.error.TimeoutError)):
        return SourceRefused(SourceRefusal.SILENT)
    if isinstance(error, (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
        return SourceRefused(SourceRefusal.CODEC, "video in an unknown codec")
    if isinstance(error, OSError) and error.errno not in {None, 5}:  # EIO is FFmpeg's word for anything
        return of_errno(error.errno or 0, transport=transport)
    return SourceRefused(SourceRefusal.UNKNOWN)
