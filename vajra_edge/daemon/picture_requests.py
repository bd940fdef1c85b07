"""Picture requests: who asked for a snapshot, until it was sent, or none came. Called by the supervisor alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vajra_edge.config.settings import Settings
from vajra_edge.daemon.control.callers import Caller
from vajra_edge.daemon.state_machine import State
from vajra_edge.errors import ControlError
from vajra_edge.mqtt.picture import SnapshotSent
from vajra_edge.telemetry.status import CameraView
from vajra_edge.wording import clipped

WITHIN_S = 10.0
"""A camera that streams gives a picture in a fraction of it, and none that is lost comes back for sure."""


class PictureMaker(Protocol):
    """What makes snapshots; only enqueues."""

    def ask(self, camera: str) -> None:
        """Have the next frame of this camera become one."""
        ...

    def withdraw(self, camera: str) -> None:
        """Nobody waits for it any more."""
        ...


@dataclass(frozen=True)
class _Asked:
    caller: Caller
    camera: str
    until_s: float


class PictureRequests:
    """See the module.

    Args:
        maker: has them made.
    """

    def __init__(self, maker: PictureMaker) -> None:
        self._maker = maker
        self._asked: list[_Asked] = []

    def add(self, caller: Caller, fields: Mapping[str, object], settings: Settings, now_s: float) -> None:
        """One more.

        Raises:
            ControlError: it names no camera that is on.
        """
        name = fields.get("camera")
        known = {camera.id: camera.enabled for camera in settings.cameras}
        on = ", ".join(camera for camera, enabled in known.items() if enabled) or "none, for no camera is on"
        if not isinstance(name, str) or name not in known:
            what = "snapshot takes camera, the id of one" if name is None else f"there is no camera {clipped(name)}"
            raise ControlError(what, remedy=f"use one of {on}")
        if not known[name]:
            raise ControlError(f"camera {name} is off", remedy=f"turn it on, or use one of {on}")
        self._asked.append(_Asked(caller, name, now_s + WITHIN_S))
        self._maker.ask(name)

    def sent(self, event: SnapshotSent) -> None:
        """A snapshot that somebody asked for is on its way to the broker."""
        for one in self._asked:
            if one.camera == event.camera:
                one.caller.done(event.told)
        self._asked = [one for one in self._asked if one.camera != event.camera]

    def look(self, s: State, views: Callable[[], Iterable[CameraView]], now_s: float) -> None:
        """Tell who waits too long.

        Args:
            s: the machine's.
            views: how each camera fares.
            now_s: monotonic.
        """
        late = [one for one in self._asked if now_s > one.until_s]
        if not late:
            return
        self._asked = [one for one in self._asked if now_s <= one.until_s]
        for camera in {one.camera for one in late} - {one.camera for one in self._asked}:
            self._maker.withdraw(camera)
        by_id = {view.id: view for view in views()}
        for one in late:
            what = f"no picture of camera {one.camera} was sent within {WITHIN_S:.0f} s"
            why = _why(s, by_id.get(one.camera))
            one.caller.error(str(ControlError(f"{what}: {why}", remedy="ask again when it streams and a plan serves")))


def _why(s: State, view: CameraView | None) -> str:
    if s.serving is None:
        return f"no plan serves{f': {s.why}' if s.why else ''}"
    if view is None:
        return "it was taken out of the settings"
    return f"it is {view.state}{f': {view.reason}' if view.reason else ''}"
