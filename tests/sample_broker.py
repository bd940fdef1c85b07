"""A broker as the samples set it up, and its users."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from certificates import make_certificates
from ports import free_port
from station import ROOT
from waiting import wait_for

from vajra_edge.config.settings import MqttSettings

SAMPLES = ROOT / "deploy" / "samples"
NEEDED = ("mosquitto", "mosquitto_passwd", "openssl")
USERS = ("gate-7", "gate-8", "homeassistant", "node-red")
PATH = f"{os.environ['PATH']}:/usr/sbin"


class SampleBroker:
    """Mosquitto with the samples as they are, but for the folder and the port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "certs").mkdir()
        make_certificates(folder / "certs")
        self._place("mosquitto.acl", "vajra-edge.acl")
        self._place("mosquitto.conf", "mosquitto.conf")
        for name in USERS:
            create = ["-c"] if name == USERS[0] else []
            command = ["mosquitto_passwd", *create, "-b", str(folder / "vajra-edge.users"), name, f"secret-{name}"]
            subprocess.run(command, check=True, capture_output=True)
            (folder / name).write_text(f"secret-{name}\n")
        with (folder / "log").open("ab") as log:
            program = shutil.which("mosquitto", path=PATH) or ""
            self.child = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
        wait_for(self._listens)

    def _place(self, sample: str, name: str) -> None:
        text = (SAMPLES / sample).read_text().replace("/etc/mosquitto", str(self.folder))
        text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        own = "\nuser root\n" if os.geteuid() == 0 and name.endswith(".conf") else ""
        (self.folder / name).write_text(text + own)
        (self.folder / name).chmod(0o600)

    def _listens(self) -> bool:
        assert self.child.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def settings(self, user: str) -> dict[str, Any]:
        """``[mqtt]`` of somebody."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "tls": True,
            "ca_file": str(self.folder / "certs" / "ca.crt"),
            "username": user,
            "password_file": str(self.folder / user),
        }

    def mqtt(self, user: str) -> MqttSettings:
        plain = self.settings(user)
        paths = {name: Path(plain[name]) for name in ("ca_file", "password_file")}
        return MqttSettings(**{**plain, **paths})

    def close(self) -> None:
        self.child.kill()
        self.child.wait()


def absent() -> str:
    """Programs that it needs and this machine lacks."""
    return ", ".join(name for name in NEEDED if shutil.which(name, path=PATH) is None)
