from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from typing import ClassVar

import pytest
import tiny
from stored import commit

from vajra_edge import clock, device
from vajra_edge.backends import base
from vajra_edge.backends.base import BackendChoice
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.config.settings import load
from vajra_edge.daemon import reconciler
from vajra_edge.daemon.events import Fallback, Have, Unknown, Wanted
from vajra_edge.daemon.reconciler import DesiredPlans
from vajra_edge.errors import BackendUnavailable, UnsupportedSpec, WeightsError
from vajra_edge.plans.charges import ALONE_S, BESIDE_S, STRIKES, Charged
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.history import Cause, Follows, History
from vajra_edge.plans.spec import Precision, Target
from vajra_edge.plans.store import EngineStore


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(tiny.network())
    return path


@pytest.fixture
def store(tmp_path):
    return EngineStore(tmp_path / "state", 1 << 40)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "state")


@pytest.fixture
def desired_plans(store, history):
    return DesiredPlans(store, history)


@pytest.fixture
def settings(weights, tmp_path):
    def make(**sections):
        given = {"weights": {"path": str(weights)}, "store": {"state_dir": str(tmp_path / "state")}, **sections}
        return load(None, given)

    return make


def test_a_first_boot_wants_a_plan_that_is_missing(desired_plans, settings, weights):
    desired = desired_plans.work_out(settings())
    assert desired.event == Wanted(desired.fingerprint.digest, Have.MISSING)
    assert desired.request.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert desired.why() == ("no wanted plan served on this device yet",)
    assert desired.preview(None).needed is True


def test_a_stored_plan_is_ready_and_the_reason_for_another_is_told_in_words(desired_plans, settings, store):
    first = desired_plans.work_out(settings())
    store.mark_good(commit(store, first))
    assert desired_plans.work_out(settings()).event == Wanted(first.fingerprint.digest, Have.READY)
    other = desired_plans.work_out(settings(engine={"max_det": 50}))
    assert other.have is Have.MISSING
    assert other.fallback == Fallback(first.fingerprint.digest)
    assert other.why() == (
        "NMS iou 0.7, max_det 300, top_k 500 -> iou 0.7, max_det 50, top_k 500",
        "weights same",
    )


def test_the_reason_compares_with_the_plan_that_serves_before_it_counts_as_good(desired_plans, settings, store):
    served = desired_plans.work_out(settings(engine={"max_det": 50})).fingerprint
    desired = desired_plans.work_out(settings())
    difference = ("NMS iou 0.7, max_det 50, top_k 500 -> iou 0.7, max_det 300, top_k 500", "weights same")
    assert desired.why(served) == difference
    assert desired.preview(served.digest, served).why == tuple(difference)
    store.mark_good(commit(store, desired_plans.work_out(settings(engine={"batch": 2}))))
    assert desired_plans.work_out(settings()).why(served) == difference, "and not with the good one of before"


def damaged(store: EngineStore, desired) -> str:
    """A plan that served well and has other bytes by now."""
    name = commit(store, desired)
    store.mark_good(name)
    store.get(name).path.write_bytes(b"plam")
    return f"the stored plan {name[:12]} was damaged: its plan's SHA-256 differs"


def test_a_damaged_plan_is_the_reason_for_its_successor_until_that_is_there(desired_plans, settings, store):
    told = damaged(store, desired_plans.work_out(settings()))
    for desired in (desired_plans.work_out(settings()), desired_plans.work_out(settings())):
        assert (desired.have, desired.damage, desired.why()) == (Have.MISSING, told, (told,))
    commit(store, desired)
    desired = desired_plans.work_out(settings())
    assert (desired.have, desired.damage, desired.why()) == (Have.READY, "", ())


def test_damage_is_told_beside_what_differs_from_the_plan_that_serves_instead(desired_plans, settings, store):
    older = desired_plans.work_out(settings(engine={"max_det": 50}))
    store.mark_good(commit(store, older))
    told = damaged(store, desired_plans.work_out(settings()))
    desired = desired_plans.work_out(settings())
    assert desired.fallback == Fallback(older.fingerprint.digest)
    assert desired.why(older.fingerprint) == (told, *older.fingerprint.explain(desired.fingerprint))


def test_a_wish_that_cannot_be_known_tells_of_a_damaged_plan_too(desired_plans, settings, store):
    told = damaged(store, desired_plans.work_out(settings()))
    assert desired_plans.unknown("no weights") == Unknown(f"no weights; {told}")


