"""Refusals: why a camera gives no video, in the user's words, each with its remedy.

One table for every way in: an RTSP or HTTP status, an error of FFmpeg or of the system, a look at what was answered.
"""

from __future__ import annotations

import errno
import http
import os
from collections.abc import Mapping
from enum import Enum

from vajra_edge.errors import SourceError


class SourceRefusal(Enum):
    """A way to get no video: what is wrong, and the remedy. ``{}`` stands for the one value that each may have."""

    WRONG_PASSWORD = "refuses user and password (401)", "check user and password in the camera's credentials_file"
    NO_PASSWORD = "asks for user and password (401)", "write user:password into a file and name it in credentials_file"
    STRANGE_LOGIN = (
        "asks for a login of a kind that is not known: {}",
        "set basic login or digest with MD5 at the camera",
    )
    FORBIDDEN = "does not let this user see the video (403)", "give the user that right at the camera, or use another"
    NOT_FOUND = "has no video at this path (404)", "correct the path of the source; the camera's manual names it"
    NO_BANDWIDTH = "has no bandwidth for one more viewer (453)", "close other viewers, or choose its smaller stream"
    NO_SESSION = "forgot the session at once (454)", "restart the camera; if that does not help, update its firmware"
    TRANSPORT = "does not send over {} (461)", 'set rtsp_transport = "auto" for this camera'
    NO_TRANSPORT = "sends neither over TCP nor over UDP (461)", "choose another stream of it, or update its firmware"
    BUSY = "is busy (503)", "close other viewers, or restart the camera"
    STATUS = "refuses with status {}", "check the path of the source; restart the camera"
    REDIRECT_LOOP = "redirects in a circle", "write the address at which its video really is as the source"
    ELSEWHERE = "redirects to what is no camera's address", "write the address of its video as the source"
    NO_VIDEO = "sends no video track", "choose a stream with video: correct the path of the source"
    BAD_SDP = "describes its stream in words that nobody understands (bad SDP)", "choose another stream of the camera"
    CODEC = "sends {}, which cannot be decoded", "set the camera to H.264 or H.265"
    UNKNOWN_NAME = "has a name that no name server knows", "check the host name, or write the IP address"
    NAME_SERVER_SILENT = (
        "has a name that cannot be looked up: the name server is silent",
        "check this device's network and name server, or write the camera's IP address",
    )
    NOTHING_LISTENS = "has nothing that listens at this port", "check that the camera is on, and its port"
    NO_ANSWER = "does not answer", "check that the camera is on and its address is right"
    UNREACHABLE = "cannot be reached: {}", "check the network between this device and the camera"
    SILENT = "takes the connection and then says nothing", "restart the camera; check the port of the source"
    HANGS_UP = "hangs up without an answer", "check scheme and port of the source; restart the camera"
    OTHER_PROTOCOL = "answers, but not in {}", "check scheme and port of the source"
    TLS = "fails the TLS handshake: {}", "check the port, or use the scheme without the s at its end"
    CERTIFICATE = "shows a certificate that cannot be trusted: {}", "install its authority, or set tls_verify = false"
    CLOCK = (
        "shows a certificate that is not valid by this device's clock: {}",
        "wait for a time server, or set the clock",
    )
    WEB_PAGE = "sends a web page and no video", "correct the path: not of the page, of the video or picture in it"
    EMPTY = "sends an empty answer", "check the path of the source; restart the camera"
    NOT_VIDEO = "sends {}, which is no video", "correct the path of the source"
    NO_PICTURE = "describes its video and then sends none of it", "try the other rtsp_transport; restart the camera"
    NO_KEY_FRAME = "sent no key frame for {}", "shorten the key frame interval at the camera, or raise stall_s"
    UNDECODABLE = "sent nothing that can be decoded for {}", "check its cable and network; restart the camera"
    UNKNOWN = "answers but gives no video", "check the path, and that the camera sends H.264, H.265 or MJPEG"

    @property
    def reason(self) -> str:
        """What is wrong."""
        return str(self.value[0])

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return str(self.value[1])


class SourceRefused(Exception):
    """The camera gives no video; whoever knows its name makes a SourceError of it."""

    def __init__(self, why: SourceRefusal, value: object = "") -> None:
        super().__init__(why, value)
        self.why = why
        self.value = value

    @property
    def reason(self) -> str:
        """What is wrong."""
        return self.why.reason.format(self.value)

    @property
    def login_refused(self) -> bool:
        """Whether user and password were sent and refused."""
        return self.why is SourceRefusal.WRONG_PASSWORD

    def told_of(self, name: str) -> SourceError:
        """The error that people see.

        Args:
            name: of the camera or its address, without user, path and password.
        """
        return SourceError(f"{name} {self.reason}", remedy=self.why.remedy, login_refused=self.login_refused)


_BY_STATUS: Mapping[int, SourceRefusal] = {
    401: SourceRefusal.WRONG_PASSWORD,
    403: SourceRefusal.FORBIDDEN,
    404: SourceRefusal.NOT_FOUND,
    453: SourceRefusal.NO_BANDWIDTH,
    454: SourceRefusal.NO_SESSION,
    461: SourceRefusal.TRANSPORT,
    503: SourceRefusal.BUSY,
}
"""RFC 9110, section 15, and RFC 2326, section 7.1.1."""

_BY_ERRNO: Mapping[int, SourceRefusal] = {
    errno.ECONNREFUSED: SourceRefusal.NOTHING_LISTENS,
    errno.ECONNRESET: SourceRefusal.HANGS_UP,
    errno.ECONNABORTED: SourceRefusal.HANGS_UP,
    errno.EPIPE: SourceRefusal.HANGS_UP,
    errno.ETIMEDOUT: SourceRefusal.NO_ANSWER,
    errno.EPROTONOSUPPORT: SourceRefusal.TRANSPORT,  # what FFmpeg makes of RTSP's 461
}


def of_status(status: int, *, transport: str = "", with_password: bool = True) -> SourceRefused:
    """What a status of RTSP or HTTP that is no success means.

    Args:
        status: the number.
        transport: that was asked for.
        with_password: whether one was sent.
    """
    why = _BY_STATUS.get(status, SourceRefusal.STATUS)
    if why is SourceRefusal.WRONG_PASSWORD and not with_password:
        why = SourceRefusal.NO_PASSWORD
    value = transport.upper() if why is SourceRefusal.TRANSPORT else _with_phrase(status)
    return SourceRefused(why, value)


def of_errno(number: int, *, transport: str = "") -> SourceRefused:
    """What an error number of a connection means."""
    why = _BY_ERRNO.get(number, SourceRefusal.UNREACHABLE)
    value = transport.upper() if why is SourceRefusal.TRANSPORT else _system_text(number)
    return SourceRefused(why, value)


def _with_phrase(status: int) -> str:
    known = [one.phrase for one in http.HTTPStatus if one == status]
    return " ".join([str(status), *known])


def _system_text(number: int) -> str:
    return os.strerror(number)
