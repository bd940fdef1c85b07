"""The client against servers that are not the daemon."""

from __future__ import annotations

import socket
import threading

import pytest

from vajra_edge.daemon.control import client
from vajra_edge.daemon.control.client import MAX_REQUEST_BYTES, ask
from vajra_edge.errors import ControlError


@pytest.fixture
def server(tmp_path):
    """Answers one connection with given bytes, then closes it."""
    path = tmp_path / "s.sock"
    threads = []

    def serve(answer: bytes):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen()

        def run():
            with listening, listening.accept()[0] as sock:
                sock.recv(1000)
                sock.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield serve
    for thread in threads:
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answered something that is not JSON"),
        (b"[1, 2]\n", "is not a JSON object"),
        (b'{"kind": "error"}\n', "refused without a word"),
        (b'{"kind": "progress"}\n', "closed the connection before it was done"),
        (b"", "closed the connection before it was done"),
    ],
)
def test_answers_that_are_none_are_one_line(server, answer, told):
    with pytest.raises(ControlError, match=told) as caught:
        list(ask(server(answer), {"verb": "status"}))
    assert "\n" not in str(caught.value)


def test_an_endless_line_is_given_up(server, monkeypatch):
    monkeypatch.setattr(client, "MAX_REPLY_BYTES", 1000)
    with pytest.raises(ControlError, match="more than 1000 bytes in one line"):
        list(ask(server(b"x" * 5000), {"verb": "status"}))


def test_lines_that_arrive_in_pieces_are_put_together(server):
    path = server(b'{"kind": "progress", "n": 1}\n{"kind": "progress", "n": 2}\n{"kind": "done"}\nrest')
    assert [reply.get("n") for reply in ask(path, {"verb": "status"})] == [1, 2, None]


def test_a_request_that_is_too_long_is_not_sent(tmp_path):
    with pytest.raises(ControlError, match="at most"):
        list(ask(tmp_path / "none", {"verb": "x" * MAX_REQUEST_BYTES}))
