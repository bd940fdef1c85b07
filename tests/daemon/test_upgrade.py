"""A device in the field: the present version starts on the settings and the state directory that 0.1.0 left.

``state_0_1_0/README.md`` says which versions wrote them, and how. In 0.1.0 outbox and counters are in memory: on the
disk are the settings file and, below the state directory, key, plans, strikes, rejections, ranges and pictures.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
import tiny
from station import Station
from waiting import wait_for

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.daemon import deployment, state_machine
from vajra_edge.daemon.build_process import Builder
from vajra_edge.plans import signing
from vajra_edge.plans.history import Cause, History
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.plans.store import EngineStore

LEFT = Path(__file__).parent / "state_0_1_0"
NEW = {"build.lock", "running", "running.held", "daemon.lock"}
"""Files that every process writes for itself."""


@dataclass(frozen=True)
class Device:
    """What 0.1.0 left; the present version has not been started.

    Attributes:
        station: the daemon.
        go: its build child waits for this file before it is done.
        good: fingerprint of the plan that served last and well.
        rejected: fingerprints of plans that crashed three times.
    """

    station: Station
    go: Path
    good: str
    rejected: frozenset[str]

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.station.state_dir.rglob("*") if path.is_file() and path.name not in NEW)
        return {str(path.relative_to(self.station.state_dir)): path.read_bytes() for path in found}


@pytest.fixture(params=["first-fp32", "last-fp32", "first-int8", "last-int8"])
def device(request: pytest.FixtureRequest, station: Station, monkeypatch: pytest.MonkeyPatch) -> Device:
    with tarfile.open(LEFT / f"{request.param}.tar.gz") as archive:
        archive.extractall(station.folder, filter="data")
    build_here(station.state_dir)
    move_here(station)
    monkeypatch.setattr(station, "write", lambda: None)  # the settings stay as 0.1.0 had them
    go = station.folder / "go"
    command = [sys.executable, str(Path(__file__).parent / "slow_build.py"), str(go), request.param.partition("-")[2]]
    monkeypatch.setattr(deployment.build_process, "Builder", functools.partial(Builder, command=command))
    told = station.state_dir / "rejected.json"
    rejected = frozenset(json.loads(told.read_bytes()) if told.exists() else ())
    return Device(station, go, (station.state_dir / "current").readlink().name, rejected)


def build_here(state_dir: Path) -> None:
    """As if the plans had been built on this machine: those of another processor or library are rightly not loaded."""
    key, here = (state_dir / "store.key").read_bytes(), OnnxRuntime().identity(EngineSpec())
    for path in state_dir.glob("engines/*/manifest.json"):
        plain = json.loads(path.read_bytes())["manifest"]
        fingerprint = plain["fingerprint"]
        fingerprint["parts"] = [[label, here.get(label, value)] for label, value in fingerprint["parts"]]
        path.write_text(json.dumps({"hmac": signing._mac(plain, key), "manifest": plain}))


def move_here(station: Station) -> None:
    """The folder that the settings name, the broker's port, and what the cameras of INT8 see."""
    text = station.config.read_text()
    folder = re.search(r'path = "(.+)/net.onnx"', text)
    assert folder
    text = re.sub(r"port = \d+", f"port = {station.port}", text.replace(folder[1], str(station.folder)))
    station.config.write_text(text)
    street = station.folder / "street"
    street.mkdir()
    for seed in range(24):
        cv2.imwrite(str(street / f"{seed:02}.png"), tiny.scene(objects=8, seed=seed).image)


def test_the_old_plan_serves_until_its_successor_is_built_and_no_message_is_lost_between_them(device: Device):
    ears = device.station.listen()
    device.station.start()
    old = ears.detections()["engine"]
    assert old["fingerprint"] == device.good[:12]
    engine = device.station.until(lambda status: status["engine"]["building"])["engine"]
    assert engine["serving"]["fingerprint"] == device.good
    assert engine["building"]["fingerprint"] == engine["wanted"] not in {device.good, *device.rejected}
    assert any(reason.startswith("passes ") for reason in engine["why"])
    assert ears.detections(5)["engine"] == old
    device.go.touch()
    is_new = lambda path, content: path.endswith("/detections") and content["engine"] != old  # noqa: E731
    new = ears.until(is_new)["engine"]
    assert (new["fingerprint"], new["precision"]) == (engine["wanted"][:12], old["precision"])
    heard = [content for path, content, _ in ears.all() if path.endswith("/detections")]
    assert [message["seq"] for message in heard] == list(range(heard[0]["seq"], heard[0]["seq"] + len(heard)))
    names = [message["engine"]["fingerprint"] for message in heard]
    assert names == sorted(names, key=[old["fingerprint"], new["fingerprint"]].index)
    states = [content["state"] for path, content, _ in ears.heard if path == "status"]
    assert set(states[states.index("serving") :]) == {"serving"}
    status = device.station.status()
    assert (status["phase"], status["reason"]) == ("serving", "")
    ears.close()


def test_all_that_the_device_knew_is_kept(device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state_machine, "PROBATION_S", 0.5)
    before = device.files()
    struck = {name: len(times) for name, times in json.loads(before.get("strikes.json", b"{}")).items()}
    device.go.touch()
    station = device.station.start()
    wanted = station.until(lambda status: status["engine"]["wanted"])["engine"]["wanted"]
    wait_for(lambda: (station.state_dir / "current").readlink().name == wanted)
    assert station.stop() == 0
    after = device.files()
    assert {name: after.get(name) for name in before} == before
    added = {Path(name).parts[:2] for name in after.keys() - before.keys()}
    own = {("engines", wanted), ("calibration", "ranges"), ("broker.json",), ("outbox", "outbox.sqlite")}
    own |= {("history.jsonl",), ("history.lock",), ("told_cameras.json",)}
    assert added <= own, "no picture is collected anew"
    store, history = EngineStore(station.state_dir, 1 << 40), History(station.state_dir)
    assert not [name for name in store.plans() if history.hold(name)], "it charged whichever plan served"
    told = {one.fingerprint: len(one.times_s) for one in history.failures() if one.cause is Cause.CRASH}
    assert told == struck
    good = store.previous()
    assert good
    assert good.fingerprint == device.good
    assert good.read()
