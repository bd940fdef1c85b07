"""RTSP asked by hand: what FFmpeg does not tell of a camera that refused it.

One DESCRIBE and, where that is answered, one SETUP (RFC 2326); nothing is played. Only after FFmpeg failed, since some
cameras count their connections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, parse_headers
from io import BufferedReader
from urllib.parse import urljoin

from vajra_edge.capture.sources.connection import Line, connect
from vajra_edge.capture.sources.login import Login, challenges_of
from vajra_edge.capture.url import Endpoint, endpoint_of
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefusal, SourceRefused, of_errno, of_status

_MOST_REDIRECTS = 5
_MOST_SDP_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 305, 307, 308})
_LONGEST_LINE_BYTES = 8192
_LONGEST_NAME = 40
_OK = 200
_CONTROL = "a=control:"
_WANTED = {"Accept": "application/sdp"}
_HASH = re.compile(r"[A-Z0-9-]{1,20}")
_TRANSPORTS: Mapping[str, str] = {
    "tcp": "RTP/AVP/TCP;unicast;interleaved=0-1",
    "udp": "RTP/AVP;unicast;client_port=41950-41951",
}
_KNOWN = re.compile(r"^(H26[1345].*|MP4V-ES|JPEG|VP[89]|AV1|MPV|MP2T|X-.*|THEORA|RAW|DV|SVQ.*)$", re.IGNORECASE)
"""Names of RTP payloads that FFmpeg takes for video."""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: HTTPMessage
    body: bytes


class _Dialogue:
    """One connection, and the requests on it."""

    def __init__(self, endpoint: Endpoint, login: Login, deadline: Deadline, *, verify: bool) -> None:
        self._login = login
        self._count = 0
        self._line: Line = connect(endpoint, deadline, verify=verify)
        self._reader: BufferedReader = self._line.makefile("rb")

    def ask(self, method: str, url: str, more: Mapping[str, str]) -> _Answer:
        """Send a request, with a login where one is asked for."""
        while True:
            answer = self.ask_once(method, url, more)
            if answer.status != 401 or not self._login.take(answer.headers.get_all("WWW-Authenticate", [])):  # noqa: PLR2004  Unauthorized
                return answer

    def ask_once(self, method: str, url: str, more: Mapping[str, str]) -> _Answer:
        """Send a request, with the login that was asked for last."""
        self._count += 1
        authorization = self._login.header(method, url)
        headers = {"CSeq": str(self._count), "User-Agent": "vajra-edge", **more}
        if authorization:
            headers["Authorization"] = authorization
        lines = [f"{method} {url} RTSP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
        self._line.sendall("\r\n".join([*lines, "", ""]).encode())
        return self._answer()

    def close(self) -> None:
        self._line.close()

    def _answer(self) -> _Answer:
        first = self._reader.readline(_LONGEST_LINE_BYTES)
        if not first:
            raise SourceRefused(SourceRefusal.HANGS_UP)
        known = re.match(rb"RTSP/1\.\d (\d{3})", first)
        if known is None:
            raise SourceRefused(SourceRefusal.OTHER_PROTOCOL, "RTSP")
        headers = parse_headers(self._reader)
        length = headers.get("Content-Length", "0").strip()
        size = min(int(length), _MOST_SDP_BYTES) if length.isdigit() else 0
        return _Answer(int(known[1]), headers, self._reader.read(size) if size else b"")


def why_refused(
    url: str, credentials: tuple[str, str] | None, transport: str, deadline: Deadline, *, verify: bool
) -> SourceRefused:
    """Why a camera that FFmpeg could not open gives no video.

    Args:
        url: its address.
        credentials: user and password, in place of those in the address.
        transport: ``tcp`` or ``udp``, which was asked for.
        deadline: of all questions.
        verify: whether its certificate must be trusted.
    """
    try:
        return _followed(url, credentials, transport, deadline, verify=verify)
    except SourceRefused as refused:
        return refused
    except TimeoutError:
        return SourceRefused(SourceRefusal.SILENT)
    except OSError as error:
        return of_errno(error.errno or 0)
    except HTTPException:
        return SourceRefused(SourceRefusal.OTHER_PROTOCOL, "RTSP")
    except (SourceError, ValueError):  # of what a Location holds
        return SourceRefused(SourceRefusal.ELSEWHERE)


def unknown_digest(url: str, deadline: Deadline, *, verify: bool) -> SourceRefused | None:
    """Whether the hash of the camera's login is what kept FFmpeg or GStreamer out, which know MD5 alone.

    Asked without a login: a wrong one more may lock the camera's account. FFmpeg goes by the last digest of a list.

    Args:
        url: its address.
        deadline: of the question.
        verify: whether its certificate must be trusted.

    Returns:
        That; None where it asks for MD5 or for no digest at all, or does not answer.
    """
    with suppress(SourceRefused, SourceError, OSError, HTTPException, ValueError):
        endpoint = endpoint_of(url)
        dialogue = _Dialogue(endpoint, Login("", ""), deadline, verify=verify)
        with closing(dialogue):
            answer = dialogue.ask_once("DESCRIBE", endpoint.url, _WANTED)
        offered = [
            one for one in challenges_of(answer.headers.get_all("WWW-Authenticate", [])) if one.scheme == "digest"
        ]
        if offered and offered[-1].algorithm != "md5":
            name = offered[-1].algorithm.upper()
            return SourceRefused(
                SourceRefusal.STRANGE_LOGIN, f"digest with {name if _HASH.fullmatch(name) else 'an unknown hash'}"
            )
    return None


def _followed(
    url: str, credentials: tuple[str, str] | None, transport: str, deadline: Deadline, *, verify: bool
) -> SourceRefused:
    """What the address says, or the last one that it leads to."""
    seen: set[str] = set()
    while len(seen) <= _MOST_REDIRECTS and url not in seen:
        seen.add(url)
        answer = _asked(endpoint_of(url), credentials, transport, deadline, verify=verify)
        if isinstance(answer, SourceRefused):
            return answer
        url = urljoin(url, answer)
    return SourceRefused(SourceRefusal.REDIRECT_LOOP)


def _asked(
    endpoint: Endpoint, credentials: tuple[str, str] | None, transport: str, deadline: Deadline, *, verify: bool
) -> SourceRefused | str:
    """What one address says: no, or where else to ask."""
    if endpoint.scheme not in {"rtsp", "rtsps"}:
        return SourceRefused(SourceRefusal.ELSEWHERE)
    login = credentials or endpoint.credentials
    dialogue = _Dialogue(endpoint, Login(*login or ("", "")), deadline, verify=verify)
    try:
        described = dialogue.ask("DESCRIBE", endpoint.url, _WANTED)
        if described.status in _REDIRECTS:
            return described.headers.get("Location", "").strip()
        if described.status != _OK:
            return of_status(described.status, transport=transport, with_password=login is not None)
        track = _track(described.body)
        if isinstance(track, SourceRefused):
            return track
        base = described.headers.get("Content-Base") or described.headers.get("Content-Location") or endpoint.url
        answer = dialogue.ask("SETUP", _joined(base.strip(), track), {"Transport": _TRANSPORTS[transport]})
        if answer.status != _OK:
            return of_status(answer.status, transport=transport, with_password=login is not None)
        return SourceRefused(SourceRefusal.NO_PICTURE)
    finally:
        dialogue.close()


def _track(sdp: bytes) -> SourceRefused | str:
    """Where the video of an SDP (RFC 4566) is controlled; or why there is none."""
    lines = [line.strip() for line in sdp.decode("utf-8", "replace").splitlines()]
    if not any(line.startswith("v=") for line in lines):
        return SourceRefused(SourceRefusal.BAD_SDP) if sdp.strip() else SourceRefused(SourceRefusal.EMPTY)
    if not any(line.startswith("m=") for line in lines):
        return SourceRefused(SourceRefusal.BAD_SDP)
    starts = [at for at, line in enumerate(lines) if line.startswith("m=video")]
    if not starts:
        return SourceRefused(SourceRefusal.NO_VIDEO)
    rest = lines[starts[0] + 1 :]
    section = rest[: next((at for at, line in enumerate(rest) if line.startswith("m=")), len(rest))]
    names = [found[1] for line in section if (found := re.match(r"a=rtpmap:\d+ ([^/\s]+)", line))]
    if names and not _KNOWN.match(names[0]):
        return SourceRefused(SourceRefusal.CODEC, f"video as {names[0][:_LONGEST_NAME]}")
    return next((line[len(_CONTROL) :] for line in section if line.startswith(_CONTROL)), "")


def _joined(base: str, control: str) -> str:
    if control in {"", "*"}:
        return base
    return control if "://" in control else f"{base.rstrip('/')}/{control}"
