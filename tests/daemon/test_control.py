from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
from waiting import LIMIT_S, wait_for

from vajra_edge.admission import AdmissionLimits, Bucket, RequestPace
from vajra_edge.daemon.control import server as control_module
from vajra_edge.daemon.control.client import MAX_REQUEST_BYTES
from vajra_edge.daemon.control.server import MAX_CLIENTS, MAX_CLIENTS_OF_A_PROCESS, Asked, Control, ask
from vajra_edge.errors import ControlError


@pytest.fixture
def served(tmp_path):
    """A control socket whose requests wait in a queue."""
    inbox: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    control = Control(tmp_path / "control.sock", inbox.put, lambda: None)
    control.open()
    yield control, inbox, tmp_path / "control.sock"
    control.close()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


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
        (b'{"verb": ' + b"[" * 1000 + b"]" * 1000 + b"}\n", "unknown verb a list"),
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


def crowded(path, count):
    """So many clients that have asked and wait."""
    crowd = []
    for _ in range(count):
        crowd.append(connect(path))
        crowd[-1].sendall(b'{"verb": "status"}\n')
    return crowd


def test_a_crowd_of_one_process_is_refused_and_the_next_is_served_once_it_left(served):
    control, inbox, path = served
    crowd = crowded(path, MAX_CLIENTS_OF_A_PROCESS)
    for _ in crowd:
        inbox.get(timeout=LIMIT_S)
    with connect(path) as late:
        assert "this process has 16 connections already" in late.makefile().readline()
    for sock in crowd:
        sock.close()
    wait_for(lambda: not control._clients)
    thread = answering(control, inbox, {"kind": "done"})
    assert list(ask(path, {"verb": "status"})) == [{"kind": "done"}]
    thread.join(LIMIT_S)


@pytest.mark.parametrize("of_a_process", [MAX_CLIENTS_OF_A_PROCESS, 1000])
def test_who_says_nothing_gives_way_to_who_asks(served, monkeypatch, of_a_process):
    monkeypatch.setattr(control_module, "MAX_CLIENTS_OF_A_PROCESS", of_a_process)
    control, inbox, path = served
    silent = [connect(path) for _ in range(200)]
    thread = answering(control, inbox, {"kind": "done"})
    assert list(ask(path, {"verb": "status"})) == [{"kind": "done"}]
    thread.join(LIMIT_S)
    assert silent[0].recv(1) == b""
    assert len(control._clients) <= min(MAX_CLIENTS, of_a_process)
    for sock in silent:
        sock.close()


def test_a_crowd_of_many_processes_is_refused_too(served, monkeypatch):
    monkeypatch.setattr(control_module, "MAX_CLIENTS_OF_A_PROCESS", 1000)
    _, inbox, path = served
    crowd = crowded(path, MAX_CLIENTS)
    for _ in crowd:
        inbox.get(timeout=LIMIT_S)
    with connect(path) as late:
        assert "32 clients are connected already" in late.makefile().readline()
    for sock in crowd:
        sock.close()


def test_a_client_that_the_kernel_turns_away_tries_again(tmp_path):
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(0)
        first = connect(path)  # it fills the backlog
        told = []
        thread = threading.Thread(target=lambda: told.extend(ask(path, {"verb": "status"})))
        thread.start()
        time.sleep(0.1)
        listening.accept()[0].close()
        sock, _ = listening.accept()
        sock.recv(1000)
        sock.sendall(b'{"kind": "done"}\n')
        thread.join(LIMIT_S)
        assert told == [{"kind": "done"}]
        sock.close()
        first.close()


def test_a_flood_of_connections_is_taken_at_its_pace_and_uses_few_descriptors(served):
    control, _inbox, path = served
    clock = Clock()
    control._clock, control._accepts = clock, Bucket(RequestPace(0.0, 5.0), 0.0)
    socks = [connect(path) for _ in range(40)]
    wait_for(lambda: not control._listening)
    assert control._numbers == 5
    clock.now_s += 1.0  # nothing has filled up since
    wait_for(lambda: control._listen_from_s > 1.0)
    assert control._numbers == 5
    control._accepts = Bucket(RequestPace(0.0, 100.0), 1.0)
    clock.now_s += 1.0
    wait_for(lambda: control._numbers == 40)
    assert len(control._clients) <= MAX_CLIENTS
    for sock in socks:
        sock.close()


