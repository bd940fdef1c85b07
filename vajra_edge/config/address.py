"""Addresses of cameras: of what kind a source text is, and how much of it may be shown.

An address is parsed, never searched for passwords: of a text that nobody foresaw a pattern lets something through. What
is shown is what parsing is sure of, a scheme and a host; a file or device is shown by its path. A password can stand in
every other part (user, path, query, fragment, a pipeline's properties), so nothing else is shown.
"""

from __future__ import annotations

import base64
import difflib
import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from enum import Enum
from urllib.parse import SplitResult, quote, quote_plus, unquote, urlsplit

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""Of the schemes that a camera may have (RFC 7826, RFC 9110)."""

UNSHOWN = "the address"
"""In the place of an address of which nothing may be shown."""

_OTHERS = """
concat crypto csi data dvrip exec ffmpeg file ftp ftps gopher hls isapi mjpeg mjpg mms mmsh mqtt mqtts onvif pipe rtmp
rtmps rtmpt rtp rtspt rtspu rtspx sctp sftp smb srt srtp ssl subfile tapo tcp tcps tls udp unix v4l2 webrtc ws wss
"""
OTHER_SCHEMES = frozenset(_OTHERS.split())
"""Schemes that are named when they are refused; the text before ``://`` of any other may be anything."""

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_PLAIN_PATH = re.compile(
    r"^/[\w ./+,()~-]*$|^[\w ,()~+-]+\.(?:avi|bmp|jpe?g|m4v|mjpe?g|mkv|mov|mp4|mpe?g|png|tiff?|ts|webm|webp)$",
    re.IGNORECASE,
)
"""A full path, or the name of a picture or clip."""

_PLAIN_DEVICE = re.compile(r"^/dev/[\w./:+,-]*$")
_CSI = re.compile(r"csi:(\d{1,2})")
_NAME = re.compile(r"^[\w-]{1,63}(?:\.[\w-]{1,63})*\.?$")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_END = re.compile(r"[\s\"'<>)]")
_PLAIN_SEGMENT = re.compile(
    r"(?:stream(?:ing)?|video|live|channels?|camera|image|main|media|profile|snapshot)s?[\d_-]*", re.IGNORECASE
)
_PLACEHOLDER = re.compile(
    r"\$\{\w+\}|\{\{\s*\w+\s*\}\}|\{[A-Z][A-Z0-9]*_[A-Z0-9_]+\}|(?:^|/)\$[A-Z_][A-Z0-9_]+|^!(?:secret|env_var|include)\b"
)
"""Of shells, Compose, Jinja, Frigate and Home Assistant."""

_WINDOWS = re.compile(r"[A-Za-z]:[\\/](?!/)|\\\\\w")
_MOST_NAME_CHARS = 253
_NEAR = 0.7
_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Cs", "Co"})
"""Categories of Unicode that nobody sees in a text."""

_PIECE_CHARS = 4
"""A shorter piece of a secret tells nobody anything, and would be found in every text."""


class Kind(Enum):
    """What a source text points at."""

    PATH = "file or folder"
    STREAM = "rtsp or http"
    V4L2 = "video device"
    GSTREAMER = "GStreamer pipeline"
    CSI = "camera connector"


def kind_of(source: str) -> Kind:
    """The kind of a source text, whether or not anything is wrong with it."""
    if source.startswith("gst:"):
        return Kind.GSTREAMER
    if _CSI.fullmatch(source):
        return Kind.CSI
    if source.startswith(("/dev/video", "/dev/v4l/")):
        return Kind.V4L2
    return Kind.STREAM if "://" in source and not source.startswith(("/", ".", "~")) else Kind.PATH


def csi_sensor(source: str) -> int:
    """The number of the sensor in a source like ``csi:0``.

    Raises:
        ValueError: the source is of another kind.
    """
    if (found := _CSI.fullmatch(source)) is None:
        raise ValueError(f"{shown(source)} is not csi: and a number")
    return int(found[1])


def shown(source: str) -> str:
    """What people may see of a source text: scheme and host, a plain path, or that it is a pipeline.

    Returns:
        Never a user, port, path, query or property, and never anything of a text that is not sure to be an address:
        ``UNSHOWN`` then.
    """
    match kind_of(source):
        case Kind.GSTREAMER:
            return "GStreamer pipeline"
        case Kind.CSI:
            return source
        case Kind.STREAM:
            return _shown_url(source)
        case Kind.V4L2:
            return source if _PLAIN_DEVICE.fullmatch(source) else UNSHOWN
        case Kind.PATH:
            return source if _PLAIN_PATH.fullmatch(source) else UNSHOWN


def host_problem(host: str) -> str:
    """Why a text is neither a host name nor an IP address, without quoting it; empty where it is one."""
    if not host:
        return "it names no host"
    if ":" in host:
        return "" if _is_ip(host) else "it holds no valid IPv6 address"
    if re.fullmatch(r"[\d.]+", host):
        return "" if _is_ip(host) else "it holds no valid IPv4 address"
    if len(host) > _MOST_NAME_CHARS or not _NAME.fullmatch(host) or not _resolvable(host):
        return "its host is no name: letters, digits, - and single dots, at most 63 in a row"
    return ""


