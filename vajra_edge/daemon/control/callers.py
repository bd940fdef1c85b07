"""Callers: who asked for something, over the control socket or MQTT, and who still waits for a rebuild to end."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from vajra_edge.bundles.shelf import Adopted
from vajra_edge.daemon.control.server import Asked, Control
from vajra_edge.daemon.state_machine import Phase, State, Step
from vajra_edge.errors import ControlError
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.plans.report_json import write_verify
from vajra_edge.telemetry.plan_view import PlanView
from vajra_edge.telemetry.status import BuildView
from vajra_edge.wording import clipped

HEARTBEAT_S = 3.0
"""A waiting client hears at least this often; it gives up after 15 s of silence."""


class Caller(Protocol):
    """Where answers go. Nothing here waits, and an answer to somebody who left is lost."""

    @property
    def who(self) -> str:
        """For the history."""
        ...

    @property
    def may_adopt(self) -> bool:
        """Whether this one may give the device new weights."""
        ...

    def accepted(self, content: Mapping[str, object]) -> None:
        """It is being done, and takes its time."""
        ...

    def progress(self, content: Mapping[str, object], /) -> bool:
        """More will come; False: nobody hears it any more."""
        ...

    def done(self, content: Mapping[str, object]) -> None:
        """All went well; the last answer."""
        ...

    def error(self, reason: str) -> None:
        """It failed; the last answer."""
        ...


@dataclass(frozen=True)
class SocketCaller:
    """A client of the control socket."""

    control: Control
    asked: Asked

    @property
    def who(self) -> str:
        """The process and its user."""
        peer = self.asked.peer
        return "control socket" if peer is None else f"user {_name_of(peer.uid)}, process {peer.pid}"

    @property
    def may_adopt(self) -> bool:
        """Root and the service's user; the group may ask for anything else."""
        return self.asked.peer is not None and self.asked.peer.may_adopt

    def accepted(self, _content: Mapping[str, object]) -> None:
        """Nothing; progress follows at once."""

    def progress(self, content: Mapping[str, object]) -> bool:
        """A line."""
        return self.control.reply(self.asked.client, {"kind": "progress", **content}, last=False)

    def done(self, content: Mapping[str, object]) -> None:
        """The last line."""
        self.control.reply(self.asked.client, {"kind": "done", **content})

    def error(self, reason: str) -> None:
        """The last line."""
        self.control.reply(self.asked.client, {"kind": "error", "error": reason})


@dataclass(frozen=True)
class MqttCaller:
    """A subscriber; progress is on the retained topics already.

    Attributes:
        publisher: answers.
        request: what was asked.
        key: name of the trusted key that signed it; empty: nobody did.
    """

    publisher: Publisher
    request: Requested
    key: str = ""

    @property
    def who(self) -> str:
        """MQTT does not say who publishes; the transaction is the caller's own word, a key is not."""
        transaction, key = self.request.transaction, self.key
        return "MQTT" + (f", transaction {transaction}" if transaction else "") + (f", key {key}" if key else "")

    @property
    def may_adopt(self) -> bool:
        """Nobody who is not on the device, beyond what was put into its spool."""
        return False

    def accepted(self, content: Mapping[str, object]) -> None:
        """A response before the last one."""
        self.publisher.accept(self.request, content)

    def progress(self, _content: Mapping[str, object]) -> bool:
        """Nothing; whether the subscriber is still there cannot be known."""
        return True

    def done(self, content: Mapping[str, object]) -> None:
        """The response; that a bundle does not serve is an error to who asked for it."""
        failed = content.get("outcome") in (Adopted.REFUSED.value, Adopted.ROLLED_BACK.value)
        self.publisher.respond(self.request, content, str(content["reason"]) if failed else "")

    def error(self, reason: str) -> None:
        """The response."""
        self.publisher.respond(self.request, {}, reason)


@dataclass(frozen=True)
class Preview:
    """What a rebuild would do and why: the answer to a dry run, and the beginning of every other.

    Attributes:
        fingerprint: of the plan that is wanted.
        weights: path of the file.
        weights_sha256: of its content.
        serving: fingerprint of the plan that serves, or None.
        have: what the store has of the wanted one.
        needed: whether there is anything to build.
        why: what differs from the plan that served last.
        rejected: why it is not tried again by itself; empty where it is.
        backend: that builds it.
        backend_reason: why that one was taken.
        calibration: why INT8's images are not used; empty where nothing is wrong with them.
    """

    fingerprint: str
    weights: str
    weights_sha256: str
    serving: str | None
    have: str
    needed: bool
    why: tuple[str, ...]
    rejected: str
    backend: str
    backend_reason: str
    calibration: str

    def answer(self, **more: str | float | bool | Mapping[str, object] | None) -> dict[str, object]:
        """The fields in this order, then those that are known by now."""
        return {**asdict(self), **more}


