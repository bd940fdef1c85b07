"""Clips: video files, with each frame's place on the clip's own time line."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.url import shown
from vajra_edge.config.address import UNSHOWN
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media import clip
from vajra_edge.media.ffmpeg import DecodedVideo
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

_FALLBACK_FPS = 25.0  # for a clip whose header has no believable rate
_MAX_FPS = 1000.0
_LONGEST_GAP_S = 1.0  # a longer gap between two frames of a clip is a damaged time stamp, unless the clip is that slow
_TRUNCATED = 0.9  # a clip that ends before this share of the frames its header promises is worth a warning


class Clip:
    """A video file: its images, once or over and over. A damaged one is read to its end."""

    live = False

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._path = Path(camera.source).expanduser().absolute()  # no text that FFmpeg could take for a protocol
        self._loop = camera.loop
        self._name = _file_name(camera, self._path)
        self._video = DecodedVideo(self._name)
        self._usual_s = 1.0 / _FALLBACK_FPS
        self._position_s = 0.0
        self._stamp_s: float | None = None
        self._first_pts: int | None = None
        self._rewinds = True
        self._frames = 0
        self._is_short = False
        _check_file(self._path, self._name)

    def open(self) -> None:
        """Open the file at its first frame.

        Raises:
            SourceError: it is missing, empty, or nothing that FFmpeg can decode.
        """
        _check_file(self._path, self._name)
        try:
            self._video.open(str(self._path), clip.OPTIONS, live=False)
        except SourceRefused as refused:
            raise self._undecodable(refused) from None
        rate = self._video.stream.average_rate or self._video.stream.guessed_rate
        fps = float(rate) if rate else 0.0
        self._usual_s = 1.0 / (fps if 0.0 < fps <= _MAX_FPS else _FALLBACK_FPS)
        self._frames, self._stamp_s = 0, None

    def promised_frames(self) -> int | None:
        """How many frames its header says it has; None where it does not say."""
        return _promised_frames(self._video, self._usual_s) or None

    def read(self) -> RawFrame | None:
        """The next image; None at the end, unless the clip loops.

        Raises:
            SourceError: not one frame can be decoded, or the file cannot be read.
        """
        try:
            frame = self._video.frame() or self._from_the_start()
        except SourceRefused as refused:
            raise self._undecodable(refused) from None
        finally:
            self.decode_errors = self._video.damaged + self._is_short
        if frame is None:
            return None
        if self._frames == 0:
            self._first_pts = frame.pts
        self._frames += 1
        self._advance(frame.time)
        return RawFrame(self._video.bgr(frame), self._position_s)

    def close(self) -> None:
        """Release the file."""
        self._video.close()

    def _from_the_start(self) -> VideoFrame | None:
        """The first frame again, or None where the clip does not loop."""
        if self._frames == 0:
            raise self._undecodable(SourceRefused(SourceRefusal.NO_VIDEO))
        self._warn_if_short()
        if not self._loop:
            return None
        self._stamp_s = None
        if self._rewinds and self._video.rewind():
            self._frames = 0
            frame = self._video.frame()
            if frame is not None and frame.pts is not None and frame.pts == self._first_pts:
                return frame
        self._rewinds = False  # it cannot seek, or lands elsewhere
        self.open()
        return self._video.frame()

    def _advance(self, stamp_s: float | None) -> None:
        """Move along the time line by the clip's stamps where they make sense, else by its rate."""
        known = stamp_s is not None and self._stamp_s is not None
        step_s = (stamp_s or 0.0) - (self._stamp_s or 0.0) if known else self._usual_s
        believable = 0.0 < step_s <= max(_LONGEST_GAP_S, 4.0 * self._usual_s)
        self._position_s += step_s if believable else self._usual_s
        self._stamp_s = stamp_s

    def _warn_if_short(self) -> None:
        promised = _promised_frames(self._video, self._usual_s)
        if self._is_short or self._frames >= _TRUNCATED * promised:
            return
        self._is_short = True
        log.warning("%s ended after %d of %d frames; is it truncated?", self._name, self._frames, promised)

    def _undecodable(self, refused: SourceRefused) -> SourceError:
        return SourceError(f"{self._path} {clip.what_is_wrong(refused)}", remedy=clip.REMEDY, path=self._path)


def frames_of(path: Path) -> int | None:
    """How many frames a clip says it has; None where it does not say.

    Raises:
        SourceError: it cannot be opened.
    """
    opened = Clip(CameraSettings(id="clip", source=str(path)))
    try:
        opened.open()
        return opened.promised_frames()
    finally:
        opened.close()


def _promised_frames(video: DecodedVideo, usual_s: float) -> int:
    """By the header; by its length where it does not count them; 0 where it says neither."""
    stream = video.stream
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        return round(float(stream.duration * stream.time_base) / usual_s)
    return round((video.container.duration or 0) / 1e6 / usual_s)  # in microseconds


def _file_name(camera: CameraSettings, path: Path) -> str:
    """How people are told of a file: by its path, unless the text may be an address that was mistyped."""
    name = shown(str(path)) if shown(camera.source) != UNSHOWN else UNSHOWN
    return f"the file of camera {camera.id}" if name == UNSHOWN else name


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(f"{name} {what}", remedy="correct the camera's source")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{name} may not be read", remedy="check its owner and mode")
    if path.stat().st_size == 0:
        raise SourceError(f"{name} is empty", remedy="copy it again")
