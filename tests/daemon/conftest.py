"""The station, with a broker and, where a test wants it, a store that has the plan already."""

from __future__ import annotations

import faulthandler
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from station import Station

from vajra_edge.demo.broker import Broker


@pytest.fixture(scope="session")
def broker() -> Iterator[int]:
    """The port of a real broker that all tests share."""
    broker = Broker()
    try:
        yield broker.open()[1]
    finally:
        broker.close()


@pytest.fixture
def station(tmp_path: Path, broker: int) -> Iterator[Station]:
    """A daemon that has not been started, with an empty store."""
    station = Station(tmp_path, broker)
    try:
        yield station
    finally:
        station.stop()
        faulthandler.enable(sys.__stderr__)  # the daemon in this process took it and let it go


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, broker: int) -> Path:
    """A state folder whose store has served the tiny network, made by a first boot."""
    station = Station(tmp_path_factory.mktemp("built"), broker).start()
    try:
        station.serving()
    finally:
        station.stop()
    return station.state_dir


@pytest.fixture
def rebooted(station: Station, built: Path) -> Station:
    """A daemon that has not been started, with the plan of its weights in the store."""
    shutil.copytree(built, station.state_dir, symlinks=True)
    return station
