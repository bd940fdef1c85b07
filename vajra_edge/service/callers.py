"""Callers: who asked for something, over the control socket or MQTT, and who still waits for a rebuild to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vajra_edge.errors import ControlError
from vajra_edge.publish.mqtt import Publisher
from vajra_edge.publish.requests import Requested
from vajra_edge.service.control import Asked, Control
from vajra_edge.service.phases import Phase, State, Step

HEARTBEAT_S = 3.0
"""A waiting client hears at least this often; it gives up after 15 s of silence."""


class Caller(Protocol):
    """Where answers go. Nothing here waits, and an answer to somebody who left is lost."""

    def progress(self, content: Mapping[str, object]) -> None:
        """More will come."""
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

    def progress(self, content: Mapping[str, object]) -> None:
        """A line."""
        self.control.reply(self.asked.client, {"kind": "progress", **content}, last=False)

    def done(self, content: Mapping[str, object]) -> None:
        """The last line."""
        self.control.reply(self.asked.client, {"kind": "done", **content})

    def error(self, reason: str) -> None:
        """The last line."""
        self.control.reply(self.asked.client, {"kind": "error", "error": reason})


@dataclass(frozen=True)
class MqttCaller:
    """A subscriber; progress is on the retained topics already."""

    publisher: Publisher
    request: Requested

    def progress(self, content: Mapping[str, object]) -> None:
        """Nothing."""

    def done(self, content: Mapping[str, object]) -> None:
        """The response."""
        self.publisher.respond(self.request, content)

    def error(self, reason: str) -> None:
        """The response."""
        self.publisher.respond(self.request, {}, reason)


@dataclass(frozen=True)
class RebuildAsked:
    """What a ``rebuild`` asks for.

    Attributes:
        caller: who asks.
        force: build even what is there.
        dry_run: only say what would be done.
        wait: answer when it is over, not when it has begun.
    """

    caller: Caller
    force: bool = False
    dry_run: bool = False
    wait: bool = True

    @classmethod
    def of(cls, caller: Caller, fields: Mapping[str, Any]) -> RebuildAsked:
        """Read the fields of a request.

        Raises:
            ControlError: a field is unknown, or no boolean.
        """
        for name, value in fields.items():
            if name not in ("force", "dry_run", "wait"):
                raise ControlError(f"rebuild knows no field {str(name)[:40]!r}", remedy="use force, dry_run, wait")
            if not isinstance(value, bool):
                raise ControlError(f"{name} = {str(value)[:40]!r} is not true or false", remedy="send a boolean")
        return cls(caller, **fields)


class Waiting:
    """Callers that wait until what is wanted serves or has failed."""

    def __init__(self) -> None:
        self._callers: list[Caller] = []
        self._last: object = None
        self._said_s = float("-inf")

    def add(self, caller: Caller) -> None:
        """One more."""
        self._callers.append(caller)
        self._last = None

    def look(self, s: State, status: Callable[[], Mapping[str, object]], building: object, now_s: float) -> None:
        """Tell everybody where things stand, if that is news or they have heard nothing for long.

        Args:
            s: the machine's.
            status: the status document as JSON values.
            building: view of the build in flight; another one is news.
            now_s: monotonic.
        """
        if not self._callers:
            return
        ended = outcome(s)
        if ended is None:
            news = s.step, s.building, s.loading, building
            if news != self._last or now_s - self._said_s >= HEARTBEAT_S:
                self._last, self._said_s = news, now_s
                content = status()
                for caller in self._callers:
                    caller.progress({"status": content})
            return
        callers, self._callers = self._callers, []
        for caller in callers:
            if ended:
                caller.error(ended)
            else:
                caller.done({"status": status()})


def outcome(s: State) -> str | None:
    """How a rebuild ended: empty where the wanted plan serves, a reason where it failed, None while it goes on."""
    if s.phase in (Phase.STOPPING, Phase.STOPPED, Phase.FAILED):
        return "the daemon is stopping"
    if s.step is Step.WAIT:
        return f"{s.reason} (it is tried again by itself)"
    if s.step is not Step.IDLE or s.going_back:
        return None
    served = s.serving is not None and s.serving.fingerprint == s.wanted
    return "" if served else s.reason or "there is nothing to build"
