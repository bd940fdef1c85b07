"""OpenCV: video files, RTSP and HTTP cameras through its FFmpeg, each answer of a capture checked.

It is loaded when chosen, and kept quiet.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vajra_edge.capture.sources.base import RawFrame, check_image, check_size
from vajra_edge.capture.url import kind_of, read_credentials, shown, why_unreachable, with_credentials
from vajra_edge.config.address import UNSHOWN
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError

if TYPE_CHECKING:
    import cv2
    import numpy as np
    from numpy.typing import NDArray

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_OURS = {
    "rtsp_transport": "tcp",  # over UDP a lost packet is a smeared picture, and most firewalls drop it
    "analyzeduration": "500000",  # in us; FFmpeg's own 5 s opened a 10 fps camera in 2.9 s, this in 0.6 s
}
_loading = threading.Lock()


def load_cv2() -> Any:
    """OpenCV, with RTSP over TCP and nothing on stderr; what the operator set in the environment stays.

    FFmpeg's and OpenCV's own lines would go to the journal unredacted, once for each damaged packet. The environment is
    written once, before the first capture reads it: C's ``setenv`` beside ``getenv`` in another thread can crash.
    """
    with _loading:
        return _load_once()


@cache
def _load_once() -> Any:
    os.environ[_OPTIONS] = capture_options(os.environ.get(_OPTIONS, ""))
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    import cv2

    if "OPENCV_LOG_LEVEL" not in os.environ:
        set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # before OpenCV 5, since 5
        set_level(0)  # silent
    return cv2


def capture_options(own: str) -> str:
    """FFmpeg options as OpenCV reads them (``key;value|key;value``): the operator's own, then ours for what is left."""
    named = set(re.findall(r"(?:^|\|)([^;|]+);", own))
    missing = [f"{key};{value}" for key, value in _OURS.items() if key not in named]
    return "|".join([own, *missing] if own else missing)


class Capture:
    """A video capture that is open between ``open`` and ``close``.

    Args:
        name: how errors call it, without passwords.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._held: cv2.VideoCapture | None = None

    def open(self, target: str, backend: int, parameters: Mapping[int, int]) -> bool:
        """Whether OpenCV opens ``target``; holds nothing where it does not.

        Args:
            target: file, URL, device or pipeline, with credentials where it needs them.
            backend: ``cv2.CAP_FFMPEG``, ``CAP_V4L2`` or ``CAP_GSTREAMER``.
            parameters: ``cv2.CAP_PROP_*`` that count from the opening on.

        Raises:
            SourceError: its header claims an absurd size; found before a frame of it is allocated.
        """
        cv2 = load_cv2()
        self.close()
        try:
            held = cv2.VideoCapture(target, backend, [number for pair in parameters.items() for number in pair])
        except cv2.error:  # its text holds the target, with the password
            return False
        if not held.isOpened():
            held.release()
            return False
        self._held = held
        width_px, height_px = self.size_wh()
        if width_px > 0 and height_px > 0:  # some only know after the first frame, which is checked too
            check_size(width_px, height_px, self._name)
        return True

    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels, as the header or driver says."""
        cv2 = load_cv2()
        return int(self.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self.get(cv2.CAP_PROP_FRAME_HEIGHT))

    def get(self, number: int) -> float:
        """One ``cv2.CAP_PROP_*``."""
        return self._opened().get(number)

    def ask(self, number: int, value: float) -> None:
        """Ask the driver for a ``cv2.CAP_PROP_*``; it may choose another value, which ``get`` tells."""
        self._opened().set(number, value)

    def read(self) -> NDArray[np.uint8] | None:
        """The next image in fresh memory, or None where the capture gives no more.

        Reused buffers save 0.1 to 0.5 ms of the copy out of the decoder (1080p, 2-core CPU), less than the noise, and a
        frame that was handed on must never change.

        Raises:
            SourceError: not open, or what came is not a BGR image.
        """
        cv2 = load_cv2()
        try:
            there, image = self._opened().read()
        except cv2.error as error:
            raise SourceError(f"{self._name} cannot be read: {error.err}") from error
        return check_image(image, self._name) if there else None

    def close(self) -> None:
        """Release it; idempotent."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def _opened(self) -> cv2.VideoCapture:
        if self._held is None:
            raise SourceError(f"{self._name} is not open")
        return self._held


def timeouts(open_s: float, read_s: float) -> dict[int, int]:
    """The parameters that end a wait for a dead peer, for FFmpeg and GStreamer captures."""
    cv2 = load_cv2()
    return {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: max(1, round(open_s * 1000.0)),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: max(1, round(read_s * 1000.0)),
    }


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
        self._name = _file_name(camera, self._path)
        self._capture = Capture(self._name)
        self._fps = _FALLBACK_FPS
        self._position_s = 0.0
        self._stamp_s: float | None = None
        self._frames = 0
        _check_file(self._path, self._name)

    def open(self) -> None:
        """Open the file at its first frame.

        Raises:
            SourceError: it is missing, empty, or nothing that OpenCV can decode.
        """
        _check_file(self._path, self._name)
        cv2 = load_cv2()
        if not self._capture.open(str(self._path), cv2.CAP_FFMPEG, {}):
            raise self._undecodable()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if 0.0 < fps <= _MAX_FPS else _FALLBACK_FPS
        self._frames, self._stamp_s = 0, None

    def read(self) -> RawFrame | None:
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
        return RawFrame(image, self._position_s)

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
            log.warning("%s ended after %d of %d frames; is it truncated?", self._name, self._frames, int(promised))

    def _undecodable(self) -> SourceError:
        return SourceError(
            f"{self._name} is not a video that OpenCV can decode",
            remedy="re-encode it, for example as H.264 in MP4",
        )


class NetworkStream:
    """An RTSP or HTTP camera, with timeouts: a peer that falls silent ends the read."""

    live = True

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._camera = camera
        self._name = shown(camera.source)
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

    def read(self) -> RawFrame:
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
        return RawFrame(image)

    def close(self) -> None:
        """Hang up."""
        self._capture.close()


def _file_name(camera: CameraSettings, path: Path) -> str:
    """How people are told of a file: by its path, unless the text may be an address that was mistyped."""
    name = shown(str(path)) if shown(camera.source) != UNSHOWN else UNSHOWN
    return f"the file of camera {camera.id}" if name == UNSHOWN else name


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(f"source {name} {what}", remedy="correct the camera's source")
    if not os.access(path, os.R_OK):
        raise SourceError(f"source {name} may not be read", remedy="check its owner and mode")
    if path.stat().st_size == 0:
        raise SourceError(f"source {name} is empty", remedy="copy it again")
