"""``bundle``: signed weights made, looked at, and adopted; the last is one contract for every tool that rolls them out.

``adopt`` prints one JSON object, and exits with 0 where the bundle serves, 10 where it was refused and nothing changed,
and 11 where it served, did worse than the plan before, and was rolled back.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from vajra_edge.bundles import bundle, minisign
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.minisign import SecretKey
from vajra_edge.bundles.shelf import Adopted, Shelf
from vajra_edge.cli.terminal import inert
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.control.client import ask
from vajra_edge.errors import BundleError, ControlError, UsageError, VajraError
from vajra_edge.privileges import become_service_user

EXIT_CODES: Mapping[str, int] = {
    Adopted.SERVING.value: 0,
    "started": 0,
    Adopted.REFUSED.value: BundleError.exit_code,
    Adopted.ROLLED_BACK.value: 11,
}

AWAY_S = 120.0
"""The daemon may be away for so long (it may crash under the new plan, and systemd waits before it starts it again)."""

_AGAIN_S = 0.5


def make(
    weights: Path, output: Path, key: Path, serial: int, names: str | None, engine: Sequence[str], *, as_json: bool
) -> int:
    """Write a bundle and print what is in it.

    Raises:
        VajraError: a file cannot be used, a wish is no setting, or the password is wrong.
    """
    class_names = tuple(name.strip() for name in names.split(",")) if names else None
    manifest = bundle.make(output, weights, serial, _secret(key), class_names, _wishes(engine))
    _print({"bundle": str(output), "serial": serial, "weights_sha256": manifest.weights_sha256}, as_json=as_json)
    return 0


def verify(config: Path, path: Path, keys: Path | None, *, as_json: bool) -> int:
    """Check a bundle as a device would, but for its serial, and print what is in it.

    Raises:
        BundleError: it is refused.
    """
    keyring = Keyring.load(keys or load(config).weights.keys)
    with bundle.open_file(path) as file:
        told = bundle.read(file, keyring)
    manifest = told.manifest
    content = {"bundle": told.digest, "serial": manifest.serial, "key": told.key_name, "weights": manifest.weights_name}
    more = {"weights_sha256": manifest.weights_sha256, "engine": dict(manifest.engine)}
    _print({**content, **more, "class_names": manifest.class_names}, as_json=as_json)
    return 0


def adopt(config: Path, path: Path, *, wait: bool) -> int:
    """Have the running daemon build, check, swap in and try out a bundle; prints one JSON object.

    Returns:
        See the module.
    """
    try:
        told = _adopted(config, path, wait=wait)
    except VajraError as error:
        told = {"outcome": Adopted.REFUSED.value, "reason": str(error)}
    _print(told, as_json=True)
    return EXIT_CODES.get(str(told["outcome"]), BundleError.exit_code)


def _adopted(config: Path, path: Path, *, wait: bool) -> dict[str, Any]:
    settings = load(config)
    with bundle.open_file(path) as file:
        become_service_user(settings.store.state_dir)
        verified = _unpacked(settings, file)
    told = {"bundle": verified.digest, "serial": verified.manifest.serial}
    reply = _asked(settings.service.control_socket, verified.digest, wait=wait)
    return {**told, **{name: value for name, value in reply.items() if name != "kind"}, **told}


def _unpacked(settings: Settings, file: BinaryIO) -> bundle.Verified:
    for _ in ask(settings.service.control_socket, {"verb": "status"}):
        pass  # without a daemon nothing is begun
    return Shelf(settings.store.state_dir).unpack(file, Keyring.load(settings.weights.keys))


def _asked(socket: Path, digest: str, *, wait: bool) -> dict[str, Any]:
    """The last reply; a daemon that goes away meanwhile is asked again what came of it."""
    resume, until_s = False, time.monotonic() + AWAY_S
    while True:
        try:
            for reply in ask(socket, {"verb": "adopt", "bundle": digest, "wait": wait, "resume": resume}):
                until_s = time.monotonic() + AWAY_S
                if reply["kind"] == "done":
                    return reply
        except ControlError as error:
            answered = "reply" in error.values
            if answered or time.monotonic() > until_s:
                raise
        resume = True
        time.sleep(_AGAIN_S)


def _secret(path: Path) -> SecretKey:
    try:
        with path.open("rb") as file:
            text = file.read(minisign.MOST_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"secret key {path} cannot be read: {error}") from error
    return minisign.parse_secret(text, lambda: getpass.getpass("Password of the secret key: "))


def _wishes(told: Sequence[str]) -> dict[str, Any]:
    """``precision=int8`` and the like, each value as in the settings file."""
    wishes: dict[str, Any] = {}
    for text in told:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--engine {text!r} is not name=value", remedy="give it like --engine precision=int8")
        wishes[name.strip()] = _value(value.strip())
    return wishes


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _print(content: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(content).decode())  # noqa: T201
        return
    for name, value in content.items():
        print(inert(f"{name}: {value}"))  # noqa: T201