@dataclass(frozen=True)
class RebuildAsked:
    """What a ``rebuild`` asks for.

    Attributes:
        caller: who asks.
        force: build even what is there.
        dry_run: only say what would be done.
        wait: answer when it is over, not when it has begun.
        rollback: go back to the plan before, and stay there until weights or settings change.
    """

    caller: Caller
    force: bool = False
    dry_run: bool = False
    wait: bool = True
    rollback: bool = False

    @classmethod
    def of(cls, caller: Caller, fields: Mapping[str, Any]) -> RebuildAsked:
        """Read the fields of a request.

        Raises:
            ControlError: a field is unknown, or no boolean; or two of them contradict each other.
        """
        for name, value in fields.items():
            if name not in ("force", "dry_run", "wait", "rollback"):
                remedy = "use force, dry_run, wait, rollback"
                raise ControlError(f"rebuild knows no field {clipped(name)}", remedy=remedy)
            if not isinstance(value, bool):
                raise ControlError(f"{name} = {clipped(value)} is not true or false", remedy="send a boolean")
        if fields.get("rollback") and (fields.get("force") or fields.get("dry_run")):
            raise ControlError("a rollback builds nothing", remedy="leave out force and dry_run")
        return cls(caller, **fields)


@dataclass(frozen=True)
class ReloadAsked:
    """Event: the settings are to be read again.

    Attributes:
        caller: who waits for the answer.
        look: look at the weights file too, without settling; False: the settings file alone moved.
    """

    caller: Caller | None = None
    look: bool = True


@dataclass(frozen=True)
class _Waiter:
    caller: Caller
    preview: Preview
    built_at: str


class Waiting:
    """Callers that wait until what is wanted serves or has failed."""

    def __init__(self) -> None:
        self._waiters: list[_Waiter] = []
        self._last: object = None
        self._said_s = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def add(self, caller: Caller, preview: Preview, serving: PlanView | None) -> None:
        """One more.

        Args:
            caller: hears the end.
            preview: what was to be done, part of the last answer.
            serving: the plan that serves now.
        """
        self._waiters.append(_Waiter(caller, preview, _built_at(serving)))
        caller.accepted(preview.answer())
        self._last = None

    def look(
        self, s: State, serving: PlanView | None, building: BuildView | None, now_s: float, *, swapping: bool
    ) -> None:
        """Tell everybody where things stand, if that is news or they have heard nothing for long.

        Args:
            s: the machine's.
            serving: the plan that serves.
            building: the build in flight; another view is news.
            now_s: monotonic.
            swapping: the frame loop has not taken the newest plan yet, so that nothing has ended well so far.
        """
        if not self._waiters:
            return
        ended = outcome(s)
        if ended is None or (swapping and not ended):
            self._report(s, building, now_s)
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if ended or serving is None:
                waiter.caller.error(ended)
            else:
                waiter.caller.done(_achieved(serving, waiter))

    def _report(self, s: State, building: BuildView | None, now_s: float) -> None:
        news = s.step, s.building, s.loading, building
        if news == self._last and now_s - self._said_s < HEARTBEAT_S:
            return
        self._last, self._said_s = news, now_s
        content = {"phase": s.phase.value, "step": s.step.value, "building": asdict(building) if building else None}
        gone = [waiter for waiter in self._waiters if not waiter.caller.progress(content)]
        for waiter in gone:
            self._waiters.remove(waiter)
            waiter.caller.error("nobody waits for it")  # its place is free for another


def _achieved(serving: PlanView, waiter: _Waiter) -> dict[str, object]:
    return waiter.preview.answer(
        built=serving.built_at != waiter.built_at,
        serving=serving.fingerprint,
        precision=serving.precision,
        target=serving.target,
        build_s=serving.build_s,
        verify=write_verify(serving.verify),
    )


def _name_of(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _built_at(serving: PlanView | None) -> str:
    return serving.built_at if serving else ""


def outcome(s: State) -> str | None:
    """How a rebuild ended: empty where the wanted plan serves, a reason where it failed, None while it goes on."""
    if s.phase in (Phase.STOPPING, Phase.STOPPED, Phase.FAILED):
        return "the daemon is stopping"
    if s.step is Step.WAIT:
        return f"{s.reason} (it is tried again by itself)"
    if s.step is not Step.IDLE or s.going_back:
        return None
    served = s.serving is not None and s.serving.fingerprint == s.wanted
    return "" if served else s.why or "there is nothing to build"
