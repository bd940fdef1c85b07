from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from waiting import is_alive, wait_for

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo import broker as module
from vajra_edge.demo.broker import Broker
from vajra_edge.errors import PublishError
from vajra_edge.mqtt.subscriber import Subscription


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["mosquitto", "amqtt"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto" and not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")):
        pytest.skip("absent here: mosquitto")
    return str(request.param)


def test_it_serves_on_loopback_in_the_protocol_it_names(kind: str) -> None:
    broker = Broker(kind)
    host, port = broker.open()
    try:
        with Subscription(MqttSettings(host=host, port=port, protocol=broker.protocol), ["a"]) as subscription:
            wait_for(lambda: subscription.poll(0.05) is None or subscription.ready)
    finally:
        broker.close()
    assert host == "127.0.0.1"
    assert not is_listening(port)
    broker.close()


def test_it_ends_with_the_process_that_made_it(kind: str) -> None:
    code = (
        "import sys, time; from vajra_edge.demo.broker import Broker; "
        "broker = Broker(sys.argv[1]); print(*broker.open(), broker._child.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, kind], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        port, child = (int(word) for word in owner.stdout.readline().split()[1:])
    assert is_listening(port)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_for(lambda: not is_alive(child))
    assert not is_listening(port)


def test_ctrl_c_at_the_terminal_does_not_reach_it(kind: str) -> None:
    broker = Broker(kind)
    broker.open()
    try:
        assert broker._child is not None
        assert os.getpgid(broker._child.pid) != os.getpgid(0)
    finally:
        broker.close()


def test_where_neither_is_installed_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_installed", lambda: None)
    with pytest.raises(PublishError, match=r"pip install 'vajra-edge\[demo\]'"):
        Broker().open()


def test_a_broker_that_does_not_start_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]
    monkeypatch.setattr(module, "_amqtt", lambda _port: failing)
    broker = Broker("amqtt")
    with pytest.raises(PublishError, match="no such option"):
        broker.open()
    assert broker._folder is None
