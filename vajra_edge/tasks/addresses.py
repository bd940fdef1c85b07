"""Addresses: what an http address gives, one picture, one clip or a camera, and the file of the first two.

The server says so by the kind of content, or the content's first bytes do. What is fetched is bounded in size, time and
redirects, and goes to a file of its own that is gone afterwards. Whatever nobody recognises is a camera, as it always
was.
"""

from __future__ import annotations

import base64
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from vajra_edge.capture.url import shown
from vajra_edge.config.address import conceal
from vajra_edge.datasets.places import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vajra_edge.errors import SourceError
from vajra_edge.media.image_header import kind_of
from vajra_edge.media.limits import MAX_SENT_BYTES
from vajra_edge.version import VERSION


class Content(Enum):
    """What an address gives."""

    PICTURE = "a picture"
    CLIP = "a clip"
    CAMERA = "a camera"


MOST_BYTES = {Content.PICTURE: MAX_SENT_BYTES, Content.CLIP: 4 << 30}
"""An hour of 4K video is about 4 GiB."""
_REDIRECTS = 5
_SILENCE_S = 10.0
_LONGEST_S = {Content.PICTURE: 60.0, Content.CLIP: 3600.0}
_HEAD_BYTES, _CHUNK_BYTES = 16, 1 << 20
_STREAMS = (
    *("multipart/", "video/x-motion-jpeg", "application/vnd.apple.mpegurl", "application/x-mpegurl"),
    *("audio/mpegurl", "audio/x-mpegurl", "application/dash+xml", "application/sdp"),
)
_PAGES = ("text/html", "application/xhtml", "application/json")
_CLIPS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"0&\xb2u")  # Matroska and WebM, MPEG program stream, WMV
_FAILURES = (OSError, HTTPException, ValueError)
"""What urllib lets through: refused, cut off, or not HTTP; ``ValueError`` for addresses that it cannot write."""


def is_web(text: str) -> bool:
    """Whether a source text is an http address."""
    return text.lower().startswith(("http://", "https://"))


def suffix_of(url: str) -> str:
    """The suffix of the file that an address names, in small letters, without its query; may be empty."""
    return PurePosixPath(unquote(urlsplit(url).path)).suffix.lower()


def shown_name(url: str) -> str:
    """What people may see of an address: scheme, host and the file's name, without what is between and behind."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return f"{shown(url)}/.../{name}" if name and named(url) is not None else shown(url)


def named(url: str) -> Content | None:
    """What an address gives by its suffix; None: that says nothing."""
    suffix = suffix_of(url)
    if suffix in IMAGE_SUFFIXES:
        return Content.PICTURE
    return Content.CLIP if suffix in VIDEO_SUFFIXES else None


def asked(url: str) -> Content:
    """What an address gives, by the head of its answer; one that does not answer plain requests is a camera.

    Raises:
        SourceError: it names a picture or a clip and cannot be had, or gives a web page.
    """
    try:
        with _opened(url) as answer:
            return _content(url, answer.headers, answer.read(_HEAD_BYTES))
    except _FAILURES as error:
        refused = _refused(url, error)
        if named(url) is None:
            return Content.CAMERA
        raise refused from error


@contextmanager
def fetched(url: str, content: Content) -> Iterator[Path]:
    """The file of a picture or a clip, for as long as the body runs.

    Raises:
        SourceError: it cannot be had, is something else, or larger or slower than the bounds.
    """
    with tempfile.TemporaryDirectory(prefix="vajra-edge-") as folder:
        path = Path(folder) / f"fetched{suffix_of(url) or _USUAL[content]}"
        try:
            with _opened(url) as answer, path.open("wb") as file:
                head = answer.read(_HEAD_BYTES)
                if (given := _content(url, answer.headers, head)) is not content:
                    raise SourceError(
                        f"{shown_name(url)} is {given.value}, not {content.value}", remedy="name it alone"
                    )
                file.write(head)
                _copy(url, answer, file, content)
        except _FAILURES as error:
            raise _refused(url, error) from error
        yield path


_USUAL = {Content.PICTURE: ".jpg", Content.CLIP: ".mp4"}


def _copy(url: str, answer: HTTPResponse, file: IO[bytes], content: Content) -> None:
    until_s, length = time.monotonic() + _LONGEST_S[content], answer.headers.get("Content-Length", "")
    while chunk := answer.read1(_CHUNK_BYTES):
        file.write(chunk)
        if file.tell() > MOST_BYTES[content]:
            raise SourceError(
                f"{shown_name(url)} has more than {MOST_BYTES[content] >> 20} MiB",
                remedy="download it, and name the file",
            )
        if time.monotonic() > until_s:
            raise SourceError(
                f"{shown_name(url)} took more than {_LONGEST_S[content]:.0f} s", remedy="download it, and name the file"
            )
    if length.isdigit() and file.tell() < int(length):
        raise SourceError(f"{shown_name(url)} broke off after {file.tell()} of {length} bytes", remedy="try again")


def _content(url: str, headers: HTTPMessage, head: bytes) -> Content:
    kind = headers.get_content_type() if headers.get("Content-Type") else ""
    if kind.startswith(_STREAMS):
        return Content.CAMERA
    if kind_of(head) is not None or kind.startswith("image/"):
        return Content.PICTURE
    clip = head.startswith(_CLIPS) or head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    if (clip or kind.startswith("video/")) and (headers.get("Content-Length") or named(url)):
        return Content.CLIP  # without a length and a file's name it may as well be live
    if kind.startswith(_PAGES):
        raise SourceError(f"{shown_name(url)} is a page ({kind}), not a picture", remedy="name the picture itself")
    return named(url) or Content.CAMERA


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A few, and to http alone."""

    max_redirections = _REDIRECTS

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        """See urllib; of the arguments the second is the answer, the last the new address."""
        if not is_web(arguments[-1]):
            arguments[1].close()
            raise ValueError("it points elsewhere than to http")
        return super().redirect_request(*arguments)


def _opened(url: str) -> HTTPResponse:
    """The answer to a plain request; password and user go to this host alone."""
    parts = urlsplit(url)
    user, host = parts.netloc.rpartition("@")[::2]
    plain = parts._replace(netloc=host, path=_quoted(parts.path), query=_quoted(parts.query), fragment="")
    request = urllib.request.Request(plain.geturl(), headers={"User-Agent": f"vajra-edge/{VERSION}"})  # noqa: S310  is_web
    if user:
        secret = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    answer: HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=_SILENCE_S)
    return answer


def _quoted(text: str) -> str:
    return quote(text, safe="/%:@!$&'()*+,;=~?-._[]")


def _refused(url: str, error: BaseException) -> SourceError:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is an answer too
        return SourceError(f"{shown_name(url)}: HTTP {error.code} {error.reason}", remedy="check the address")
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        reason = f"no answer for {_SILENCE_S:.0f} s"
    text = " ".join(str(getattr(reason, "strerror", None) or reason).split()) or type(error).__name__
    return SourceError(
        f"{shown_name(url)} cannot be had: {conceal(text, url)}", remedy="check the address and the network"
    )
