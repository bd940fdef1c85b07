from __future__ import annotations

import os
import socket
import sys
import types

import pytest

from vajra_edge.daemon.systemd import Notify, connect


@pytest.fixture(params=["file", "abstract"])
def systemd(request, tmp_path):
    """What listens at NOTIFY_SOCKET, and the variable's value."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        name = str(tmp_path / "notify") if request.param == "file" else f"@vajra-edge-test-{os.getpid()}"
        sock.bind(name.replace("@", "\0", 1))
        yield sock, {"NOTIFY_SOCKET": name}


@pytest.fixture
def without_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "systemd", None)


def test_the_words_reach_systemd_over_our_own_socket(systemd, without_library):
    sock, environ = systemd
    notify = connect(environ)
    notify.ready("building 0%")
    notify.status("building\n43%")
    notify.status("building\n43%")
    notify.watchdog()
    notify.reloading(now_s=12.5)
    notify.extend(2.0)
    notify.stopping("draining")
    assert [sock.recv(1000).decode() for _ in range(6)] == [
        "READY=1\nSTATUS=building 0%",
        "STATUS=building 43%",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "EXTEND_TIMEOUT_USEC=2000000",
        "STOPPING=1\nSTATUS=draining",
    ]


def test_systemds_own_library_is_used_where_it_is_installed(monkeypatch):
    sent = []
    library = types.ModuleType("systemd")
    library.daemon = types.SimpleNamespace(notify=sent.append)
    monkeypatch.setitem(sys.modules, "systemd", library)
    connect({"NOTIFY_SOCKET": "/run/systemd/notify"}).watchdog()
    assert sent == ["WATCHDOG=1"]


def test_our_folder_named_systemd_is_not_taken_for_the_library(monkeypatch, tmp_path, systemd):
    sock, environ = systemd
    (tmp_path / "repo" / "systemd").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "repo"))
    monkeypatch.delitem(sys.modules, "systemd", raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", environ["NOTIFY_SOCKET"])  # where systemd-python, if installed, looks
    connect(environ).watchdog()
    assert sock.recv(100) == b"WATCHDOG=1"
    sys.modules.pop("systemd", None)


def test_without_systemd_nobody_is_told_and_nothing_fails():
    notify = connect({})
    assert notify.watchdog_s is None
    notify.ready("serving")


def test_a_socket_that_is_gone_is_logged_and_raises_nothing(tmp_path, caplog, without_library):
    connect({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("serving")
    assert "systemd was not told READY=1" in caplog.text


@pytest.mark.parametrize(
    ("environ", "expected_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "15000000"}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_counts_only_where_it_is_meant_for_this_process(without_library, environ, expected_s):
    assert connect({"NOTIFY_SOCKET": "@none", **environ}).watchdog_s == expected_s


def test_a_status_is_one_line_of_bounded_length():
    sent = []
    Notify(sent.append).status("x" * 10_000 + "\nREADY=1")
    assert "\n" not in sent[0]
    assert len(sent[0]) < 600
