"""Form of addresses: what is wrong with a source text, without a word of it, and what to do.

Whether a file, a device or a camera is there is not asked: disks are mounted late, and cameras come and go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from vajra_edge.config.address import (
    DEFAULT_PORTS,
    OTHER_SCHEMES,
    SCHEME,
    Kind,
    foreign,
    host_problem,
    invisible,
    kind_of,
    near_scheme,
)

ALLOWED = "use a file, a folder of images, rtsp(s)://, http(s)://, /dev/videoN, csi:0, or gst: and a pipeline"
"""What a source may be, for remedies."""

FOREIGN_REMEDY = "write the value itself, as Linux has it"
"""For texts that are ``address.foreign``."""

_URL = "write it as rtsp://host:port/path, and user:password into credentials_file"
_BROKEN_SCHEME = re.compile(r"^\W*(rtsps?|https?)(?:[:;/\\]|\s)", re.IGNORECASE)
_BARE_HOST = re.compile(r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[\w.-]+:\d{1,5})(?:[/:?]|$)")
_BARE_DEVICE = re.compile(r"^(?:dev/)?video\d+$|^\d+$", re.IGNORECASE)
_BROKEN_PIPELINE = re.compile(r"^\W*gst(?:reamer)?\s*:", re.IGNORECASE)
_QUOTATION_MARKS = "'\"\u201c\u201d\u2018\u2019"
_MOST_PATH_BYTES = 4096
"""PATH_MAX of Linux."""

_MOST_URL_CHARS = 4096
"""MAX_URL_SIZE of FFmpeg."""

_MOST_PORT = 65_535
_SPLIT_EARLY = ", or a / ? or # stands in its password, where it is written %2F %3F %23"
_CAMERA_DEVICE = re.compile(r"/dev/(?:video\d+|v4l/.+|shm/.+)")
"""Of /dev, what frames can come from: cameras, and files in its memory."""


@dataclass(frozen=True)
class Problem:
    """What is wrong, as the end of a sentence about the address, and what to do."""

    what: str
    remedy: str


def problem_of(source: str) -> Problem | None:
    """What is wrong with a source text by its form; None: nothing."""
    match kind_of(source):
        case Kind.GSTREAMER:
            found = _pipeline_problems(source.removeprefix("gst:"))
        case Kind.STREAM:
            found = _url_problems(source)
        case Kind.CSI:
            return None
        case Kind.PATH | Kind.V4L2:
            found = _path_problems(source)
    return next(found, None)


def _url_problems(url: str) -> Iterator[Problem]:
    scheme = SCHEME.match(url)
    if scheme is None:
        yield Problem("is not a valid URL: it does not begin with a scheme", f"begin it with rtsp://; {ALLOWED}")
    elif scheme[1].lower() not in DEFAULT_PORTS:
        yield _scheme_problem(scheme[1].lower())
    elif character := invisible(url):
        yield Problem(f"is not a valid URL: it holds {character}", "take it out, or write it percent-encoded (%20)")
    elif len(url) > _MOST_URL_CHARS:
        yield Problem("is longer than an address can be", f"it has {_MOST_URL_CHARS} characters at the most")
    elif what := foreign(url):
        yield Problem(what, f"{FOREIGN_REMEDY}; a {{ that is meant is %7B, and secrets go into credentials_file")
    elif "&amp;" in url:
        yield Problem("holds &amp;, which is how XML writes &", "write & alone")
    else:
        yield from (Problem(f"is not a valid URL: {what}", _URL) for what in _authority_problems(url))


def _scheme_problem(scheme: str) -> Problem:
    if near := near_scheme(scheme):
        return Problem(f"has a wrong scheme: scheme {scheme} is not supported", f"did you mean {near}://?")
    if scheme not in OTHER_SCHEMES:
        return Problem("has a scheme that is not supported", ALLOWED)
    remedy = f"{ALLOWED}; of a file write the path alone" if scheme == "file" else ALLOWED
    return Problem(f"has a wrong scheme: scheme {scheme} is not supported", remedy)


def _authority_problems(url: str) -> Iterator[str]:
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    place = authority.rpartition("@")[2]
    if place.count("[") != place.count("]") or (place.count(":") > 1 and "[" not in place):
        yield "its host cannot be read; an IPv6 address stands in brackets, as in rtsp://[fe80::1]:554/path"
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # its text may quote a piece of the password
        yield "its host cannot be read"
        return
    if not host:
        yield "it names no host"
    port = re.sub(r"^\[.*\]|^[^:]*", "", place).removeprefix(":")
    if place.endswith(":") or (port and not _is_port(port)):
        ended_early = "@" not in authority and "@" in url
        yield f"its port must be a number from 1 to {_MOST_PORT}{_SPLIT_EARLY if ended_early else ''}"
    if why := host_problem(host):
        yield why


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= _MOST_PORT


def _path_problems(path: str) -> Iterator[Problem]:
    if not path.strip():
        yield Problem("is empty", ALLOWED)
    if path != path.strip() or path != path.strip(_QUOTATION_MARKS):
        yield Problem("has a space or a quotation mark at its end", "take it out")
    if character := invisible(path.replace(" ", "")):
        yield Problem(f"holds {character}", "take it out")
    if len(path.encode(errors="replace")) > _MOST_PATH_BYTES:
        yield Problem("is longer than a path can be", ALLOWED)
    yield from _of_another_kind(path)


def _of_another_kind(path: str) -> Iterator[Problem]:
    """What was meant for an address, a device or a pipeline."""
    if broken := _BROKEN_SCHEME.match(path):
        yield Problem(f"has no :// behind its scheme {broken[1].lower()}", f"write {broken[1].lower()}://host/path")
    if what := foreign(path):
        yield Problem(what, FOREIGN_REMEDY)
    if path.startswith("/dev/") and not _CAMERA_DEVICE.fullmatch(path):
        yield Problem("is no camera's device", "write /dev/videoN, or a name under /dev/v4l/by-id")
    if _BARE_DEVICE.match(path):
        yield Problem("is a device without its folder", "write /dev/video0 for the first one")
    if _BROKEN_PIPELINE.match(path) or " ! " in path:
        yield Problem("looks like a pipeline", "begin it with gst:")
    bare = path.removeprefix("//")
    if not bare.startswith(("/", ".", "~")) and ("@" in bare or _BARE_HOST.match(bare)):
        yield Problem("looks like a host without a scheme", f"write rtsp:// before it, or {ALLOWED}")


def _pipeline_problems(pipeline: str) -> Iterator[Problem]:
    if "appsink" not in pipeline:
        yield Problem("is a pipeline without appsink", "end it with ! appsink drop=true max-buffers=1 sync=false")
    if "\0" in pipeline:
        yield Problem("holds the invisible character U+0000", "take it out")
