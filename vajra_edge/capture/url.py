"""Addresses of cameras: of what kind a source text is, its credentials, and why one cannot be reached."""

from __future__ import annotations

import re
import socket
from enum import Enum
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

from vajra_edge.config.credentials import read_secret, redact
from vajra_edge.errors import SourceError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_ALLOWED = "use a file, a folder of images, rtsp(s)://, http(s)://, /dev/videoN, or gst: and a pipeline"


class Kind(Enum):
    """What a source text points at."""

    PATH = "file or folder"
    STREAM = "rtsp or http"
    V4L2 = "video device"
    GSTREAMER = "GStreamer pipeline"


def kind_of(source: str) -> Kind:
    """The kind of a source text.

    Raises:
        SourceError: its scheme is not known, or its URL is malformed.
    """
    if source.startswith("gst:"):
        return Kind.GSTREAMER
    if source.startswith(("/dev/video", "/dev/v4l/")):
        return Kind.V4L2
    scheme = _SCHEME.match(source)
    if scheme is None:
        return Kind.PATH
    if scheme[1].lower() not in _DEFAULT_PORTS:
        raise SourceError(f"source {redact(source)}: scheme {scheme[1]} is not supported", remedy=_ALLOWED)
    _split(source)
    return Kind.STREAM


def is_live(source: str) -> bool:
    """Whether frames come when the world makes them, so that an end is a loss; False: a file or folder."""
    return kind_of(source) is not Kind.PATH


def read_credentials(camera: str, file: Path | None) -> tuple[str, str] | None:
    """User and password of a camera, from ``file`` or from ``$CREDENTIALS_DIRECTORY/camera-<id>``.

    Raises:
        SettingsError: the file cannot be read.
        SourceError: it does not hold ``user:password``.
    """
    secret = read_secret(f"camera-{camera}", file)
    if secret is None:
        return None
    user, colon, password = secret.partition(":")
    if not colon or not user:
        raise SourceError(
            f"credentials of camera {camera} have no user before a colon",
            remedy="write user:password on the first line",
        )
    return user, password


def with_credentials(url: str, credentials: tuple[str, str] | None) -> str:
    """The URL with user and password, percent-encoded, in place of its own; for the library's eyes only."""
    if credentials is None:
        return url
    parts = _split(url)
    userinfo = ":".join(quote(part, safe="") for part in credentials)
    return parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}").geturl()


def why_unreachable(url: str, timeout_s: float) -> tuple[str, str]:
    """What is wrong with a URL that gave no video, and the remedy: tells a dead network from a refused stream.

    Args:
        url: an rtsp or http address.
        timeout_s: longest wait for the connection that is tried.
    """
    parts = _split(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme.lower()]
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return (
                f"{host} port {port} answers but gives no video",
                "check the path, user and password, and that it sends a codec OpenCV knows",
            )
    except socket.gaierror:
        return f"the name {host} is not known", "check the host name and the name server"
    except TimeoutError:
        return f"{host} port {port} does not answer", "check that the camera is on and its address is right"
    except OSError as error:
        return f"{host} port {port}: {error.strerror or error}", "check that the camera is on and its port is right"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0 and re.search(r"\s", url) is None
    except ValueError:  # its text may quote a piece of the password
        valid = False
    if not valid:
        raise SourceError(
            f"source {redact(url)} is not a valid URL",
            remedy="write it as rtsp://host:port/path, and user:password into credentials_file",
        )
    return parts
