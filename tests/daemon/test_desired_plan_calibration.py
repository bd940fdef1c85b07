"""What is wanted where INT8 is asked for: with images, without them, and with images that did their work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import cv2
import pytest
import tiny
from stored import commit

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.events import Have
from vajra_edge.daemon.reconciler import DesiredPlans
from vajra_edge.errors import CalibrationError, UnsupportedSpec
from vajra_edge.plans.charges import STRIKES, Charged
from vajra_edge.plans.history import PLANS_KEPT, History
from vajra_edge.plans.spec import Precision
from vajra_edge.plans.store import EngineStore
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.camera_samples import Sampler
from vajra_edge.types import Frame

Make = Callable[..., Settings]


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "state", 1 << 40)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "state")


@pytest.fixture
def desired_plans(store: EngineStore, history: History) -> DesiredPlans:
    return DesiredPlans(store, history)


@pytest.fixture
def settings(tmp_path: Path) -> Make:
    weights = tmp_path / "net.onnx"
    weights.write_bytes(tiny.network())

    def make(precision: str = "int8", engine: dict[str, object] | None = None, **calibration: object) -> Settings:
        given = {"weights": {"path": str(weights)}, "store": {"state_dir": str(tmp_path / "state")}}
        return load(None, {**given, "engine": {"precision": precision, **(engine or {})}, "calibration": calibration})

    return make


def collect(state_dir: Path, seeds: range) -> Sampler:
    images = Sampler(state_dir / camera_samples.FOLDER, most=len(seeds))
    for seed in seeds:
        images.offer(Frame(tiny.scene(seed=seed).image, 0, datetime.now(timezone.utc), seed, "gate"), 6)
    return images


def test_without_images_the_next_precision_that_runs_here_is_wanted_meanwhile(
    desired_plans: DesiredPlans, settings: Make
):
    desired = desired_plans.work_out(settings())
    assert (desired.request.spec.precision, desired.request.calibration_digest) == (Precision.FP32, None)
    assert desired.fingerprint == desired_plans.work_out(settings("fp32")).fingerprint


def test_fp16_is_that_precision_where_the_backend_has_it(
    desired_plans: DesiredPlans, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(OnnxRuntime, "check", lambda self, spec: None)
    assert desired_plans.work_out(settings()).request.spec.precision is Precision.FP16


def test_images_change_nothing_until_they_are_frozen_and_then_everything(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path
):
    before = desired_plans.work_out(settings()).fingerprint
    images = collect(tmp_path / "state", range(8))
    assert desired_plans.work_out(settings()).fingerprint == before
    frozen = images.freeze()
    desired = desired_plans.work_out(settings())
    assert (desired.request.spec.precision, desired.request.calibration_digest) == (Precision.INT8, frozen.digest)
    assert desired.have is Have.MISSING
    assert desired_plans.work_out(settings()).fingerprint == desired.fingerprint


def test_switching_the_cameras_off_leaves_a_frozen_set_and_its_plan(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path
):
    collect(tmp_path / "state", range(8)).freeze()
    desired = desired_plans.work_out(settings())
    off = desired_plans.work_out(settings(cameras=False))
    assert off.request.spec.precision is Precision.INT8
    assert off.fingerprint == desired.fingerprint


def test_named_images_are_wanted_at_once_and_other_images_are_another_plan(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path
):
    folder = collect(tmp_path / "mine", range(8)).folder
    desired = desired_plans.work_out(settings(data=str(folder)))
    assert desired.request.spec.precision is Precision.INT8
    cv2.imwrite(str(folder / "9.jpg"), tiny.scene(seed=9).image)
    assert desired_plans.work_out(settings(data=str(folder))).fingerprint != desired.fingerprint


def too_few(settings: Make, folder: Path) -> Settings:
    return settings(engine={"batch": 9}, data=str(collect(folder, range(8)).folder))


def absent(settings: Make, folder: Path) -> Settings:
    return settings(data=str(folder / "nothing"))


def without_pictures(settings: Make, folder: Path) -> Settings:
    folder.mkdir()
    (folder / "read.me").write_text("soon")
    return settings(data=str(folder))


def damaged_list(settings: Make, folder: Path) -> Settings:
    images = collect(folder.parent / "state", range(8))
    images.freeze()
    (images.folder / camera_samples.FROZEN).write_bytes(b"[")
    return settings()


def most_deleted(settings: Make, folder: Path) -> Settings:
    images = collect(folder.parent / "state", range(8))
    images.freeze()
    for path in sorted(images.folder.glob("*.jpg"))[:5]:
        path.unlink()
    return settings()


def none_named(settings: Make, folder: Path) -> Settings:
    del folder
    return settings(cameras=False)


UNUSABLE = {
    too_few: "8 calibration images, fewer than the batch of 9",
    absent: "does not exist",
    without_pictures: "calibration images: ",
    damaged_list: "frozen.json is damaged",
    most_deleted: "3 of the 8 calibration images",
    none_named: r"names none and [calibration] cameras = false; name some in [calibration] data",
}


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
def test_images_that_cannot_be_used_leave_the_next_precision_wanted_with_the_reason(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path, make: Callable[[Make, Path], Settings]
):
    desired = desired_plans.work_out(make(settings, tmp_path / "mine"))
    assert (desired.request.spec.precision, desired.request.calibration_digest) == (Precision.FP32, None)
    assert desired.calibration.startswith("int8 is not used: ")
    assert UNUSABLE[make] in desired.calibration
    assert desired.preview(None).calibration == desired.calibration


def test_unusable_images_leave_fp16_wanted_where_the_backend_has_it(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(OnnxRuntime, "check", lambda self, spec: None)
    assert desired_plans.work_out(absent(settings, tmp_path)).request.spec.precision is Precision.FP16


def test_where_no_other_precision_is_allowed_unusable_images_are_an_error_with_both_remedies(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path
):
    asked = settings(engine={"allow_lower_precision": False}, data=str(tmp_path / "nothing"))
    with pytest.raises(CalibrationError, match=r"does not exist.*set \[engine\] allow_lower_precision = true"):
        desired_plans.work_out(asked)


def test_a_stored_plan_of_earlier_images_is_better_than_another_precision(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, tmp_path: Path
):
    folder = collect(tmp_path / "mine", range(8)).folder
    plan = commit(store, desired_plans.work_out(settings(data=str(folder))))
    shutil.rmtree(folder)
    desired = desired_plans.work_out(settings(data=str(folder)))
    assert (desired.fingerprint.digest, desired.have) == (plan, Have.READY)
    assert desired.calibration.startswith("int8 keeps the ranges of earlier images: ")


def two_plans(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, folder: Path
) -> tuple[Settings, str, str]:
    """Of other images each, which are gone; what asks for them, the older plan and the newer one."""
    asked = settings(data=str(folder))
    plans = []
    for count in (8, 9):
        collect(folder, range(count))
        plans.append(commit(store, desired_plans.work_out(asked)))
    shutil.rmtree(folder)
    newer = store.root / "engines" / plans[1]
    os.utime(newer, (newer.stat().st_atime, newer.stat().st_mtime + 10))
    return asked, *plans


def test_of_earlier_images_the_plan_that_served_last_and_well_is_kept(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, tmp_path: Path
):
    asked, older, newer = two_plans(desired_plans, settings, store, tmp_path / "mine")
    assert desired_plans.work_out(asked).fingerprint.digest == newer
    store.mark_good(older)
    assert desired_plans.work_out(asked).fingerprint.digest == older


@pytest.mark.parametrize("how", [Charged.UNFIT, Charged.CRASH])
def test_a_plan_of_earlier_images_that_failed_in_service_is_passed_over(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, history: History, tmp_path: Path, how: Charged
):
    asked, older, newer = two_plans(desired_plans, settings, store, tmp_path / "mine")
    for _ in range(STRIKES):
        history.charge(newer, how, "no")
    desired = desired_plans.work_out(asked)
    assert (desired.fingerprint.digest, desired.have) == (older, Have.READY)


def test_images_that_failed_in_a_build_are_tried_again_when_they_change_or_somebody_insists(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path
):
    folder = collect(tmp_path / "mine", range(8)).folder
    asked = settings(data=str(folder))
    first = desired_plans.work_out(asked)
    desired_plans.calibrations.distrust(first.fingerprint.digest, "calibration image 3 of 8 cannot be decoded")
    lowered = desired_plans.work_out(asked)
    assert lowered.request.spec.precision is Precision.FP32
    assert lowered.calibration == "int8 is not used: calibration image 3 of 8 cannot be decoded"
    assert desired_plans.work_out(asked, trusting=True).fingerprint == first.fingerprint, "asked what would be"
    assert desired_plans.work_out(asked).fingerprint == lowered.fingerprint
    cv2.imwrite(str(folder / "9.jpg"), tiny.scene(seed=9).image)
    assert desired_plans.work_out(asked).request.spec.precision is Precision.INT8
    (folder / "9.jpg").unlink()
    assert desired_plans.work_out(asked).fingerprint == lowered.fingerprint
    desired_plans.calibrations.trust()
    assert desired_plans.work_out(asked).fingerprint == first.fingerprint


def test_while_images_are_in_doubt_no_others_are_tried_but_a_plan_that_is_there_may_serve(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, tmp_path: Path
):
    asked = settings(data=str(collect(tmp_path / "mine", range(8)).folder))
    lowered = desired_plans.work_out(asked, doubt="they changed since")
    assert lowered.request.spec.precision is Precision.FP32
    assert lowered.calibration == "int8 is not used: they changed since"
    desired = desired_plans.work_out(asked)
    assert desired.request.spec.precision is Precision.INT8
    commit(store, desired)
    again = desired_plans.work_out(asked, doubt="they changed since")
    assert (again.fingerprint, again.have, again.calibration) == (desired.fingerprint, Have.READY, "")


def test_of_ever_new_images_that_fail_only_the_last_ones_are_remembered(
    desired_plans: DesiredPlans, settings: Make, tmp_path: Path
):
    asked = settings(data=str(collect(tmp_path / "mine", range(8)).folder))
    first = desired_plans.work_out(asked)
    desired_plans.calibrations.distrust(first.fingerprint.digest, "damaged")
    for number in range(PLANS_KEPT - 1):
        desired_plans.calibrations.distrust(f"{number:064}", "damaged")
    assert desired_plans.work_out(asked).request.spec.precision is Precision.FP32
    desired_plans.calibrations.distrust("f" * 64, "damaged")
    assert desired_plans.work_out(asked).fingerprint == first.fingerprint


def test_images_that_failed_once_are_trusted_where_their_plan_is_there(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, tmp_path: Path
):
    asked = settings(data=str(collect(tmp_path / "mine", range(8)).folder))
    desired = desired_plans.work_out(asked)
    desired_plans.calibrations.distrust(desired.fingerprint.digest, "the network disk was away")
    commit(store, desired)
    assert desired_plans.work_out(asked).have is Have.READY


def test_a_stored_plan_stays_wanted_when_its_images_are_deleted(
    desired_plans: DesiredPlans, settings: Make, store: EngineStore, tmp_path: Path
):
    images = collect(tmp_path / "state", range(8))
    images.freeze()
    plan = commit(store, desired_plans.work_out(settings()))
    shutil.rmtree(images.folder)
    for given in (settings(), settings(cameras=False)):
        desired = desired_plans.work_out(given)
        assert (desired.fingerprint.digest, desired.have) == (plan, Have.READY)
    (tmp_path / "net.onnx").write_bytes(tiny.network(gain=30.0))
    assert desired_plans.work_out(settings()).request.spec.precision is Precision.FP32, (
        "other weights need images again"
    )


def test_nothing_is_collected_for_an_int8_that_cannot_be_built_here(
    desired_plans: DesiredPlans, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(OnnxRuntime, "check", lambda self, spec: UnsupportedSpec("no INT8 here"))
    with pytest.raises(UnsupportedSpec, match="no INT8 here"):
        desired_plans.work_out(settings())
