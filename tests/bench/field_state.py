"""Make a state directory as a device in the field has it, by the daemon of another checkout.

    PYTHONPATH=CHECKOUT:CHECKOUT/tests python tests/bench/field_state.py fp32 OUT.tar.gz

``fp32``: three plans one after another; the second crashes once, the third three times and is rejected.
``int8``: an INT8 plan, calibrated on pictures of its own camera.
"""

from __future__ import annotations

import signal
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
import tiny
from station import Station, wait_for

from vajra_edge.demo.broker import Broker


def serving(station: Station) -> str:
    status = station.until(lambda status: status["engine"]["serving"])
    return status["engine"]["serving"]["fingerprint"]


def change(station: Station, gain: float) -> str:
    """Retrained weights; returns the plan that serves them."""
    old = serving(station)
    station.write_weights(tiny.network(64, gain=gain))
    wait_for(lambda: serving(station) != old)
    return serving(station)


def crash(station: Station) -> None:
    assert station.process
    station.process.send_signal(signal.SIGSEGV)
    station.process.wait()
    station.process = None
    station.spawn()
    serving(station)


def is_current(station: Station, fingerprint: str) -> bool:
    link = station.state_dir / "current"
    return link.is_symlink() and link.readlink().name == fingerprint


def fp32(station: Station) -> None:
    station.write_weights(tiny.network(64))
    station.spawn()
    serving(station)
    good = change(station, 30.0)
    wait_for(lambda: is_current(station, good))
    crash(station)
    change(station, 40.0)
    for _ in range(3):
        crash(station)
    assert serving(station) == good
    station.write_weights(tiny.network(64, gain=30.0))
    station.until(lambda status: status["engine"]["wanted"] == good)


def int8(station: Station) -> None:
    street = station.folder / "street"
    street.mkdir()
    for seed in range(24):
        cv2.imwrite(str(street / f"{seed:02}.png"), tiny.scene(objects=8, seed=seed).image)
    station.write_weights(tiny.network(channels=16))
    station.camera("gate", source=str(street))
    station.settings["engine"] = {"precision": "int8"}
    station.settings["calibration"] = {"max_images": 8, "sample_s": 0.05}
    station.spawn()
    station.until(lambda status: (status["engine"]["serving"] or {}).get("precision") == "int8")
    wait_for(lambda: is_current(station, serving(station)))


def main(kind: str, out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker()
        station = Station(Path(folder), broker.open()[1])
        try:
            {"fp32": fp32, "int8": int8}[kind](station)
        finally:
            station.stop()
            broker.close()
        with tarfile.open(out, "w:gz") as archive:
            for name in ("state", "net.onnx", "config.toml"):
                archive.add(Path(folder) / name, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
