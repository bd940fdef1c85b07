"""Wishing: has the desk find out what is wanted, with the images of the moment, for whoever asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from vajra_edge.engine.spec import Precision
from vajra_edge.errors import CalibrationError, DatasetError, VajraError, WeightsError
from vajra_edge.service import events
from vajra_edge.service.callers import RebuildAsked
from vajra_edge.service.desk import Desk
from vajra_edge.service.images import Images
from vajra_edge.service.wish import Wish, Wishes
from vajra_edge.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wished:
    """Event: the desk worked out what is wanted, or why that cannot be known.

    Attributes:
        wish: what it found.
        asked: who asked.
        again: see ``Wanted.again``.
        looked: what the calibration images looked like before; None where other images would change nothing.
        held: images were left out, be they others by now: they are used once they differ from those that failed, and
            stay so.
    """

    wish: Wish | events.Unknown
    asked: RebuildAsked | None = None
    again: bool = False
    looked: str | None = None
    held: bool = False

    def event(self, now_s: float) -> events.Wanted | events.Unknown:
        """For the machine."""
        if isinstance(self.wish, events.Unknown):
            return replace(self.wish, again=self.again, now_s=now_s)
        return replace(self.wish.event, again=self.again)


class Wishing:
    """Puts the questions. Called by the supervisor alone.

    Args:
        wishes: answers.
        images: looked at before each answer.
        desk: where both happen; posts ``Wished``.
    """

    def __init__(self, wishes: Wishes, images: Images, desk: Desk[Wished]) -> None:
        self._wishes, self._images, self._desk = wishes, images, desk

    def work_out(self, settings: Settings, digest: str | None, asked: RebuildAsked | None = None) -> None:
        """For a change, or for a person: then from the file as it is, and from images that failed before too."""
        self._do(lambda: self._answer(settings, None if asked else digest, asked))

    def again(self, settings: Settings, digest: str | None, without: tuple[str, ...] = (), doubt: str = "") -> None:
        """Nobody asked anew: these plans did not load, it was not known, or the images failed and are in ``doubt``.

        A folder that is being written to is another one at each look: without doubt, every failed build would begin
        the next one.
        """
        self._do(lambda: replace(self._answer(settings, digest, None, without, doubt), again=True, held=bool(doubt)))

    def moved(self, settings: Settings, digest: str | None) -> None:
        """The images are others than those that failed, and stayed so for two looks: they are tried."""
        self._desk.do("trust the images", self._wishes.calibrations.trust)
        self.work_out(settings, digest)

    def distrust_images(self, wish: Wish | None, ended: events.BuildFailed) -> bool:
        """A build failed for want of usable images; whether something else may be wanted now."""
        if wish is None or wish.fingerprint.digest != ended.job.fingerprint:
            return False
        spec, calibrations = wish.request.spec, self._wishes.calibrations
        if spec.precision is not Precision.INT8:
            return False
        self._desk.do("note useless images", lambda: calibrations.distrust(ended.job.fingerprint, ended.reason))
        return spec.allow_lower_precision

    def _do(self, task: Callable[[], Wished]) -> None:
        self._desk.do("work out what is wanted", task)

    def _answer(
        self,
        settings: Settings,
        digest: str | None,
        asked: RebuildAsked | None,
        without: tuple[str, ...] = (),
        doubt: str = "",
    ) -> Wished:
        wish: Wish | events.Unknown
        looked = None
        try:
            looked = self._images.look(settings)
            if asked and not asked.dry_run:
                self._wishes.calibrations.trust()
            wish = self._wishes.work_out(settings, digest, without, trusting=asked is not None, doubt=doubt)
        except VajraError as error:
            watched = isinstance(error, (CalibrationError, DatasetError, WeightsError))
            wish = replace(self._unknown(str(error), without), watched=watched)
        except Exception as error:  # the top of a desk task: with no answer nothing serves, and nothing is tried again
            log.exception("what is wanted cannot be worked out")
            wish = self._unknown(f"what is wanted cannot be worked out: {type(error).__name__}: {error}", without)
        return Wished(wish, asked, looked=looked if _hangs_on_images(wish) else None)

    def _unknown(self, reason: str, without: tuple[str, ...]) -> events.Unknown:
        try:
            return self._wishes.unknown(reason, without)
        except Exception as error:  # as above: what failed may stand in the way of the last good plan too
            log.exception("the last good plan cannot be found")
            return events.Unknown(f"{reason}; {type(error).__name__}: {error}")


def _hangs_on_images(wish: Wish | events.Unknown) -> bool:
    """Not while the cameras collect: the collector tells when these are complete."""
    if isinstance(wish, events.Unknown):
        return True
    return bool(wish.calibration) or wish.request.spec.precision is Precision.INT8
