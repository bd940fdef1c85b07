"""Cameras' addresses in use: the kind that is opened, the credentials put in, and the parts that a request names."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from vajra_edge.config import address
from vajra_edge.config.address import DEFAULT_PORTS, Kind, shown
from vajra_edge.config.address_form import problem_of
from vajra_edge.config.credentials import read_secret
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError, VajraError

__all__ = [
    "Endpoint",
    "Kind",
    "conceal",
    "endpoint_of",
    "is_live",
    "kind_of",
    "read_credentials",
    "shown",
    "with_credentials",
    "with_zone",
]

_AS_IT_STANDS = "%/:=&?~+!$,;'@()*[]"  # of a path and query; the rest, umlauts and the like, is percent-encoded

_ZONE = re.compile(r"^([^/?#]*\[[^]%/?#]+)%(?:25)?(?=[^]/?#]+\])")
"""Up to the mark between an IPv6 address in brackets and its interface: ``%25`` by RFC 6874, ``%`` as people write."""


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
    if not colon or not user or (user[0] in "'\"" and password.endswith(user[0])):
        raise SourceError(
            f"credentials of camera {camera} have no user before a colon, or quotation marks around them",
            remedy="write user:password on the first line, as they are",
        )
    return user, password


def with_credentials(url: str, credentials: tuple[str, str] | None) -> str:
    """The URL with user and password, percent-encoded, in place of its own; for the library's eyes only.

    Its own go in by the same way, as ``Endpoint`` has them: of a raw @ or % in them each library makes something else.
    """
    if credentials is None:
        return url
    kind_of(url)
    parts = urlsplit(url)
    userinfo = ":".join(quote(part, safe="") for part in credentials)
    return parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}").geturl()


def with_zone(url: str, mark: str) -> str:
    """The URL with ``mark`` before the interface of a link-local address: ``%`` for FFmpeg, ``%25`` for GStreamer."""
    scheme, begins, rest = url.partition("://")
    return scheme + begins + _ZONE.sub(lambda before: before[1] + mark, rest)


@dataclass(frozen=True)
class Endpoint:
    """Where an rtsp or http address points.

    Attributes:
        scheme: in lower case.
        host: name or IP address, without brackets; an interface of this machine stands behind its ``%``.
        port: of the address, else the scheme's own.
        target: path and query, as a request names them.
        credentials: user and password of the address itself, decoded; None where it has none.
    """

    scheme: str
    host: str
    port: int
    target: str
    credentials: tuple[str, str] | None

    @property
    def secure(self) -> bool:
        """Whether it is spoken through TLS."""
        return self.scheme in {"rtsps", "https"}

    @property
    def authority(self) -> str:
        """Host and port as a request names them: the port is left out where it is the scheme's own.

        The interface is this machine's matter (RFC 6874).
        """
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address without credentials, as a request names it; not for people, a query may hold a password."""
        return f"{self.scheme}://{self.authority}{self.target}"


def endpoint_of(url: str) -> Endpoint:
    """Take an rtsp or http address apart.

    Raises:
        SourceError: it is malformed, or of another scheme.
    """
    kind_of(url)
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise SourceError("an address is neither of rtsp nor of http", remedy="write it as rtsp://host:port/path")
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_IT_STANDS)
    user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    host = (parts.hostname or "").replace("%25", "%", 1)
    return Endpoint(scheme, host, parts.port or DEFAULT_PORTS[scheme], target, user)
