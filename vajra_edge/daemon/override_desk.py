"""Override desk: takes what people change while the daemon runs, keeps it on disk, and gives it back at the next start.

``<state_dir>/overrides/overrides.json`` is written in the background before anything is applied: whoever hears ``done``
has a change that a power cut does not undo. A file that cannot be understood is put aside and said; it stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from pydantic import TypeAdapter

from vajra_edge import clock, durable, state_file
from vajra_edge.analytics.doubts import of_places
from vajra_edge.clock import Moment
from vajra_edge.config import overrides as known
from vajra_edge.config import text_file
from vajra_edge.config.overrides import Override, Overrides
from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.config.text_file import Unreadable
from vajra_edge.daemon.control.callers import Caller
from vajra_edge.daemon.place_views import places_of
from vajra_edge.errors import ControlError, SettingsError, StoreError, VajraError
from vajra_edge.wording import clipped

log = logging.getLogger(__name__)

FOLDER, NAME = "overrides", "overrides.json"

MOST_BYTES = 1024 * 1024
"""A thousand zones."""

_READ = TypeAdapter(dict[str, Override])
_TASK = "keep what was changed"


@dataclass(frozen=True)
class Overridden:
    """Event: a change is on disk and to be applied, or could not be made.

    Attributes:
        caller: who asked, and hears the end.
        changed: the settings that it is about.
        overrides: all that there are now; None: nothing was changed.
        refusal: why not.
    """

    caller: Caller
    changed: tuple[str, ...] = ()
    overrides: Overrides | None = None
    refusal: VajraError | None = None


@dataclass
class OverrideDesk:
    """See the module.

    Args:
        state_dir: the folder goes below it.
        do: puts a task behind the others of the background thread; its event is posted.
        now: this moment.

    Attributes:
        kept: what is on disk; only the background thread replaces it, once there is one.
        damage: what befell the file; empty once a change was kept.
    """

    state_dir: Path
    do: Callable[[str, Callable[[], Overridden]], None]
    now: Callable[[], Moment] = clock.now
    kept: Overrides = field(default_factory=dict)
    damage: str = ""

    def open(self) -> None:
        """Read what an earlier process kept."""
        for torn in self._folder.glob("*") if self._folder.is_dir() else ():
            if not torn.suffix:  # a power cut left it
                with suppress(OSError):
                    torn.unlink()
        content = text_file.read_bytes(self._path, MOST_BYTES)
        if isinstance(content, Unreadable):
            if self._path.exists():
                self._put_aside(content.what)
            return
        try:
            self.kept = _READ.validate_python(state_file.parse(content))
        except ValueError:
            self._put_aside("cannot be understood")

    def set(
        self, caller: Caller, fields: Mapping[str, object], settings: Settings, class_names: Sequence[str] = ()
    ) -> None:
        """Change one setting; ``Overridden`` follows.

        Args:
            caller: who asks.
            fields: of the request.
            settings: that count now.
            class_names: of the plan that serves; empty where none does.

        Raises:
            VajraError: the request, or the value, is not one that can be taken.
        """
        setting = _text(fields, "set", ("setting", "value"))
        if "value" not in fields:
            raise ControlError("set takes a value", remedy="send one, or ask for unset")
        value = known.checked(setting, fields["value"], settings, class_names)
        _require_meant(setting, value)
        now = self.now()
        at = datetime.fromtimestamp(now.unix_s, timezone.utc).isoformat(timespec="seconds")
        new = Override(value, caller.who, at, now.synchronised)
        self.do(_TASK, lambda: self._done(caller, (setting,), lambda: {**self.kept, setting: new}))

    def unset(self, caller: Caller, fields: Mapping[str, object]) -> None:
        """Undo the change of a setting, or all of a camera; ``Overridden`` follows.

        Raises:
            VajraError: the request is not one that can be taken.
        """
        name = _text(fields, "unset", ("setting",))
        gone = known.named(name, self.kept)
        left = lambda: {setting: one for setting, one in self.kept.items() if setting not in gone}  # noqa: E731
        self.do(_TASK, lambda: self._done(caller, gone, left))

    @property
    def _folder(self) -> Path:
        return self.state_dir / FOLDER

    @property
    def _path(self) -> Path:
        return self._folder / NAME

    def _done(self, caller: Caller, changed: tuple[str, ...], after: Callable[[], Overrides]) -> Overridden:
        """In the background thread, one after the other: each change is made to what the one before it left."""
        overrides = after()
        try:
            self._write(overrides)
        except StoreError as error:
            return Overridden(caller, refusal=error)
        self.kept, self.damage = overrides, ""
        return Overridden(caller, changed, overrides)

    def _write(self, overrides: Overrides) -> None:
        content = _READ.dump_json(dict(overrides))
        if len(content) > MOST_BYTES:
            what = f"all that was changed has {len(content)} bytes, above {MOST_BYTES}"
            raise StoreError(what, remedy="write zones into the settings file, and unset them")
        with durable.reported(self._folder, "written"):
            durable.make_folder(self._folder)
            durable.replace(self._path, content, self._folder)

    def _put_aside(self, what: str) -> None:
        aside = self._path.with_suffix(".damaged")
        try:
            self._path.replace(aside)
            where = f"it is {aside.name} now"
        except OSError as error:
            where = f"it cannot be put aside: {error.strerror}"
        self.damage = f"{self._path} {what}, {where}: the settings file alone holds; set again what was changed"
        log.error("%s", self.damage)


def _require_meant(setting: str, value: object) -> None:
    """The settings file may say what is doubtful, and is told; whoever changes something now has made a mistake.

    Raises:
        SettingsError: a zone or line would count too little.
    """
    section = known.alone(setting, value)
    doubt = next(of_places(places_of(section)), "") if isinstance(section, CameraSettings) else ""
    if doubt:
        raise SettingsError(f"{setting}: {doubt}", remedy="it stays as it was")


def _text(fields: Mapping[str, object], verb: str, takes: tuple[str, ...]) -> str:
    """The setting's name.

    Raises:
        ControlError: the request has other fields, or no such.
    """
    if unknown := next((name for name in fields if name not in takes), None):
        raise ControlError(f"{verb} knows no field {clipped(unknown)}", remedy=f"it takes {', '.join(takes)}")
    setting = fields.get("setting")
    if not isinstance(setting, str):
        raise ControlError(
            f"{verb} takes a setting, like cameras.gate.confidence", remedy=f"send {' and '.join(takes)}"
        )
    return setting
