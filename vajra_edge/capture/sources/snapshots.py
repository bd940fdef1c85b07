"""Snapshots: a camera that gives one picture for each request, asked ``fps`` times a second."""

from __future__ import annotations

import time

from vajra_edge.capture.rate import patience_s
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.http import Answer, Client
from vajra_edge.capture.sources.picture import DamagedPicture, PictureDecoder
from vajra_edge.config.settings import CameraSettings
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.image_header import header_of
from vajra_edge.media.jpeg_markers import end_of
from vajra_edge.media.limits import MAX_SENT_BYTES
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

DEFAULT_FPS = 1.0
"""How often a picture is fetched where ``fps`` is not set."""

_RETRY_S = 1.0  # after a failure a slow camera is asked again sooner than its pictures are due


class SnapshotCamera:
    """The pictures of one address.

    A fetch that fails is tried again; the camera is lost once nothing came for as long as it may be silent.

    Args:
        camera: its settings.
        name: how errors call it, without user, path and password.
        client: asks the address.
        answer: the first picture, which showed that it is one.
    """

    def __init__(self, camera: CameraSettings, name: str, client: Client, answer: Answer) -> None:
        self.decode_errors = 0
        self._client = client
        self._answer: Answer | None = answer
        self._timeout_s = camera.open_timeout_s
        self._patience_s = patience_s(camera)
        self._interval_s = 1.0 / (camera.fps or DEFAULT_FPS)
        self._due_s = time.monotonic()
        self._pictures = PictureDecoder(name)

    def read(self) -> RawFrame:
        """Wait until the next picture is due, and fetch it.

        Raises:
            SourceRefused: none came for as long as the camera may be silent; says why the last one did not. At once
                where it refuses user and password.
        """
        began_s = time.monotonic()
        self._sleep_until(self._due_s)
        while True:
            asked_s = time.monotonic()
            try:
                content = self._content()
                image = self._pictures.decoded(content)
            except DamagedPicture as error:
                self.decode_errors += 1
                refused = SourceRefused(SourceRefusal.UNDECODABLE, f"{time.monotonic() - began_s:.1f} s ({error})")
            except SourceRefused as error:
                if error.login_refused:
                    raise  # the password was changed: who asks on locks the account
                refused = error
            else:
                self._due_s = max(self._due_s + self._interval_s, asked_s)
                return RawFrame(image)
            retry_at_s = asked_s + min(self._interval_s, _RETRY_S)
            if retry_at_s - began_s >= self._patience_s:
                raise refused
            self._sleep_until(retry_at_s)

    def close(self) -> None:
        """Hang up."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _content(self) -> bytes:
        """One whole picture, still encoded."""
        deadline = Deadline(self._timeout_s)
        answer, self._answer = self._answer or self._client.get(deadline), None
        try:
            return _whole(answer, deadline)
        finally:
            answer.close()

    @staticmethod
    def _sleep_until(at_s: float) -> None:
        time.sleep(max(0.0, at_s - time.monotonic()))


def _whole(answer: Answer, deadline: Deadline) -> bytes:
    """The picture of an answer.

    A JPEG without a length ends with its end mark: some cameras never hang up.

    Raises:
        DamagedPicture: it is too long or too short, or none.
        SourceRefused: the connection failed, or it was not complete before the deadline.
    """
    if answer.length is not None and answer.length > MAX_SENT_BYTES:
        raise DamagedPicture(f"{answer.length} bytes are announced, allowed are {MAX_SENT_BYTES}")
    announced, content, scanned = answer.length, bytearray(), 0
    while part := answer.more(deadline):
        content += part
        if len(content) > MAX_SENT_BYTES:
            raise DamagedPicture(f"more than {MAX_SENT_BYTES} bytes")
        if announced is None and (end := end_of(content, scanned)) is not None:
            return bytes(content[:end])
        scanned = len(content) - 1
    if announced is not None and len(content) < announced:
        raise DamagedPicture(f"{len(content)} of {announced} bytes")
    if content and header_of(bytes(content[:64])) is None and content.lstrip()[:1] == b"<":
        raise SourceRefused(SourceRefusal.WEB_PAGE)
    return bytes(content)