def test_a_pinned_digest_that_does_not_fit_refuses_the_weights(desired_plans, settings, weights):
    asked = settings(weights={"path": str(weights), "sha256": "0" * 64})
    with pytest.raises(WeightsError, match="the settings ask for 0000"):
        desired_plans.work_out(asked)


def test_what_this_machine_cannot_build_is_refused_before_anything_starts(desired_plans, settings):
    with pytest.raises(UnsupportedSpec, match="ONNX Runtime"):
        desired_plans.work_out(settings(engine={"backend": "onnxruntime", "target": "dla:0"}))


def test_a_wish_that_cannot_be_known_offers_the_last_good_plan(desired_plans, settings, store):
    assert desired_plans.unknown("no weights") == Unknown("no weights")
    good = commit(store, desired_plans.work_out(settings()))
    store.mark_good(good)
    assert desired_plans.unknown("no weights") == Unknown("no weights", Fallback(good))


def test_a_plan_that_crashed_too_often_is_held_and_the_one_before_offered(desired_plans, settings, store, history):
    before = commit(store, desired_plans.work_out(settings(engine={"max_det": 50})))
    store.mark_good(before)
    crashing = commit(store, desired_plans.work_out(settings()))
    store.mark_good(crashing)
    for _ in range(STRIKES - 1):
        history.charge(crashing, Charged.CRASH, "SIGSEGV")
    assert desired_plans.work_out(settings()).have is Have.READY
    history.charge(crashing, Charged.CRASH, "SIGSEGV")
    desired = desired_plans.work_out(settings())
    assert (desired.have, desired.fallback) == (Have.HELD, Fallback(before))
    assert "waits: it crashed 3 times in 10 minutes (SIGSEGV); rebuild --force insists" in desired.rejected
    assert BESIDE_S[0] - 60 < desired.hold_s <= BESIDE_S[0]
    assert desired.event.hold_s == desired.hold_s
    history.acquit(crashing)
    assert desired_plans.work_out(settings()).have is Have.READY


def test_one_crash_at_load_holds_a_plan_and_the_one_before_serves_at_once(desired_plans, settings, store, history):
    before = commit(store, desired_plans.work_out(settings(engine={"max_det": 50})))
    store.mark_good(before)
    new = commit(store, desired_plans.work_out(settings()))
    history.charge(new, Charged.LOAD, "SIGSEGV")
    desired = desired_plans.work_out(settings())
    assert (desired.have, desired.fallback) == (Have.HELD, Fallback(before))


@pytest.mark.parametrize("charged", list(Charged))
def test_the_only_plan_waits_for_minutes_at_most_whatever_it_is_charged_with(
    desired_plans, settings, store, history, charged
):
    only = commit(store, desired_plans.work_out(settings()))
    store.mark_good(only)
    for _ in range(12):
        history.charge(only, charged, "no")
    desired = desired_plans.work_out(settings())
    assert (desired.have, desired.fallback) == (Have.HELD, None)
    assert 0 < desired.hold_s <= max(ALONE_S)


def test_of_two_good_plans_that_are_held_the_first_to_be_free_is_awaited(desired_plans, settings, store, history):
    plans = [commit(store, desired_plans.work_out(settings(engine={"max_det": count}))) for count in (50, 60)]
    for plan in plans:
        store.mark_good(plan)
    for plan, times in zip(plans, (2, 3), strict=True):
        for _ in range(times):
            history.charge(plan, Charged.LOAD, "SIGSEGV")
    desired = desired_plans.work_out(settings())
    assert (desired.have, desired.fallback) == (Have.MISSING, None)
    assert 0 < desired.event.again_in_s <= ALONE_S[1]
    unknown = desired_plans.unknown("no weights")
    assert unknown.fallback is None
    assert 0 < unknown.again_in_s <= ALONE_S[1]


def test_a_plan_whose_short_pause_is_over_serves_where_there_is_no_other(desired_plans, settings, store, tmp_path):
    good = commit(store, desired_plans.work_out(settings(engine={"max_det": 50})))
    store.mark_good(good)
    earlier = replace(clock.now(), boot_s=clock.now().boot_s - ALONE_S[0] - 1)
    DesiredPlans(store, History(tmp_path / "state", lambda: earlier))._history.charge(good, Charged.LOAD, "SIGSEGV")
    desired = DesiredPlans(store, History(tmp_path / "state")).work_out(settings())
    assert (desired.fallback, desired.again_in_s) == (Fallback(good), None)


def test_crashes_long_ago_do_not_count(desired_plans, settings, store, tmp_path):
    plan = commit(store, desired_plans.work_out(settings()))
    for hours in range(STRIKES):
        long_ago = replace(clock.now(), boot_s=clock.now().boot_s - 3600 * (STRIKES - hours))
        History(tmp_path / "state", lambda at=long_ago: at).charge(plan, Charged.CRASH, "SIGSEGV")
    assert desired_plans.work_out(settings()).have is Have.READY


