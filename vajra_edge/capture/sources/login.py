"""Login: the answer to a 401 of HTTP or RTSP, by basic (RFC 7617) and digest (RFC 7616, 2617) authentication.

Cameras send several challenges at once, on one line or on several, and repeat ``stale`` ones; urllib knows the first.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vajra_edge.media.refusals import SourceRefusal, SourceRefused

_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z][\w-]*)(?=\s+[\w-]+\s*=|\s*(?:,|$))")
_PAIR = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES: Mapping[str, Callable[[bytes], str]] = {
    "sha-256": lambda data: hashlib.sha256(data).hexdigest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}
"""From the stronger to the weaker."""


@dataclass(frozen=True)
class Challenge:
    """One way to log in that was offered: its scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]

    @property
    def algorithm(self) -> str:
        """The hash, without ``-sess``; MD5 where none is named."""
        return self.parameters.get("algorithm", "md5").lower().removesuffix("-sess")


def challenges_of(lines: Sequence[str]) -> Iterator[Challenge]:
    """The challenges in all WWW-Authenticate lines of an answer."""
    for line in lines:
        marks = list(_SCHEME.finditer(line))
        ends = [mark.start() for mark in marks[1:]] + [len(line)]
        for mark, end in zip(marks, ends, strict=False):  # a line may hold no challenge at all
            part = line[mark.end() : end]
            pairs = {name.lower(): quoted or plain for name, quoted, plain in _PAIR.findall(part)}
            yield Challenge(mark[1].lower(), pairs)


class Login:
    """User and password, and how they were asked for last, so that the next request needs no refusal first.

    Args:
        user: or an empty text.
        password: never shown.
    """

    def __init__(self, user: str, password: str) -> None:
        self._user, self._password = user, password
        self._challenge: Challenge | None = None
        self._count = 0

    def take(self, lines: Sequence[str]) -> bool:
        """Choose among the challenges of a 401; False where the answer to a fresh one was refused: it means no.

        A challenge that was answered before may be too old. Every 401 has a new nonce, so that says nothing, and who
        asks on locks the account of many cameras.

        Raises:
            SourceRefused: none of them is known.
        """
        offered = list(challenges_of(lines))
        digests = [one for one in offered if one.scheme == "digest" and one.algorithm in _HASHES]
        digests.sort(key=lambda one: list(_HASHES).index(one.algorithm))
        usable = digests + [one for one in offered if one.scheme == "basic"]
        if not usable:
            raise SourceRefused(
                SourceRefusal.STRANGE_LOGIN, ", ".join(sorted({one.scheme for one in offered})) or "none is named"
            )
        was_fresh = self._challenge is not None and self._count == 1
        self._challenge, self._count = usable[0], 0
        return not was_fresh

    def header(self, method: str, target: str) -> str | None:
        """The Authorization line for a request; None: nobody asked yet.

        Args:
            method: of the request.
            target: as the request names it.
        """
        if self._challenge is None:
            return None
        self._count += 1
        if self._challenge.scheme == "basic":
            return "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        return self._digest(self._challenge, method, target)

    def _digest(self, challenge: Challenge, method: str, target: str) -> str:
        given = challenge.parameters
        digest = _HASHES[challenge.algorithm]
        nonce, realm, fresh = given.get("nonce", ""), given.get("realm", ""), secrets.token_hex(8)
        who = digest(f"{self._user}:{realm}:{self._password}".encode())
        if given.get("algorithm", "").lower().endswith("-sess"):
            who = digest(f"{who}:{nonce}:{fresh}".encode())
        what = digest(f"{method}:{target}".encode())
        fields = {"username": self._user, "realm": realm, "nonce": nonce, "uri": target}
        bare = {name: given[name] for name in ("algorithm",) if name in given}
        if "auth" in [one.strip().lower() for one in given.get("qop", "").split(",")]:
            count = f"{self._count:08x}"
            fields |= {"cnonce": fresh, "response": digest(f"{who}:{nonce}:{count}:{fresh}:auth:{what}".encode())}
            bare |= {"qop": "auth", "nc": count}
        else:
            fields["response"] = digest(f"{who}:{nonce}:{what}".encode())
        if "opaque" in given:
            fields["opaque"] = given["opaque"]
        quoted = [f'{name}="{_escaped(value)}"' for name, value in fields.items()]
        return "Digest " + ", ".join([*quoted, *(f"{name}={value}" for name, value in bare.items())])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