def test_requests_beyond_their_pace_hear_that_the_daemon_is_busy(tmp_path, monkeypatch):
    limits = AdmissionLimits(RequestPace(0.0, 3.0), RequestPace(0.0, 100.0), RequestPace(0.0, 100.0), open=100)
    monkeypatch.setattr(control_module, "LIMITS", limits)
    monkeypatch.setattr(control_module, "BUSY_AFTER_S", 0.01)
    inbox: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    control = Control(tmp_path / "c.sock", inbox.put, lambda: None)
    control.open()
    try:
        for _ in range(3):
            thread = answering(control, inbox, {"kind": "done"})
            list(ask(tmp_path / "c.sock", {"verb": "status"}))
            thread.join(LIMIT_S)
        with pytest.raises(ControlError, match="the daemon is busy: status is asked for too often; wait"):
            list(ask(tmp_path / "c.sock", {"verb": "status"}))
        assert inbox.empty()
        assert control.refused == 1
    finally:
        control.close()


def test_requests_of_clients_that_left_are_owed_an_answer_still(served, monkeypatch):
    monkeypatch.setattr(control_module, "BUSY_AFTER_S", 0.01)
    control, inbox, path = served
    told = []
    for _ in range(MAX_CLIENTS + 10):
        with connect(path) as sock:
            sock.sendall(b'{"verb": "rebuild"}\n')
            wait_for(lambda: inbox.qsize() + control.refused == len(told) + 1)
            told.append(inbox.qsize())
    assert inbox.qsize() == MAX_CLIENTS
    while not inbox.empty():
        assert not control.reply(inbox.get().client, {"kind": "done"})
    thread = answering(control, inbox, {"kind": "done"})
    assert list(ask(path, {"verb": "rebuild"})) == [{"kind": "done"}]
    thread.join(LIMIT_S)


def test_a_reply_to_a_client_that_left_is_no_error(served):
    control, inbox, path = served
    with connect(path) as sock:
        sock.sendall(b'{"verb": "status"}\n')
        asked = inbox.get(timeout=LIMIT_S)
    wait_for(lambda: not control._clients)
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


@pytest.fixture
def looks_often(monkeypatch):
    monkeypatch.setattr(control_module, "LOOK_EVERY_S", 0.02)


def reaches(path, inbox):
    """Whether a client who asks now is heard by the daemon of this inbox."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(path))
        sock.sendall(b'{"verb": "status"}\n')
        return inbox.get(timeout=LIMIT_S).verb == "status"
    return False


def leave_a_stale_socket(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))


def remove_the_lock_too(path):
    path.unlink()
    path.with_name(f"{path.name}.lock").unlink()


@pytest.mark.parametrize("remove", [os.unlink, leave_a_stale_socket, remove_the_lock_too])
def test_a_socket_that_was_removed_is_made_again_and_said(looks_often, served, caplog, remove):
    _, inbox, path = served
    remove(path)
    wait_for(lambda: reaches(path, inbox))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert f"control socket {path} was removed or replaced; it was made again" in caplog.messages
    with pytest.raises(ControlError, match="another daemon serves"):
        Control(path, lambda _: None, lambda: None).open()


def test_who_is_connected_when_the_socket_is_removed_is_still_answered(looks_often, served):
    control, inbox, path = served
    with connect(path) as early:
        early.sendall(b'{"verb": "status"}\n')
        asked = inbox.get(timeout=LIMIT_S)
        path.unlink()
        wait_for(path.exists)
        assert control.reply(asked.client, {"kind": "done"})
        assert json.loads(early.makefile().readline()) == {"kind": "done"}


def test_another_daemon_that_took_the_place_keeps_it_until_it_leaves(served, caplog, monkeypatch):
    control, inbox, path = served
    wait_for(lambda: control._look_from_s)
    control._look_from_s = float("inf")
    assert reaches(path, inbox)  # it is through with its first look
    remove_the_lock_too(path)
    other_inbox: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    other = Control(path, other_inbox.put, lambda: None)
    other.open()
    monkeypatch.setattr(control_module, "LOOK_EVERY_S", 0.02)
    control._look_from_s = 0.0
    wait_for(lambda: any("another daemon serves" in line for line in caplog.messages))
    assert reaches(path, other_inbox)
    other.close()
    wait_for(lambda: reaches(path, inbox))


def test_a_daemon_that_ends_leaves_the_socket_that_is_another_ones(served):
    control, _, path = served
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        control.close()
        connect(path).close()


def test_where_the_socket_cannot_be_made_again_that_is_said_once_and_tried_until_it_can(looks_often, tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    inbox: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    turns = itertools.count()
    control = Control(folder / "c.sock", inbox.put, lambda: next(turns) and None)
    control.open()
    try:
        shutil.rmtree(folder)
        wait_for(lambda: any("cannot be made" in line for line in caplog.messages))
        later = next(turns) + 5
        wait_for(lambda: next(turns) > later)
        assert len([line for line in caplog.messages if "nobody reaches the daemon there" in line]) == 1
        folder.mkdir()
        wait_for(lambda: reaches(folder / "c.sock", inbox))
    finally:
        control.close()
