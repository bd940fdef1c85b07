"""Precision fallback: from what is wanted down to the first plan that is built, agrees with FP32 and is worth it.

No way to a plan ends a build by itself: what the library refuses, what fails its check and what is not faster than FP16
gives way to the next. What was refused is remembered, and the time for the walk is bounded.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, replace

from vajra_edge.backends.base import Backend
from vajra_edge.backends.tensorrt.calibrator import FROM_CACHE
from vajra_edge.build.attempt import Attempts, Graph, Passed
from vajra_edge.build.outcome import Cancelled, Outcome, Proved, Unproved
from vajra_edge.build.progress import OVER, Clock, OutOfTime, Stages, WalkProgress
from vajra_edge.build.refusals import Refusal, RefusalCause, Refusals
from vajra_edge.build.request import BuildRequest
from vajra_edge.build.rung import Rung, ladder
from vajra_edge.errors import (
    BackendUnavailable,
    BuildCancelled,
    BuildError,
    EngineError,
    GraphError,
    InferenceError,
    OutOfMemory,
    PlanError,
    StoreError,
    UnsupportedSpec,
    VajraError,
    VerifyError,
)
from vajra_edge.plans.fingerprint import LIBRARY, Fingerprint
from vajra_edge.plans.report import NO_PLAN, PlanReport, RangesReport, RefusedWay, VerifyReport
from vajra_edge.plans.spec import Precision
from vajra_edge.quantization.calibration_set import CalibrationSet, Holdout
from vajra_edge.quantization.ptq import MEASURED_NOW
from vajra_edge.wording import Command, say

WALK_SHARE = 0.8
"""Of the time for a build, after which INT8 is given up: the daemon ends the child at the whole of it, and FP16 has to
be built in what is left."""

LONG_SHARE = 0.5
"""Of the time for the walk: a way that was cut short sooner may do when those before it are skipped."""

PLACEMENTS = 2
"""Builds more at the most that leave further layers out of INT8, for each takes minutes."""

FP16 = Rung(Precision.FP16)
"""What INT8 is compared with."""

CALIBRATOR_LEFT_OUT = "skipped: it costs more accuracy than Q/DQ; engine.quantization = calibrator tries it"

_REFUSALS = (BuildError, GraphError, UnsupportedSpec, VerifyError, OutOfMemory, PlanError, InferenceError, OutOfTime)
_UNTIMED = (StoreError, BackendUnavailable, MemoryError)
"""What beside a refusal may befall a comparison with FP16, and is no reason to lose the INT8 plan."""

_LOGGER = logging.getLogger(__name__)


def prove(
    request: BuildRequest,
    backend: Backend,
    graph: Graph,
    stages: Stages,
    images: CalibrationSet | None = None,
    *,
    clock: Clock = time.monotonic,
    began_s: float | None = None,
    forget: bool = False,
    above: Precision | None = None,
) -> Outcome:
    """Build and verify; a plan that is refused gives way to the next rung, of a lower precision if the settings allow.

    Args:
        request: what is wanted.
        backend: builds and runs it.
        graph: FP32, with NMS where it is wanted.
        stages: told what is being done.
        images: for INT8; some of them are held out for the accuracy check. None for any other precision.
        clock: seconds, monotonic.
        began_s: when the time for this build began, on that clock; None: now.
        forget: try what was refused before; ``request.force`` means that too.
        above: of a plan that is there: only what it is lower than is tried, and that too for which time was short.

    Raises:
        BackendUnavailable: the library does not load, so that there are no ways to try.
    """
    pace = WalkProgress(
        stages.report, clock, (clock() if began_s is None else began_s) + WALK_SHARE * request.timeout_s
    )
    told = Stages(pace.report, stages.taken)
    attempts = Attempts(request, backend, graph, told, Holdout.of(images) if images else None, clock)
    identity = backend.identity(request.spec)
    digest = Fingerprint.of(request, identity).digest
    refusals = Refusals(request.state_dir, digest, identity.get(LIBRARY, ""))
    insists = forget or (request.force and not request.again)
    return _Walk(attempts, pace, refusals, forget=insists, above=above).run()


@dataclass(frozen=True)
class _Refused:
    """A rung that came to nothing this time."""

    error: VajraError
    seconds: float

    @property
    def cause(self) -> RefusalCause | None:
        """What refused it; None where this machine lacks something, or another time may do.

        A library that names no layers may have failed for want of memory or for the device.
        """
        if isinstance(self.error, VerifyError):
            return RefusalCause.DRIFT if "drift" in self.error.values else RefusalCause.CHECK
        if isinstance(self.error, OutOfTime):
            return RefusalCause.TIME
        if isinstance(self.error, GraphError) or (isinstance(self.error, BuildError) and self.layers):
            return RefusalCause.LIBRARY if getattr(self.error, "permanent", True) else None
        return None

    @property
    def passing(self) -> bool:
        """Another try may do better; what this machine lacks comes with another release of something."""
        if isinstance(self.error, VerifyError):
            return not self.disagrees
        return self.cause in {None, RefusalCause.TIME} and not isinstance(self.error, UnsupportedSpec)

    @property
    def missed(self) -> bool:
        """It is tried again by itself: it failed for want of memory or time, or with the device."""
        return self.passing and not isinstance(self.error, VerifyError)  # the same frames would judge it again

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers at fault."""
        values = self.error.values
        named = values.get("layers") or values.get("layer") or ()
        return (named,) if isinstance(named, str) else tuple(str(name) for name in _iterable(named))

    @property
    def disagrees(self) -> bool:
        """The plan was refused for what it finds; one that could not be judged says nothing of its ranges."""
        return isinstance(self.error, VerifyError) and (self.verify is None or self.verify.figures.judged)

    @property
    def verify(self) -> VerifyReport | None:
        """What the accuracy check saw, if it came to that."""
        report = self.error.values.get("report")
        return report if isinstance(report, VerifyReport) else None

    @property
    def plan(self) -> PlanReport:
        """What is known of the plan, if there was one."""
        plan = self.error.values.get("plan")
        return plan if isinstance(plan, PlanReport) else NO_PLAN

    @property
    def ranges(self) -> RangesReport | None:
        """Where its INT8 ranges came from; None where it had none."""
        return self.plan.int8.ranges if self.plan.int8 is not None else None