def test_a_damaged_plan_is_told_to_the_history_until_its_successor_is_built(desired_plans, settings, store, history):
    desired = desired_plans.work_out(settings())
    plan = commit(store, desired)
    (store.root / "engines" / plan / "plan").write_bytes(b"?")
    assert desired_plans.work_out(settings()).have is Have.MISSING
    (damaged,) = history.failures()
    assert (damaged.fingerprint, damaged.cause, damaged.follows) == (plan, Cause.DAMAGE, Follows.REBUILD)
    commit(store, desired)
    desired_plans.work_out(settings())
    assert [one.follows for one in history.failures()] == [Follows.MENDED]


class Accelerator(TensorRT):
    """Stands for TensorRT, which no machine of ours has a GPU for: what matters here is only that its name differs."""

    name = "tensorrt"
    here: ClassVar = {"library": "TensorRT 10.3.0", "gpu": "Orin", "driver": "540.4.0", "power_mode": "MAXN"}

    def check(self, spec):
        return None

    def identity(self, spec):
        return self.here


@pytest.fixture
def accelerated(monkeypatch):
    def select(name, **options):
        backend = OnnxRuntime() if name == "onnxruntime" else Accelerator()
        return BackendChoice(backend, "as the test wants")

    monkeypatch.setattr(reconciler, "select", select)


@pytest.mark.parametrize("engine", [{}, {"precision": "fp16"}, {"target": "gpu:0", "precision": "int8"}])
def test_a_gpu_that_something_keeps_from_working_is_served_for_by_the_cpu_and_looked_at_again(
    desired_plans, settings, monkeypatch, engine
):
    reason = "Orin is seen and TensorRT 10.3.0 is installed, but CUDA has no driver here"
    monkeypatch.setattr(reconciler, "select", lambda name, **_: BackendChoice(OnnxRuntime(), reason, instead=True))
    desired = desired_plans.work_out(settings(engine=engine))
    assert (desired.request.backend, desired.request.spec.target) == ("onnxruntime", Target("cpu"))
    assert desired.request.spec.precision is Precision.FP32
    assert (desired.backend_reason, desired.event.instead) == (reason, True)


