"""``set`` and ``unset``: what is changed while the daemon runs, over its settings file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from vajra_edge.cli.terminal import inert
from vajra_edge.config.overrides import typed
from vajra_edge.daemon.control.client import ask
from vajra_edge.daemon.refused_start import to_ask
from vajra_edge.errors import ControlError
from vajra_edge.privileges import become_service_user


def set_(config: Path, setting: str, value: str, *, as_json: bool) -> int:
    """Change a setting and print what it is now; returns 0.

    Raises:
        ControlError: no daemon answers, or it does not take that.
        SettingsError: there is no such setting; or no daemon could be started with the settings file.
    """
    return _ask(config, {"verb": "set", "setting": setting, "value": typed(setting, value)}, as_json=as_json)


def unset(config: Path, setting: str, *, as_json: bool) -> int:
    """Undo a change, or all of a camera, and print what is now; returns 0.

    Raises:
        ControlError: no daemon answers, or nothing was changed there.
        SettingsError: no daemon could be started with the settings file.
    """
    return _ask(config, {"verb": "unset", "setting": setting}, as_json=as_json)


def _ask(config: Path, request: Mapping[str, object], *, as_json: bool) -> int:
    settings, refused = to_ask(config.absolute())
    become_service_user(settings.store.state_dir)
    try:
        said = list(ask(settings.service.control_socket, request))[-1]
    except ControlError as error:
        if error.absent and refused is not None:
            raise refused from None
        raise
    told = {name: value for name, value in said.items() if name != "kind"}
    for line in [orjson.dumps(told).decode()] if as_json else _lines(told["settings"], told["overrides"]):
        print(inert(line))  # noqa: T201
    return 0


def _lines(settings: Mapping[str, object], overrides: Mapping[str, object]) -> list[str]:
    """One a setting, like ``cameras.gate.confidence = 0.4, until it is unset``."""
    return [
        f"{setting} = {'unset' if value is None else orjson.dumps(value).decode()}"
        + (", until it is unset" if setting in overrides else ", without what was set")
        for setting, value in settings.items()
    ]
