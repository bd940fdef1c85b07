"""INT8 in the whole daemon: images of its own cameras, one rebuild, what is published meanwhile; snapshots."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from station import Station
from waiting import wait_for

from vajra_edge.__main__ import main
from vajra_edge.build import refusals
from vajra_edge.config.settings import MqttSettings
from vajra_edge.daemon import calibration_images, deployment, missed_precisions, state_machine
from vajra_edge.daemon.build_process import Builder
from vajra_edge.errors import ControlError
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.quantization import camera_samples

MOST = 8


def draw(folder: Path, count: int, objects: int) -> str:
    folder.mkdir(parents=True)
    for seed in range(count):
        cv2.imwrite(str(folder / f"{seed:02}.png"), tiny.scene(objects=objects, seed=seed).image)
    return str(folder)


@pytest.fixture
def quantizable(station: Station, tmp_path: Path) -> Station:
    """A daemon that wants INT8 of a network that gains by it, and whose camera sees 24 scenes."""
    station.write_weights(tiny.network(channels=16))
    station.camera("gate", source=draw(tmp_path / "street", 24, 8))
    station.settings["engine"] = {"precision": "int8"}
    station.settings["calibration"] = {"max_images": MOST, "sample_s": 0.05}
    return station


def jobs(station: Station) -> int:
    assert station.supervisor
    return station.supervisor._s.jobs


def test_int8_serves_fp32_collects_from_its_cameras_freezes_and_is_built_once(quantizable: Station):
    quantizable.settings["calibration"]["sample_s"] = 60.0  # the second image comes when this test says so
    ears = quantizable.listen("engine")
    station = quantizable.start()
    first = station.until(lambda status: status["engine"]["serving"])
    assert first["engine"]["serving"]["precision"] == "fp32"
    assert first["engine"]["serving"]["wanted_precision"] == "int8"
    waiting = re.compile(
        rf"collecting [1-8] of {MOST} calibration images for int8, \d+ boxes since .*; waits for .* hours"
    )
    said = ears.until(lambda _, content: content["fingerprint"] and waiting.search(content["why"]))
    assert (said["precision"], said["wanted_precision"]) == ("fp32", "int8")
    assert f"of {MOST} calibration images for int8" in station.supervisor.status().line()
    station.write(calibration={"sample_s": 0.05})
    last = station.until(lambda status: status["engine"]["serving"]["precision"] == "int8")
    assert last["engine"]["calibration"] == ""
    assert last["engine"]["serving"]["verify"]["judged"]
    assert "held out of calibration" in last["engine"]["serving"]["verify"]["source"]
    assert last["reason"] == ""
    assert ears.until(lambda _, content: content["precision"] == "int8")["wanted_precision"] == "int8"
    assert jobs(station) == 4, "two builds and two loads"
    assert len(list((station.state_dir / camera_samples.FOLDER).glob("*.jpg"))) == MOST
    ears.close()
    assert station.stop() == 0
    station.start()
    again = station.until(lambda status: status["phase"] == "serving")
    assert again["engine"]["serving"]["fingerprint"] == last["engine"]["serving"]["fingerprint"]
    time.sleep(1.0)
    assert jobs(station) == 1, "what was built once is not built at every boot"


def test_images_may_be_deleted_after_their_work_is_done(quantizable: Station):
    station = quantizable.start()
    old = station.until(lambda status: (status["engine"]["serving"] or {}).get("precision") == "int8")
    assert station.stop() == 0
    shutil.rmtree(station.state_dir / camera_samples.FOLDER)
    station.settings["calibration"]["cameras"] = False
    station.start()
    status = station.until(lambda status: status["phase"] == "serving")
    assert status["engine"]["serving"]["fingerprint"] == old["engine"]["serving"]["fingerprint"]
    assert status["reason"] == ""
    assert jobs(station) == 1
    assert not (station.state_dir / camera_samples.FOLDER).exists()


def test_images_deleted_under_a_running_daemon_are_collected_anew_while_their_plan_serves(quantizable: Station):
    station = quantizable.start()
    old = station.until(lambda status: (status["engine"]["serving"] or {}).get("precision") == "int8")
    station.write(calibration={"sample_s": 2.0})
    assert main(["calibration", "--config", str(station.config), "--delete"]) == 0
    anew = station.until(lambda status: "of 8 calibration images for int8" in status["engine"]["calibration"])
    assert anew["phase"] == "serving"
    assert anew["engine"]["serving"]["fingerprint"] == old["engine"]["serving"]["fingerprint"]
    wait_for(lambda: len(list((station.state_dir / camera_samples.FOLDER).glob("*.jpg"))) > 1)


def test_int8_without_images_and_without_cameras_serves_fp32_and_says_what_to_set(quantizable: Station):
    quantizable.settings["calibration"]["cameras"] = False
    ears = quantizable.listen("engine")
    station = quantizable.start()
    status = station.until(lambda status: status["phase"] == "serving")
    assert "names none and [calibration] cameras = false" in status["reason"]
    assert status["engine"]["serving"]["precision"] == "fp32"
    assert status["engine"]["serving"]["wanted_precision"] == "int8"
    reason = "int8 is not used: precision = int8 needs images"
    said = ears.until(lambda _, content: content["fingerprint"] and reason in content["why"])
    assert (said["wanted_precision"], said["precision"]) == ("int8", "fp32")
    ears.close()
    station.write(calibration={"cameras": True})
    assert "collecting" in station.until(lambda status: not status["reason"])["engine"]["calibration"]


def test_where_no_other_precision_is_allowed_the_daemon_waits_for_its_images_and_says_so(
    quantizable: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration_images, "LOOK_S", 0.3)
    quantizable.settings["calibration"] = {"data": str(tmp_path / "later")}
    quantizable.settings["engine"] |= {"allow_lower_precision": False, "first_boot": "wait"}
    station = quantizable.start()
    status = station.until(lambda status: status["phase"] == "blocked")
    assert "int8 cannot be calibrated" in status["reason"]
    assert "set [engine] allow_lower_precision = true" in status["reason"]
    Path(draw(tmp_path / "copied", 24, 8)).rename(tmp_path / "later")
    assert station.until(lambda status: status["engine"]["serving"])["engine"]["serving"]["precision"] == "int8"


def test_images_that_the_disk_does_not_give_leave_the_last_good_plan_serving_until_it_does(
    rebooted: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    away = threading.Event()
    away.set()
    wanted_set = calibration_images.camera_samples.wanted_set

    def stale(*args: Any) -> Any:
        if away.is_set():
            raise OSError(errno.ESTALE, "Stale file handle")
        return wanted_set(*args)

    monkeypatch.setattr(state_machine, "RETRY_S", (0.3,))
    monkeypatch.setattr(calibration_images.camera_samples, "wanted_set", stale)
    rebooted.settings["engine"] = {"precision": "int8"}
    rebooted.settings["calibration"] = {"data": draw(tmp_path / "images", 24, 8)}
    station = rebooted.start()
    status = station.until(lambda status: status["phase"] == "serving")
    assert status["engine"]["serving"]["precision"] == "fp32"
    assert "Stale file handle" in status["reason"]
    away.clear()
    last = station.until(lambda status: status["engine"]["serving"]["fingerprint"] == status["engine"]["wanted"])
    assert last["engine"]["serving"]["wanted_precision"] == "int8"
    assert last["reason"] == ""


def test_a_damaged_image_leaves_fp32_serving_with_the_reason_until_it_is_mended(
    quantizable: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration_images, "LOOK_S", 0.3)
    folder = Path(draw(tmp_path / "images", 24, 8))
    good = (folder / "07.png").read_bytes()
    (folder / "07.png").write_bytes(b"no picture")
    quantizable.settings["calibration"] = {"data": str(folder)}
    quantizable.settings["engine"]["first_boot"] = "wait"
    ears = quantizable.listen("engine")
    station = quantizable.start()
    status = station.until(lambda status: status["phase"] == "serving")
    assert status["engine"]["serving"]["precision"] == "fp32"
    assert "07.png" in status["reason"]
    said = ears.until(lambda _, content: content["fingerprint"] and "07.png" in content["why"])
    assert (said["wanted_precision"], said["precision"]) == ("int8", "fp32")
    assert "int8 is not used: " in said["why"]
    before = jobs(station)
    time.sleep(1.5)
    assert jobs(station) == before, "the same images are not tried again and again"
    with pytest.raises(ControlError, match=r"07\.png"):
        station.ask(verb="rebuild")
    station.until(lambda status: "int8 is not used" in status["reason"] and not status["engine"]["building"])
    (folder / "07.png").write_bytes(good)
    last = station.until(lambda status: status["engine"]["serving"]["precision"] == "int8")
    assert last["reason"] == ""
    serving = last["engine"]["serving"]["fingerprint"][:12]
    int8 = ears.until(lambda _, content: content["fingerprint"] == serving)
    assert int8["int8"]["macs_share"] > 0.5
    assert int8["verify"]["recall"] > 0.9
    (folder / "07.png").write_bytes(b"damaged again")
    before = jobs(station)
    with pytest.raises(ControlError, match=r"07\.png|changed since"):
        station.ask(verb="rebuild", force=True)
    status = station.until(lambda status: not status["engine"]["building"])
    assert status["engine"]["serving"]["precision"] == "int8"
    assert status["engine"]["retry_in_s"] is None
    assert jobs(station) == before + 1
    ears.close()


def test_names_of_images_that_are_no_utf8_are_shown_escaped_and_stop_nothing(quantizable: Station, tmp_path: Path):
    """As an old camera or another system's archive writes them."""
    folder = Path(draw(tmp_path / "images", 24, 8))
    latin = folder / os.fsdecode(b"caf\xe9.png")
    good = (folder / "07.png").read_bytes()
    (folder / "07.png").rename(latin)
    latin.write_bytes(b"no picture")
    quantizable.settings["calibration"] = {"data": str(folder)}
    quantizable.settings["engine"]["first_boot"] = "wait"
    ears = quantizable.listen("engine")
    station = quantizable.start()
    ears.until(lambda _, content: content["fingerprint"] and "caf\\udce9.png" in content["why"])
    status = station.until(lambda status: status["phase"] == "serving")
    assert "caf\\udce9.png" in status["reason"]
    latin.write_bytes(good)
    station.until(lambda status: status["engine"]["serving"]["precision"] == "int8")
    ears.close()