@pytest.fixture
def hidden_gpu(monkeypatch):
    """A machine with a GPU and onnxruntime-gpu, whose user wants this process to see none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seen = (device.Gpu(0, "NVIDIA L4", "8.9", "570.86"),)
    monkeypatch.setattr(device, "gpus", lambda *_: seen)
    monkeypatch.setattr(reconciler, "select", partial(base.select, gpus=lambda: seen))


def test_a_gpu_that_is_hidden_on_purpose_means_the_cpu_and_no_trouble(hidden_gpu, desired_plans, settings):
    desired = desired_plans.work_out(settings())
    assert (desired.request.backend, desired.request.spec.target) == ("onnxruntime", Target("cpu"))
    assert desired.backend_reason == "CUDA_VISIBLE_DEVICES hides every GPU"
    assert not desired.event.instead, "nothing is to be mended"


def test_a_gpu_that_is_hidden_and_asked_for_is_an_error_with_its_remedy(hidden_gpu, desired_plans, settings):
    with pytest.raises(UnsupportedSpec) as refused:
        desired_plans.work_out(settings(engine={"target": "gpu:0"}))
    assert str(refused.value) == (
        "gpu:0 is asked for, and CUDA_VISIBLE_DEVICES hides every GPU from this process; "
        "unset CUDA_VISIBLE_DEVICES, or set [engine] target = auto"
    )


def test_a_slow_first_build_is_bridged_by_a_quick_plan_on_the_cpu(accelerated, desired_plans, settings, store):
    desired = desired_plans.work_out(settings())
    assert desired.fallback
    assert not desired.fallback.ready
    quick = desired.request_of(desired.fallback.fingerprint)
    assert quick
    assert (quick.backend, quick.spec.target, quick.spec.precision) == ("onnxruntime", Target("cpu"), Precision.FP32)
    assert desired.request_of(desired.fingerprint.digest) is desired.request
    assert desired.request_of("0" * 64) is None
    stored = replace(desired, request=quick, fingerprint=Fingerprint.of(quick, OnnxRuntime().identity(quick.spec)))
    assert commit(store, stored) == desired.fallback.fingerprint
    again = desired_plans.work_out(settings())
    assert again.fallback == Fallback(desired.fallback.fingerprint, ready=True)
    assert again.interim(desired.fallback.fingerprint)
    assert not again.interim(again.fingerprint.digest)


def test_first_boot_wait_offers_no_quick_plan(accelerated, desired_plans, settings):
    assert desired_plans.work_out(settings(engine={"first_boot": "wait"})).fallback is None


def test_a_good_plan_is_preferred_to_a_quick_one(accelerated, desired_plans, settings, store):
    good = commit(store, desired_plans.work_out(settings(engine={"simplify": False})))
    store.mark_good(good)
    desired = desired_plans.work_out(settings())
    assert desired.fallback == Fallback(good)
    assert not desired.interim(good)


def test_other_figures_of_nms_want_the_plan_that_serves_where_nms_is_outside_it(
    accelerated, desired_plans, settings, store
):
    good = commit(store, desired_plans.work_out(settings()))
    store.mark_good(good)
    desired = desired_plans.work_out(settings(engine={"nms_iou": 0.5, "max_det": 50, "nms_top_k": 90}))
    assert (desired.fingerprint.digest, desired.have, desired.why()) == (good, Have.READY, ())


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        ({"library": "TensorRT 10.16.2"}, "TensorRT 10.3.0 -> 10.16.2"),
        ({"driver": "580.1"}, "driver 540.4.0 -> 580.1"),
        ({"gpu": "Thor"}, "gpu Orin -> Thor"),
    ],
)
def test_a_good_plan_of_another_machine_state_is_not_offered_but_a_quick_one(
    accelerated, desired_plans, settings, store, monkeypatch, caplog, moved, said
):
    good = commit(store, desired_plans.work_out(settings()))
    store.mark_good(good)
    monkeypatch.setattr(Accelerator, "here", {**Accelerator.here, **moved})
    caplog.set_level("INFO")
    desired = desired_plans.work_out(settings())
    assert desired.have is Have.MISSING
    assert desired.fallback
    assert (desired.fallback.fingerprint != good, desired.fallback.ready) == (True, False)
    assert desired.request_of(desired.fallback.fingerprint).backend == "onnxruntime"
    assert desired_plans.unknown("no weights") == Unknown("no weights")
    assert f"plan {good[:12]} does not serve meanwhile: {said}" in caplog.text
    assert store.get(good), "it is whole, and stays"


def test_a_good_plan_serves_meanwhile_on_a_machine_whose_identity_was_misread(
    accelerated, desired_plans, settings, store, monkeypatch
):
    good = commit(store, desired_plans.work_out(settings()))
    store.mark_good(good)
    monkeypatch.setattr(Accelerator, "here", {**Accelerator.here, "driver": ""})
    desired = desired_plans.work_out(settings())
    assert desired.have is Have.MISSING
    assert desired.fallback == Fallback(good)


def test_another_power_mode_makes_no_plan_unfit_to_serve_meanwhile(
    accelerated, desired_plans, settings, store, monkeypatch
):
    good = commit(store, desired_plans.work_out(settings()))
    store.mark_good(good)
    monkeypatch.setattr(Accelerator, "here", {**Accelerator.here, "power_mode": "15W"})
    desired = desired_plans.work_out(settings())
    assert (desired.have, desired.fallback) == (Have.MISSING, Fallback(good))


def test_a_good_plan_whose_library_does_not_load_yet_is_offered_for_its_load_tells(
    accelerated, desired_plans, settings, store, monkeypatch
):
    good = commit(store, desired_plans.work_out(settings()))
    store.mark_good(good)

    def gone(name, **options):
        raise BackendUnavailable("TensorRT is installed but does not load")

    monkeypatch.setattr(reconciler, "select", gone)
    assert desired_plans.unknown("TensorRT does not load").fallback == Fallback(good)
    assert desired_plans.unknown("TensorRT does not load", [good]).fallback is None


def test_what_did_not_load_is_not_offered_once_more(accelerated, desired_plans, settings, store):
    first = commit(store, desired_plans.work_out(settings(engine={"optimization_level": 1})))
    second = commit(store, desired_plans.work_out(settings(engine={"optimization_level": 2})))
    for plan in (first, second):
        store.mark_good(plan)
    failed = [second]
    assert desired_plans.work_out(settings(), without=failed).fallback == Fallback(first)
    assert desired_plans.unknown("no weights", failed).fallback == Fallback(first)
    failed.append(first)
    quick = desired_plans.work_out(settings(), without=failed).fallback
    assert quick
    assert not quick.ready
    assert desired_plans.work_out(settings(), without=[*failed, quick.fingerprint]).fallback is None
