"""One GET: logins, redirects, and one deadline over all of it."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from little_servers import answering, head_of, http, listening
from ports import free_port

from vajra_edge.capture.sources.http import Answer, Client
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

LIMIT_S = 20.0
RIGHT = ("ad@min", "p/w: #1")


def get(port: int, target: str = "/x", credentials: tuple[str, str] | None = None) -> bytes:
    client = Client(f"http://127.0.0.1:{port}{target}", credentials, verify=True)
    return body_of(client.get(Deadline(LIMIT_S)))


def body_of(answer: Answer) -> bytes:
    body = b""
    while more := answer.more(Deadline(LIMIT_S)):
        body += more
    answer.close()
    return body


def refused(action: Callable[[], object]) -> SourceRefusal:
    with pytest.raises(SourceRefused) as caught:
        action()
    return caught.value.why


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class Guarded:
    """Asks for a login, by the challenges given; counts the requests."""

    def __init__(self, *challenges: str) -> None:
        self.challenges = challenges
        self.requests: list[str] = []

    def serve(self, connection: socket.socket) -> None:
        request = head_of(connection)
        self.requests.append(request)
        if self._is_right(request):
            connection.sendall(http(b"picture", "image/jpeg"))
        else:
            asks = [f"WWW-Authenticate: {challenge}" for challenge in self.challenges]
            connection.sendall(http(b"", "text/html", "401 Unauthorized", *asks))

    def _is_right(self, request: str) -> bool:
        said = re.search(r"^Authorization: (.*)\r$", request, re.MULTILINE)
        if said is None:
            return False
        if said[1].startswith("Basic"):
            return said[1] == "Basic " + base64.b64encode(":".join(RIGHT).encode()).decode()
        given = dict(re.findall(r'(\w+)="([^"]*)"', said[1]))
        who = _md5(f"{RIGHT[0]}:{given['realm']}:{RIGHT[1]}")
        what = _md5(f"GET:{given['uri']}")
        return given["response"] == _md5(f"{who}:{given['nonce']}:{what}")


CHALLENGES = [
    ('Basic realm="c"',),
    ('Digest realm="c", nonce="n"',),
    ('Basic realm="c"', 'Digest realm="c", nonce="n"'),
]


@pytest.mark.parametrize("challenges", CHALLENGES)
def test_a_login_is_given_when_it_is_asked_for(challenges: tuple[str, ...]) -> None:
    camera = Guarded(*challenges)
    with listening(camera.serve) as port:
        assert get(port, "/snap.jpg?ch=1", RIGHT) == b"picture"
    assert "Authorization" not in camera.requests[0], "no password before it is asked for"
    assert len(camera.requests) == 2
    assert camera.requests[1].startswith("GET /snap.jpg?ch=1 HTTP/1.1")


def test_credentials_in_the_address_are_used() -> None:
    with listening(Guarded('Basic realm="c"').serve) as port:
        client = Client(f"http://ad%40min:p%2Fw%3A%20%231@127.0.0.1:{port}/", None, verify=True)
        assert body_of(client.get(Deadline(LIMIT_S))) == b"picture"


def test_the_next_request_brings_its_login_along() -> None:
    camera = Guarded('Digest realm="c", nonce="n"')
    with listening(camera.serve) as port:
        client = Client(f"http://127.0.0.1:{port}/", RIGHT, verify=True)
        for _ in range(3):
            assert body_of(client.get(Deadline(LIMIT_S))) == b"picture"
    assert len(camera.requests) == 4, "one refusal in all"


@pytest.mark.parametrize("challenges", CHALLENGES)
def test_a_wrong_password_is_tried_once(challenges: tuple[str, ...]) -> None:
    camera = Guarded(*challenges)
    with listening(camera.serve) as port:
        assert refused(lambda: get(port, "/", ("admin", "hunter2"))) is SourceRefusal.WRONG_PASSWORD
        assert len(camera.requests) == 2
        assert refused(lambda: get(port)) is SourceRefusal.NO_PASSWORD


def test_a_redirect_is_followed() -> None:
    def serve(connection: socket.socket) -> None:
        moved = "GET /x " in head_of(connection)
        there = http(b"", "text/html", "302 Found", "Location: /video?n=1")
        connection.sendall(there if moved else http(b"here", "image/jpeg"))

    with listening(serve) as port:
        assert get(port) == b"here"


def test_redirects_in_a_circle_are_named_soon() -> None:
    requests = []

    def serve(connection: socket.socket) -> None:
        requests.append(head_of(connection))
        to = "/b" if "GET /a " in requests[-1] else "/a"
        connection.sendall(http(b"", "text/html", "302 Found", f"Location: {to}"))

    with listening(serve) as port:
        assert refused(lambda: get(port, "/a")) is SourceRefusal.REDIRECT_LOOP
    assert len(requests) == 2


def test_redirects_without_end_are_named_soon() -> None:
    requests = []

    def serve(connection: socket.socket) -> None:
        requests.append(head_of(connection))
        connection.sendall(http(b"", "text/html", "307 Again", f"Location: /{len(requests)}"))

    with listening(serve) as port:
        assert refused(lambda: get(port)) is SourceRefusal.REDIRECT_LOOP
    assert len(requests) < 10


@pytest.mark.parametrize("location", ["rtsp://cam/1", "file:///etc/passwd", "ftp://cam/", "http://[", "//:99999/"])
def test_a_redirect_to_anything_else_is_not_followed(location: str) -> None:
    with listening(answering(http(b"", "text/html", "302 Found", f"Location: {location}"))) as port:
        assert refused(lambda: get(port)) is SourceRefusal.ELSEWHERE


def test_a_password_does_not_follow_a_redirect_to_another_host() -> None:
    thief = Guarded('Basic realm="c"')
    with listening(thief.serve) as elsewhere:
        moved = http(b"", "text/html", "302 Found", f"Location: http://localhost:{elsewhere}/")
        with listening(answering(moved)) as port:
            assert refused(lambda: get(port, "/", RIGHT)) is SourceRefusal.NO_PASSWORD
    assert len(thief.requests) == 1
    assert "Authorization" not in thief.requests[0]


@pytest.mark.parametrize("head", [b"H", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
def test_a_head_that_trickles_ends_at_the_deadline(head: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(1000):
            connection.sendall(b"x" if head == b"H" else b"X: y\r\n")
            time.sleep(0.1)

    with listening(serve) as port:
        client = Client(f"http://127.0.0.1:{port}/", None, verify=True)
        began_s = time.monotonic()
        assert refused(lambda: client.get(Deadline(0.5))) is SourceRefusal.SILENT
        assert time.monotonic() - began_s < LIMIT_S


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/x-mixed-replace; boundary=--my=b", ("multipart/x-mixed-replace", "--my=b")),
        ('Multipart/Mixed;charset=x; BOUNDARY="a b"', ("multipart/mixed", "a b")),
        ("image/jpeg", ("image/jpeg", "")),
        ("", ("", "")),
    ],
)
def test_the_content_type_is_taken_apart(content_type: str, expected: tuple[str, str]) -> None:
    with listening(answering(http(b"x", content_type))) as port:
        answer = Client(f"http://127.0.0.1:{port}/", None, verify=True).get(Deadline(LIMIT_S))
        assert (answer.content_type, answer.boundary) == expected
        assert answer.peek(Deadline(LIMIT_S)) == b"x"
        assert body_of(answer) == b"x", "what was looked at first comes again"


@contextmanager
def silent_at(host: str, port: int) -> Iterator[None]:
    """A listener whose queue is full, so that Linux answers nobody who knocks."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            knocking = held.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex((host, port))
        yield


