"""Clip: the frames of a video file in order, with their numbers, the same for whoever reads it.

A frame's number is its place among those that can be decoded. What a container says of its length is not believed: one
that was written live says nothing, a forged or damaged one anything. A clip ends where no more of it can be decoded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import SourceError
from vajra_edge.media.faults import ImageFault, UnusableFile
from vajra_edge.media.ffmpeg import DecodedVideo
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_LOGGER = logging.getLogger(__name__)

OPTIONS = {"protocol_whitelist": "file"}
"""Of FFmpeg: a playlist must not make this device open what it names."""
REMEDY = "copy it again, or re-encode it, for example as H.264 in MP4"
_COUNTS_KEPT = 1024


class UnusableClip(UnusableFile):
    """A clip of which not one frame can be decoded."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, ImageFault.CLIP_UNREADABLE, what, REMEDY)


def what_is_wrong(refused: SourceRefused) -> str:
    """Why a file gives no video, behind its name."""
    known = {
        SourceRefusal.NO_VIDEO: "holds no video",
        SourceRefusal.CODEC: f"holds {refused.value}",
        SourceRefusal.UNREACHABLE: f"cannot be read: {refused.value}",
    }
    return known.get(refused.why, "is not a video that can be decoded")


class ClipFrames:
    """Some frames of a clip. Those between are decoded, which the next one needs, and not converted.

    Iterated: number and image, (height, width, 3) uint8 BGR, upright; fewer than wanted where the clip ends before.

    Args:
        path: of the clip.
        wanted: their numbers, rising.

    Attributes:
        damaged: whether something of the clip, as far as it was read, could not be decoded.
    """

    def __init__(self, path: Path, wanted: Sequence[int]) -> None:
        self.damaged = False
        self._path, self._wanted = path, wanted

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Read.

        Raises:
            UnusableClip: not one frame can be decoded.
        """
        video = DecodedVideo(str(self._path))
        try:
            _open(video, self._path)
            yield from self._read(video)
        finally:
            self.damaged = self.damaged or video.damaged > 0
            video.close()

    def _read(self, video: DecodedVideo) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        number = 0
        for wanted in self._wanted:
            while (frame := self._next(video, number)) is not None and number < wanted:
                number += 1
            if frame is None:
                return
            try:
                image = video.bgr(frame)
            except SourceError as error:  # larger than any before: of these it is the end
                if number == 0:
                    raise _too_large(self._path, error) from error
                self._tell_damaged(number)
                return
            yield number, image
            number += 1

    def _next(self, video: DecodedVideo, number: int) -> VideoFrame | None:
        """The frame of that number; None at the end, or where nothing more can be read."""
        try:
            frame = video.frame()
        except SourceRefused as refused:
            if number == 0:
                raise UnusableClip(self._path, what_is_wrong(refused)) from None
            self._tell_damaged(number)
            return None
        if frame is None and number == 0:
            raise UnusableClip(self._path, what_is_wrong(SourceRefused(SourceRefusal.UNKNOWN)))
        if frame is None and video.damaged:
            self._tell_damaged(number)
        return frame

    def _tell_damaged(self, number: int) -> None:
        self.damaged = True
        _LOGGER.warning("%s is damaged: %d frames of it can be read", self._path, number)


def count(path: Path) -> int:
    """How many frames a clip has at the most: its packets are counted, as fast as the disk gives them, none is decoded.

    What is shown is what counts: not the pictures of VP8 that others are built upon, nor what an edit list cuts off.
    Frames that are coded as two fields, each in a packet of its own, count twice; damaged ones are not known as such.
    The answer is kept until the file changes.

    Raises:
        UnusableClip: it is none.
        OSError: the system refuses the file.
    """
    seen = path.stat()
    return _count(path, (seen.st_ino, seen.st_size, seen.st_mtime_ns))


@lru_cache(_COUNTS_KEPT)
def _count(path: Path, seen: tuple[int, int, int]) -> int:  # noqa: ARG001  a key of the cache
    video = DecodedVideo(str(path))
    try:
        _open(video, path)
        found = video.count_packets()
    finally:
        video.close()
    if not found:
        raise UnusableClip(path, what_is_wrong(SourceRefused(SourceRefusal.NO_VIDEO)))
    return found


def _open(video: DecodedVideo, path: Path) -> None:
    try:
        video.open(os.path.abspath(path), OPTIONS, live=False)  # noqa: PTH100  no text that could be a protocol
    except SourceRefused as refused:
        raise UnusableClip(path, what_is_wrong(refused)) from None
    except SourceError as error:
        raise _too_large(path, error) from error


def _too_large(path: Path, error: SourceError) -> UnusableClip:
    return UnusableClip(path, str(error.message).removeprefix(f"{path} "))
