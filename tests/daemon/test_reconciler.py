"""Which answers hang on the calibration images, so that these are looked at until they are others."""

from __future__ import annotations

import errno
import queue
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import tiny
from waiting import LIMIT_S

from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.calibration_images import ImageWatch
from vajra_edge.daemon.events import BuildFailed, Fallback, Job, Unknown
from vajra_edge.daemon.reconciler import DesiredPlan, DesiredPlans, Reconciled, Reconciler
from vajra_edge.plans.history import History
from vajra_edge.plans.store import EngineStore


class Asker:
    """Asks, and waits for the answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.background = Background(self.inbox.put)
        self.background.start()
        store = EngineStore(folder / "state", 1 << 40)
        self.desired_plans = DesiredPlans(store, History(folder / "state"))
        self.looks = ImageWatch(self.background, folder / "state")
        self.reconciler = Reconciler(self.desired_plans, self.looks, self.background)
        (folder / "net.onnx").write_bytes(tiny.network())

    def settings(self, precision: str = "int8", *, lower: bool = True, **calibration: object) -> Settings:
        known = {"weights": {"path": str(self.folder / "net.onnx")}, "store": {"state_dir": str(self.folder / "state")}}
        engine = {"precision": precision, "allow_lower_precision": lower}
        return load(None, {**known, "engine": engine, "calibration": calibration})

    def ask(self, settings: Settings) -> Reconciled:
        self.reconciler.work_out(settings, None)
        reconciled = self.inbox.get(timeout=LIMIT_S)
        assert isinstance(reconciled, Reconciled)
        return reconciled

    def images(self) -> str:
        folder = self.folder / "mine"
        folder.mkdir()
        for seed in range(8):
            cv2.imwrite(str(folder / f"{seed}.png"), tiny.scene(seed=seed).image)
        return str(folder)


@pytest.fixture
def asker(tmp_path: Path):
    made = Asker(tmp_path)
    yield made
    assert made.background.close(LIMIT_S)


def test_int8_hangs_on_its_images_with_them_without_them_and_where_nothing_else_is_allowed(asker: Asker):
    absent = str(asker.folder / "nothing")
    assert asker.ask(asker.settings(data=asker.images())).looked
    assert "does not exist" in str(asker.ask(asker.settings(data=absent)).looked)
    forbidden = asker.ask(asker.settings(data=absent, lower=False))
    assert isinstance(forbidden.desired, Unknown)
    assert forbidden.looked


def test_no_other_precision_does_nor_int8_while_the_cameras_collect(asker: Asker):
    assert asker.ask(asker.settings("fp32")).looked is None
    assert asker.ask(asker.settings()).looked is None


def denied(*_args: object, **_more: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "/home/op/set")


@pytest.mark.parametrize("where", ["images.look", "calibrations.settle"])
def test_an_error_that_nobody_foresaw_is_an_answer_too_and_the_last_good_plan_may_serve(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, where: str
):
    monkeypatch.setattr(asker.desired_plans, "_good", lambda without: (SimpleNamespace(fingerprint="a" * 64), None))
    owner = asker.looks if where == "images.look" else asker.desired_plans.calibrations
    monkeypatch.setattr(owner, where.partition(".")[2], denied)
    reconciled = asker.ask(asker.settings())
    assert isinstance(reconciled.desired, Unknown)
    assert reconciled.desired.fallback == Fallback("a" * 64)
    assert "PermissionError" in reconciled.desired.reason
    assert "/home/op/set" in reconciled.desired.reason


def test_what_stands_in_the_way_of_the_last_good_plan_too_is_an_answer_all_the_same(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(asker.desired_plans, "work_out", denied)
    monkeypatch.setattr(asker.desired_plans, "_good", denied)
    desired = asker.ask(asker.settings()).desired
    assert isinstance(desired, Unknown)
    assert desired.fallback is None
    assert desired.reason.count("PermissionError") == 2


def test_only_the_build_of_the_wished_int8_plan_casts_doubt_on_images(asker: Asker):
    asked = asker.settings(data=asker.images())
    desired = asker.ask(asked).desired
    assert isinstance(desired, DesiredPlan)
    other = BuildFailed(Job(0, "0" * 64), "no", True, 0.0)
    assert not asker.reconciler.distrust_images(desired, other)
    assert not asker.reconciler.distrust_images(None, other)
    failed = BuildFailed(Job(1, desired.fingerprint.digest), "image 3 is damaged", True, 0.0)
    assert asker.reconciler.distrust_images(desired, failed)
    lowered = asker.ask(asked).desired
    assert isinstance(lowered, DesiredPlan)
    assert lowered.calibration == "int8 is not used: image 3 is damaged"
    assert not asker.reconciler.distrust_images(lowered, BuildFailed(Job(2, lowered.fingerprint.digest), "", True, 0.0))


def test_images_that_moved_are_tried_though_their_plan_would_be_the_same(asker: Asker):
    """What was restored from a backup is what it was, and so is the plan's name."""
    asked = asker.settings(data=asker.images())
    desired = asker.ask(asked).desired
    assert isinstance(desired, DesiredPlan)
    failed = BuildFailed(Job(1, desired.fingerprint.digest), "the disk was away", True, 0.0)
    assert asker.reconciler.distrust_images(desired, failed)
    lowered = asker.ask(asked).desired
    assert isinstance(lowered, DesiredPlan)
    assert lowered.calibration
    asker.reconciler.moved(asked, None)
    reconciled = asker.inbox.get(timeout=LIMIT_S)
    assert isinstance(reconciled, Reconciled)
    assert isinstance(reconciled.desired, DesiredPlan)
    assert reconciled.desired.fingerprint == desired.fingerprint
    assert reconciled.desired.calibration == ""


def test_only_what_no_watch_will_tell_is_asked_for_by_the_clock(asker: Asker, monkeypatch: pytest.MonkeyPatch):
    images = asker.ask(asker.settings(data=str(asker.folder / "nothing"), lower=False)).desired
    assert isinstance(images, Unknown)
    assert images.watched
    (asker.folder / "net.onnx").rename(asker.folder / "away.onnx")
    weights = asker.ask(asker.settings()).desired
    assert isinstance(weights, Unknown)
    assert weights.watched
    monkeypatch.setattr(asker.desired_plans, "work_out", denied)
    driver = asker.ask(asker.settings()).desired
    assert isinstance(driver, Unknown)
    assert not driver.watched
