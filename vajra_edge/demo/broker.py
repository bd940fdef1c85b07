"""Broker: the demo's own MQTT broker on loopback: mosquitto where it is installed, else amqtt.

Either runs as a child that ends with this process, so that its work never shares the pipeline's interpreter lock.
``python -m vajra_edge.demo.broker PORT`` is the amqtt child.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vajra_edge.errors import PublishError
from vajra_edge.wording import Setting, say

HOST = "127.0.0.1"
START_S = 15.0
_ATTEMPTS = 3
_DELIVERY_S = 0.005
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Broker:
    """A broker of our own.

    Args:
        kind: ``mosquitto`` or ``amqtt``; None: what is there, mosquitto first.
    """

    def __init__(self, kind: str | None = None) -> None:
        self._kind = kind
        self._child: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def protocol(self) -> str:
        """What ``[mqtt] protocol`` should say: amqtt knows 3.1.1 alone, and answers nothing else."""
        return "3.1.1" if (self._kind or _installed()) == "amqtt" else "auto"

    def open(self) -> tuple[str, int]:
        """Start it on a free port and wait until it listens; returns host and port.

        Raises:
            PublishError: neither broker is installed, or it does not start.
        """
        kind = self._kind or _installed()
        if kind is None:
            raise PublishError(
                "no MQTT broker for the demo: neither mosquitto nor amqtt is installed",
                remedy=say(
                    "pip install 'vajra-edge[demo]', or apt install mosquitto, or name one in ", Setting.MQTT_HOST
                ),
            )
        for _ in range(_ATTEMPTS):  # between choosing a port and binding it somebody may take it
            port = _free_port()
            if self._start(kind, port):
                return HOST, port
        said = self._log().read_text(errors="replace").strip().splitlines()
        self.close()
        raise PublishError(
            f"the demo's broker {kind} does not start: {said[-1] if said else 'it says nothing'}",
            remedy=say("name another broker in ", Setting.MQTT_HOST),
        )

    def close(self) -> None:
        """End it; may be called again."""
        self._end_child()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self, kind: str, port: int) -> bool:
        log = self._log()
        command = _mosquitto(log.with_name("conf"), port) if kind == "mosquitto" else _amqtt(port)
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; the broker must outlive our last message
                preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, through a library that is loaded already
            )
        started = self._wait_until_listening(port)
        if not started:
            self._end_child()
        return started

    def _wait_until_listening(self, port: int) -> bool:
        deadline_s = time.monotonic() + START_S
        while self._child is not None and self._child.poll() is None and time.monotonic() < deadline_s:
            if _listens(port):
                return self._child.poll() is None
            time.sleep(0.02)
        return False

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(2.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _log(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vajra-edge-broker-")
        return Path(self._folder.name) / "log"


def _installed() -> str | None:
    if _mosquitto_path() is not None:
        return "mosquitto"
    return "amqtt" if importlib.util.find_spec("amqtt") is not None else None


def _mosquitto_path() -> str | None:
    """Debian puts it into /usr/sbin, which is not on everybody's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _mosquitto(config: Path, port: int) -> list[str]:
    lines = [f"listener {port} {HOST}", "allow_anonymous true", "persistence false"]
    if os.geteuid() == 0:
        lines.append("user root")  # changing the user would undo PR_SET_PDEATHSIG
    config.write_text("\n".join(lines) + "\n")
    return [_mosquitto_path() or "mosquitto", "-c", str(config)]


def _amqtt(port: int) -> list[str]:
    return [sys.executable, "-m", "vajra_edge.demo.broker", str(port)]


_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel sends the child SIGTERM when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker as Amqtt
    from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler

    leave = BrokerProtocolHandler.wait_disconnect

    async def deliver_then_leave(handler: Any) -> Any:
        """Amqtt acknowledges what it queues and drops that queue when the client leaves: 18 of 20 messages, once."""
        outcome = await leave(handler)
        while handler.session is not None and not handler.session.delivered_message_queue.empty():  # noqa: ASYNC110  a queue has no event for being empty
            await asyncio.sleep(_DELIVERY_S)
        return outcome

    BrokerProtocolHandler.wait_disconnect = deliver_then_leave
    broker = Amqtt(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    await asyncio.Event().wait()  # until a signal: there is nothing to save, and amqtt's own shutdown hangs on 3.12


if __name__ == "__main__":
    asyncio.run(_serve_amqtt(int(sys.argv[1])))
