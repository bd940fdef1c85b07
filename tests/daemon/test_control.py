from __future__ import annotations

import json
import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
from waiting import LIMIT_S

from vajra_edge.daemon.control import server as control_module
from vajra_edge.daemon.control.client import MAX_REQUEST_BYTES
from vajra_edge.daemon.control.server import MAX_CLIENTS, Asked, Control, ask
from vajra_edge.errors import ControlError


@pytest.fixture
def served(tmp_path):
    """A control socket whose requests wait in a queue."""
    inbox: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    control = Control(tmp_path / "control.sock", inbox.put, lambda: None)
    control.open()
    yield control, inbox, tmp_path / "control.sock"
    control.close()


def answering(control, inbox, *replies):
    """Answer the next request from another thread."""

    def run():
        asked = inbox.get(timeout=LIMIT_S)
        for number, reply in enumerate(replies):
            control.reply(asked.client, reply, last=number == len(replies) - 1)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(LIMIT_S)
    sock.connect(str(path))
    return sock


def test_progress_comes_line_by_line_and_done_ends_it(served):
    control, inbox, path = served
    replies = ask(path, {"verb": "rebuild", "force": True})
    got = []

    def collect():
        got.extend(replies)

    thread = threading.Thread(target=collect)
    thread.start()
    asked = inbox.get(timeout=LIMIT_S)
    assert (asked.verb, dict(asked.fields)) == ("rebuild", {"force": True})
    for percent in (10, 50):
        assert control.reply(asked.client, {"kind": "progress", "percent": percent}, last=False)
    control.reply(asked.client, {"kind": "done", "state": "serving"})
    thread.join(LIMIT_S)
    assert [reply.get("percent") for reply in got] == [10, 50, None]
    assert got[-1] == {"kind": "done", "state": "serving"}


def test_an_error_reply_is_raised_with_its_words(served):
    control, inbox, path = served
    thread = answering(control, inbox, {"kind": "error", "error": "weights are gone; copy them"})
    with pytest.raises(ControlError, match="weights are gone; copy them"):
        list(ask(path, {"verb": "rebuild"}))
    thread.join(LIMIT_S)


def test_the_socket_is_for_user_and_group_alone(served):
    _, _, path = served
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_several_clients_wait_side_by_side(served):
    control, inbox, path = served
    got: dict[int, list] = {}

    def client(number):
        got[number] = list(ask(path, {"verb": "status", "number": number}))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for asked in [inbox.get(timeout=LIMIT_S) for _ in threads]:
        control.reply(asked.client, {"kind": "done", "number": asked.fields["number"]})
    for thread in threads:
        thread.join(LIMIT_S)
    assert {number: replies[0]["number"] for number, replies in got.items()} == {n: n for n in range(8)}


def test_a_client_that_never_reads_is_put_out_and_never_blocks(served):
    control, inbox, path = served
    with connect(path) as slow:
        slow.sendall(b'{"verb": "status"}\n')
        asked = inbox.get(timeout=LIMIT_S)
        taken = [control.reply(asked.client, {"kind": "progress", "text": "x" * 60_000}, last=False) for _ in range(40)]
        assert taken[0]
        assert not taken[-1]
    thread = answering(control, inbox, {"kind": "done"})
    assert list(ask(path, {"verb": "status"})) == [{"kind": "done"}]
    thread.join(LIMIT_S)


def test_a_client_that_says_nothing_is_put_out(tmp_path, monkeypatch):
    monkeypatch.setattr(control_module, "ASK_WITHIN_S", 0.2)
    control = Control(tmp_path / "c.sock", lambda _: None, lambda: None)
    control.open()
    with connect(tmp_path / "c.sock") as silent:
        assert silent.recv(100) == b""
    control.close()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"hello\n", "not JSON"),
        (b"[1]\n", "unknown verb"),
        (b'{"verb": "shutdown"}\n', "unknown verb 'shutdown'; use one of status, rebuild, reload"),
        (b'{"verb": "' + b"x" * (MAX_REQUEST_BYTES + 10), "longer than"),
    ],
)
def test_a_bad_request_is_refused_in_one_line_and_reaches_nobody(served, sent, told):
    _, inbox, path = served
    with connect(path) as sock:
        sock.sendall(sent)
        reply = json.loads(sock.makefile().readline())
    assert reply["kind"] == "error"
    assert told in reply["error"]
    assert inbox.empty()


