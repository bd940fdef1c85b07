"""V4L2: a camera of this machine, read through OpenCV."""

from __future__ import annotations

import grp
import logging
import os
import stat
from pathlib import Path

from vajra_edge.capture.rate import patience_s
from vajra_edge.capture.sources import v4l2_formats
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.opencv import Capture
from vajra_edge.capture.sources.picture import DamagedPicture, PictureDecoder
from vajra_edge.capture.url import shown
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.opencv import load_cv2
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

log = logging.getLogger(__name__)

_JPEG = frozenset({"MJPG", "JPEG"})


class Device:
    """A V4L2 device, asked for the best of its formats at the camera's size and rate.

    The driver's four buffers stay: with one, a camera of 30 frames a second gives 15. Its process reads them all, and
    the newest wins there.

    OpenCV itself ends a read after ten seconds without a frame. JPEG is decoded here: OpenCV paints what is missing
    grey, and hands the picture before out once more where nothing can be decoded, so that a broken cable looks like a
    quiet scene.
    """

    live = True

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._camera = camera
        self._name = shown(camera.source)
        self._patience_s = patience_s(camera)
        self._capture = Capture(self._name)
        self._jpeg: PictureDecoder | None = None
        _check_device(camera.source, self._name)

    def open(self) -> None:
        """Open the device and ask for its format.

        Raises:
            SourceError: it is absent, not permitted, busy, or not a capture device.
        """
        path = self._camera.source
        _check_device(path, self._name)
        formats = v4l2_formats.listed(path)
        wanted = v4l2_formats.chosen(formats, self._name)
        if not self._capture.open(path, load_cv2().CAP_V4L2, {}):
            none = f" in a format that can be read, but {', '.join(formats[:4])}" if formats and wanted is None else ""
            raise SourceError(
                f"{self._name} gives no video{none}",
                remedy="end what else uses it, or try the camera's other nodes: v4l2-ctl --list-devices names them",
            )
        ask_format(self._capture, self._camera, wanted)
        self._jpeg = PictureDecoder(self._name) if _hands_out_jpeg(self._capture) else None

    def read(self) -> RawFrame:
        """The next image; damaged ones are counted and passed by.

        Raises:
            SourceError: the device gave none, or for as long as a camera may be silent none that can be decoded.
        """
        if self._jpeg is not None:
            return self._next_jpeg(self._jpeg)
        image = self._capture.read()
        if image is None:
            raise self._lost()
        return RawFrame(image)

    def close(self) -> None:
        """Give the device back."""
        self._capture.close()

    def _next_jpeg(self, decoder: PictureDecoder) -> RawFrame:
        deadline, why = Deadline(self._patience_s), ""
        while not deadline.passed:
            content = self._capture.read_as_sent()
            if content is None:
                raise self._lost()
            try:
                return RawFrame(decoder.decoded(content))
            except DamagedPicture as damage:
                self.decode_errors += 1
                why = str(damage)
        raise SourceRefused(SourceRefusal.UNDECODABLE, f"{self._patience_s:.1f} s ({why})").told_of(self._name)

    def _lost(self) -> SourceError:
        return SourceError(
            f"{self._name} gave no frame",
            remedy="check its cable and power; of several cameras on one USB controller, let some send less",
        )


def _hands_out_jpeg(capture: Capture) -> bool:
    """Whether the device sends JPEG, and OpenCV hands it out as it came from now on."""
    cv2 = load_cv2()
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    if code.to_bytes(4, "little").decode("latin-1") not in _JPEG:
        return False
    capture.ask(cv2.CAP_PROP_CONVERT_RGB, 0)
    return capture.get(cv2.CAP_PROP_CONVERT_RGB) == 0.0


def ask_format(capture: Capture, camera: CameraSettings, wanted: str | None) -> None:
    """Ask for the format first, since sizes and rates depend on it, then for size and rate."""
    cv2 = load_cv2()
    if wanted is not None:
        capture.ask(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*wanted))
    desired_plans = {
        cv2.CAP_PROP_FRAME_WIDTH: camera.width_px,
        cv2.CAP_PROP_FRAME_HEIGHT: camera.height_px,
        cv2.CAP_PROP_FPS: camera.fps,
    }
    for number, value in desired_plans.items():
        if value is not None:
            capture.ask(number, value)
    given_wh = capture.size_wh()
    if given_wh != (camera.width_px or given_wh[0], camera.height_px or given_wh[1]):
        log.warning("camera %s gives %d x %d pixels, not the size asked for", camera.id, *given_wh)


def _check_device(path: str, name: str) -> None:
    if not Path(path).is_char_device():
        raise SourceError(f"{name} is not there", remedy="plug the camera in; v4l2-ctl --list-devices names them")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f"{name} may not be opened", remedy=_way_in(path))


def _way_in(path: str) -> str:
    """What lets this process open a device; udev gives one that was just plugged in to its group a moment later."""
    try:
        status = Path(path).stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return "see ls -l of it: the service's user needs a group that may read and write it"
    theirs = status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP
    if status.st_gid == 0 or not theirs:
        return "udev has not given it to the group video (yet); where it stays so, a rule for it is missing"
    return f"add the service's user to the group {group}"
