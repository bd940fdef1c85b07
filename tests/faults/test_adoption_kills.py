"""SIGKILL of the daemon, or of who asked, at each point of an adoption: a plan serves afterwards, and it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import tiny
from signed import Signer
from station import ROOT, Station
from waiting import wait_for

from vajra_edge.bundles.shelf import Shelf
from vajra_edge.demo.broker import Broker

pytestmark = pytest.mark.long("a daemon is killed at each point of an adoption, minutes; the shelf is tried always")

POINTS = {
    "chosen": lambda station, status: Shelf(station.state_dir).candidate is not None,
    "building": lambda station, status: status["engine"]["building"],
    "on probation": lambda station, status: status["engine"]["on_probation"],
}


@pytest.fixture
def station(tmp_path):
    broker = Broker()
    made = Station(tmp_path, broker.open()[1])
    try:
        yield made
    finally:
        made.stop()
        broker.close()


def adopting(station: Station, path: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vajra_edge", "bundle", "adopt", str(path), "--config", str(station.config)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def served_before(station: Station, signer: Signer) -> str:
    """A daemon that serves what it had before its first key came."""
    station.spawn()
    old = station.serving()
    station.stop()
    station.settings["weights"]["keys"] = str(signer.keys)
    station.spawn()
    assert station.serving() == old
    return old


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("killed", ["daemon", "asker"])
def test_a_kill_at_any_point_loses_nothing_that_serves_and_the_adoption_ends(tmp_path, station, point, killed):
    signer = Signer(tmp_path / "signer")
    old = served_before(station, signer)
    path = signer.make(tiny.network(gain=30.0))
    asker = adopting(station, path)
    wait_for(lambda: POINTS[point](station, station.status()), step_s=0.1)
    if killed == "daemon":
        station.process.kill()
        station.process.wait()
        station.spawn()
    else:
        asker.kill()
        asker.communicate()
        asker = adopting(station, path)
    assert station.serving()
    told, _ = asker.communicate(timeout=200.0)
    assert (asker.returncode, json.loads(told)["outcome"]) == (0, "serving")
    assert station.serving() != old
    shelf = Shelf(station.state_dir)
    assert shelf.candidate is None
    assert [one.name for one in shelf.root.iterdir() if one.is_dir() and not one.is_symlink()] == [shelf.current]
