"""Recorder: what the audit log and its topic are told of the daemon's life. Called by the supervisor alone.

What happened is read off the machine's step: ``entries_of`` is pure. The file is written by the background thread, in
order; the topic always has the newest entries, numbered, so that a subscriber sees whether one passed him by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from vajra_edge.daemon import events
from vajra_edge.daemon.death import Death
from vajra_edge.daemon.state_machine import State
from vajra_edge.errors import StoreError
from vajra_edge.mqtt.messages import HistoryEntry
from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened

TOLD = 10
"""Newest entries in one message: more than can come while a message is under way."""

PROBATION = "probation"
"""Asks for a plan to go, in the place of a person."""


@dataclass(frozen=True)
class MachineStep:
    """One step of the machine.

    Attributes:
        event: what it heard.
        before: its state until then.
        after: and since.
        actions: what it asks for.
    """

    event: events.Event
    before: State
    after: State
    actions: tuple[events.Action, ...]


def entries_of(step: MachineStep, took_s: Mapping[int, float], compared: Mapping[str, float]) -> tuple[AuditEntry, ...]:
    """What is worth remembering of a step, in order.

    Args:
        step: of the machine.
        took_s: seconds since the build or the load of each number began.
        compared: the serving plan's figures and those of the one before it.
    """
    told = [*_ended(step, took_s)]
    if step.after.unknown and step.after.unknown != step.before.unknown:
        told.append(AuditEntry(Happened.REFUSED, reason=step.after.unknown))
    for action in step.actions:
        match action:
            case events.MarkGood(fingerprint) if _is_on_probation(step.before, fingerprint):
                told.append(
                    AuditEntry(Happened.KEPT, fingerprint, "it passed its probation", PROBATION, figures=compared)
                )
            case events.Reject(fingerprint, reason):
                told.append(AuditEntry(Happened.ROLLED_BACK, fingerprint, reason, PROBATION, figures=compared))
            case events.Strike(fingerprint, reason):
                told.append(AuditEntry(Happened.STRUCK, fingerprint, reason))
            case _:
                pass
    return tuple(told)


def _is_on_probation(s: State, fingerprint: str) -> bool:
    """Whether it served on probation; a plan that is gone back to counts as good in the middle of another's."""
    return s.probation_until_s is not None and s.serving is not None and s.serving.fingerprint == fingerprint


def _ended(step: MachineStep, took_s: Mapping[int, float]) -> Iterable[AuditEntry]:
    """Builds and loads; late news of a job that nobody waits for any more is none."""
    match step.event:
        case events.BuildDone(job) if job == step.before.building:
            yield AuditEntry(Happened.BUILT, job.fingerprint, duration_s=took_s.get(job.number))
        case events.BuildFailed(job, reason, permanent) if job == step.before.building:
            happened = Happened.REFUSED if permanent else Happened.FAILED
            yield AuditEntry(happened, job.fingerprint, reason, duration_s=took_s.get(job.number))
        case events.LoadFailed(job, reason) if job == step.before.loading:
            yield AuditEntry(Happened.FAILED, job.fingerprint, reason, duration_s=took_s.get(job.number))
        case _:
            return


class Recorder:
    """Notes what happens.

    Args:
        log: of this device.
        do: puts a task behind the others of the background thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        log: AuditLog,
        do: Callable[[str, Callable[[], None]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._do, self._clock = log, do, clock
        self._asked_by = "start"
        self._began_s: dict[int, float] = {}
        self._newest: tuple[AuditEntry, ...] = ()  # the background thread alone replaces it

    def start(self, death: Death | None) -> None:
        """Recall what the last process told, and note how it ended unless it did in order."""
        self._do("read the history", self._recall)
        if death is not None and death.line:
            self.note(AuditEntry(Happened.CRASHED, death.fingerprint or "", death.line, "start"))

    def because(self, asked_by: str) -> None:
        """What follows was caused by this: a person, a file, the settings."""
        self._asked_by = asked_by

    def advanced(self, step: MachineStep, compared: Mapping[str, float]) -> None:
        """Note what is worth it of a step."""
        now_s = self._clock()
        self._began_s.update({a.job.number: now_s for a in step.actions if isinstance(a, events.Build | events.Load)})
        ended = {number: round(now_s - began_s, 2) for number, began_s in self._began_s.items()}
        for entry in entries_of(step, ended, compared):
            self.note(entry)
        if any(isinstance(action, events.Reject) for action in step.actions):
            self._asked_by = PROBATION  # for the swap to the plan before
        under_way = {job.number for job in (step.after.building, step.after.loading) if job is not None}
        self._began_s = {number: began_s for number, began_s in self._began_s.items() if number in under_way}

    def note(self, entry: AuditEntry) -> None:
        """Write an entry down, behind what the background thread has to do already."""
        entry = replace(entry, asked_by=entry.asked_by or self._asked_by)
        self._do("note in the history", lambda: self._append(entry))

    def newest(self) -> tuple[HistoryEntry, ...]:
        """For the topic, the newest last."""
        return tuple(_told(entry) for entry in self._newest)

    def _append(self, entry: AuditEntry) -> None:
        self._keep((self._log.append(entry),))

    def _recall(self) -> None:
        told = self._log.read()
        self._keep(told.entries[-TOLD:])
        if told.doubts:
            raise StoreError(f"the history was changed or damaged: {'; '.join(told.doubts[:3])}")

    def _keep(self, entries: Iterable[AuditEntry]) -> None:
        self._newest = (*self._newest, *entries)[-TOLD:]


def _told(entry: AuditEntry) -> HistoryEntry:
    return HistoryEntry(
        entry.number,
        entry.at_utc,
        entry.at is not None and entry.at.synchronised,
        entry.happened.value,
        entry.fingerprint[:12] or None,
        entry.reason,
        entry.asked_by,
        entry.duration_s,
        entry.figures,
    )
