"""INT8: with which images a wish for it is calibrated, and what is wanted in its place while they cannot be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from vajra_edge.engine import sampler
from vajra_edge.engine.backend import Backend
from vajra_edge.engine.fingerprint import IMAGES, Fingerprint
from vajra_edge.engine.history import Cause, Follows, History
from vajra_edge.engine.request import BuildRequest
from vajra_edge.engine.spec import Precision
from vajra_edge.engine.store import EngineStore
from vajra_edge.errors import CalibrationError, EngineError, UnsupportedSpec
from vajra_edge.wording import Setting, say

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibrated:
    """A request that can be built.

    Attributes:
        request: for INT8 with its images, or for the next precision.
        reason: why the images that INT8 should have are not used; empty where they are, or are being collected.
    """

    request: BuildRequest
    reason: str = ""


class Calibrations:
    """Decides for each wish. Called on the desk.

    Args:
        store: of this device.
        history: knows which images failed, and which plans failed in service.
    """

    def __init__(self, store: EngineStore, history: History) -> None:
        self._store, self._history = store, history

    def distrust(self, fingerprint: str, reason: str) -> None:
        """This plan's build failed for want of usable images: it is not begun again by itself, until the next start."""
        self._history.note(fingerprint, Cause.IMAGES, reason, Follows.BLOCKED)

    def trust(self) -> None:
        """Somebody insists: images that failed are tried again."""
        self._history.trust()

    def settle(self, request: BuildRequest, backend: Backend, *, trusting: bool = False, doubt: str = "") -> Calibrated:
        """What to build for a request.

        Args:
            request: what the settings ask for.
            backend: builds it.
            trusting: try images that failed.
            doubt: why no images are tried now, be they others than those that failed; a plan that is there may serve.

        Raises:
            UnsupportedSpec: this machine has no INT8.
            EngineError: whether it has cannot be told now.
            CalibrationError: the images cannot be used, and the settings allow no other precision.
        """
        if request.spec.precision is not Precision.INT8:
            return Calibrated(request)
        if (absent := backend.check(request.spec)) is not None:
            raise absent
        try:
            return Calibrated(self._calibrated(request, backend, trusting=trusting, doubt=doubt))
        except CalibrationError as error:
            return self._instead(request, backend, error)

    def _calibrated(self, request: BuildRequest, backend: Backend, *, trusting: bool, doubt: str) -> BuildRequest:
        """The request with its images, or for the next precision while the cameras still collect them."""
        images = sampler.wanted_set(request.calibration, request.state_dir, request.spec.batch)
        if images is None:
            earlier = self._earlier(request, backend)
            if earlier is None and request.calibration.data is None and not request.calibration.cameras:
                raise CalibrationError(
                    say(
                        *("precision = int8 needs images, and ", Setting.DATA, " names none and "),
                        *(Setting.CALIBRATION_CAMERAS, " = false"),
                    ),
                    remedy=say(
                        *("name some in ", Setting.DATA, ", let the cameras collect them, or "),
                        Setting.PRECISION.to("auto"),
                    ),
                )
            return earlier or _lower(request, backend)
        made = replace(request, calibration_digest=images.digest)
        plan = fingerprint_of(made, backend).digest
        doubt = self._history.doubt(plan) or doubt
        if doubt and not trusting and self._store.get(plan) is None:
            raise CalibrationError(doubt)
        return made

    def _instead(self, request: BuildRequest, backend: Backend, error: CalibrationError) -> Calibrated:
        """INT8 of a stored plan whose images were other ones, or the next precision, where that is allowed."""
        if (earlier := self._earlier(request, backend)) is not None:
            return Calibrated(earlier, f"int8 keeps the ranges of earlier images: {error}")
        if not request.spec.allow_lower_precision:
            remedy = say("mend that, or ", Setting.ALLOW_LOWER_PRECISION.to(True))
            raise CalibrationError(f"int8 cannot be calibrated: {error}", remedy=remedy) from error
        log.warning("int8 is not used: %s", error)
        return Calibrated(_lower(request, backend), f"int8 is not used: {error}")

    def _earlier(self, request: BuildRequest, backend: Backend) -> BuildRequest | None:
        """The request of a stored plan that differs in its images alone: they did their work.

        The one that served last and well comes first; a newer one may never have served.
        """
        current = self._store.current()
        for name in dict.fromkeys((*((current.fingerprint,) if current else ()), *self._store.plans())):
            plan = None if self._history.rejection(name) else self._store.get(name)
            digest = plan.manifest.fingerprint.value(IMAGES) if plan else ""
            earlier = replace(request, calibration_digest=digest)
            if digest and fingerprint_of(earlier, backend).digest == name:
                return earlier
        return None


def fingerprint_of(request: BuildRequest, backend: Backend) -> Fingerprint:
    """What the plan would be called.

    Raises:
        UnsupportedSpec: this machine cannot build it.
        EngineError: whether it can cannot be told now.
    """
    if (error := backend.check(request.spec)) is not None:
        raise error
    return Fingerprint.of(request, backend.identity(request.spec))


def _lower(request: BuildRequest, backend: Backend) -> BuildRequest:
    """For the next precision that this machine has.

    Raises:
        UnsupportedSpec: it has none.
        EngineError: whether it has cannot be told now.
    """
    error: EngineError | None = None
    for precision in request.spec.precision.fallbacks:
        spec = replace(request.spec, precision=precision)
        if (error := backend.check(spec)) is None:
            return replace(request, spec=spec)
    raise error or UnsupportedSpec("there is no precision below int8")
