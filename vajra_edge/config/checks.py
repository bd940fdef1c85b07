"""Checks of single settings that a type and a bound do not make, each with its remedy; none quotes its value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vajra_edge.config import address
from vajra_edge.config.address_form import FOREIGN_REMEDY, problem_of

_MOST_PATH_BYTES = 4096
"""PATH_MAX of Linux."""

_MOST_SOCKET_BYTES = 107
"""``sun_path`` of Linux holds 108 with its NUL."""

_MOST_TOPIC_BYTES = 512
"""Of the root alone; brokers end at 65,535 for a whole topic (MQTT 5, 1.5.4), some far earlier."""

_MOST_TEXT_BYTES = 65_535
"""Of a text in MQTT."""

_LEAST_SIDE_PX, _MOST_SIDE_PX = 32, 8192
"""One stride; the largest side of DLA and OpenCV."""

_BROKER_SCHEME = re.compile(r"^(mqtts?|tcp|ssl|tls|wss?|https?)://", re.IGNORECASE)


def path(value: object) -> object:
    """A path of a file or folder.

    Raises:
        ValueError: it cannot be one.
    """
    if not isinstance(value, (str, Path)):
        raise ValueError("must be a path, in quotation marks")  # noqa: TRY004  pydantic reads ValueErrors only
    text = str(value)
    if not text.strip() or value == "":
        raise ValueError("is empty; leave it out, or name a file")
    if "://" in text or re.match(r"^(?:rtsps?|https?):/", text):
        raise ValueError("must be a path on this device, not a URL")
    if text.startswith("~"):
        raise ValueError("begins with ~, which means another folder to the service; write the path in full")
    if what := address.foreign(text):
        raise ValueError(f"{what}; {FOREIGN_REMEDY}")
    if any(ord(character) < ord(" ") or character == "\x7f" for character in text):
        raise ValueError("holds a NUL byte, a line break or the like; take it out")
    if len(text.encode(errors="replace")) > _MOST_PATH_BYTES:
        raise ValueError(f"is longer than the {_MOST_PATH_BYTES} bytes of a path")
    return Path(text)


def secret_file(value: object) -> object:
    """The path of a file that holds a secret; a text without a folder may be the secret itself.

    Raises:
        ValueError: it is no full path.
    """
    checked = path(value)
    if not isinstance(checked, Path) or not checked.is_absolute():
        raise ValueError("must be the full path of a file that holds the secret; the secret never stands in settings")
    return checked


def socket(value: object) -> object:
    """The path of a socket.

    Raises:
        ValueError: it cannot be one.
    """
    checked = path(value)
    if len(str(checked).encode()) > _MOST_SOCKET_BYTES:
        raise ValueError(f"is longer than the {_MOST_SOCKET_BYTES} bytes of a socket's path; use a shorter folder")
    return checked


def names(value: object) -> object:
    """A list of class names.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, tuple):
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) and name.isprintable() and name for name in value):
        raise ValueError('must be a list of names, like ["person", "car"]')
    if not value:
        raise ValueError("names nothing: leave it out for all that the network has")
    return tuple(value)


def sides(value: object) -> object:
    """The side of a square, or height and width, in pixels.

    Raises:
        ValueError: it is neither.
    """
    both = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(both) != 2 or not all(type(side) is int for side in both):  # noqa: PLR2004  height and width
        raise ValueError("must be a whole number of pixels, like 640, or [height, width]")
    if not all(_LEAST_SIDE_PX <= side <= _MOST_SIDE_PX for side in both):
        raise ValueError(f"a side must be between {_LEAST_SIDE_PX} and {_MOST_SIDE_PX} pixels")
    return both if isinstance(value, (list, tuple)) else value


def whole(value: object) -> object:
    """A choice among whole numbers, of which Python takes True for 1.

    Raises:
        ValueError: it is no whole number.
    """
    if type(value) is not int:
        raise ValueError("must be a whole number")
    return value


def sources(cameras: object) -> list[Any]:
    """What is wrong with the addresses of cameras, as pydantic has it; other fields are not looked at.

    Whether a file or device is there is seen when it is opened: disks are mounted late.
    """
    found: list[Any] = []
    for place, camera in enumerate(cameras if isinstance(cameras, (list, tuple)) else ()):
        source = camera.get("source") if isinstance(camera, Mapping) else None
        problem = problem_of(source) if isinstance(source, str) and source else None
        if problem is not None:
            words = f"{problem.what}; {problem.remedy}"
            found.append({"type": "value_error", "loc": ("cameras", place, "source"), "msg": words, "input": source})
    return found


def csi_sizes(cameras: object) -> list[Any]:
    """Cameras on a Jetson's connector of which one side is set, as pydantic has it.

    NVIDIA's source takes what is not set from 1920 x 1080 (``gst_nv_argus_camera_fixate``): a width of 1280 alone would
    give 1280 x 1080.
    """
    found: list[Any] = []
    for place, camera in enumerate(cameras if isinstance(cameras, (list, tuple)) else ()):
        source = camera.get("source") if isinstance(camera, Mapping) else None
        if not isinstance(source, str) or address.kind_of(source) is not address.Kind.CSI:
            continue
        for one, other in (("width_px", "height_px"), ("height_px", "width_px")):
            if camera.get(one) is not None and camera.get(other) is None:
                words = f"is set without {other}, which csi: would take from 1920 x 1080; set both, or neither"
                where = ("cameras", place, one)
                found.append({"type": "value_error", "loc": where, "msg": words, "input": camera[one]})
    return found


