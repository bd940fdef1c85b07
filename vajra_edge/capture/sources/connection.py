"""Connection: a socket to a camera, with one deadline over look-up, connecting, TLS and whatever is read.

FFmpeg looks names up in a way that nothing ends, so a name is looked up here first, in a thread that may be left.
"""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from vajra_edge import clock
from vajra_edge.capture.url import Endpoint
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefusal, SourceRefused, of_errno

_NEXT_S = 0.25
"""An address that has not answered by then is not waited for alone (RFC 8305, section 5)."""

_AUTHORITIES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))


class Line:
    """A connected socket whose reads end at a deadline, in the shape that ``http.client`` takes for a socket.

    Attributes:
        deadline: of all reads and writes from now on; may be replaced.
    """

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self.deadline = deadline

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        self._socket.settimeout(max(float(self.deadline), 1e-3))
        self._socket.sendall(data)

    def receive_into(self, buffer: Any) -> int:
        """Read what is there, at least a byte; 0: the other side hung up.

        Raises:
            TimeoutError: nothing came before the deadline.
        """
        if self.deadline.passed:
            raise TimeoutError
        self._socket.settimeout(float(self.deadline))
        try:
            return self._socket.recv_into(buffer)
        except ssl.SSLEOFError:  # a camera that hangs up without TLS's farewell
            return 0

    def makefile(self, mode: str) -> io.BufferedReader:
        """What ``http.client`` reads from."""
        del mode
        return io.BufferedReader(_Raw(self))

    def close(self) -> None:
        """Hang up; idempotent."""
        self._socket.close()


class _Raw(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._line.receive_into(buffer)


def connect(endpoint: Endpoint, deadline: Deadline, *, verify: bool) -> Line:
    """Connect to a camera, through TLS where its scheme says so.

    Args:
        endpoint: where.
        deadline: of all of it, and of what is read later.
        verify: whether its certificate must be trusted.

    Raises:
        SourceRefused: it cannot be reached, or fails the handshake.
    """
    addresses = look_up(endpoint.host, endpoint.port, deadline)
    connected = _connected(addresses, deadline)
    return Line(_secured(connected, endpoint, deadline, verify) if endpoint.secure else connected, deadline)


def look_up(host: str, port: int, deadline: Deadline) -> list[tuple[str, int]]:
    """The addresses of a host.

    Raises:
        SourceRefused: nobody knows it, or nobody answers before the deadline; or it is behind no interface of ours.
    """
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        _check_interface(getattr(address, "scope_id", None))
        return [(str(address), port)]
    found: list[tuple[str, int]] = []
    failed: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found.extend((str(info[4][0]), port) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long for IDNA
            failed.append(error)

    asking = threading.Thread(target=ask, name="look-up", daemon=True)  # glibc takes up to 40 s, and nothing ends it
    asking.start()
    asking.join(float(deadline))
    if found:
        return list(dict.fromkeys(found))
    temporary = failed and isinstance(failed[0], socket.gaierror) and failed[0].errno == socket.EAI_AGAIN
    raise SourceRefused(SourceRefusal.NAME_SERVER_SILENT if temporary or not failed else SourceRefusal.UNKNOWN_NAME)


def _check_interface(name: str | None) -> None:
    if name is None or name.isdecimal():
        return
    try:
        socket.if_nametoindex(name)
    except OSError:
        raise SourceRefused(SourceRefusal.UNREACHABLE, f"there is no network interface {name}") from None


def authorities() -> str | None:
    """The system's certificate authorities in one file, for a library that does not find them; None: no such file."""
    own = ssl.get_default_verify_paths().cafile
    return next((str(path) for path in (*((Path(own),) if own else ()), *_AUTHORITIES) if path.is_file()), None)


class _Attempts:
    """Addresses of one camera that are being connected to, and why one of them does not take us."""

    def __init__(self) -> None:
        self._trying = selectors.DefaultSelector()
        self.refused = SourceRefused(SourceRefusal.NO_ANSWER)

    @property
    def pending(self) -> bool:
        """Whether an address has not answered yet."""
        return bool(self._trying.get_map())

    def begin(self, address: tuple[str, int]) -> None:
        """Knock at one more address."""
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                *address, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )[0]
            knocking = socket.socket(family, kind, protocol)
        except OSError as error:  # this machine may have no IPv6
            self.refused = of_errno(error.errno or 0)
            return
        knocking.setblocking(False)
        number = knocking.connect_ex(place)
        if number in {0, errno.EINPROGRESS}:
            self._trying.register(knocking, selectors.EVENT_WRITE, knocking)
        else:
            self._failed(knocking, number)

    def wait(self, seconds: float) -> socket.socket | None:
        """The first that takes us within this time; or None, as soon as one refuses."""
        for key, _ in self._trying.select(seconds):
            answered: socket.socket = key.data
            self._trying.unregister(answered)
            if not (number := answered.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                answered.setblocking(True)
                return answered
            self._failed(answered, number)
        return None

    def close(self) -> None:
        """Give up what is pending."""
        for key in tuple(self._trying.get_map().values()):
            key.data.close()
        self._trying.close()

    def _failed(self, refused: socket.socket, number: int) -> None:
        refused.close()
        self.refused = of_errno(number)


def _connected(addresses: Sequence[tuple[str, int]], deadline: Deadline) -> socket.socket:
    """To the first address that takes us; else why the last one does not, or that one is silent.

    Each is tried beside those before it, which may be dead for good: an IPv6 address of which nobody thought again.
    """
    left = deque(addresses)
    with closing(_Attempts()) as attempts:
        while left or attempts.pending:
            if left:
                attempts.begin(left.popleft())
            seconds = min(float(deadline), _NEXT_S) if left else float(deadline)
            if attempts.pending and (taken := attempts.wait(seconds)) is not None:
                return taken
            if deadline.passed:
                break
        raise SourceRefused(SourceRefusal.NO_ANSWER) if attempts.pending or left else attempts.refused


def _secured(connected: socket.socket, endpoint: Endpoint, deadline: Deadline, verify: bool) -> socket.socket:
    context = ssl.create_default_context(cafile=authorities())
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # who trusts any certificate has an old camera
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    connected.settimeout(max(float(deadline), 1e-3))
    try:
        return context.wrap_socket(connected, server_hostname=endpoint.host.partition("%")[0])
    except ssl.SSLCertVerificationError as error:
        why = SourceRefusal.CLOCK if clock.may_explain(error.verify_code) else SourceRefusal.CERTIFICATE
        refused = SourceRefused(why, error.verify_message)
    except TimeoutError:
        refused = SourceRefused(SourceRefusal.TLS, "no answer")
    except (OSError, ValueError) as error:
        refused = SourceRefused(SourceRefusal.TLS, getattr(error, "reason", None) or "the connection ended")
    with contextlib.suppress(OSError):
        connected.close()
    raise refused
