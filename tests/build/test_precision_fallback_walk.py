"""The walk down the ladder, over a library that refuses what it is told to refuse and a clock of its own."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from build.ladder_standin import BUILD_S, Standin

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.build import accuracy_check, attempt, refusals
from vajra_edge.build.attempt import Graph
from vajra_edge.build.outcome import Cancelled, Outcome, Proved, Unproved
from vajra_edge.build.precision_fallback import CALIBRATOR_LEFT_OUT, PLACEMENTS, WALK_SHARE, prove
from vajra_edge.build.progress import Stages
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import (
    BuildCancelled,
    BuildError,
    CalibrationError,
    GraphError,
    InferenceError,
    OutOfMemory,
    PlanError,
    StoreError,
    UnsupportedSpec,
    VerifyError,
)
from vajra_edge.graph.assemble import assemble
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans import caches
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.report import NO_PLAN, Int8Report, PlanReport, TensorRTReport
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision
from vajra_edge.progress import Progress
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.calibration_set import CalibrationSet

QDQ, CALIBRATOR = "int8 qdq", "int8 calibrator"
NO = BuildError("no tactic")
NAMED = BuildError("no tactic", layer="no such layer")
"""Only what names layers is remembered."""


def quiet(_: Progress) -> None:
    pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSettings:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), tiny.scene(objects=12, seed=seed).image)
    return CalibrationSettings(data=folder)


@pytest.fixture
def request_(tmp_path: Path, pictures: CalibrationSettings, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """INT8 by whichever route; the static rules choose the layers, for that takes no time."""
    monkeypatch.setattr(attempt, "Calibration", functools.partial(attempt.Calibration, search=False))
    weights = tmp_path / "tiny.onnx"
    weights.write_bytes(tiny.network(channels=16))
    spec = EngineSpec(nms=NmsSpec(max_det=20, top_k=30), precision=Precision.INT8, simplify=False)
    request = BuildRequest(
        weights, weights_digest(weights), "onnxruntime", spec, tmp_path / "state", 1 << 30, threads=1,
        calibration=pictures, timeout_s=100_000.0,
    )  # fmt: skip
    return replace(request, calibration_digest=images_of(request).digest)


def images_of(request: BuildRequest) -> CalibrationSet:
    made = camera_samples.wanted_set(request.calibration, request.state_dir, request.spec.batch)
    assert made is not None
    return made


def graph_of(request: BuildRequest) -> Graph:
    return Graph(*assemble(request.weights_path.read_bytes(), request.spec))


def ended(request: BuildRequest, library: Standin, report: Callable[[Progress], None] = quiet) -> Outcome:
    images = images_of(request) if request.spec.precision is Precision.INT8 else None
    return prove(request, library, graph_of(request), Stages(report), images, clock=library.clock)


def walked(request: BuildRequest, library: Standin, report: Callable[[Progress], None] = quiet) -> Proved:
    """A walk that leads to a plan."""
    outcome = ended(request, library, report)
    assert isinstance(outcome, Proved)
    return outcome


def failed(request: BuildRequest, library: Standin) -> Unproved:
    """A walk that leads to none."""
    outcome = ended(request, library)
    assert isinstance(outcome, Unproved)
    return outcome


def above(request: BuildRequest, library: Standin, precision: Precision = Precision.FP16) -> Outcome:
    """A walk while a plan of a lower precision serves."""
    images = images_of(request)
    return prove(
        request, library, graph_of(request), Stages(quiet), images, clock=library.clock, above=precision
    )  # fmt: skip


def missed(request: BuildRequest, library: Standin) -> str | None:
    found = refusals.Refusals(request.state_dir, digest_of(request, library), library.release).missed
    return found.reason if found else None


def digest_of(request: BuildRequest, library: Standin) -> str:
    return Fingerprint.of(request, library.identity(request.spec)).digest


def wanting(request: BuildRequest, **spec: Any) -> BuildRequest:
    return replace(request, spec=replace(request.spec, **spec))


def remembered(request: BuildRequest) -> list[Path]:
    folder = request.state_dir / caches.REFUSALS.path
    return list(folder.iterdir()) if folder.exists() else []


def reasons(proved: Proved) -> list[tuple[str, str]]:
    return [(one.rung, one.reason) for one in proved.rejected]


def test_what_the_library_refuses_gives_way_to_the_other_route_and_then_to_fp16(request_: BuildRequest):
    library = Standin(answers={QDQ: [NO], CALIBRATOR: [GraphError("cannot read this graph")]})
    proved = walked(request_, library)
    assert library.rungs == [QDQ, CALIBRATOR, "fp16"]
    assert proved.passed.built.precision is Precision.FP16
    assert reasons(proved) == [
        ("int8 by Q/DQ", "no tactic"),
        ("int8 by the library's calibrator", "cannot read this graph"),
    ]
    assert [one.seconds for one in proved.rejected] == [BUILD_S, BUILD_S]


def test_a_calibrator_gets_the_fp32_graph_and_the_images_that_are_not_held_out(request_: BuildRequest):
    library = Standin(answers={QDQ: [NO]})
    proved = walked(request_, library)
    assert str(proved.passed.rung) == "int8 by the library's calibrator"
    first, second = library.asked
    assert (first.images, bool(first.quantized)) == (None, True)
    assert (second.images, second.quantized) == (4, frozenset())


def test_a_route_that_is_named_is_the_only_one(request_: BuildRequest):
    library = Standin(answers={CALIBRATOR: [NO]})
    walked(wanting(request_, quantization="calibrator"), library)
    assert library.rungs == [CALIBRATOR, "fp16"]


class Drifting(Standin):
    """A library whose INT8 plans give every class of every anchor a lower score: no box is lost by it."""

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> onnxruntime.OnnxRunner:
        runner = super().load(plan, signature, spec)
        if spec.precision is Precision.INT8:
            infer = runner.infer

            def raised(batch: np.ndarray) -> np.ndarray:
                output = infer(batch).copy()
                output[:, 4:] *= 0.9
                return output

            runner.infer = raised  # type: ignore[method-assign]
        return runner


def test_a_plan_that_passes_the_gate_and_drifts_is_refused_by_what_it_computes_itself(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    loose = replace(accuracy_check.BOUNDS[Precision.INT8], score_drift=1.0)
    monkeypatch.setitem(accuracy_check.BOUNDS, Precision.INT8, loose)
    raw = replace(request_, spec=replace(request_.spec, nms=None))
    assert walked(raw, Standin(ways=("calibrator",))).passed.built.precision is Precision.INT8
    outcome = walked(raw, Drifting(ways=("calibrator",)))
    assert outcome.passed.built.precision is Precision.FP16
    assert "the int8 plan drifts from FP32" in outcome.rejected[0].reason


@pytest.mark.parametrize("values", [{"layers": ("mean2", "mean3")}, {"layers": ["mean3", "mean1_q"]}])
def test_layers_that_the_error_names_stay_out_of_int8_in_the_next_build(
    request_: BuildRequest, values: dict[str, object]
):
    library = Standin(answers={QDQ: [BuildError("no tactic", **values)]})
    proved = walked(request_, library)
    assert library.rungs == [QDQ, QDQ]
    assert library.asked[0].quantized - library.asked[1].quantized == {"mean2", "mean3"}
    assert str(proved.passed.rung) == "int8 by Q/DQ with 2 refused layers in fp16"
    high = proved.passed.built.report.int8.high
    assert [name for name, reason in high.items() if "refuses it in INT8" in reason] == ["mean2", "mean3"]


def test_placements_are_bounded(request_: BuildRequest):
    refusing = [BuildError("no tactic", layer=f"mean{number}") for number in range(5)]
    library = Standin(ways=("qdq",), answers={QDQ: list(refusing)})
    walked(request_, library)
    assert library.rungs == [QDQ] * (1 + PLACEMENTS) + ["fp16"]
    assert [len(one.quantized) for one in library.asked[:3]] == [5, 4, 3]


@pytest.mark.parametrize("layer", ["no such layer", "logits", None])
def test_a_name_that_leads_to_no_layer_in_int8_costs_no_further_build(request_: BuildRequest, layer: str | None):
    library = Standin(ways=("qdq",), answers={QDQ: [BuildError("no tactic", layer=layer)]})
    walked(request_, library)
    assert library.rungs == [QDQ, "fp16"]


def refuse_checks(monkeypatch: pytest.MonkeyPatch, *precisions: Precision) -> None:
    """The gate finds that plans of these precisions disagree."""
    real = attempt.accuracy_check.verify

    def judge(candidate: Any, reference: Any, frames: Any, bounds: Any, *rest: Any) -> Any:
        if any(bounds is attempt.accuracy_check.BOUNDS[precision] for precision in precisions):
            raise VerifyError("it finds other boxes", report={"judged": True})
        return real(candidate, reference, frames, bounds, *rest)

    monkeypatch.setattr(attempt.accuracy_check, "verify", judge)


def test_what_this_machine_lacks_gives_way_and_is_tried_again_next_time(request_: BuildRequest):
    library = Standin(answers={QDQ: [UnsupportedSpec("no compiler for this core")]})
    assert str(walked(request_, library).passed.rung) == "int8 by the library's calibrator"
    assert walked(request_, Standin()).rejected == ()


@pytest.mark.parametrize("error", [PlanError("refused"), InferenceError("a kernel failed")])
def test_a_fresh_plan_that_does_not_load_gives_way_and_is_tried_again_next_time(
    request_: BuildRequest, error: Exception
):
    library = Standin(loads={QDQ: error})
    assert str(walked(request_, library).passed.rung) == "int8 by the library's calibrator"
    assert walked(request_, Standin()).rejected == ()


def test_a_cancel_ends_the_walk_at_once_and_is_no_refusal(request_: BuildRequest):
    library = Standin(answers={QDQ: [BuildCancelled("asked")]})
    assert ended(request_, library) == Cancelled("asked")
    assert library.rungs == [QDQ]
    assert not remembered(request_)


def test_a_cancel_through_the_report_ends_the_walk_too(request_: BuildRequest):
    def stop(progress: Progress) -> None:
        if progress.stage == "build" and progress.percent:
            raise BuildCancelled("asked")

    library = Standin()
    assert ended(request_, library, stop) == Cancelled("asked")
    assert library.rungs == [QDQ]


def test_want_of_memory_steps_down_and_is_not_remembered(request_: BuildRequest):
    library = Standin(answers={QDQ: [OutOfMemory("too little")], CALIBRATOR: [MemoryError()]})
    assert walked(request_, library).passed.built.precision is Precision.FP16
    assert walked(request_, Standin()).passed.built.precision is Precision.INT8


def test_where_nothing_was_built_want_of_memory_is_said_for_it_may_pass(request_: BuildRequest):
    every = [QDQ, CALIBRATOR, "fp16", "fp32"]
    for refusing in ({}, {rung: [NO] for rung in every if rung != "fp16"}):
        answers = {**{rung: [OutOfMemory("too little")] for rung in every}, **refusing}
        assert isinstance(failed(request_, Standin(answers=answers)).error, OutOfMemory)


def test_what_a_refused_build_held_is_let_go_before_the_next(request_: BuildRequest):
    held: list[weakref.ref[Any]] = []
    left: list[Any] = []

    class Heavy(Standin):
        def build(self, *asked: Any, **options: Any) -> Built:
            left.extend(one() for one in held)
            heavy = np.zeros(1000)
            held.append(weakref.ref(heavy))
            try:
                return super().build(*asked, **options)
            except ValueError as error:
                raise BuildError("no tactic") from error

    walked(request_, Heavy(answers={QDQ: [ValueError("inside")], CALIBRATOR: [ValueError("inside")]}))
    assert left == [None] * 3, "one before the second build, two before the third"


def test_where_everything_is_refused_the_last_reason_is_said(request_: BuildRequest):
    answers = {rung: [BuildError(f"no {rung}")] for rung in (QDQ, CALIBRATOR, "fp16", "fp32")}
    unproved = failed(request_, Standin(answers=answers))
    assert unproved.error.message == "no fp32"
    assert [one.reason for one in unproved.rejected] == [f"no {rung}" for rung in answers]


def test_without_lower_precisions_the_ways_to_the_same_one_are_tried_and_the_first_refusal_is_said(
    request_: BuildRequest,
):
    request = wanting(request_, allow_lower_precision=False)
    library = Standin(answers={QDQ: [BuildError("no qdq")], CALIBRATOR: [BuildError("no calibrator")]})
    assert failed(request, library).error.message == "no qdq"
    assert library.rungs == [QDQ, CALIBRATOR]


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_every_precision_has_its_ladder(request_: BuildRequest, precision: Precision):
    library = Standin(answers={"fp16": [NO]})
    proved = walked(wanting(request_, precision=precision), library)
    assert library.rungs == ["fp16", "fp32"][0 if precision is Precision.FP16 else 1 :]
    assert proved.passed.signature.layout is Layout.DETECTIONS


def test_a_precision_that_this_machine_lacks_is_passed_over(request_: BuildRequest):
    answers = {QDQ: [NO], CALIBRATOR: [NO]}
    library = Standin(answers=answers, forbidden={"fp16": UnsupportedSpec("not here")})
    proved = walked(request_, library)
    assert library.rungs == [QDQ, CALIBRATOR, "fp32"]
    assert [one.precision for one in proved.rejected] == ["int8", "int8"]


def test_a_precision_for_which_memory_is_short_just_now_is_passed_over_and_may_do_another_time(request_: BuildRequest):
    answers = {QDQ: [NO], CALIBRATOR: [NO], "fp32": [NO]}
    library = Standin(answers=answers, forbidden={"fp16": OutOfMemory("too little to find out")})
    unproved = failed(request_, library)
    assert library.rungs == [QDQ, CALIBRATOR, "fp32"]
    told = [(one.reason, one.passing) for one in unproved.rejected if one.precision == "fp16"]
    assert told == [("too little to find out", True)]
    assert isinstance(unproved.error, OutOfMemory)


def test_what_was_refused_is_skipped_the_next_time_and_said_with_its_date(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    refuse_checks(monkeypatch, Precision.INT8)
    walked(request_, Standin(answers={QDQ: [NAMED]}))
    library = Standin()
    proved = walked(request_, library)
    assert library.rungs == ["fp16"]
    first, second = proved.rejected
    assert first.reason.startswith("skipped: refused on 20")
    assert first.reason.endswith(": no tactic")
    assert (second.precision, second.verify, second.plan) == ("int8", None, NO_PLAN)
    assert "it finds other boxes" in second.reason


def test_a_refusal_that_names_no_layer_may_be_the_devices_and_is_tried_again(request_: BuildRequest):
    proved = walked(request_, Standin(answers={QDQ: [NO], CALIBRATOR: [GraphError("cannot read this graph")]}))
    assert [one.passing for one in proved.rejected] == [True, False]
    library = Standin()
    proved = walked(request_, library)
    assert (library.rungs, proved.rejected) == ([QDQ], ())


@pytest.mark.parametrize("error", [GraphError("cannot read this graph"), NO, OutOfMemory("too little")])
def test_fp16_is_skipped_only_where_layers_were_named(request_: BuildRequest, error: Exception):
    half = wanting(request_, precision=Precision.FP16)
    assert walked(half, Standin(answers={"fp16": [error]})).passed.built.precision is Precision.FP32
    assert walked(half, Standin()).passed.built.precision is Precision.FP16
    walked(half, Standin(answers={"fp16": [NAMED]}))
    assert walked(half, Standin()).passed.built.precision is Precision.FP32


def test_a_plan_that_could_not_be_judged_is_tried_again(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    def no_frames(*_: object) -> None:
        raise VerifyError("too few boxes", report={"judged": False})

    with monkeypatch.context() as patched:
        patched.setattr(attempt.accuracy_check, "verify", no_frames)
        error = failed(wanting(request_, allow_lower_precision=False), Standin()).error
        assert isinstance(error, VerifyError)
    library = Standin()
    walked(wanting(request_, allow_lower_precision=False), library)
    assert library.rungs == [QDQ]


def drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Q/DQ mixture is close enough."""

    def refuse(*_: object) -> None:
        raise VerifyError("int8 drifts", plan=PlanReport(int8=Int8Report()), drift=0.5)

    monkeypatch.setattr(attempt, "prepare_int8", refuse)


