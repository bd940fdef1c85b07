"""Clip and Stream: video files, RTSP and HTTP cameras, read through OpenCV's FFmpeg."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from vajra_edge.capture.address import kind_of, read_credentials, why_unreachable, with_credentials
from vajra_edge.capture.library import Capture, load_cv2, timeouts
from vajra_edge.capture.source import Picture
from vajra_edge.credentials import redact
from vajra_edge.errors import SourceError
from vajra_edge.settings import CameraSettings

log = logging.getLogger(__name__)

_FALLBACK_FPS = 25.0  # for a clip whose header has no believable rate
_MAX_FPS = 1000.0
_LONGEST_GAP_S = 1.0  # a longer gap between two frames of a clip is a damaged time stamp, unless the clip is that slow
_TRUNCATED = 0.9  # a clip that ends before this share of the frames its header promises is worth a warning
_PROBE_S = 2.0
_SILENT = 0.9  # a read that failed after this share of stall_s was ended by the timeout


class Clip:
    """A video file: its images with their places on the clip's time line, once or over and over."""

    live = False

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._path = Path(camera.source).expanduser().absolute()  # no text that FFmpeg could take for a protocol
        self._loop = camera.loop
        self._capture = Capture(str(self._path))
        self._fps = _FALLBACK_FPS
        self._position_s = 0.0
        self._stamp_s: float | None = None
        self._frames = 0
        _check_file(self._path)

    def open(self) -> None:
        """Open the file at its first frame.

        Raises:
            SourceError: it is missing, empty, or nothing that OpenCV can decode.
        """
        _check_file(self._path)
        cv2 = load_cv2()
        if not self._capture.open(str(self._path), cv2.CAP_FFMPEG, {}):
            raise self._undecodable()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if 0.0 < fps <= _MAX_FPS else _FALLBACK_FPS
        self._frames, self._stamp_s = 0, None

    def read(self) -> Picture | None:
        """The next image; None at the end, unless the clip loops.

        Raises:
            SourceError: not one frame can be decoded.
        """
        image = self._capture.read()
        if image is None:
            if self._frames == 0:
                raise self._undecodable()
            self._warn_if_short()
            if not self._loop:
                return None
            self.open()
            return self.read()
        self._frames += 1
        self._advance()
        return Picture(image, self._position_s)

    def close(self) -> None:
        """Release the file."""
        self._capture.close()

    def _advance(self) -> None:
        """Move along the time line by the clip's stamps where they make sense, else by its rate."""
        stamp_s = self._capture.get(load_cv2().CAP_PROP_POS_MSEC) / 1000.0
        usual_s = 1.0 / self._fps
        step_s = usual_s if self._stamp_s is None else stamp_s - self._stamp_s
        believable = 0.0 < step_s <= max(_LONGEST_GAP_S, 4.0 * usual_s)
        self._position_s += step_s if believable else usual_s
        self._stamp_s = stamp_s

    def _warn_if_short(self) -> None:
        promised = self._capture.get(load_cv2().CAP_PROP_FRAME_COUNT)
        if self._frames < _TRUNCATED * promised:
            self.decode_errors += 1
            log.warning("%s ended after %d of %d frames; is it truncated?", self._path, self._frames, int(promised))

    def _undecodable(self) -> SourceError:
        return SourceError(
            f"{self._path} is not a video that OpenCV can decode",
            remedy="re-encode it, for example as H.264 in MP4",
            path=self._path,
        )


class Stream:
    """An RTSP or HTTP camera, with timeouts: a peer that falls silent ends the read."""

    live = True

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._camera = camera
        self._name = redact(camera.source)
        self._capture = Capture(self._name)
        kind_of(camera.source)

    def open(self) -> None:
        """Connect, with the camera's credentials percent-encoded in the URL.

        Raises:
            SourceError: the camera cannot be reached, or gives no video; says which.
            SettingsError: the credentials file cannot be read.
        """
        camera = self._camera
        url = with_credentials(camera.source, read_credentials(camera.id, camera.credentials_file))
        parameters = timeouts(camera.open_timeout_s, camera.stall_s)
        if not self._capture.open(url, load_cv2().CAP_FFMPEG, parameters):
            reason, remedy = why_unreachable(camera.source, min(_PROBE_S, camera.open_timeout_s))
            raise SourceError(f"{self._name} cannot be opened: {reason}", remedy=remedy)

    def read(self) -> Picture:
        """The next image.

        Raises:
            SourceError: the stream ended or fell silent.
        """
        began_s = time.monotonic()
        image = self._capture.read()
        if image is None:
            waited_s = time.monotonic() - began_s
            silent = waited_s >= _SILENT * self._camera.stall_s
            raise SourceError(f"{self._name}: {f'no new frame for {waited_s:.1f} s' if silent else 'the stream ended'}")
        return Picture(image)

    def close(self) -> None:
        """Hang up."""
        self._capture.close()


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(f"source {path} {what}", remedy="correct the camera's source", path=path)
    if not os.access(path, os.R_OK):
        raise SourceError(f"source {path} may not be read", remedy="check its owner and mode", path=path)
    if path.stat().st_size == 0:
        raise SourceError(f"source {path} is empty", remedy="copy it again", path=path)
