"""Adoption: a bundle of signed weights on its way from the shelf to serving, or back. Called by the supervisor alone.

The machine knows nothing of it: a candidate's weights are wanted like any others. What becomes of the plan that they
ask for is read off the machine's state by ``verdict``, which is pure, and the background thread writes it to the shelf.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vajra_edge.bundles import bundle
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.shelf import Adopted, AdoptionOutcome, Shelf
from vajra_edge.bundles.spool import Spool
from vajra_edge.daemon import events
from vajra_edge.daemon.control.callers import HEARTBEAT_S, Caller
from vajra_edge.daemon.reconciler import DesiredPlan
from vajra_edge.daemon.state_machine import Phase, State, Step
from vajra_edge.errors import ControlError, VajraError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """Event: a bundle is a candidate from now on, or was one when the daemon started.

    Attributes:
        bundle: its digest.
        caller: who asked; None: the process before this one had begun.
        wait: he hears the end of it.
    """

    bundle: str
    caller: Caller | None = None
    wait: bool = True


@dataclass(frozen=True)
class Settled:
    """Event: it is written down what came of a bundle.

    Attributes:
        outcome: of it.
        caller: who hears of it beside those who wait; None: nobody.
        changed: what is wanted is another than before.
    """

    outcome: AdoptionOutcome
    caller: Caller | None = None
    changed: bool = False


AdoptionEvent = Chosen | Settled


def verdict(s: State, plan: str, rejected: str) -> tuple[Adopted, str] | None:
    """What came of the plan that a bundle asks for, with the reason; None while that is open.

    Args:
        s: the machine's.
        plan: fingerprint of it.
        rejected: why it was rolled back, or is held after what it did before; empty where it is neither.
    """
    if s.wanted != plan or s.phase in (Phase.STOPPING, Phase.STOPPED, Phase.FAILED):
        return None
    if s.rests:
        return Adopted.SERVING, ""
    if s.going_back or s.building is not None or (s.loading is not None and s.loading.fingerprint == plan):
        return None
    served = s.serving is not None and s.serving.fingerprint == plan
    if served or s.step in (Step.BUILD, Step.LOAD):
        return None
    return (Adopted.ROLLED_BACK, rejected) if rejected else (Adopted.REFUSED, s.why)


class Adoption:
    """Callers that wait for it, and the bundle under way.

    Args:
        shelf: of this device.
        spool: of this device.
        do: puts a task behind the others of the background thread; its event is posted.
    """

    def __init__(
        self, shelf: Shelf, spool: Spool, do: Callable[[str, Callable[[], AdoptionEvent | None]], None]
    ) -> None:
        self._shelf, self._spool, self._do = shelf, spool, do
        self._bundle = ""
        self._rejected = ""
        self._settling = False
        self._callers: list[Caller] = []
        self._said_s = float("-inf")

    def start(self) -> None:
        """Go on with what the process before this one had begun."""
        self._do("look for a bundle under way", self._found)

    def ask(self, caller: Caller, fields: Mapping[str, object], keys: Path) -> None:
        """Somebody wants a bundle to serve that lies on the shelf; ``keys`` is the folder of trusted ones.

        Raises:
            ControlError: a field is missing or of another type.
        """
        digest, wait = fields.get("bundle"), fields.get("wait", True)
        resume = fields.get("resume", False)
        if not isinstance(digest, str) or not isinstance(wait, bool) or not isinstance(resume, bool):
            raise ControlError("adopt takes a bundle's digest, and wait and resume that are true or false")
        if unknown := set(fields) - {"bundle", "wait", "resume"}:
            raise ControlError(f"adopt knows no field {min(unknown)[:40]!r}", remedy="use bundle, wait, resume")
        self._do("choose a bundle", lambda: self._choose(caller, digest, keys, wait=wait, resume=resume))

    def ask_by_name(self, caller: Caller, fields: Mapping[str, object], keys: Path) -> None:
        """Somebody elsewhere wants a bundle to serve that lies in the spool.

        Raises:
            ControlError: a field is missing or of another type.
        """
        name, wait = fields.get("bundle"), fields.get("wait", True)
        if not isinstance(name, str) or not isinstance(wait, bool):
            what = "adopt takes bundle, the name of a file, and wait, which is true or false"
            raise ControlError(what, remedy=f"name a file in {self._spool.folder}")
        self._do("unpack a bundle", lambda: self._unpack(caller, name, keys, wait=wait))

    def chosen(self, event: Chosen) -> bool:
        """A bundle is under way; whether what is wanted is another now."""
        anew = event.bundle != self._bundle
        if anew:
            self._bundle, self._rejected, self._settling = event.bundle, "", False
        if event.caller is None:
            return False
        started = {"outcome": "started", "bundle": event.bundle}
        if event.wait:
            self._callers.append(event.caller)
            event.caller.accepted(started)
        else:
            event.caller.done(started)
        return anew

    def settled(self, event: Settled) -> None:
        """Tell everybody who waits."""
        told = event.outcome
        answer = {"outcome": told.adopted.value, "bundle": told.bundle, "serial": told.serial, "reason": told.reason}
        if event.caller is not None:
            event.caller.done(answer)
        if event.outcome.bundle == self._bundle:
            callers, self._callers, self._bundle = self._callers, [], ""
            for caller in callers:
                caller.done(answer)

    def heard(self, actions: tuple[events.Action, ...], plan: str | None) -> None:
        """What the machine asks for may be the end of the candidate's plan."""
        for action in actions:
            if isinstance(action, events.Reject) and action.fingerprint == plan:
                self._rejected = action.reason

    def unknown(self, reason: str) -> None:
        """What the candidate asks for cannot be worked out."""
        self._settle(Adopted.REFUSED, reason)

    def look(self, s: State, desired: DesiredPlan | None, now_s: float) -> None:
        """See whether the end has come, and let those who wait know that it goes on.

        Args:
            s: the machine's.
            desired: newest one.
            now_s: monotonic.
        """
        if not self._bundle or self._settling:
            return
        if desired is not None and desired.candidate == self._bundle:
            told = verdict(s, desired.fingerprint.digest, self._rejected or desired.rejected)
            if told is not None:
                self._settle(*told)
                return
        if now_s - self._said_s >= HEARTBEAT_S:
            self._said_s = now_s
            content = {"phase": s.phase.value, "step": s.step.value, "on_probation": s.probation_until_s is not None}
            self._callers = [caller for caller in self._callers if caller.progress(content)]

    def _settle(self, adopted: Adopted, reason: str) -> None:
        if not self._bundle or self._settling:
            return
        self._settling, digest = True, self._bundle
        log.info("bundle %s: %s%s", digest[:12], adopted.value, f": {reason}" if reason else "")
        self._do("settle a bundle", lambda: self._write(AdoptionOutcome(digest, adopted, reason)))

    def _write(self, outcome: AdoptionOutcome) -> Settled:
        full = AdoptionOutcome(outcome.bundle, outcome.adopted, outcome.reason, self._shelf.serial(outcome.bundle))
        self._shelf.settle(full)
        return Settled(full, changed=outcome.adopted is not Adopted.SERVING)

    def _found(self) -> Chosen | None:
        candidate = self._shelf.candidate
        return None if candidate is None else Chosen(candidate)

    def _unpack(self, caller: Caller, name: str, keys: Path, *, wait: bool) -> AdoptionEvent:
        """In the background thread. Nothing is written before the whole bundle was checked: it may be asked often."""
        try:
            keyring = Keyring.load(keys)
            with self._spool.open(name) as file:
                verified = bundle.read(file, keyring)
                self._shelf.require_newer(verified)
                if verified.digest not in (self._shelf.current, self._shelf.candidate):
                    file.seek(0)
                    verified = self._shelf.unpack(file, keyring)
        except VajraError as error:
            return Settled(AdoptionOutcome("", Adopted.REFUSED, f"bundle {name[:40]!r}: {error}"), caller)
        return self._choose(caller, verified.digest, keys, wait=wait, resume=False)

    def _choose(self, caller: Caller, digest: str, keys: Path, *, wait: bool, resume: bool) -> AdoptionEvent:
        """In the background thread."""
        if digest == self._shelf.current and self._shelf.candidate is None:
            return Settled(AdoptionOutcome(digest, Adopted.SERVING, serial=self._shelf.serial(digest)), caller)
        if digest == self._shelf.candidate:
            return Chosen(digest, caller, wait)
        if resume and (known := self._shelf.outcome(digest)) is not None:
            return Settled(known, caller)
        try:
            if self._shelf.candidate is not None:
                raise ControlError("another bundle is under way", remedy="wait until that is over")
            self._shelf.require_newer(self._shelf.installed(digest, Keyring.load(keys)))
            self._shelf.try_out(digest)
        except VajraError as error:
            return Settled(AdoptionOutcome(digest, Adopted.REFUSED, str(error)), caller)
        return Chosen(digest, caller, wait)
