"""OpenCV: devices and GStreamer's pipelines through its captures, each answer of a capture checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vajra_edge.errors import SourceError
from vajra_edge.media.opencv import load_cv2
from vajra_edge.media.pixels import check_image, check_size

if TYPE_CHECKING:
    import cv2
    import numpy as np
    from numpy.typing import NDArray


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
            target: device or pipeline, with credentials where it needs them.
            backend: ``cv2.CAP_V4L2`` or ``CAP_GSTREAMER``.
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

    def read_as_sent(self) -> bytes | None:
        """The next image as the device sent it, which ``CAP_PROP_CONVERT_RGB`` 0 asks for; None: there are no more.

        Returns:
            Nothing in it where the driver had a buffer and no image: a frame that was lost on its way.
        """
        cv2 = load_cv2()
        if not self._opened().grab():
            return None
        try:
            there, image = self._opened().retrieve()
        except cv2.error:  # some releases take no buffer without an image in it
            return b""
        return bytes(image.tobytes()) if there and image is not None else b""

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
    """The parameters that end a wait for a dead peer, for GStreamer captures."""
    cv2 = load_cv2()
    return {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: max(1, round(open_s * 1000.0)),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: max(1, round(read_s * 1000.0)),
    }
