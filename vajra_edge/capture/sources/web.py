"""Web cameras: what an http address answers decides whether it is a stream of JPEG parts, one picture, or a container.

Told by the content type and the first bytes, never by the address: cameras call anything ``.jpg`` or ``.cgi``.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.http import Answer, Client
from vajra_edge.capture.sources.jpeg_parts import JpegParts
from vajra_edge.capture.sources.snapshots import SnapshotCamera
from vajra_edge.capture.sources.stream import NetworkStream
from vajra_edge.capture.url import read_credentials, shown
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.image_header import ImageKind, header_of
from vajra_edge.media.jpeg_markers import START, end_of
from vajra_edge.media.limits import MAX_SENT_BYTES, MAX_STRAY_BYTES
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

_NEXT_S = 2.0
"""A JPEG after which another one begins within this time is the first of a stream; a slower stream is fetched picture
by picture, which gives the same ones.
"""

_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<?xml", b"<!--")


class _Form(Enum):
    PARTS = auto()
    PICTURE = auto()
    CONTAINER = auto()


def _form_of(answer: Answer, deadline: Deadline) -> _Form:
    """What was answered.

    Raises:
        SourceRefused: nothing, a page, or a part of a picture alone.
    """
    first = answer.peek(deadline)
    start = first.lstrip()
    if not first:
        raise SourceRefused(SourceRefusal.EMPTY)
    if answer.content_type.startswith("multipart/") or (start.startswith(b"--") and b"\n" in start):
        return _Form.PARTS
    if start[:16].lower().startswith(_PAGES) or answer.content_type in {"text/html", "application/xhtml+xml"}:
        raise SourceRefused(SourceRefusal.WEB_PAGE)
    return _Form.PICTURE if _is_picture(answer, first, deadline) else _Form.CONTAINER


def _is_picture(answer: Answer, first: bytes, deadline: Deadline) -> bool:
    if answer.content_type.startswith("image/"):
        return True
    if first.startswith(START):  # before its thumbnail has come, a JPEG does not tell its size
        return answer.length is not None or _is_one(answer, deadline)
    header = header_of(first.lstrip())
    return header is not None and (answer.length is not None or header.kind is not ImageKind.JPEG)


def _is_one(answer: Answer, deadline: Deadline) -> bool:
    """Whether a JPEG of which no length is told is all that comes; else it is the first of a stream of them.

    Raises:
        SourceRefused: it stops before its end.
    """
    scanned = 0
    while (end := end_of(answer.ahead, scanned)) is None:
        scanned = len(answer.ahead) - 1
        if scanned > MAX_SENT_BYTES:
            return False
        if not answer.peek_on(deadline):
            return True
    try:
        while answer.ahead.find(START, end) < 0 and len(answer.ahead) - end <= MAX_STRAY_BYTES:
            if not answer.peek_on(Deadline(min(_NEXT_S, float(deadline)))):
                return True
    except SourceRefused:  # some cameras never hang up, others do it rudely
        return True
    return False


class _Feed(Protocol):
    decode_errors: int

    def read(self) -> RawFrame: ...

    def close(self) -> None: ...


class WebCamera:
    """A camera at an http address."""

    live = True

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._camera = camera
        self._name = shown(camera.source)
        self._feed: _Feed | None = None

    def open(self) -> None:
        """Ask the address, and find out what it gives.

        Raises:
            SourceError: the camera cannot be reached, or gives no video; says which.
            SettingsError: the credentials file cannot be read.
        """
        camera, deadline = self._camera, Deadline(self._camera.open_timeout_s)
        credentials = read_credentials(camera.id, camera.credentials_file)
        client = Client(camera.source, credentials, verify=camera.tls_verify)
        self.close()
        try:
            answer = client.get(deadline)
            self._feed = self._found(client, answer, deadline)
        except SourceRefused as refused:
            raise refused.told_of(self._name) from None

    def read(self) -> RawFrame:
        """The next image.

        Raises:
            SourceError: the stream ended, fell silent, or holds nothing that can be decoded.
        """
        if self._feed is None:
            raise SourceError(f"{self._name} is not open")
        try:
            return self._feed.read()
        except SourceRefused as refused:
            raise refused.told_of(self._name) from None
        finally:
            self.decode_errors = self._feed.decode_errors

    def close(self) -> None:
        """Hang up."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _found(self, client: Client, answer: Answer, deadline: Deadline) -> _Feed:
        try:
            form = _form_of(answer, deadline)
        except SourceRefused:
            answer.close()
            raise
        if form is _Form.PARTS:
            return JpegParts(self._camera, self._name, answer)
        if form is _Form.PICTURE:
            return SnapshotCamera(self._camera, self._name, client, answer)
        answer.close()  # FFmpeg asks again; some cameras bear one connection alone
        return _container(self._camera, answer.content_type)


def _container(camera: CameraSettings, content_type: str) -> NetworkStream:
    """A container through FFmpeg, or the word that it is none."""
    stream = NetworkStream(camera)
    try:
        stream.open()
    except SourceError:
        stream.close()
        if content_type.startswith(("text/", "application/json")):
            raise SourceRefused(SourceRefusal.NOT_VIDEO, content_type) from None
        raise
    return stream