def known_as(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> str:
    """A name that has these addresses, in this order."""
    name, real = "camera.test", socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **more: Any) -> Any:
        asked = addresses if host == name else (host,)
        return [found for one in asked for found in real(one, port, *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return name


@pytest.mark.parametrize("silent", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3", "127.0.0.4"]])
def test_a_camera_is_reached_whose_first_addresses_are_silent(
    monkeypatch: pytest.MonkeyPatch, silent: list[str]
) -> None:
    with listening(answering(http(b"picture", "image/jpeg"))) as port, ExitStack() as held:
        for host in silent:
            held.enter_context(silent_at(host, port))
        client = Client(f"http://{known_as(monkeypatch, *silent, '127.0.0.1')}:{port}/", None, verify=True)
        assert body_of(client.get(Deadline(LIMIT_S))) == b"picture"


def test_a_camera_is_reached_whose_first_address_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(answering(http(b"picture", "image/jpeg"))) as port:
        client = Client(f"http://{known_as(monkeypatch, '127.0.0.2', '127.0.0.1')}:{port}/", None, verify=True)
        assert body_of(client.get(Deadline(LIMIT_S))) == b"picture"


@pytest.mark.parametrize("order", [("127.0.0.2", "127.0.0.3"), ("127.0.0.3", "127.0.0.2")])
def test_of_a_camera_that_is_silent_at_one_address_and_refuses_at_the_other_the_silence_is_said(
    monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]
) -> None:
    port = free_port()
    with silent_at("127.0.0.2", port):
        client = Client(f"http://{known_as(monkeypatch, *order)}:{port}/", None, verify=True)
        assert refused(lambda: client.get(Deadline(1.0))) is SourceRefusal.NO_ANSWER


def test_of_a_camera_that_refuses_at_both_addresses_the_refusal_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(f"http://{known_as(monkeypatch, '127.0.0.2', '127.0.0.3')}:{free_port()}/", None, verify=True)
    assert refused(lambda: client.get(Deadline(LIMIT_S))) is SourceRefusal.NOTHING_LISTENS