class _Walk:
    """One build's way along the ladder."""

    def __init__(
        self, attempts: Attempts, pace: WalkProgress, refusals: Refusals, *, forget: bool, above: Precision | None
    ) -> None:
        self._attempts, self._pace, self._refusals = attempts, pace, refusals
        self._request, self._backend = attempts.request, attempts.backend
        wanted, self._above = self._request.spec, above
        self._pending = deque(ladder(wanted, self._backend.routes(wanted), above=above))
        self._first = self._pending[0]
        self._rejected: list[RefusedWay] = []
        self._failures: list[VajraError] = []
        self._skipped: Rung | None = None
        self._placements = PLACEMENTS
        self._fp16: Passed | None = None
        if forget:
            refusals.clear()
        known = {} if forget else refusals.all()  # a disk that refuses to forget does not hinder
        lasting = {None} if above else {None, self._request.timeout_s}
        self._known = {rung: one for rung, one in known.items() if one.timeout_s in lasting}
        self._missed: dict[Rung, str] = {}

    def run(self) -> Outcome:
        try:
            return self._walked()
        except BuildCancelled as error:
            return Cancelled(str(error.message))
        except VajraError as error:  # no way's own fault: images, disk
            return Unproved(error, tuple(self._rejected))

    def _walked(self) -> Proved | Unproved:
        while (rung := self._next()) is not None:
            if self._fp16 is not None and rung == self._fp16.rung:
                return self._proved(self._fp16)
            passed = self._tried(rung)
            if passed is not None and (worth := self._worth(passed)) is not None:
                self._refusals.remove(rung)
                return self._proved(worth)
        if self._above is not None:
            self._note_missed()
        return Unproved(self._failure(), tuple(self._rejected))

    def _proved(self, passed: Passed) -> Proved:
        if passed.rung.precision is self._request.spec.precision:
            self._missed.clear()
        self._missed.pop(passed.rung, None)  # the last one, which was skipped before
        self._note_missed()
        return Proved(passed, tuple(self._rejected))

    def _note_missed(self) -> None:
        """Have the service try again what may do better than the plan that there is."""
        if self._missed:
            rung, reason = next(iter(self._missed.items()))
            self._refusals.miss(f"{rung} was missed: {reason}")
        else:
            self._refusals.missed_nothing()

    def _next(self) -> Rung | None:
        """The next rung that is worth trying; at the end of the ladder the last one that was skipped."""
        while self._pending:
            rung = self._pending.popleft()
            if (absent := self._absent(rung)) is not None:
                self._pass_over(rung, absent)
                continue
            known = self._known.get(rung)
            if known is None and rung.precision is Precision.INT8 and self._pace.left_s < 0 and self._has_hope():
                self._missed[rung] = str(OVER)
                self._reject(rung, f"skipped: {OVER}", seconds=0.0, passing=True)
            elif known is None:
                return rung
            else:
                self._skip(rung, known)
        if self._above is not None:
            return None  # there is a plan: no need to try what was refused
        last, self._skipped = self._skipped, None
        if last is not None:
            del self._known[last]
            self._rejected = [one for one in self._rejected if one.rung != str(last)]
        return last

    def _skip(self, rung: Rung, known: Refusal) -> None:
        """Pass over what was refused before; what ended the process is not even tried as the last way."""
        if known.cause is not RefusalCause.CRASH:
            self._skipped = rung
        if known.cause is RefusalCause.TIME:
            self._missed[rung] = known.line
        passing = known.cause in {RefusalCause.TIME, RefusalCause.CRASH}
        self._reject(rung, f"skipped: {known.line}", seconds=0.0, passing=passing)
        self._step_down(rung, known.cause, known.layers)

    def _absent(self, rung: Rung) -> EngineError | None:
        """Why this machine has no such precision; of what is wanted that was asked before."""
        return None if rung == self._first else self._backend.check(rung.of(self._request.spec))

    def _pass_over(self, rung: Rung, absent: EngineError) -> None:
        """A precision that this machine does not have is not worth a word; one that it may have another time is."""
        if not isinstance(absent, UnsupportedSpec):
            self._missed[rung] = str(absent)
            self._reject(rung, str(absent), seconds=0.0, passing=True)
            self._failures.append(absent)

    def _has_hope(self) -> bool:
        """Whether a plan of another precision than INT8 is there, or may yet be built."""
        return (
            self._above is not None
            or self._fp16 is not None
            or any(
                rung.precision is not Precision.INT8
                and rung not in self._known
                and self._backend.check(rung.of(self._request.spec)) is None
                for rung in self._pending
            )
        )

    def _tried(self, rung: Rung) -> Passed | None:
        """One rung; where its ranges were kept from an earlier build it is tried once more with fresh ones."""
        spared = rung.precision is Precision.INT8 and self._has_hope()
        following = int(self._compares(rung) and self._fp16 is None and FP16 not in self._known)
        self._pace.begin(str(rung), following=following, spared=spared)
        outcome = self._attempted(rung, fresh=self._request.force and not rung.high)
        if isinstance(outcome, _Refused) and outcome.disagrees and _kept(outcome):
            self._reject_refused(rung, outcome)
            _LOGGER.warning("measuring the ranges anew")
            outcome = self._attempted(rung, fresh=True)
        if isinstance(outcome, Passed):
            return outcome
        self._reject_refused(rung, outcome)
        self._remember(rung, outcome)
        if outcome.missed:
            self._missed[rung] = str(outcome.error)
        if not isinstance(outcome.error, OutOfTime):
            self._failures.append(outcome.error)
        self._step_down(rung, outcome.cause, outcome.layers)
        return None

    def _attempted(self, rung: Rung, *, fresh: bool) -> Passed | _Refused:
        """Build and verify; ranges that ruined the plan are forgotten."""
        began_s = self._pace.clock()
        try:
            if rung.precision is Precision.FP32:  # ONNX Runtime's daily work, and the end of every ladder
                return self._attempts.passed(rung, fresh=fresh)
            with self._refusals.attempt(rung):
                return self._attempts.passed(rung, fresh=fresh)
        except _REFUSALS as error:
            _LOGGER.warning("%s is not used: %s", rung, error)
            _let_go(error)
            refused = _Refused(error, self._pace.clock() - began_s)
        if refused.disagrees and refused.ranges is not None:
            self._attempts.cache.drop(refused.ranges.key)
        return refused

    def _step_down(self, rung: Rung, cause: RefusalCause | None, layers: tuple[str, ...]) -> None:
        """What a refusal says of the rungs that follow."""
        if (
            cause in {RefusalCause.CHECK, RefusalCause.DRIFT, RefusalCause.SPEED}
            and self._request.spec.quantization == "auto"
        ):
            self._leave_out_calibrator()
        if cause is not RefusalCause.LIBRARY or rung.quantization != "qdq" or not layers or not self._placements:
            return
        try:
            further = self._attempts.refused_layers(rung, layers)
        except (GraphError, StoreError, MemoryError) as error:
            _LOGGER.warning("which layers %s names cannot be told: %s", rung, error)
            return
        if further:
            self._placements -= 1
            self._pending.appendleft(replace(rung, high=rung.high | further))

    def _leave_out_calibrator(self) -> None:
        """Where the library takes Q/DQ and its plan is not good or not fast enough, the calibrator is no way out.

        It chooses no layers, and the accuracy check, which counts boxes, would let it pass: VajraV1-nano loses 0.25
        points by Q/DQ and 2.29 by the calibrator (TensorRT 10.6). Whoever names it gets it.
        """
        for rung in [one for one in self._pending if one.quantization == "calibrator"]:
            self._pending.remove(rung)
            self._reject(rung, CALIBRATOR_LEFT_OUT, seconds=0.0)

    def _compares(self, rung: Rung) -> bool:
        """Whether a plan of this rung has to be faster than FP16."""
        request = self._request
        if rung.precision is not Precision.INT8 or not (request.spec.allow_lower_precision or request.keep_slower):
            return False
        return self._backend.compares_speed(rung.of(request.spec))

    def _worth(self, passed: Passed) -> Passed | None:
        """The plan, with how fast it is beside FP16; None where it has to give way to that."""
        if passed.built.precision is not Precision.INT8 or not self._compares(passed.rung):
            return passed
        fp16 = self._fp16 or self._beside(passed)
        if isinstance(fp16, str):
            return _noted(passed, f"not compared with fp16: {fp16}")
        try:
            int8_ms, fp16_ms = self._attempts.timed(passed, fp16)
        except (*_UNTIMED, GraphError, PlanError, InferenceError, OutOfMemory) as error:
            return _noted(passed, f"not compared with fp16: {error}")
        return self._faster(passed, fp16, int8_ms, fp16_ms)

    def _faster(self, passed: Passed, fp16: Passed, int8_ms: float, fp16_ms: float) -> Passed | None:
        times = f"{int8_ms:.3f} ms a call in int8, {fp16_ms:.3f} ms in fp16 (medians by turns)"
        told = _noted(passed, times, int8_ms, fp16_ms)
        if int8_ms < fp16_ms or self._request.keep_slower:
            return told
        reason = f"int8 is not faster than fp16 here: {times}"
        _LOGGER.warning("%s is not used: %s", passed.rung, reason)
        self._reject(passed.rung, reason, passed.build_s, told.verdict, passed.built.report)
        self._refusals.add(passed.rung, RefusalCause.SPEED, reason, passed.build_s)
        self._step_down(passed.rung, RefusalCause.SPEED, ())
        self._fp16 = _noted(fp16, times, int8_ms, fp16_ms)
        return None

    def _beside(self, passed: Passed) -> Passed | str:
        """Build FP16 to compare with, or say why not."""
        if (known := self._known.get(FP16)) is not None:
            return f"{FP16} was {known.line}"
        if (absent := self._backend.check(FP16.of(self._request.spec))) is not None:
            return str(absent)
        if self._pace.left_s < passed.build_s:
            return f"building it would take longer than the {max(self._pace.left_s, 0):.0f} s that are left"
        self._pace.begin(f"{FP16} to compare with", following=0, spared=True)
        try:
            outcome = self._attempted(FP16, fresh=False)
        except _UNTIMED as error:  # the INT8 plan is good all the same
            return str(error)
        if isinstance(outcome, Passed):
            return outcome
        self._remember(FP16, outcome)
        return str(outcome.error)

    def _remember(self, rung: Rung, refused: _Refused) -> None:
        """Only what would be refused again; of FP16 and FP32, which take less time, only what is certain."""
        cause, timeout_s = refused.cause, self._request.timeout_s
        if cause is None or (isinstance(refused.error, VerifyError) and not refused.disagrees):
            return
        if rung.precision is not Precision.INT8 and not (cause is RefusalCause.LIBRARY and refused.layers):
            return
        if cause is not RefusalCause.TIME:
            self._refusals.add(rung, cause, str(refused.error), refused.seconds, refused.layers)
        elif refused.seconds > LONG_SHARE * WALK_SHARE * timeout_s:
            self._refusals.add(rung, cause, str(refused.error), refused.seconds, timeout_s=timeout_s)

    def _reject_refused(self, rung: Rung, refused: _Refused) -> None:
        reason = str(refused.error)
        self._reject(rung, reason, refused.seconds, refused.verify, refused.plan, passing=refused.passing)

    def _reject(
        self,
        rung: Rung,
        reason: str,
        seconds: float,
        verify: VerifyReport | None = None,
        plan: PlanReport = NO_PLAN,
        *,
        passing: bool = False,
    ) -> None:
        precision, seconds = rung.precision.value, round(seconds, 1)
        self._rejected.append(RefusedWay(precision, str(rung), reason, seconds, verify, plan, passing))

    def _failure(self) -> VajraError:
        """What to say where nothing was built: what may pass before what does not, for then it is worth trying again.

        Of the rest the last, which is about the highest precision; where none but the wanted one may be used, the
        first, which is about the best way to it.
        """
        if not self._failures:
            last = self._rejected[-1]
            return BuildError(f"{last.rung} is {last.reason}", remedy=say(Command.REBUILD_FORCE, " tries it again"))
        for kind in (OutOfMemory, InferenceError):
            if passing := [error for error in self._failures if isinstance(error, kind)]:
                return passing[-1]
        return self._failures[-1 if self._request.spec.allow_lower_precision else 0]


def _let_go(error: BaseException) -> None:
    """Drop the frames that an error was raised in: they hold graphs and plans, and the next build wants the memory."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__


def _kept(refused: _Refused) -> bool:
    """Whether its ranges are those of an earlier build, ours or those of the library's calibrator."""
    if refused.plan.tensorrt is not None and refused.plan.tensorrt.calibration == FROM_CACHE:
        return True
    return refused.ranges is not None and refused.ranges.source != MEASURED_NOW


def _noted(passed: Passed, speed: str, int8_ms: float | None = None, fp16_ms: float | None = None) -> Passed:
    """The plan with what is known of its speed."""
    verdict = passed.verdict
    figures = replace(verdict.figures, speed=speed, int8_ms=_rounded(int8_ms), fp16_ms=_rounded(fp16_ms))
    return replace(passed, verdict=replace(verdict, figures=figures))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _iterable(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