def test_a_folder_that_is_being_written_to_is_used_once_it_stays_as_it_is(
    quantizable: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration_images, "LOOK_S", 0.5)
    folder = Path(draw(tmp_path / "images", 24, 8))
    picture, full, numbers = (folder / "00.png").read_bytes(), threading.Event(), itertools.count(100)
    look = calibration_images.look

    def copy_one() -> None:
        number = next(numbers)
        (folder / f"{number}.png").write_bytes(picture + bytes(str(number), "ascii"))

    def copy() -> None:
        while not full.wait(0.05):
            copy_one()

    def looked(*about: Any) -> str:
        """Between two looks there is always one more, however seldom the thread that copies has its turn."""
        if not full.is_set():
            copy_one()
        return look(*about)

    monkeypatch.setattr(calibration_images, "look", looked)
    copying = threading.Thread(target=copy)
    quantizable.settings["calibration"] = {"data": str(folder), "max_images": 24}
    quantizable.settings["engine"]["first_boot"] = "wait"
    copying.start()
    try:
        station = quantizable.start()
        status = station.until(lambda status: status["phase"] == "serving")
        assert status["engine"]["serving"]["precision"] == "fp32"
        assert "changed since the build was asked for; they are used once nobody changes them" in status["reason"]
        time.sleep(4.0)
        assert jobs(station) == 3, "a build that failed, and FP32's build and load"
    finally:
        full.set()
        copying.join()
    last = station.until(lambda status: status["engine"]["serving"]["precision"] == "int8")
    assert last["reason"] == ""
    assert jobs(station) == 5


