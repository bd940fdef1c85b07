"""Cameras' addresses in use: the kind that is opened, the credentials put in, and why one cannot be reached."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from vajra_edge.config import address
from vajra_edge.config.address import DEFAULT_PORTS, Kind, shown
from vajra_edge.config.address_form import problem_of
from vajra_edge.config.credentials import read_secret
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError, VajraError

__all__ = ["Kind", "conceal", "is_live", "kind_of", "read_credentials", "shown", "why_unreachable", "with_credentials"]


def kind_of(source: str) -> Kind:
    """The kind of a source text.

    Raises:
        SourceError: it cannot be one, by its form; see ``address.problem_of``.
    """
    if (problem := problem_of(source)) is not None:
        what = shown(source)
        name = f"source {what}" if what != address.UNSHOWN else "the address"
        raise SourceError(f"{name} {problem.what}", remedy=problem.remedy)
    return address.kind_of(source)


def is_live(source: str) -> bool:
    """Whether frames come when the world makes them, so that an end is a loss; False: a file or folder."""
    return address.kind_of(source) is not Kind.PATH


def conceal(camera: CameraSettings, text: str) -> str:
    """``text`` of a library without what it quotes of the camera's address and credentials."""
    credentials = None
    with suppress(VajraError):
        credentials = read_credentials(camera.id, camera.credentials_file)
    return address.conceal(text, camera.source, *(credentials or ()), ":".join(credentials or ()))


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
    kind_of(url)
    parts = urlsplit(url)
    userinfo = ":".join(quote(part, safe="") for part in credentials)
    return parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}").geturl()


def why_unreachable(url: str, timeout_s: float) -> tuple[str, str]:
    """What is wrong with a URL that gave no video, and the remedy: tells a dead network from a refused stream.

    Args:
        url: an rtsp or http address.
        timeout_s: longest wait for the connection that is tried.
    """
    kind_of(url)
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme.lower()]
    what = shown(url)
    name = "its host" if what == address.UNSHOWN else what.partition("://")[2]
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return (
                f"{name} answers but gives no video",
                "check the path, user and password, and that it sends a codec OpenCV knows",
            )
    except socket.gaierror:
        return f"the name {name} is not known", "check the host name and the name server"
    except TimeoutError:
        return f"{name} does not answer", "check that the camera is on and its address is right"
    except OSError as error:
        return f"{name}: {error.strerror or error}", "check that the camera is on and its port is right"
