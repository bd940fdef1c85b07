"""Calibration images of the desired plan: with which INT8 is calibrated, and what is wanted while they cannot be used.

While they cannot be used, they are looked at again: others may lie there by now.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from vajra_edge.backends.base import Backend
from vajra_edge.build.request import BuildRequest
from vajra_edge.config.settings import CalibrationSettings, Settings
from vajra_edge.daemon.background import Background
from vajra_edge.datasets import dataset
from vajra_edge.errors import CalibrationError, DatasetError, EngineError, UnsupportedSpec
from vajra_edge.plans.fingerprint import IMAGES, Fingerprint
from vajra_edge.plans.history import Cause, Follows, History
from vajra_edge.plans.spec import Precision
from vajra_edge.plans.store import EngineStore
from vajra_edge.quantization import camera_samples
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


class CalibrationImages:
    """Decides for each desired plan. Called in the background.

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
        images = camera_samples.wanted_set(request.calibration, request.state_dir, request.spec.batch)
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
            plan = None if self._history.left_s(name) else self._store.get(name)
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


LOOK_S = 30.0
"""Two looks alike follow a change before it counts, so that a set is copied whole: it is used within a minute or so."""


@dataclass(frozen=True)
class ImagesMoved:
    """Event: the images are others than when they could not be used."""


class ImageWatch:
    """The looks of one daemon; times and names are looked at, the content is not.

    Args:
        background: where the disk may take its time.
        state_dir: where the cameras' own images are kept.
    """

    def __init__(self, background: Background[ImagesMoved], state_dir: Path) -> None:
        self._background, self._state_dir = background, state_dir
        self._base: str | None = None
        self._last: str | None = None
        self._due_s = 0.0

    def look(self, settings: Settings) -> str | None:
        """What they look like now; None where INT8 is not asked for. Slow."""
        asked = settings.engine.precision == Precision.INT8.value
        return look(settings.calibration, self._state_dir) if asked else None

    def used(self, looked: str | None, now_s: float) -> None:
        """The desired plan was worked out from images that looked like this; None: from none."""
        self._base, self._last, self._due_s = looked, looked, now_s + LOOK_S

    def tick(self, settings: Settings, now_s: float) -> None:
        """Look now and then. Called while INT8 waits for usable images; the background thread posts ``ImagesMoved``."""
        if self._base is not None and now_s >= self._due_s:
            self._due_s = now_s + LOOK_S
            self._background.look("look at the calibration images", lambda: self._compare(settings))

    def _compare(self, settings: Settings) -> ImagesMoved | None:
        before, self._last = self._last, self.look(settings)
        return ImagesMoved() if self._last == before != self._base else None


def look(calibration: CalibrationSettings, state_dir: Path) -> str:
    """A digest of names, lengths and times of all images, or why there are none.

    Args:
        calibration: names them.
        state_dir: where the cameras' own are kept.
    """
    try:
        paths = _paths(calibration, state_dir)
    except (DatasetError, OSError) as error:
        return str(error)
    total = hashlib.sha256()
    for path in paths:
        total.update(os.fsencode(path) + f" {_seen(path)}\n".encode())
    return total.hexdigest()


def _paths(calibration: CalibrationSettings, state_dir: Path) -> list[Path]:
    if calibration.data is not None:
        return sorted({entry.path for entry in dataset.open_dataset(calibration.data).entries})
    folder = state_dir / camera_samples.FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _seen(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