def strangers(given: Mapping[str, object], known: Mapping[str, object]) -> list[Any]:
    """What of a file is neither a section nor a setting at its top, as pydantic has it."""
    return [{"type": "extra_forbidden", "loc": (name,), "input": None} for name in given if name not in known]


def broker(value: str) -> str:
    """Name or IP address of the broker.

    Raises:
        ValueError: it is not that alone.
    """
    if scheme := _BROKER_SCHEME.match(value):
        tls = ", and tls = true" if scheme[1].lower() in {"mqtts", "ssl", "tls", "wss", "https"} else ""
        raise ValueError(f"is a URL; write the name or address of the broker alone, its port into port{tls}")
    if "@" in value:
        raise ValueError("holds a user; write that into username, and the name of the broker alone here")
    if value.startswith("/"):
        raise ValueError("is a path; the broker is reached by its name or address")
    if port := re.fullmatch(r"(?:[^:\[\]]+|\[[^\[\]]*\]):(\d+)", value):
        raise ValueError(f"holds a port; write the name or address alone, and port = {port[1][:5]}")
    if value.startswith("[") or value.endswith("]"):
        raise ValueError("stands in brackets; an IPv6 address is written without them here, like ::1")
    if character := address.invisible(value):
        raise ValueError(f"holds {character}; take it out")
    if why := address.host_problem(value):
        raise ValueError(f"is no name and no address of a broker: {why}")
    return value


def username(value: str) -> str:
    """Who this device is to the broker.

    Raises:
        ValueError: the protocol has no such text.
    """
    if not value:
        raise ValueError("is empty; leave it out to be anonymous")
    if what := address.foreign(value):
        raise ValueError(f"{what}; {FOREIGN_REMEDY}")
    _mqtt_text(value, _MOST_TEXT_BYTES)
    return value


def topic(value: str) -> str:
    """The first levels of topics.

    Raises:
        ValueError: a broker would refuse it, or keep it for itself.
    """
    if not value:
        raise ValueError("is empty; leave it out for the usual one")
    if "#" in value or "+" in value:
        raise ValueError("holds a wildcard; # and + are for subscribers")
    if value.startswith("$"):
        raise ValueError("begins with $, which brokers keep for themselves; begin with a letter")
    if value.startswith("/") or value.endswith("/") or "//" in value:
        raise ValueError("holds an empty level; write it without a slash at either end, and no two in a row")
    if character := address.invisible(value):
        raise ValueError(f"holds {character}; take it out")
    _mqtt_text(value, _MOST_TOPIC_BYTES)
    return value


def cameras(value: object) -> object:
    """The list of cameras.

    Raises:
        ValueError: one table stands in its place.
    """
    if isinstance(value, Mapping):
        one = "is one table; write [[cameras]], in two brackets, above each camera, with id and source below it"
        raise ValueError(one)  # noqa: TRY004  pydantic reads ValueErrors only
    return tuple(value) if isinstance(value, list) else value


def differ(ids: Sequence[str]) -> None:
    """Each camera needs its own id.

    Raises:
        ValueError: some are alike.
    """
    alike = [name for name in dict.fromkeys(ids) if ids.count(name) > 1]
    if alike:
        places = [f"cameras[{place}]" for place, name in enumerate(ids) if name in alike]
        raise ValueError(f"{' and '.join(places)} share the id {', '.join(alike)}; each camera needs its own")


def outputs(value: object) -> object:
    """Names of outputs, each once.

    Raises:
        ValueError: it is no list, or names one twice.
    """
    if not isinstance(value, (list, tuple)):
        raise ValueError('must be a list, like ["frigate", "deepstream"]')  # noqa: TRY004  pydantic reads ValueErrors
    if len(set(map(str, value))) != len(value):
        raise ValueError("names one twice; each counts once")
    return tuple(value)


def tracked(without: Sequence[str]) -> None:
    """Frigate's events follow objects.

    Raises:
        ValueError: some cameras do not track.
    """
    if without:
        cameras = f"camera{'s' if len(without) > 1 else ''} {', '.join(without)}"
        remedy = f"set track = true for {cameras}, or take frigate out of mqtt.outputs"
        raise ValueError(f"the output frigate needs cameras that track; {remedy}")


def apart(ids: Sequence[str], zones: Sequence[str]) -> None:
    """Frigate counts objects of cameras and of zones on topics alike.

    Raises:
        ValueError: a zone has the name of a camera.
    """
    if alike := sorted(set(ids) & set(zones)):
        raise ValueError(f"the output frigate cannot tell the zone {alike[0]} from the camera; name the zone otherwise")


def pair(cert: Path | None, key: Path | None) -> None:
    """A client certificate and its key.

    Raises:
        ValueError: one stands alone.
    """
    if (cert is None) != (key is None):
        alone, other = ("cert_file", "key_file") if key is None else ("key_file", "cert_file")
        raise ValueError(f"{alone} is set without {other}; set both, or neither")


def _mqtt_text(value: str, most_bytes: int) -> None:
    if any(not character.isprintable() and character != " " for character in value):
        raise ValueError("holds a control character; take it out")
    if len(value.encode(errors="replace")) > most_bytes:
        raise ValueError(f"is longer than {most_bytes} bytes")
