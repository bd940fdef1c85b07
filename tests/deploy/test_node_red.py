"""The sample flow in a real Node-RED, and Frigate's events in a node that somebody made for those."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from sample_broker import SAMPLES, SampleBroker
from station import Station
from waiting import LIMIT_S, wait_for
from walk import LEFT, STREET, walk

NODE_RED = ("node-red@4.1.15", "node-red-contrib-frigate-events@0.1.3")
ROOT = Path(os.environ.get("NODE_RED_ROOT", "/var/tmp/vajra-edge-node-red"))
SETTINGS = """module.exports = {{
  uiHost: "127.0.0.1", uiPort: {port}, flowFile: "flows.json", credentialSecret: false,
  telemetry: {{ enabled: false, updateNotification: false }},
  editorTheme: {{ tours: false }}, logging: {{ console: {{ level: "info" }} }},
}};
"""

pytestmark = [
    pytest.mark.long("downloads and runs Node-RED, which needs npm"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="absent here: npm"),
    pytest.mark.timeout(1800),
]


class NodeRed:
    """A Node-RED of the test's own, which keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.port, self.log = free_port(), folder / "node-red.log"
        (folder / "settings.js").write_text(SETTINGS.format(port=self.port))
        (folder / "package.json").write_text('{"name": "flows", "private": true}')
        (folder / "node_modules").mkdir()
        contrib = NODE_RED[1].rpartition("@")[0]
        (folder / "node_modules" / contrib).symlink_to(ROOT / "node_modules" / contrib)
        program = ROOT / "node_modules" / ".bin" / "node-red"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen([str(program), "--userDir", str(folder)], stdout=log, stderr=log)
        wait_for(lambda: self.said("Started flows") or self.child.poll() is not None)
        assert self.child.poll() is None, self.log.read_text()

    def import_flow(self, nodes: list[dict[str, Any]]) -> None:
        """As the editor's button Deploy does."""
        headers = {"Content-Type": "application/json", "Node-RED-Deployment-Type": "full"}
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/flows", json.dumps(nodes), headers)
        assert connection.getresponse().status == 204
        connection.close()

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def until(self, text: str) -> None:
        try:
            wait_for(lambda: self.said(text))
        except AssertionError as error:
            raise AssertionError(self.log.read_text(errors="replace")[-3000:]) from error

    def close(self) -> None:
        self.child.terminate()
        self.child.wait()


@pytest.fixture(scope="module")
def installed() -> None:
    """The folder with Node-RED in it; made once on a machine."""
    if all((ROOT / "node_modules" / one.rpartition("@")[0] / "package.json").exists() for one in NODE_RED):
        return
    ROOT.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--omit=dev", "--prefix", str(ROOT), *NODE_RED]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def node_red(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeRed]:
    node_red = NodeRed(tmp_path_factory.mktemp("node-red"))
    yield node_red
    node_red.close()


@pytest.fixture
def gate_7(sample_broker: SampleBroker, tmp_path: Path) -> Iterator[Station]:
    """The device of the samples, before whose camera somebody walks."""
    station = Station(tmp_path, sample_broker.port)
    station.settings["device_id"] = "gate-7"
    station.camera("gate", source=str(walk(tmp_path / "walk")), fps=2.0, zones=[LEFT], lines=[STREET])
    more = {"outputs": ["frigate"], "frigate_prefix": "frigate/gate-7"}
    station.settings["mqtt"] = {**sample_broker.settings("gate-7"), **more}
    try:
        yield station
    finally:
        station.stop()


def sample_flow(broker: SampleBroker) -> list[dict[str, Any]]:
    """As it is, with the broker filled in by hand."""
    nodes: list[dict[str, Any]] = json.loads((SAMPLES / "node-red-flow.json").read_text())
    for node in nodes:
        if node["type"] == "mqtt-broker":
            node |= {"broker": "127.0.0.1", "port": str(broker.port)}
            node["credentials"] = {"user": "node-red", "password": "secret-node-red"}
        elif node["type"] == "tls-config":
            node["ca"] = str(broker.folder / "certs" / "ca.crt")
    return nodes


def test_the_flow_hears_people_who_enters_who_crosses_and_what_is_not_well(
    node_red: NodeRed, sample_broker: SampleBroker, gate_7: Station
) -> None:
    node_red.import_flow(sample_flow(sample_broker))
    node_red.until("Connected to broker")
    gate_7.spawn()
    for name in ("people", "entered", "crossed"):
        node_red.until(f"[debug:{name}]")
    assert node_red.said("people: 1")
    assert gate_7.process is not None
    gate_7.process.send_signal(signal.SIGKILL)
    gate_7.process.wait(LIMIT_S)
    node_red.until("[debug:not well]")
    node_red.until("the device left without a word")
    assert not node_red.said("[error]")


def test_a_node_that_was_made_for_frigates_events_reads_ours(
    node_red: NodeRed, sample_broker: SampleBroker, gate_7: Station
) -> None:
    known = [node for node in sample_flow(sample_broker) if node["type"] in ("tab", "tls-config", "mqtt-broker")]
    heard = {"id": "in", "type": "mqtt in", "z": "vajra.tab", "topic": "frigate/gate-7/events", "qos": "0"}
    heard |= {"datatype": "json", "broker": "vajra.broker", "rh": 0, "rap": True, "wires": [["zone"]]}
    zone = {"id": "zone", "type": "frigate-zone-transition", "z": "vajra.tab", "label": "person", "camera": "gate"}
    zone |= {"fromZone": "", "toZone": "left", "exclusive": True, "wires": [["said"], []]}
    said = {"id": "said", "type": "debug", "z": "vajra.tab", "name": "moved", "active": True, "console": True}
    said |= {"tosidebar": False, "complete": "payload.after.entered_zones", "targetType": "msg", "wires": []}
    node_red.import_flow([*known, heard, zone, said])
    node_red.until("Connected to broker")
    gate_7.spawn()
    node_red.until("[debug:moved]")
    node_red.until("[ 'left' ]")
    assert not node_red.said("[error]")