def invisible(text: str) -> str:
    """The first character that no address holds, by name: a space, a line break, a zero-width space; or empty."""
    for character in text:
        if character == " ":
            return "a space"
        if character.isspace() or unicodedata.category(character) in _INVISIBLE:
            return f"the invisible character U+{ord(character):04X}"
    return ""


def foreign(text: str) -> str:
    """What in a text some other program or system would have read, as the end of a sentence; empty where nothing is."""
    if _PLACEHOLDER.search(text):
        return "holds a placeholder, and nothing is put in its place"
    return "is a path of Windows" if _WINDOWS.match(text) else ""


def near_scheme(scheme: str) -> str:
    """The scheme of a camera that this one is a slip of the hand for; empty where it is for none."""
    if scheme.lower() in OTHER_SCHEMES:
        return ""
    near = difflib.get_close_matches(scheme.lower(), DEFAULT_PORTS, n=len(DEFAULT_PORTS), cutoff=_NEAR)
    swapped = [one for one in near if sorted(one) == sorted(scheme.lower())]
    return next(iter(swapped or near), "")


def conceal(text: str, source: str, *secrets: str) -> str:
    """``text`` of a library with ``***`` for every piece of an address, and of other secrets, that it quotes.

    Scheme and host stay, also of addresses that are not this one: of where a camera redirects to. A piece is four
    characters or more, in any case, as it stands or percent-encoded or decoded, or as base64 of basic authentication.
    """
    text = shortened(text)
    spoken = "" if kind_of(source) is Kind.GSTREAMER else shown(source)
    spared = {piece for word in (spoken, "rtsps://", "https://") for piece in _pieces(word)}
    hidden = {piece for form in _forms((*_secret_parts(source), *secrets)) for piece in _pieces(form)} - spared
    kept, marked_to = [], 0
    for place, piece in enumerate(_windows(text)):
        marked_to = place + _PIECE_CHARS if piece in hidden else marked_to
        kept.append("\0" if place < marked_to else text[place])
    return re.sub("\0+", "***", "".join(kept))


def shortened(text: str) -> str:
    """``text`` with every address in it as ``shown`` has it."""
    if (found := _IN_TEXT.search(text)) is None:
        return text
    head, begin, rest = text[: found.start()], found[0], text[found.end() :]
    # a password may hold a space or a quotation mark: the address goes on to the last @ before the next one
    after = _IN_TEXT.search(rest)
    ends = _END.search(rest, rest.rfind("@", 0, after.start() if after else len(rest)) + 1)
    end = ends.start() if ends else len(rest)
    end -= rest[:end].endswith((":", ";", ",", "."))  # of the sentence
    seen = shown(f"{begin}{rest[:end]}")
    return f"{head}{'***' if seen == UNSHOWN else seen}{shortened(rest[end:])}"


def _secret_parts(source: str) -> list[str]:
    """What of an address may be secret: all, but for path segments that are plain words, which messages hold too."""
    parts = _split(source) if _shown_url(source) != UNSHOWN else None
    if parts is None:
        return [source]
    segments = [segment for segment in parts.path.split("/") if not _PLAIN_SEGMENT.fullmatch(segment)]
    return [parts.netloc.rpartition("@")[0], *segments, parts.query, parts.fragment]


def _shown_url(source: str) -> str:
    scheme = SCHEME.match(source)
    if scheme is None or invisible(source):
        return UNSHOWN
    parts = _split(source)
    if parts is None or host_problem(parts.hostname or "") or _authority_is_unsure(parts):
        return UNSHOWN
    host = parts.hostname or ""
    known = scheme[1].lower() in DEFAULT_PORTS.keys() | OTHER_SCHEMES or near_scheme(scheme[1])
    name = f"[{host}]" if ":" in host else host
    return f"{scheme[1].lower()}://{name}" if known else UNSHOWN


def _split(url: str) -> SplitResult | None:
    """The parts of a URL whose host and port can be read; errors of the library may quote a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    place = parts.netloc.rpartition("@")[2]
    return parts if parts.hostname and port != 0 and not place.endswith(":") else None


def _authority_is_unsure(parts: SplitResult) -> bool:
    """A raw / ? or # in a password ends the authority before its @: what looks like a host is then a user."""
    return "@" in f"{parts.path}{parts.query}{parts.fragment}"


def _resolvable(host: str) -> bool:
    """Whether the system's resolver takes the name at all: its encoding may be too long, or not exist."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _forms(texts: tuple[str, ...]) -> Iterator[str]:
    """How a library may write a text: as it stands, encoded or decoded, escaped, or as basic authentication."""
    for text in filter(None, texts):
        decoded = unquote(text)
        for form in dict.fromkeys((text, decoded, unquote(decoded))):
            yield from (form, quote(form), quote(form, safe=""), quote_plus(form), repr(form), ascii(form))
        for user in (decoded, decoded.partition("://")[2].rpartition("@")[0]):
            yield base64.b64encode(user.encode(errors="replace")).decode()


def _pieces(text: str) -> Iterator[str]:
    return (piece for piece in _windows(text) if len(piece) == _PIECE_CHARS)


def _windows(text: str) -> Iterator[str]:
    """At each place the piece that begins there, in lower case; shorter ones at the end."""
    lower = "".join(one if len(one := character.lower()) == 1 else character for character in text)
    return (lower[start : start + _PIECE_CHARS] for start in range(len(lower)))
