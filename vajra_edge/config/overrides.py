"""Overrides: the few settings that people change while the daemon runs, laid over the settings file and environment.

The settings file is root's, and the service may not write it. What is changed from afar is therefore kept beside it, by
the setting's name: ``detect.confidence``, or ``cameras.<id>.confidence`` with the camera's id. Each is checked by the
very types of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from vajra_edge import state_file
from vajra_edge.config import checks, environment
from vajra_edge.config.mistakes import of_one
from vajra_edge.config.settings import CameraSettings, DetectSettings, Settings, is_tracked
from vajra_edge.errors import SettingsError
from vajra_edge.wording import clipped

OF_A_CAMERA = ("enabled", "confidence", "classes", "snapshot_every_s", "zones", "lines")
OF_DETECT = ("confidence", "classes")
"""What may be changed, and nothing else: it is applied in place, touches one camera, and builds nothing."""

ALLOWED = f"cameras.<id>.{{{', '.join(OF_A_CAMERA)}}} or detect.{{{', '.join(OF_DETECT)}}}"

_CAMERAS, _DETECT = "cameras", "detect"
_MOST_NAMED = 10
_NEUTRAL: Mapping[str, Any] = {"id": "x", "source": "x"}

Source: TypeAlias = Literal["file", "environment", "default"]
"""Where a setting has the value from that an override lies over."""


@dataclass(frozen=True)
class Override:
    """One change.

    Attributes:
        value: as JSON has it; checked.
        by: who made it.
        at: when, UTC, ISO 8601.
        clock_synchronised: the clock that says so was known to be right.
    """

    value: object
    by: str
    at: str
    clock_synchronised: bool


Overrides: TypeAlias = Mapping[str, Override]
"""By the setting's name."""


@dataclass(frozen=True)
class Place:
    """Where a setting is: ``camera`` is None for one of ``[detect]``."""

    camera: str | None
    field: str


def place_of(setting: object) -> Place:
    """Where the setting of this name is.

    Raises:
        SettingsError: there is none, or it may not be changed while the daemon runs.
    """
    section, _, rest = setting.partition(".") if isinstance(setting, str) else ("", "", "")
    camera, _, field = rest.rpartition(".")  # an id may hold dots
    if section == _CAMERAS and camera and field in OF_A_CAMERA:
        return Place(camera, field)
    if section == _DETECT and rest in OF_DETECT:
        return Place(None, rest)
    what = f"{clipped(setting)} is no setting that can be changed while the daemon runs"
    raise SettingsError(what, remedy=f"change {ALLOWED}; all else stands in the settings file")


def checked(setting: str, value: object, settings: Settings, class_names: Sequence[str] = ()) -> object:
    """A value as JSON has it, once it is one that the setting takes.

    Args:
        setting: its name.
        value: as JSON has it.
        settings: for the cameras that there are.
        class_names: that the network knows; empty where that is not known.

    Raises:
        SettingsError: there is no such setting or camera, or it takes another value.
    """
    place = place_of(setting)
    known = [camera.id for camera in settings.cameras]
    if place.camera is not None and place.camera not in known:
        raise SettingsError(f"there is no camera {clipped(place.camera)}", remedy=f"use one of {', '.join(known)}")
    try:
        taken = _section(place, value).model_dump(mode="json")[place.field]
    except ValidationError as error:
        raise SettingsError(
            of_one(setting, place.field, error.errors()), remedy="it stays as it was; set another value"
        ) from None
    if place.field == "classes" and class_names:
        _require_known(setting, taken or (), class_names)
    if why := _why_not_beside(place, taken, settings) or _why_tracked(place, taken, settings):
        raise SettingsError(f"{setting}: {why}", remedy="it stays as it was; set another value")
    return taken


def alone(setting: str, value: object) -> CameraSettings | DetectSettings:
    """Made-up settings of a camera, or of ``[detect]``, with this one checked value in them."""
    return _section(place_of(setting), value)


def laid_over(settings: Settings, overrides: Overrides) -> Settings:
    """The settings with each override in them that can have an effect."""
    cameras = {camera.id: camera for camera in settings.cameras}
    detect = settings.detect
    for setting, override in overrides.items():
        if why_idle(setting, override, settings):
            continue
        place = place_of(setting)
        update = {place.field: getattr(_section(place, override.value), place.field)}
        if place.camera is None:
            detect = detect.model_copy(update=update)
        else:
            cameras[place.camera] = cameras[place.camera].model_copy(update=update)
    return settings.model_copy(update={"cameras": tuple(cameras.values()), "detect": detect})


def why_idle(setting: str, override: Override, settings: Settings) -> str:
    """Why an override has no effect; empty where it has one. It is kept: a camera may come back."""
    try:
        place = place_of(setting)
        _section(place, override.value)
    except SettingsError as error:
        return str(error.message)
    except ValidationError as error:
        return of_one(setting, setting.rpartition(".")[2], error.errors())
    if place.camera is not None and place.camera not in {camera.id for camera in settings.cameras}:
        return f"camera {place.camera} is not in the settings file"
    if why := _why_not_beside(place, override.value, settings):
        return f"{setting}: {why}"
    return ""


