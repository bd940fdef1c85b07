"""Streams: RTSP cameras, and HTTP ones that send a container (MPEG-TS, FLV, MP4, HLS), through FFmpeg."""

from __future__ import annotations

import logging
import time

from vajra_edge.capture.lag import StreamLag
from vajra_edge.capture.rate import patience_s
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.connection import authorities, look_up
from vajra_edge.capture.sources.rtsp import unknown_digest, why_refused
from vajra_edge.capture.sources.transports import open_over
from vajra_edge.capture.url import endpoint_of, read_credentials, shown, with_credentials, with_zone
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.ffmpeg import DecodedVideo, Timeouts
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

log = logging.getLogger(__name__)

_QUESTIONS_S = 2.0  # for asking a camera by hand why it refused
_SILENT = 0.9  # a read that failed after this share of the patience was ended by it
_ANALYSIS_US = 500_000  # FFmpeg's own 5 s opened a 10 fps camera in 2.9 s, this in 0.6 s

_BEHIND_S = 2.0
"""A frame that is later, while the decoder has found something to do for as long, is a backlog to be cut."""

_TOO_SLOW = (
    "camera %s: decoding is slower than the stream: %.1f s behind; from now on what is older than the newest key frame "
    "is left out; choose a substream or fewer frames a second at the camera, lower fps, or decode in hardware (decode)"
)

_TRY_EVERY_S = 1.0  # each try at it waits for one packet

_CLEAR = frozenset(
    {
        SourceRefusal.WRONG_PASSWORD,
        SourceRefusal.FORBIDDEN,
        SourceRefusal.NOT_FOUND,
        SourceRefusal.TRANSPORT,
        SourceRefusal.NOTHING_LISTENS,
        SourceRefusal.UNREACHABLE,
        SourceRefusal.NO_ANSWER,
    }
)
"""What FFmpeg says and nothing else could mean."""


class NetworkStream:
    """A camera that FFmpeg reads from the network. It begins at a key frame, and a silent camera ends the read."""

    live = True

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._camera = camera
        self._name = shown(camera.source)
        self._endpoint = endpoint_of(camera.source)
        self._patience_s = patience_s(camera)
        self._video = DecodedVideo(self._name)
        self._lag, self._behind_s, self._stamp_s = StreamLag(), 0.0, 0.0
        self._caught_up_s = self._tried_s = time.monotonic()
        self._is_slow = False

    def open(self) -> None:
        """Connect, with the camera's credentials percent-encoded in the address that FFmpeg gets.

        Raises:
            SourceError: the camera cannot be reached, or gives no video; says which.
            SettingsError: the credentials file cannot be read.
        """
        camera = self._camera
        credentials = read_credentials(camera.id, camera.credentials_file)
        deadline = Deadline(camera.open_timeout_s)
        try:
            look_up(self._endpoint.host, self._endpoint.port, deadline)
            open_over(
                camera.rtsp_transport, lambda transport: self._open_over(transport, credentials, deadline), deadline
            )
        except SourceRefused as refused:
            raise refused.told_of(self._name) from None

    def read(self) -> RawFrame:
        """The next image, and how late it is.

        Raises:
            SourceError: the stream ended, fell silent, or holds nothing that can be decoded.
        """
        began_s = time.monotonic()
        try:
            left_out = self._catch_up(began_s)
            frame = self._video.frame(Deadline(self._patience_s))
        except SourceRefused as refused:
            raise self._lost(refused, time.monotonic() - began_s) from None
        finally:
            self.decode_errors = self._video.damaged
        if frame is None:
            raise self._lost(None, time.monotonic() - began_s)
        came_s = time.monotonic()
        self._note(frame.time, came_s)
        image = self._video.bgr(frame)
        return RawFrame(image, age_s=self._behind_s + time.monotonic() - came_s, left_out=left_out)

    def close(self) -> None:
        """Hang up."""
        self._video.close()

    def _note(self, stamp_s: float | None, now_s: float) -> None:
        """How late a frame of this time stamp is."""
        waited = self._video.waited
        self._behind_s = self._lag.of(stamp_s, now_s, waited=waited)
        self._stamp_s = self._stamp_s if stamp_s is None else stamp_s
        self._caught_up_s = now_s if waited else self._caught_up_s

    def _catch_up(self, now_s: float) -> int:
        """Cut the backlog of a decoder that is too slow for the stream; how many packets were left out."""
        is_slow = self._behind_s > _BEHIND_S and now_s - self._caught_up_s > _BEHIND_S
        if not is_slow or now_s - self._tried_s < _TRY_EVERY_S or self._video.comes_in_bursts:
            return 0
        self._tried_s = now_s
        caught_up = self._video.catch_up(self._stamp_s, self._behind_s)
        if caught_up.newest_s is not None:
            self._lag.newest(caught_up.newest_s, time.monotonic())
        if not self._is_slow:
            self._is_slow = True
            log.warning(_TOO_SLOW, self._camera.id, self._behind_s)
        return caught_up.left_out

    def _open_over(self, transport: str, credentials: tuple[str, str] | None, deadline: Deadline) -> None:
        camera = self._camera
        url = with_zone(with_credentials(camera.source, credentials or self._endpoint.credentials), "%")
        try:
            timeouts = Timeouts(deadline, self._patience_s)
            self._video.open(url, self._options(transport), live=True, timeouts=timeouts, transport=transport)
        except SourceRefused as refused:
            raise self._asked_by_hand(refused, transport, credentials) from None

    def _asked_by_hand(
        self, refused: SourceRefused, transport: str, credentials: tuple[str, str] | None
    ) -> SourceRefused:
        """What FFmpeg left open; it never tells whether a password was sent."""
        login = credentials or self._endpoint.credentials
        if refused.why is SourceRefusal.WRONG_PASSWORD and login is None:
            return SourceRefused(SourceRefusal.NO_PASSWORD)
        if not self._endpoint.scheme.startswith("rtsp"):
            return refused
        camera, deadline = self._camera, Deadline(min(_QUESTIONS_S, self._camera.open_timeout_s))
        if refused.why is SourceRefusal.WRONG_PASSWORD:
            return unknown_digest(camera.source, deadline, verify=camera.tls_verify) or refused
        if refused.why in _CLEAR:
            return refused
        found = why_refused(camera.source, credentials, transport, deadline, verify=camera.tls_verify)
        answers_all = found.why is SourceRefusal.NO_PICTURE
        return refused if answers_all and refused.why is not SourceRefusal.SILENT else found

    def _options(self, transport: str) -> dict[str, str]:
        options = {"analyzeduration": str(_ANALYSIS_US), "fpsprobesize": "0"}  # nobody asks for the rate of a camera
        if self._endpoint.scheme.startswith("rtsp"):
            # Sound is left at the camera: while it comes, a picture that does not would not be missed.
            options |= {"rtsp_transport": transport, "allowed_media_types": "video"}
        if self._endpoint.secure:
            trusted = authorities()
            options |= {"tls_verify": str(int(self._camera.tls_verify))} | ({"ca_file": trusted} if trusted else {})
        return options

    def _lost(self, refused: SourceRefused | None, waited_s: float) -> SourceError:
        if refused is not None and refused.why in {SourceRefusal.NO_KEY_FRAME, SourceRefusal.UNDECODABLE}:
            return refused.told_of(self._name)
        silent = waited_s >= _SILENT * self._patience_s
        return SourceError(f"{self._name}: {f'no new frame for {waited_s:.1f} s' if silent else 'the stream ended'}")
