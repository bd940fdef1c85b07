"""Reconciler: which plan settings and weights ask for here, what the store has of it, and what may serve meanwhile.

It is worked out in the background, with the images of the moment, for whoever asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from vajra_edge.backends.base import Backend, select
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.shelf import Installed, Shelf
from vajra_edge.config.settings import Settings
from vajra_edge.daemon import events
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.calibration_images import CalibrationImages, ImageWatch, fingerprint_of
from vajra_edge.daemon.control.callers import Preview, RebuildAsked
from vajra_edge.daemon.events import Fallback, Have, Unknown, Wanted
from vajra_edge.errors import (
    BundleError,
    CalibrationError,
    DatasetError,
    StoreError,
    UnsignedWeights,
    VajraError,
    WeightsError,
)
from vajra_edge.plans import pin
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.history import History
from vajra_edge.plans.manifest import Plan
from vajra_edge.plans.pin import Pin, digest_of
from vajra_edge.plans.spec import Precision, Target
from vajra_edge.plans.store import EngineStore
from vajra_edge.wording import Setting, say

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DesiredPlan:
    """What is asked for.

    Attributes:
        request: how to build the wanted plan.
        fingerprint: of the wanted plan.
        have: what the store has of it.
        rejected: why it is not tried now; empty unless ``have`` is HELD.
        fallback: what may serve while the wanted plan cannot.
        quick: how to build the fallback, where it is a quick plan.
        since: fingerprint of the plan that served last and well; None: there is none, or it is damaged.
        backend_reason: why this backend was taken.
        instead: it is second best, see ``BackendChoice``.
        calibration: why INT8's images are not used, and what is wanted instead; empty where nothing is wrong with them.
        damage: what befell the stored plan that this one follows; empty where nothing did.
        hold_s: until it is tried, where it is held.
        again_in_s: until a plan that is held may serve meanwhile; None: there is none.
        pinned: the plan is the one that an operator went back to, in the place of what settings and weights ask for.
        wish: names what they ask for, see ``plans.pin.digest_of``.
        candidate: digest of the bundle that is being tried and asks for it; empty where none is.
    """

    request: BuildRequest
    fingerprint: Fingerprint
    have: Have
    rejected: str
    fallback: Fallback | None
    quick: BuildRequest | None
    since: Fingerprint | None
    backend_reason: str
    calibration: str = ""
    damage: str = ""
    hold_s: float = 0.0
    again_in_s: float | None = None
    instead: bool = False
    pinned: bool = False
    wish: str = ""
    candidate: str = ""

    @property
    def event(self) -> Wanted:
        """For the machine."""
        return Wanted(
            self.fingerprint.digest,
            self.have,
            self.fallback,
            self.rejected,
            hold_s=self.hold_s,
            again_in_s=self.again_in_s,
            instead=self.instead,
            proven=self.pinned,
        )

    def why(self, served: Fingerprint | None = None) -> tuple[str, ...]:
        """What befell the stored plan, and what differs from the one that served last; empty where nothing does.

        Args:
            served: of the plan that serves, or served last; an interim plan does not count. None: whichever the store
                knows.
        """
        if self.pinned:
            return ("it was gone back to; it stays until weights or settings change, or rebuild --force",)
        told = (self.damage,) if self.damage else ()
        since = served or self.since
        if since is None:
            return told or ("no wanted plan served on this device yet",)
        return (*told, *since.explain(self.fingerprint))

    def preview(self, serving: str | None, served: Fingerprint | None = None, *, force: bool = False) -> Preview:
        """What a rebuild would do and why.

        Args:
            serving: fingerprint of the plan that serves now, or None.
            served: see ``why``.
            force: build even what is there.
        """
        return Preview(
            fingerprint=self.fingerprint.digest,
            weights=str(self.request.weights_path),
            weights_sha256=self.request.weights_sha256,
            serving=serving,
            have=self.have.value,
            needed=force or self.have is Have.MISSING,
            why=self.why(served),
            rejected=self.rejected,
            backend=self.request.backend,
            backend_reason=self.backend_reason,
            calibration=self.calibration,
        )

    def interim(self, fingerprint: str) -> bool:
        """Whether this is the quick plan, which nobody asked for."""
        return self.quick is not None and self.request_of(fingerprint) is self.quick

    def request_of(self, fingerprint: str) -> BuildRequest | None:
        """How to build one of the two plans of this desired plan; None for any other."""
        if fingerprint == self.fingerprint.digest:
            return None if self.pinned else self.request
        return self.quick if self.fallback and fingerprint == self.fallback.fingerprint else None


class DesiredPlans:
    """Works desired plans out. Slow: reads the weights file, may load a library; called in the background.

    Args:
        store: of this device.
        history: of this device.

    Attributes:
        calibrations: which images INT8 has.
    """

    def __init__(self, store: EngineStore, history: History) -> None:
        self._store, self._history = store, history
        self.calibrations = CalibrationImages(store, history)

    def work_out(
        self,
        settings: Settings,
        weights_sha256: str | None = None,
        without: Collection[str] = (),
        *,
        trusting: bool = False,
        doubt: str = "",
        insist: bool = False,
    ) -> DesiredPlan:
        """What ``settings`` ask for.

        Args:
            settings: the operator's.
            weights_sha256: digest of the weights file, where it is known already.
            without: fingerprints of plans that did not load, and are not offered.
            trusting: take calibration images that failed before.
            doubt: see ``Calibrations.settle``.
            insist: somebody wants what settings and weights ask for: what was gone back to is left.

        Raises:
            VajraError: the weights, the backend, the specification or the store stand in the way; the message says why.
        """
        signed = self._signed(settings)
        if signed is not None:
            settings, weights_sha256 = _over(signed, settings), None
        digest = weights_sha256 or weights_digest(settings.weights.path)
        _require_pinned(settings, digest)
        choice = select(settings.engine.backend, threads=settings.service.threads)
        asked = BuildRequest.of(settings, digest, choice.backend)
        if choice.instead and choice.backend.check(asked.spec) is not None:
            asked = _on_cpu(asked, choice.backend)  # what was asked of the GPU; the device serves all the same
        calibrated = self.calibrations.settle(asked, choice.backend, trusting=trusting, doubt=doubt)
        request = calibrated.request
        fingerprint = fingerprint_of(request, choice.backend)
        wish = digest_of(digest, _wishes(settings))
        pinned = self._pinned(wish, insist=insist)
        if pinned is not None:
            fingerprint = pinned.manifest.fingerprint
        good, again_in_s = self._good({fingerprint.digest, *without})
        quick = None if good is not None or pinned is not None else self._quick(settings, request, fingerprint)
        fallback = Fallback(good.fingerprint) if good else self._offer(quick, without)
        have, rejected, hold_s = self._have(fingerprint.digest, alone=fallback is None)
        served = self._store.current()
        self._history.put_aside(self._store.put_aside())
        return DesiredPlan(
            request,
            fingerprint,
            have,
            rejected,
            fallback,
            quick[0] if quick else None,
            served.manifest.fingerprint if served else None,
            choice.reason,
            calibrated.reason,
            self._store.damage(fingerprint.digest),
            hold_s,
            again_in_s if fallback is None else None,
            choice.instead,
            pinned is not None,
            wish,
            signed.digest if signed is not None and signed.candidate else "",
        )

    def _signed(self, settings: Settings) -> Installed | None:
        """The bundle in the place of ``[weights] path``, where trusted keys demand one.

        Raises:
            UnsignedWeights: they do, and there is none that one of them signed.
        """
        try:
            return Shelf(self._store.root).in_force(Keyring.load(settings.weights.keys))
        except BundleError as error:
            raise UnsignedWeights(error.message, remedy=error.remedy) from error

    def roll_back(self, desired: DesiredPlan) -> None:
        """Have the plan before serve in the place of ``desired``, from the next answer on.

        Raises:
            StoreError: there is none, it is damaged or for another machine, or the store cannot be written.
        """
        short = desired.fingerprint.short
        if desired.pinned:
            raise StoreError(f"plan {short} was gone back to already", remedy="rebuild --force leaves it")
        plan = pin.target(self._store, desired.fingerprint.digest)
        if not _is_own(plan):
            raise StoreError(f"the plan before, {plan.fingerprint[:12]}, is for another library or device")
        pin.write(self._store.root, Pin(plan.fingerprint, desired.wish))

    def _pinned(self, wish: str, *, insist: bool) -> Plan | None:
        """The plan that serves in the place of what is asked for; a pin ends with another wish.

        Raises:
            StoreError: the store cannot be read or written.
        """
        known = pin.read(self._store.root)
        if known is None:
            return None
        plan = None if insist or known.instead_of != wish else self._store.get(known.fingerprint)
        if plan is not None and _is_own(plan):
            return plan
        log.info("plan %s is not kept to any more", known.fingerprint[:12])
        pin.delete(self._store.root)
        return None

    def unknown(self, reason: str, without: Collection[str] = ()) -> Unknown:
        """The event for a plan that cannot be worked out; the last good one may serve, if it is not ``without``."""
        try:
            good, again_in_s = self._good(without)
            damage = self._store.damage()
            self._history.put_aside(self._store.put_aside())
        except VajraError as error:
            return Unknown(f"{reason}; {error}")
        reason = f"{reason}; {damage}" if damage else reason
        return Unknown(reason, Fallback(good.fingerprint) if good else None, again_in_s=again_in_s)

    def _have(self, fingerprint: str, *, alone: bool) -> tuple[Have, str, float]:
        """What the store has of a plan, why it is held, and for how long."""
        if self._store.get(fingerprint) is None:
            return Have.MISSING, "", 0.0
        hold, left_s = self._history.hold(fingerprint), self._history.left_s(fingerprint, alone=alone)
        if hold is None or left_s == 0.0:
            return Have.READY, "", 0.0
        return Have.HELD, f"plan {fingerprint[:12]} waits: {hold.reason}; rebuild --force insists", left_s

    def _good(self, without: Collection[str]) -> tuple[Plan | None, float | None]:
        """The plan that served last and well, or the one before it, if it is for this machine as it is now.

        One that nothing is held against comes first. A device is never left without the last plan that can serve: one
        that is held serves once its pause is over, which is a short one where there is no other.

        Returns:
            The plan; and where it is None because all are held, the seconds until the first is not.
        """
        found = (self._store.current(), self._store.previous())
        plans = [plan for plan in found if plan is not None and plan.fingerprint not in without and _is_own(plan)]
        free = next((plan for plan in plans if self._history.left_s(plan.fingerprint) == 0.0), None)
        if free is not None or not plans:
            return free, None
        left_s = {plan.fingerprint: self._history.left_s(plan.fingerprint, alone=True) for plan in plans}
        first = min(plans, key=lambda plan: left_s[plan.fingerprint])
        if left_s[first.fingerprint] == 0.0:
            return first, None
        return None, left_s[first.fingerprint]

    def _quick(
        self, settings: Settings, wanted: BuildRequest, fingerprint: Fingerprint
    ) -> tuple[BuildRequest, Fingerprint] | None:
        """An ONNX Runtime plan that is built within seconds, where the wanted one may take many minutes."""
        if settings.engine.first_boot != "serve":
            return None
        try:
            backend = select("onnxruntime", threads=settings.service.threads).backend
            request = _on_cpu(wanted, backend)
            quick = fingerprint_of(request, backend)
        except VajraError as error:
            log.info("no quick plan meanwhile: %s", error)
            return None
        return None if quick.digest == fingerprint.digest else (request, quick)

    def _offer(self, quick: tuple[BuildRequest, Fingerprint] | None, without: Collection[str]) -> Fallback | None:
        if quick is None or quick[1].digest in without:
            return None
        have, _, _ = self._have(quick[1].digest, alone=True)
        return None if have is Have.HELD else Fallback(quick[1].digest, ready=have is Have.READY)


def _on_cpu(request: BuildRequest, backend: Backend) -> BuildRequest:
    """The same network in the form that every machine runs."""
    spec = replace(request.spec, target=Target("cpu"), precision=Precision.FP32, workspace_gib=None)
    return replace(request, backend=backend.name, spec=spec, calibration_digest=None)


def _over(signed: Installed, settings: Settings) -> Settings:
    try:
        return signed.over(settings)
    except ValueError as error:
        raise WeightsError(
            f"the wishes of bundle {signed.digest[:12]} do not go with the other settings of the engine: {error}",
            remedy="make it anew, or leave those settings out",
        ) from error


def _wishes(settings: Settings) -> dict[str, object]:
    """What a plan depends on, of the settings, as plain values."""
    weights = settings.weights.model_dump(mode="json", include={"class_names", "stride"})
    return {"engine": settings.engine.model_dump(mode="json"), "weights": weights}


def _require_pinned(settings: Settings, digest: str) -> None:
    pinned = settings.weights.sha256
    if pinned is not None and pinned != digest:
        raise WeightsError(
            f"weights {settings.weights.path} have SHA-256 {digest}, the settings ask for {pinned}",
            remedy=say("copy the right file, or correct ", Setting.WEIGHTS_SHA256),
            path=settings.weights.path,
        )


def _is_own(plan: Plan) -> bool:
    """Whether a stored plan is for this machine as it is now; its library would refuse any other, or worse.

    A library or a device that cannot be read says nothing: the driver may be up by the time the plan is loaded, and
    that tells.
    """
    manifest = plan.manifest
    try:
        here = select(manifest.backend).backend.identity(manifest.wanted)
    except (VajraError, OSError) as error:
        log.info("whether plan %s is for this machine cannot be told: %s", plan.fingerprint[:12], error)
        return True
    if moved := manifest.fingerprint.foreign_to(here):
        log.info("plan %s does not serve meanwhile: %s", plan.fingerprint[:12], "; ".join(moved))
    return not moved


@dataclass(frozen=True)
class Reconciled:
    """Event: the background thread worked out what is wanted, or why that cannot be known.

    Attributes:
        desired: what it found.
        asked: who asked.
        again: see ``Wanted.again``.
        looked: what the calibration images looked like before; None where other images would change nothing.
        held: images were left out, be they others by now: they are used once they differ from those that failed, and
            stay so.
        refused: why a rollback that was asked for is none.
    """

    desired: DesiredPlan | events.Unknown
    asked: RebuildAsked | None = None
    again: bool = False
    looked: str | None = None
    held: bool = False
    refused: str = ""

    def event(self, now_s: float) -> events.Wanted | events.Unknown:
        """For the machine."""
        if isinstance(self.desired, events.Unknown):
            return replace(self.desired, again=self.again, now_s=now_s)
        return replace(self.desired.event, again=self.again, now_s=now_s)


class Reconciler:
    """Puts the questions. Called by the supervisor alone.

    Args:
        desired_plans: answers.
        images: looked at before each answer.
        background: where both happen; posts ``Reconciled``.
    """

    def __init__(self, desired_plans: DesiredPlans, images: ImageWatch, background: Background[Reconciled]) -> None:
        self._desired_plans, self._images, self._background = desired_plans, images, background

    def work_out(self, settings: Settings, digest: str | None, asked: RebuildAsked | None = None) -> None:
        """For a change, or for a person: then from the file as it is, and from images that failed before too."""
        self._do(lambda: self._answer(settings, None if asked else digest, asked))

    def unseen(self, reason: str) -> None:
        """Nobody can look at the weights, so that nothing can be asked of them: the last good plan may serve."""
        self._do(lambda: Reconciled(replace(self._unknown(reason, ()), watched=True)))

    def again(self, settings: Settings, digest: str | None, without: tuple[str, ...] = (), doubt: str = "") -> None:
        """Nobody asked anew: these plans did not load, it was not known, or the images failed and are in ``doubt``.

        A folder that is being written to is another one at each look: without doubt, every failed build would begin
        the next one.
        """
        self._do(lambda: replace(self._answer(settings, digest, None, without, doubt), again=True, held=bool(doubt)))

    def moved(self, settings: Settings, digest: str | None) -> None:
        """The images are others than those that failed, and stayed so for two looks: they are tried."""
        self._background.do("trust the images", self._desired_plans.calibrations.trust)
        self.work_out(settings, digest)

    def distrust_images(self, desired: DesiredPlan | None, ended: events.BuildFailed) -> bool:
        """A build failed for want of usable images; whether something else may be wanted now."""
        if desired is None or desired.fingerprint.digest != ended.job.fingerprint:
            return False
        spec, calibrations = desired.request.spec, self._desired_plans.calibrations
        if spec.precision is not Precision.INT8:
            return False
        self._background.do("note useless images", lambda: calibrations.distrust(ended.job.fingerprint, ended.reason))
        return spec.allow_lower_precision

    def _do(self, task: Callable[[], Reconciled]) -> None:
        self._background.do("work out what is wanted", task)

    def _answer(
        self,
        settings: Settings,
        digest: str | None,
        asked: RebuildAsked | None,
        without: tuple[str, ...] = (),
        doubt: str = "",
    ) -> Reconciled:
        desired: DesiredPlan | events.Unknown
        looked, refused = None, ""
        try:
            looked = self._images.look(settings)
            if asked and not asked.dry_run:
                self._desired_plans.calibrations.trust()
            insist = asked is not None and asked.force and not asked.dry_run
            trusting = asked is not None
            work_out = partial(self._desired_plans.work_out, settings, digest, without, trusting=trusting, doubt=doubt)
            desired = work_out(insist=insist)
            if asked and asked.rollback:
                refused = self._roll_back(desired)
                desired = desired if refused else work_out()
        except VajraError as error:
            watched = isinstance(error, (CalibrationError, DatasetError, WeightsError))
            distrusted = isinstance(error, UnsignedWeights)
            desired = replace(self._unknown(str(error), without), watched=watched, distrusted=distrusted)
        except Exception as error:  # the top of a background task: with no answer nothing serves or is tried again
            log.exception("what is wanted cannot be worked out")
            desired = self._unknown(f"what is wanted cannot be worked out: {type(error).__name__}: {error}", without)
        looked = looked if _hangs_on_images(desired) else None
        return Reconciled(desired, asked, looked=looked, refused=refused)

    def _roll_back(self, desired: DesiredPlan) -> str:
        """Why the plan before cannot serve; empty where it is to serve from now on."""
        try:
            self._desired_plans.roll_back(desired)
        except VajraError as error:
            return str(error)
        return ""

    def _unknown(self, reason: str, without: tuple[str, ...]) -> events.Unknown:
        try:
            return self._desired_plans.unknown(reason, without)
        except Exception as error:  # as above: what failed may stand in the way of the last good plan too
            log.exception("the last good plan cannot be found")
            return events.Unknown(f"{reason}; {type(error).__name__}: {error}")


def _hangs_on_images(desired: DesiredPlan | events.Unknown) -> bool:
    """Not while the cameras collect: the collector tells when these are complete."""
    if isinstance(desired, events.Unknown):
        return True
    return bool(desired.calibration) or desired.request.spec.precision is Precision.INT8
