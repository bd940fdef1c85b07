"""HTTP: one GET to a camera, with login, redirects, TLS and one deadline over all of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from email.message import Message
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any
from urllib.parse import urljoin

from vajra_edge.capture.sources.connection import Line, connect
from vajra_edge.capture.sources.login import Login
from vajra_edge.capture.url import Endpoint, endpoint_of
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefusal, SourceRefused, of_errno, of_status

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK, _NO_CONTENT, _UNAUTHORIZED = 200, 204, 401
_CHUNK_BYTES = 64 * 1024
_HEADERS: Mapping[str, str] = {"User-Agent": "vajra-edge", "Accept": "*/*", "Connection": "close"}


class Answer:
    """What a camera answers with 200, open until ``close``.

    Attributes:
        content_type: in lower case and without parameters; empty where it has none.
        boundary: of a multipart answer; empty where none is named.
        length: in bytes; None where the camera does not say.
    """

    def __init__(self, response: HTTPResponse, line: Line) -> None:
        headers = Message()
        headers["Content-Type"] = response.headers.get("Content-Type", "")
        self.content_type = headers["Content-Type"].partition(";")[0].strip().lower()
        named = re.search(r"boundary\s*=\s*(\"[^\"]*\"|[^;\s]+)", headers["Content-Type"], re.IGNORECASE)
        self.boundary = named[1].strip('"') if named else ""
        self.length = response.length
        self._response = response
        self._line = line
        self._ahead = bytearray()

    @property
    def ahead(self) -> bytes | bytearray:
        """What was peeked at; ``more`` gives it again."""
        return self._ahead

    def more(self, deadline: Deadline) -> bytes:
        """The next bytes, as soon as there are some; empty at the end.

        Raises:
            SourceRefused: the connection failed, or nothing came before the deadline.
        """
        if self._ahead:
            ahead, self._ahead = self._ahead, bytearray()
            return bytes(ahead)
        return self._received(deadline)

    def peek(self, deadline: Deadline) -> bytes:
        """The first bytes; ``more`` gives them again."""
        if not self._ahead:
            self.peek_on(deadline)
        return bytes(self._ahead)

    def peek_on(self, deadline: Deadline) -> bool:
        """Read more ``ahead``; False at the end."""
        part = self._received(deadline)
        self._ahead += part
        return bool(part)

    def close(self) -> None:
        """Hang up; idempotent."""
        self._response.close()
        self._line.close()

    def _received(self, deadline: Deadline) -> bytes:
        self._line.deadline = deadline
        try:
            return self._response.read1(_CHUNK_BYTES)
        except TimeoutError:
            raise SourceRefused(SourceRefusal.SILENT) from None
        except OSError as error:
            raise of_errno(error.errno or 0) from None
        except HTTPException:
            return b""  # a chunk that is cut off


class Client:
    """GETs one address again and again, and remembers how it wants to be logged in to and where it sends us.

    Args:
        url: http or https.
        credentials: user and password, in place of those in the address.
        verify: whether a certificate must be trusted.
    """

    def __init__(self, url: str, credentials: tuple[str, str] | None, *, verify: bool) -> None:
        self._first = endpoint_of(url)
        self._given = credentials or self._first.credentials
        self._login = Login(*self._given or ("", ""))
        self._verify = verify

    def get(self, deadline: Deadline) -> Answer:
        """Fetch it, over redirects.

        Raises:
            SourceRefused: any answer but 200, or none.
        """
        endpoint, seen = self._first, set[str]()
        while endpoint.url not in seen and len(seen) <= _MOST_REDIRECTS:
            seen.add(endpoint.url)
            answer = self._asked(endpoint, deadline)
            if isinstance(answer, Answer):
                return answer
            endpoint = _led_to(endpoint, answer)
        raise SourceRefused(SourceRefusal.REDIRECT_LOOP)

    def _asked(self, endpoint: Endpoint, deadline: Deadline) -> Answer | str:
        """What one address answers, or where it sends us; with the login, where it asks for one."""
        ours = self._is_ours(endpoint)
        while True:
            with ExitStack() as held:
                line = connect(endpoint, deadline, verify=self._verify)
                held.callback(line.close)
                response = _exchange(line, endpoint, self._login.header("GET", endpoint.target) if ours else None)
                if response.status == _OK:
                    held.pop_all()
                    return Answer(response, line)
                if response.status in _REDIRECTS and response.headers.get("Location"):
                    return response.headers["Location"].strip()
                offered = response.headers.get_all("WWW-Authenticate", [])
                known = ours and self._given is not None and response.status == _UNAUTHORIZED
                if not known or not self._login.take(offered):
                    raise _refusal(response, with_password=known)

    def _is_ours(self, endpoint: Endpoint) -> bool:
        """Whether a password may be sent there: not to another host, and not in the clear where it was not before."""
        return endpoint.host == self._first.host and endpoint.secure >= self._first.secure


def _exchange(line: Line, endpoint: Endpoint, authorization: str | None) -> HTTPResponse:
    """Send the request, and read the head of the answer."""
    headers = {"Host": endpoint.authority, **_HEADERS} | ({"Authorization": authorization} if authorization else {})
    lines = [f"GET {endpoint.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    try:
        line.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        as_socket: Any = line  # it has all that is used of one
        response = HTTPResponse(as_socket, method="GET")
        response.begin()
    except TimeoutError:
        raise SourceRefused(SourceRefusal.SILENT) from None
    except (ConnectionError, RemoteDisconnected):
        raise SourceRefused(SourceRefusal.HANGS_UP) from None
    except OSError as error:
        raise of_errno(error.errno or 0) from None
    except (HTTPException, ValueError):
        raise SourceRefused(SourceRefusal.OTHER_PROTOCOL, "HTTP") from None
    return response


def _refusal(response: HTTPResponse, *, with_password: bool) -> SourceRefused:
    if response.status == _NO_CONTENT:
        return SourceRefused(SourceRefusal.EMPTY)
    return of_status(response.status, with_password=with_password)


def _led_to(endpoint: Endpoint, location: str) -> Endpoint:
    try:
        led_to = endpoint_of(urljoin(endpoint.url, location))
    except (SourceError, ValueError):
        raise SourceRefused(SourceRefusal.ELSEWHERE) from None
    if not led_to.scheme.startswith("http"):
        raise SourceRefused(SourceRefusal.ELSEWHERE)
    return led_to