def test_an_int8_build_that_is_killed_twice_gives_way_to_fp32_with_the_reason(
    quantizable: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(state_machine, "RETRY_S", (0.2,))
    command = [sys.executable, str(Path(__file__).parent / "killed_build.py")]
    monkeypatch.setattr(deployment.build_process, "Builder", functools.partial(Builder, command=command))
    quantizable.settings["calibration"] = {"data": draw(tmp_path / "images", 24, 8)}
    quantizable.settings["engine"]["first_boot"] = "wait"
    station = quantizable.start()
    status = station.until(lambda status: status["phase"] == "serving")
    assert "int8 is not used: the build child was killed by SIGKILL" in status["reason"]
    serving = status["engine"]["serving"]
    assert (serving["wanted_precision"], serving["precision"]) == ("int8", "fp32")
    assert jobs(station) == 4, "two that were killed, one that was not, and a load"
    time.sleep(1.0)
    assert jobs(station) == 4
    assert station.stop() == 0
    station.start()
    told = "its build ended the process twice; another try may do better: vajra-edge rebuild --force"
    station.until(lambda status: any(told in one for one in (status["engine"]["serving"] or {}).get("rejected", ())))


def test_int8_that_memory_was_short_for_is_tried_again_a_few_times_and_serves_once_there_is_enough(
    quantizable: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(missed_precisions, "LOOK_S", 0.1)
    monkeypatch.setattr(refusals, "RETRY_AFTER_S", (600.0,))
    enough = tmp_path / "enough"
    command = [sys.executable, str(Path(__file__).parent / "short_build.py"), str(enough)]
    monkeypatch.setattr(deployment.build_process, "Builder", functools.partial(Builder, command=command))
    quantizable.settings["calibration"] = {"data": draw(tmp_path / "images", 24, 8)}
    quantizable.settings["engine"]["first_boot"] = "wait"
    ears = quantizable.listen("engine")
    station = quantizable.start()
    told = "int8 by Q/DQ was missed: too little memory; stop other programs; it is tried again after "
    first = station.until(lambda status: told in status["reason"])
    assert first["engine"]["serving"]["precision"] == "fp32"
    assert jobs(station) == 2
    monkeypatch.setattr(refusals, "RETRY_AFTER_S", (0.0, 0.0))
    ears.until(lambda _, content: "too little memory; stop other programs; it is tried again now" in content["why"])
    ears.close()
    vain = station.until(lambda status: "tried 2 times more in vain" in status["reason"])
    assert vain["engine"]["serving"] == first["engine"]["serving"], "the plan that served goes on"
    assert vain["engine"]["last_error"] == ""
    assert jobs(station) == 4, "two builds more and no load"
    time.sleep(1.0)
    assert jobs(station) == 4
    enough.touch()
    monkeypatch.setattr(refusals, "RETRY_AFTER_S", (0.0, 0.0, 0.0))
    last = station.until(lambda status: status["engine"]["serving"]["precision"] == "int8")
    assert last["engine"]["serving"]["fingerprint"] == first["engine"]["serving"]["fingerprint"]
    assert station.until(lambda status: not status["reason"])["phase"] == "serving"
    assert jobs(station) == 6


def test_int8_that_cannot_be_judged_is_not_promoted_and_this_is_published(quantizable: Station, tmp_path: Path):
    images = draw(tmp_path / "empty street", 12, 1)
    quantizable.settings["calibration"] = {"data": images}
    quantizable.settings["engine"]["first_boot"] = "wait"
    ears = quantizable.listen("engine")
    station = quantizable.start()
    engine = station.until(lambda status: status["engine"]["serving"])["engine"]
    assert (engine["serving"]["wanted_precision"], engine["serving"]["precision"]) == ("int8", "fp32")
    assert engine["serving"]["rejected"][0].startswith("int8 is not used: not judged, fewer than 20 boxes")
    said = ears.until(lambda _, content: "int8 is not used: not judged, fewer than 20 boxes" in content["why"])
    assert (said["wanted_precision"], said["precision"]) == ("int8", "fp32")
    ears.close()
    assert jobs(station) == 2


def test_a_quick_plan_serves_while_a_slow_build_goes_on(
    quantizable: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go = tmp_path / "go"
    command = [sys.executable, str(Path(__file__).parent / "slow_build.py"), str(go), "int8"]
    monkeypatch.setattr(deployment.build_process, "Builder", functools.partial(Builder, command=command))
    quantizable.settings["calibration"] = {"data": draw(tmp_path / "images", 24, 8)}
    ears = quantizable.listen("camera/gate/detections")
    station = quantizable.start()
    quick = ears.detections()["engine"]
    assert quick["precision"] == "fp32"
    building = station.until(lambda status: status["engine"]["building"] and status["engine"]["serving"])["engine"]
    assert building["building"]["fingerprint"] == building["wanted"] != building["serving"]["fingerprint"]
    station.until(lambda status: status["engine"]["building"]["stage"] == "build")
    assert ears.detections(5)["engine"] == quick
    go.touch()
    swapped = ears.until(lambda _, content: content["engine"] != quick)["engine"]
    assert (swapped["precision"], swapped["fingerprint"]) == ("int8", building["wanted"][:12])
    assert station.status()["engine"]["serving"]["fingerprint"] == building["wanted"]
    ears.close()


@contextmanager
def snapshots_of(station: Station) -> Iterator[list[np.ndarray]]:
    """The pictures of the gate, as they come."""
    subscription = Subscription(MqttSettings(host="127.0.0.1", port=station.port), ["vajra/test/camera/gate/snapshot"])
    heard: list[np.ndarray] = []
    try:
        wait_for(lambda: subscription.poll(0.02) is not None and subscription.ready)
        station.hear = lambda: heard.extend(  # type: ignore[attr-defined]
            cv2.imdecode(np.frombuffer(item.payload, np.uint8), cv2.IMREAD_COLOR) for item in subscription.poll(0.02)
        )
        yield heard
    finally:
        subscription.close()


def test_snapshots_come_at_their_interval_and_the_setting_applies_in_place(rebooted: Station):
    rebooted.camera("gate", snapshot_every_s=0.5)
    with snapshots_of(rebooted) as heard:
        began_s = time.monotonic()
        rebooted.start()
        rebooted.serving()
        gate = rebooted.grabber("gate")
        wait_for(lambda: rebooted.hear() or len(heard) >= 8)
        assert heard[0].shape == (256, 256, 3)
        assert len(heard) <= 1 + (time.monotonic() - began_s) / 0.5, "two a second, however late they are heard"
        del rebooted.settings["cameras"]["gate"]["snapshot_every_s"]
        rebooted.write()
        wait_for(lambda: rebooted.supervisor._known.settings.cameras[0].snapshot_every_s is None)

        def quiet() -> bool:
            """Some may still be under way when the setting is known."""
            count = len(heard)
            time.sleep(1.5)
            rebooted.hear()
            return len(heard) == count

        wait_for(quiet)
        count = len(heard)
        rebooted.camera("gate", snapshot_every_s=0.2)
        rebooted.write()
        wait_for(lambda: rebooted.hear() or len(heard) > count + 2)
    assert rebooted.parts.cameras._grabbers["gate"] is gate, "the camera was not reopened"
    assert jobs(rebooted) == 1