def beneath(setting: str, settings: Settings, environ: Mapping[str, str]) -> tuple[object, Source]:
    """What a setting would be without its override, as JSON has it, and where it has that from.

    Args:
        setting: one that has an effect.
        settings: without any override.
        environ: the environment that they were loaded with.
    """
    place, section = place_of(setting), _section_of(setting, settings)
    value = value_of(setting, settings)
    if section is None or place.field not in section.model_fields_set:
        return value, "default"
    told = environment.read(environ, Settings).values
    by_environment = place.field in told.get(_DETECT, {}) if place.camera is None else _CAMERAS in told
    return value, "environment" if by_environment else "file"


def value_of(setting: str, settings: Settings) -> object:
    """What a setting is, as JSON has it; None too where there is no such setting, or no such camera."""
    try:
        section, field = _section_of(setting, settings), place_of(setting).field
    except SettingsError:  # kept by a release that knew it
        return None
    return None if section is None else section.model_dump(mode="json", include={field})[field]


def named(name: str, overrides: Overrides) -> tuple[str, ...]:
    """The overrides that a name means: that of one setting, or all of ``cameras.<id>`` or ``detect``.

    Raises:
        SettingsError: it means none.
    """
    if name in overrides:
        return (name,)
    found = tuple(setting for setting in overrides if setting.rpartition(".")[0] == name)
    if not found:
        there = ", ".join(overrides) or "nothing"
        raise SettingsError(f"{clipped(name)} was not changed", remedy=f"what was: {there}")
    return found


def typed(setting: str, text: str) -> object:
    """What somebody means who types a value: JSON, ``on`` or ``off``, or names with commas between them."""
    field = place_of(setting).field
    words = text.strip()
    if field == "enabled" and words.lower() in ("on", "yes", "off", "no"):
        return words.lower() in ("on", "yes")
    try:
        return state_file.parse(words.encode())
    except ValueError:  # 1e999 and NaN, too, which a request cannot hold
        pass
    if words.lower() == "none":
        return None
    return [name.strip() for name in words.split(",")] if field == "classes" else text


def changed_fields(camera: str, overrides: Overrides) -> Iterator[str]:
    """Which settings of a camera have an override."""
    for setting in overrides:
        section, _, field = setting.rpartition(".")
        if section == f"{_CAMERAS}.{camera}":
            yield field


def turned_off(settings: Settings, overrides: Overrides) -> bool:
    """Whether a camera is off because somebody turned it off, who may turn it on again."""
    return any(not camera.enabled and f"{_CAMERAS}.{camera.id}.enabled" in overrides for camera in settings.cameras)


def _why_not_beside(place: Place, value: object, settings: Settings) -> str:
    """Why a value that is right by itself cannot be beside the other settings, as in the file; empty where it can."""
    section = _section(place, value)
    if "frigate" not in settings.mqtt.outputs or not isinstance(section, CameraSettings):
        return ""
    try:
        checks.apart([camera.id for camera in settings.cameras], [zone.name for zone in section.zones])
    except ValueError as error:
        return str(error)
    return ""


def _why_tracked(place: Place, value: object, settings: Settings) -> str:
    """Why the last place of a camera has to stay; empty where it may go."""
    camera = next((one for one in settings.cameras if one.id == place.camera), None)
    if "frigate" not in settings.mqtt.outputs or camera is None or not is_tracked(camera):
        return ""
    update = {place.field: getattr(_section(place, value), place.field)}
    try:
        checks.tracked([] if is_tracked(camera.model_copy(update=update)) else [camera.id])
    except ValueError as error:
        return str(error)
    return ""


def _require_known(setting: str, names: Sequence[str], class_names: Sequence[str]) -> None:
    """The settings file may name what only the next weights know; whoever changes something now has made a mistake."""
    if strange := next((name for name in names if name not in class_names), None):
        more = f" and {len(class_names) - _MOST_NAMED} more" if len(class_names) > _MOST_NAMED else ""
        known = f"{', '.join(class_names[:_MOST_NAMED])}{more}"
        raise SettingsError(
            f"{setting}: there is no class {clipped(strange)}", remedy=f"it stays as it was; the network knows {known}"
        )


def _section_of(setting: str, settings: Settings) -> CameraSettings | DetectSettings | None:
    place = place_of(setting)
    if place.camera is None:
        return settings.detect
    return next((camera for camera in settings.cameras if camera.id == place.camera), None)


def _section(place: Place, value: object) -> CameraSettings | DetectSettings:
    """A section with this one value in it.

    Raises:
        ValidationError: the setting takes no such value.
    """
    if place.camera is None:
        return DetectSettings.model_validate({place.field: value})
    return CameraSettings.model_validate({**_NEUTRAL, place.field: value})