def test_a_crowd_is_refused_and_the_next_is_served_once_it_left(served):
    control, inbox, path = served
    crowd = [connect(path) for _ in range(MAX_CLIENTS)]
    with connect(path) as late:
        assert "clients are connected already" in late.makefile().readline()
    for sock in crowd:
        sock.close()
    time.sleep(0.2)
    thread = answering(control, inbox, {"kind": "done"})
    assert list(ask(path, {"verb": "status"})) == [{"kind": "done"}]
    thread.join(LIMIT_S)


def test_a_reply_to_a_client_that_left_is_no_error(served):
    control, inbox, path = served
    with connect(path) as sock:
        sock.sendall(b'{"verb": "status"}\n')
        asked = inbox.get(timeout=LIMIT_S)
    time.sleep(0.2)
    assert not control.reply(asked.client, {"kind": "done"})


def test_no_daemon_is_said_with_the_remedy(tmp_path):
    with pytest.raises(ControlError, match=r"no daemon answers .* start it") as caught:
        list(ask(tmp_path / "none.sock", {"verb": "status"}))
    assert caught.value.absent


def test_a_daemon_that_hangs_is_said_after_a_while(served):
    _, _, path = served
    with pytest.raises(ControlError, match="said nothing"):
        list(ask(path, {"verb": "status"}, answer_within_s=0.2))


def test_a_daemon_that_ends_before_it_is_done_is_said(served):
    control, inbox, path = served
    thread = threading.Thread(target=lambda: (inbox.get(timeout=LIMIT_S), control.close()))
    thread.start()
    with pytest.raises(ControlError, match="closed the connection before it was done"):
        list(ask(path, {"verb": "status"}))
    thread.join(LIMIT_S)


def test_what_was_said_last_still_arrives_when_the_daemon_ends(served):
    control, inbox, path = served

    def run():
        control.reply(inbox.get(timeout=LIMIT_S).client, {"kind": "done", "state": "stopped"})
        control.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert list(ask(path, {"verb": "status"}))[-1]["state"] == "stopped"
    thread.join(LIMIT_S)


def test_a_live_daemons_socket_is_never_stolen(served):
    control, inbox, path = served
    with pytest.raises(ControlError, match="another daemon serves"):
        Control(path, lambda _: None, lambda: None).open()
    thread = answering(control, inbox, {"kind": "done"})
    assert list(ask(path, {"verb": "status"})) == [{"kind": "done"}]
    thread.join(LIMIT_S)


def test_a_foreign_server_without_our_lock_is_not_stolen_from_either(tmp_path):
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        with pytest.raises(ControlError, match="another daemon serves"):
            Control(path, lambda _: None, lambda: None).open()


def test_the_socket_of_a_killed_daemon_is_replaced(tmp_path):
    path = tmp_path / "c.sock"
    code = f"""
import time
from pathlib import Path
from vajra_edge.daemon.control.server import Control
Control(Path({str(path)!r}), print, lambda: None).open()
print("open", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == "open\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert path.is_socket()
    control = Control(path, lambda _: None, lambda: None)
    control.open()
    connect(path).close()
    control.close()
    assert not path.exists()


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), os.mkdir])
def test_what_is_no_socket_is_left_alone(tmp_path, make):
    path = tmp_path / "c.sock"
    make(path)
    with pytest.raises(ControlError, match="exists and is no socket"):
        Control(path, lambda _: None, lambda: None).open()
    assert path.exists()


@pytest.mark.parametrize("name", ["no/such/folder/c.sock", "x" * 120])
def test_a_path_that_cannot_be_is_said_in_one_line(tmp_path, name):
    control = Control(tmp_path / name, lambda _: None, lambda: None)
    with pytest.raises(ControlError, match="control_socket") as caught:
        control.open()
    assert "\n" not in str(caught.value)
    control.close()
