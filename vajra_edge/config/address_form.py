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
    host_problem,
    invisible,
    kind_of,
    near_scheme,
)

ALLOWED = "use a file, a folder of images, rtsp(s)://, http(s)://, /dev/videoN, or gst: and a pipeline"
"""What a source may be, for remedies."""

_URL = "write it as rtsp://host:port/path, and user:password into credentials_file"
_BROKEN_SCHEME = re.compile(r"^\W*(rtsps?|https?)(?:[:;/\\]|\s)", re.IGNORECASE)
_BARE_HOST = re.compile(r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[\w.-]+:\d{1,5})(?:[/:?]|$)")
_BARE_DEVICE = re.compile(r"^(?:dev/)?video\d+$|^\d+$", re.IGNORECASE)
_BROKEN_PIPELINE = re.compile(r"^\W*gst(?:reamer)?\s*:", re.IGNORECASE)
_QUOTATION_MARKS = "'\"\u201c\u201d\u2018\u2019"
_MOST_PATH_BYTES = 4096
"""PATH_MAX of Linux."""

_MOST_PORT = 65_535


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
    place = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
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
        yield f"its port must be a number from 1 to {_MOST_PORT}"
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
    if broken := _BROKEN_SCHEME.match(path):
        yield Problem(f"has no :// behind its scheme {broken[1].lower()}", f"write {broken[1].lower()}://host/path")
    if _BARE_DEVICE.match(path):
        yield Problem("is a device without its folder", "write /dev/video0 for the first one")
    if _BROKEN_PIPELINE.match(path):
        yield Problem("looks like a pipeline", "begin it with gst:")
    if not path.startswith(("/", ".", "~")) and ("@" in path or _BARE_HOST.match(path)):
        yield Problem("looks like a host without a scheme", f"write rtsp:// before it, or {ALLOWED}")


def _pipeline_problems(pipeline: str) -> Iterator[Problem]:
    if "appsink" not in pipeline:
        yield Problem("is a pipeline without appsink", "end it with ! appsink drop=true max-buffers=1 sync=false")
    if "\0" in pipeline:
        yield Problem("holds the invisible character U+0000", "take it out")
