"""``calibration``: what the cameras gave for INT8, where it lies, whether it is in use; and its deletion."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from vajra_edge import durable
from vajra_edge.cli.terminal import inert
from vajra_edge.config.settings import Settings, load
from vajra_edge.errors import CalibrationError, StoreError
from vajra_edge.plans.spec import Precision
from vajra_edge.privileges import become_service_user
from vajra_edge.quantization import camera_samples, collection
from vajra_edge.quantization.collection import Collected


def calibration(config: Path, *, delete: bool, as_json: bool) -> int:
    """Print what is kept, or delete it. Needs no daemon; one that runs sees a deletion at its next picture.

    Root goes on as the service's user, whose links it would otherwise follow.

    Returns:
        0, or 1 where a frozen set cannot be used.

    Raises:
        StoreError: the folder may not be read or deleted.
    """
    settings = load(config)
    become_service_user(settings.store.state_dir)
    folder = settings.store.state_dir / camera_samples.FOLDER
    try:
        with durable.reported(folder, "read"):
            said = _seen(folder, settings)
    except StoreError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        raise StoreError(error.message, remedy="type sudo before the command", path=folder) from error
    if delete:
        collection.delete(folder)
    said["deleted"] = delete
    print(orjson.dumps(said, option=orjson.OPT_UTC_Z).decode() if as_json else inert(_words(said)))  # noqa: T201
    return int(bool(said["trouble"]) and not delete)


def _seen(folder: Path, settings: Settings) -> dict[str, Any]:
    kept = Collected.of(folder, settings.calibration, settings.engine.batch or 1)
    idle = "they are frozen" if kept.frozen else _idle(settings)
    return {
        "folder": str(folder),
        "images": kept.images,
        "most": kept.most,
        "bytes": sum(map(_size_bytes, folder.glob("*"))),
        "boxes": kept.boxes,
        "since": kept.since,
        "frozen": kept.frozen,
        "lacking": list(kept.lacking),
        "trouble": _trouble(folder, settings.engine.batch or 1),
        "collecting": not idle,
        "idle": idle,
    }


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the daemon replaced it by another at this moment
        return 0


def _trouble(folder: Path, batch: int) -> str:
    """Why a frozen set cannot be used; empty where it can, or there is none."""
    try:
        camera_samples.frozen(folder, batch)
    except CalibrationError as error:
        return str(error)
    return ""


def _idle(settings: Settings) -> str:
    """Why the settings ask for no pictures; empty where they do."""
    wanted = settings.calibration
    if settings.engine.precision != Precision.INT8.value:
        return f"[engine] precision = {settings.engine.precision} needs none"
    if wanted.data is not None:
        return f"[calibration] data = {wanted.data} is used"
    return "" if wanted.cameras else "[calibration] cameras = false"


def _words(said: Mapping[str, Any]) -> str:
    images = f"{said['images']} images, {said['bytes'] / 1e6:.1f} MB"
    if said["deleted"]:
        return f"deleted {images} in {said['folder']}"
    since = f", since {said['since']:%Y-%m-%d %H:%M} UTC" if said["since"] else ""
    lines = [f"{images}, {said['boxes']} boxes{since}, in {said['folder']}"]
    if said["frozen"]:
        lines.append(f"frozen, but {said['trouble']}" if said["trouble"] else "frozen: INT8 is calibrated with them")
    elif said["collecting"]:
        lines.append(f"collecting up to {said['most']}; waits for {' and '.join(said['lacking']) or 'a picture'}")
    else:
        lines.append(f"not collecting: {said['idle']}")
    return "\n".join(lines)