def test_where_qdq_drifts_too_far_the_calibrator_is_left_out_unless_it_is_named(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    drift(monkeypatch)
    for _ in range(2):  # and where it is remembered
        library = Standin()
        proved = walked(request_, library)
        assert library.rungs == ["fp16"]
        assert reasons(proved)[1] == (
            "int8 by the library's calibrator",
            CALIBRATOR_LEFT_OUT,
        )
    library = Standin()
    walked(wanting(request_, quantization="calibrator"), library)
    assert library.rungs == [CALIBRATOR]


class Crash(BaseException):
    """Stands for the end of the process: nothing is tidied up after it."""


def crashed(request: BuildRequest, rung: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A walk whose process ends in this rung; what was built."""
    library = Standin(answers={rung: [Crash()]})
    with monkeypatch.context() as patched:
        real = refusals.Refusals._write
        patched.setattr(refusals.Refusals, "_write", lambda self, kept: real(self, kept) if kept.begun else None)
        with pytest.raises(Crash):
            walked(request, library)
    return library.rungs


def test_a_way_that_ended_the_process_twice_is_skipped_until_somebody_insists(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    assert crashed(request_, QDQ, monkeypatch) == [QDQ]
    assert crashed(request_, QDQ, monkeypatch) == [QDQ]
    library = Standin()
    proved = walked(request_, library)
    assert library.rungs == [CALIBRATOR]
    assert reasons(proved)[0][1].endswith(": its build ended the process twice")
    library = Standin()
    walked(replace(request_, force=True), library)
    assert library.rungs == [QDQ]
    assert not remembered(request_)


def test_a_forced_build_that_ended_its_process_twice_takes_another_way_too(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    assert crashed(replace(request_, force=True), QDQ, monkeypatch) == [QDQ]
    again = replace(request_, force=True, again=True)
    assert crashed(again, QDQ, monkeypatch) == [QDQ]
    library = Standin()
    walked(again, library)
    assert library.rungs == [CALIBRATOR]


def test_a_way_that_ended_the_process_once_and_then_is_good_has_a_clean_slate(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    crashed(request_, QDQ, monkeypatch)
    walked(request_, Standin())
    assert not remembered(request_)


def test_where_every_way_ended_the_process_the_build_fails_with_the_remedy(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    request = wanting(request_, allow_lower_precision=False, quantization="qdq")
    for _ in range(2):
        crashed(request, QDQ, monkeypatch)
    library = Standin()
    error = failed(request, library).error
    assert isinstance(error, BuildError)
    assert "ended the process twice; vajra-edge rebuild --force" in str(error)
    assert (library.rungs, error.permanent) == ([], True)


def test_force_tries_everything_where_the_disk_refuses_to_forget(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    walked(request_, Standin(answers={QDQ: [NAMED], CALIBRATOR: [NAMED]}))
    monkeypatch.setattr(refusals, "_delete", lambda path: None)
    library = Standin()
    walked(replace(request_, force=True), library)
    assert library.rungs == [QDQ]


def test_another_library_release_and_another_plan_begin_anew(request_: BuildRequest):
    walked(request_, Standin(answers={QDQ: [NAMED], CALIBRATOR: [NAMED]}))
    for request, library in (
        (request_, Standin(release="standin 2.0")),
        (wanting(request_, optimization_level=5), Standin()),
        (replace(request_, force=True), Standin()),
    ):
        assert walked(request, library).rejected == ()
        assert library.rungs == [QDQ]


def test_force_forgets_what_was_refused(request_: BuildRequest):
    walked(request_, Standin(answers={QDQ: [NAMED], CALIBRATOR: [NAMED]}))
    walked(replace(request_, force=True), Standin(answers={QDQ: [NAMED]}))
    library = Standin()
    walked(request_, library)
    assert library.rungs == [CALIBRATOR], "the second walk remembers what it found itself"


def test_where_everything_was_refused_the_last_rung_is_tried_anyway(request_: BuildRequest):
    every = [QDQ, CALIBRATOR, "fp16", "fp32"]
    failed(request_, Standin(answers={rung: [NAMED] for rung in every}))
    library = Standin()
    proved = walked(request_, library)
    assert library.rungs == ["fp32"]
    assert [one.precision for one in proved.rejected] == ["int8", "int8", "fp16"]
    again = Standin()
    assert walked(request_, again).passed.built.precision is Precision.FP32
    assert again.rungs == ["fp32"], "and what is good now is no longer refused"


def test_placements_go_on_where_the_last_build_left_off(request_: BuildRequest):
    answers = [BuildError("no tactic", layer="mean1"), BuildError("no tactic", layer="mean3")]
    walked(request_, Standin(ways=("qdq",), answers={QDQ: [*answers, NAMED]}))
    library = Standin(ways=("qdq",))
    walked(request_, library)
    assert library.rungs == ["fp16"]
    file = next((request_.state_dir / caches.REFUSALS.path).iterdir())
    file.write_text(file.read_text().replace('"mean1", "mean3"', '"mean1", "mean4"'))
    library = Standin(ways=("qdq",))
    proved = walked(request_, library)
    assert library.asked[0].quantized == {"mean0", "mean2", "mean4"}
    assert str(proved.passed.rung).startswith("int8")


def test_when_time_is_up_an_int8_build_is_cut_short_and_fp16_comes_next(request_: BuildRequest):
    library = Standin(slow_s={QDQ: 10_000.0, "fp16": 10_000.0})
    proved = walked(replace(request_, timeout_s=5000.0), library)
    assert library.rungs == [QDQ, "fp16"], "the calibrator is not begun"
    assert proved.passed.built.precision is Precision.FP16
    assert reasons(proved)[0] == ("int8 by Q/DQ", "the time for it was over, see [engine] build_timeout_s")
    assert reasons(proved)[1][1].startswith("skipped: the time for it was over")
    assert 5000.0 * WALK_SHARE < proved.rejected[0].seconds < 10_000.0


def test_a_way_for_which_the_time_did_not_suffice_is_skipped_until_there_is_more_time(request_: BuildRequest):
    walked(replace(request_, timeout_s=5000.0), Standin(slow_s={QDQ: 10_000.0}))
    library = Standin()
    proved = walked(replace(request_, timeout_s=5000.0), library)
    assert library.rungs == [CALIBRATOR]
    assert "skipped: refused on 20" in reasons(proved)[0][1]
    assert "see [engine] build_timeout_s" in reasons(proved)[0][1]
    library = Standin()
    walked(replace(request_, timeout_s=5001.0), library)
    assert library.rungs == [QDQ]


def test_a_way_that_others_left_no_time_is_tried_again(request_: BuildRequest):
    slow = Standin(answers={QDQ: [NAMED]}, slow_s={QDQ: 3000.0, CALIBRATOR: 3000.0})
    assert walked(replace(request_, timeout_s=5000.0), slow).passed.built.precision is Precision.FP16
    library = Standin()
    walked(replace(request_, timeout_s=5000.0), library)
    assert library.rungs == [CALIBRATOR]


def test_the_last_hope_is_not_cut_short(request_: BuildRequest):
    library = Standin(ways=("qdq",), slow_s={QDQ: 10_000.0})
    request = wanting(replace(request_, timeout_s=5000.0), allow_lower_precision=False)
    assert walked(request, library).passed.built.precision is Precision.INT8


def test_time_that_passed_before_counts(request_: BuildRequest):
    library = Standin()
    images = images_of(request_)
    began_s = library.clock() - request_.timeout_s
    proved = prove(
        request_, library, graph_of(request_), Stages(quiet), images, clock=library.clock, began_s=began_s
    )  # fmt: skip
    assert library.rungs == ["fp16"]
    assert isinstance(proved, Proved)
    assert proved.passed.built.precision is Precision.FP16


def test_images_that_fail_end_the_walk_for_they_are_no_way_s_fault(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise CalibrationError("an image cannot be read")

    monkeypatch.setattr(attempt, "prepare_int8", refuse)
    library = Standin()
    unproved = failed(request_, library)
    assert isinstance(unproved.error, CalibrationError)
    assert (library.rungs, unproved.rejected) == ([], ())


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the two plans take, for ``attempt.by_turns``."""
    taken = {"int8": 3.0, "fp16": 4.0}
    monkeypatch.setattr(attempt, "by_turns", lambda *_: (taken["int8"], taken["fp16"]))
    return taken


def test_int8_that_is_faster_than_fp16_serves_and_both_times_are_noted(request_: BuildRequest, times: dict[str, float]):
    library = Standin(compares=True)
    proved = walked(request_, library)
    assert library.rungs == [QDQ, "fp16"]
    assert (proved.passed.built.precision, proved.rejected) == (Precision.INT8, ())
    figures = proved.passed.verdict.figures
    assert (figures.int8_ms, figures.fp16_ms) == (3.0, 4.0)
    assert figures.speed == "3.000 ms a call in int8, 4.000 ms in fp16 (medians by turns)"


def test_int8_that_is_not_faster_gives_way_to_the_fp16_that_is_there_already(
    request_: BuildRequest, times: dict[str, float]
):
    times["int8"] = 4.0
    library = Standin(compares=True)
    proved = walked(request_, library)
    assert library.rungs == [QDQ, "fp16"], "it is built once, and the calibrator's accuracy is no price for speed"
    assert proved.passed.built.precision is Precision.FP16
    assert proved.passed.verdict.figures.int8_ms == 4.0
    assert [one.reason for one in proved.rejected] == [
        "int8 is not faster than fp16 here: 4.000 ms a call in int8, 4.000 ms in fp16 (medians by turns)",
        CALIBRATOR_LEFT_OUT,
    ]
    assert proved.rejected[0].verify.figures.judged
    library = Standin(compares=True)
    assert len(walked(request_, library).rejected) == 2
    assert library.rungs == ["fp16"], "it is remembered"


def test_int8_that_must_be_written_is_written_with_both_times(request_: BuildRequest, times: dict[str, float]):
    times["int8"] = 5.0
    proved = walked(replace(request_, keep_slower=True), Standin(compares=True))
    assert (proved.passed.built.precision, proved.passed.verdict.figures.int8_ms) == (Precision.INT8, 5.0)


def test_int8_that_must_not_give_way_is_not_compared(request_: BuildRequest):
    library = Standin(compares=True)
    assert walked(wanting(request_, allow_lower_precision=False), library).passed.verdict.figures.int8_ms is None
    assert library.rungs == [QDQ]


def test_int8_serves_where_fp16_cannot_be_built_to_compare_with(request_: BuildRequest, times: dict[str, float]):
    times["int8"] = 9.0
    library = Standin(compares=True, answers={"fp16": [NAMED]})
    proved = walked(request_, library)
    assert (proved.passed.built.precision, proved.passed.verdict.figures.speed) == (
        Precision.INT8,
        "not compared with fp16: no tactic",
    )
    library = Standin(compares=True)
    speed = walked(request_, library).passed.verdict.figures.speed
    assert library.rungs == [QDQ]
    assert speed.startswith("not compared with fp16: fp16 was refused on 20")


@pytest.mark.parametrize("left_s", [50.0, 150.0])
def test_a_comparison_for_which_time_is_short_is_left_out_or_cut_short(request_: BuildRequest, left_s: float):
    timeout_s = (BUILD_S + left_s) / WALK_SHARE
    library = Standin(compares=True, slow_s={"fp16": 1000.0})
    figures = walked(replace(request_, timeout_s=timeout_s), library).passed.verdict.figures
    assert library.rungs == ([QDQ, "fp16"] if left_s > BUILD_S else [QDQ])
    assert figures.int8_ms is None
    assert ("over" if left_s > BUILD_S else "longer than the 50 s that are left") in figures.speed


def test_a_plan_that_fails_while_it_is_timed_is_said_and_serves(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise InferenceError("a kernel failed")

    monkeypatch.setattr(attempt, "by_turns", fail)
    passed = walked(request_, Standin(compares=True)).passed
    assert (passed.built.precision, passed.verdict.figures.speed) == (
        Precision.INT8,
        "not compared with fp16: a kernel failed",
    )


@pytest.mark.parametrize("error", [MemoryError("no memory"), StoreError("no samples"), GraphError("no such tensor")])
def test_a_comparison_that_fails_does_not_lose_the_int8_plan(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(attempt, "by_turns", fail)
    passed = walked(request_, Standin(compares=True)).passed
    assert (passed.built.precision, passed.verdict.figures.speed) == (
        Precision.INT8,
        f"not compared with fp16: {error}",
    )


@pytest.mark.parametrize("error", [MemoryError(), StoreError("no room"), GraphError("no such layer")])
def test_layers_that_cannot_be_placed_cost_no_further_build_and_end_nothing(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(attempt.Attempts, "refused_layers", fail)
    library = Standin(answers={QDQ: [BuildError("no tactic", layer="mean1")]})
    walked(request_, library)
    assert library.rungs == [QDQ, CALIBRATOR]


def test_both_plans_are_really_timed(request_: BuildRequest):
    figures = walked(replace(request_, keep_slower=True), Standin(compares=True)).passed.verdict.figures
    assert figures.int8_ms is not None
    assert figures.int8_ms > 0
    assert figures.fp16_ms is not None
    assert figures.fp16_ms > 0


def test_progress_is_that_of_the_walk(request_: BuildRequest, times: dict[str, float]):
    told: list[Progress] = []
    library = Standin(compares=True, answers={QDQ: [NO]})
    walked(request_, library, told.append)
    building = [one for one in told if one.stage == "build"]
    percents = [one.percent for one in building if one.percent is not None]
    assert percents == sorted(percents)
    assert percents[:4] == [12.5, 25.0, 37.5, 50.0], "one build and the comparison"
    assert percents[-1] == 100.0
    messages = list(dict.fromkeys(one.message.partition(":")[0] for one in building))
    assert messages == [
        "int8 by Q/DQ, 1 of 2",
        "int8 by the library's calibrator, 2 of 3",
        "fp16 to compare with, 3 of 3",
    ]
    assert [one.eta_s for one in building if one.eta_s is not None][:4] == [175.0, 150.0, 125.0, 100.0]


def test_force_lets_the_library_calibrate_anew(request_: BuildRequest):
    library = Standin(ways=("calibrator",))
    walked(request_, library)
    walked(replace(request_, force=True), library)
    assert [one.fresh for one in library.asked if one.rung.startswith("int8")] == [False, True]


TENSORRT = TensorRTReport("TensorRT 10.3.0", "weak", "", "8.7", "", (), 9, None, 1.0, 9, ())


def test_a_kept_calibration_whose_plan_disagrees_is_measured_anew_once(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    library = Standin(ways=("calibrator",))
    kept = library.build

    def built(*arguments, **named):
        made = kept(*arguments, **named)
        tensorrt = replace(TENSORRT, calibration="measured" if named.get("fresh") else "the cache")
        return replace(made, report=replace(made.report, tensorrt=tensorrt))

    monkeypatch.setattr(library, "build", built)
    judged = attempt.accuracy_check.verify
    seen: list[int] = []

    def strict(*given):
        seen.append(1)
        if len(seen) == 1:
            raise VerifyError("it disagrees")
        return judged(*given)

    monkeypatch.setattr(attempt.accuracy_check, "verify", strict)
    proved = walked(request_, library)
    assert [one.fresh for one in library.asked if one.rung.startswith("int8")] == [False, True]
    assert str(proved.passed.rung).startswith("int8")


@pytest.mark.parametrize("error", [OutOfMemory("too little"), MemoryError(), InferenceError("a kernel failed"), NO])
def test_a_precision_that_was_missed_for_what_may_pass_is_noted_to_be_tried_again(
    request_: BuildRequest, error: Exception
):
    library = Standin(ways=("qdq",), answers={QDQ: [error]})
    assert walked(request_, library).passed.built.precision is Precision.FP16
    assert str(missed(request_, library)).startswith("int8 by Q/DQ was missed: ")
    outcome = above(request_, Standin(ways=("qdq",)))
    assert isinstance(outcome, Proved)
    assert outcome.passed.built.precision is Precision.INT8
    assert missed(request_, library) is None


def test_a_precision_for_which_time_was_short_is_tried_again_though_every_other_build_skips_it(request_: BuildRequest):
    request = replace(request_, timeout_s=5000.0)
    library = Standin(ways=("qdq",), slow_s={QDQ: 10_000.0})
    walked(request, library)
    assert "the time for it was over" in str(missed(request, library))
    walked(request, Standin(ways=("qdq",)))
    assert "refused on 20" in str(missed(request, library)), "skipped is missed too"
    retried = Standin(ways=("qdq",))
    assert isinstance(above(request, retried), Proved)
    assert retried.rungs == [QDQ]


def test_what_is_refused_for_good_is_not_missed(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    answers = {QDQ: [NAMED], CALIBRATOR: [UnsupportedSpec("no such calibrator")]}
    library = Standin(answers={name: list(errors) for name, errors in answers.items()})
    walked(request_, library)
    assert missed(request_, library) is None
    refuse_checks(monkeypatch, Precision.INT8)
    walked(replace(request_, force=True), library)
    assert missed(request_, library) is None


def test_another_way_to_the_wanted_precision_misses_nothing(request_: BuildRequest):
    library = Standin(answers={QDQ: [OutOfMemory("too little")]})
    assert walked(request_, library).passed.built.precision is Precision.INT8
    assert missed(request_, library) is None


def test_above_a_plan_nothing_else_is_built_and_what_was_refused_is_no_last_hope(request_: BuildRequest):
    walked(request_, Standin(answers={QDQ: [NAMED], CALIBRATOR: [OutOfMemory("too little")]}))
    library = Standin(answers={CALIBRATOR: [OutOfMemory("still too little")]})
    outcome = above(request_, library)
    assert isinstance(outcome, Unproved)
    assert isinstance(outcome.error, OutOfMemory)
    assert library.rungs == [CALIBRATOR]
    assert missed(request_, library) == "int8 by the library's calibrator was missed: still too little"
    library = Standin(answers={CALIBRATOR: [NAMED]})
    assert isinstance(above(request_, library), Unproved)
    assert missed(request_, library) is None, "it is refused for good now"


def test_above_a_plan_an_int8_that_is_not_faster_gives_way_to_what_there_is(
    request_: BuildRequest, times: dict[str, float]
):
    times["int8"] = 4.0
    library = Standin(ways=("qdq",), compares=True)
    outcome = above(request_, library)
    assert isinstance(outcome, Unproved)
    assert "int8 is not faster than fp16 here" in outcome.rejected[0].reason
    assert missed(request_, library) is None
