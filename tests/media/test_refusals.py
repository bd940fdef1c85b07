"""The reason of a refusal in the user's words, each from a real little server."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from little_servers import SDP, Serve, answering, head_of, http, listening, rtsp
from ports import free_port
from waiting import LIMIT_S

from vajra_edge import clock
from vajra_edge.capture.sources import registry
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.refusals import SourceRefusal, of_errno, of_status

SECRET = "hunter2"


def refusal(address: str, **settings: object) -> str:
    """What opening a camera there says; its password and path are nowhere in it."""
    text = address.replace("://", f"://admin:{SECRET}@") + f"/{SECRET}?key={SECRET}"
    usual = {"id": "gate", "source": text, "open_timeout_s": 3.0, "stall_s": 3.0}
    source = registry.make(CameraSettings.model_validate({**usual, **settings}))
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    said = str(caught.value)
    assert SECRET not in said
    assert "\n" not in said
    assert said.startswith(address.rpartition(":")[0]), "scheme and host"
    return said


def mute(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass


DIGEST = 'WWW-Authenticate: Digest realm="c", nonce="n"\r\n'
RTSP: list[tuple[Serve, str]] = [
    (rtsp({"DESCRIBE": ("401 Unauthorized", DIGEST, "")}), "refuses user and password (401); check user and password"),
    (rtsp({"DESCRIBE": ("403 Forbidden", "", "")}), "does not let this user see the video (403); give the user that"),
    (rtsp({"DESCRIBE": ("404 Not Found", "", "")}), "has no video at this path (404); correct the path"),
    (
        rtsp({"DESCRIBE": ("453 Not Enough Bandwidth", "", "")}),
        "has no bandwidth for one more viewer (453); close other",
    ),
    (rtsp({"SETUP": ("453 Not Enough Bandwidth", "", "")}), "has no bandwidth for one more viewer (453)"),
    (rtsp({"SETUP": ("454 Session Not Found", "", "")}), "forgot the session at once (454); restart the camera"),
    (rtsp({"SETUP": ("461 Unsupported Transport", "", "")}), "sends neither over TCP nor over UDP (461)"),
    (rtsp({"DESCRIBE": ("503 Service Unavailable", "", "")}), "is busy (503); close other viewers"),
    (rtsp({"DESCRIBE": ("500 Internal Server Error", "", "")}), "refuses with status 500 Internal Server Error"),
    (rtsp({"DESCRIBE": ("451 Parameter Not Understood", "", "")}), "refuses with status 451"),
    (rtsp({"DESCRIBE": ("200 OK", "Content-Type: application/sdp\r\n", "hello world")}), "(bad SDP); choose another"),
    (rtsp({"DESCRIBE": ("200 OK", "", "v=0\r\ns=x\r\n")}), "(bad SDP)"),
    (
        rtsp({"DESCRIBE": ("200 OK", "", SDP.replace("m=video", "m=audio").replace("H264", "PCMU"))}),
        "sends no video track; choose a stream with video",
    ),
    (
        rtsp({"DESCRIBE": ("200 OK", "", SDP.replace("H264", "VND.ACME"))}),
        "sends video as VND.ACME, which cannot be decoded; set the camera to H.264",
    ),
    (answering(http(b"<html>", "text/html", "400 Bad Request")), "answers, but not in RTSP; check scheme and port"),
    (answering(b"\0\1\2" * 200), "answers, but not in RTSP"),
    (answering(b""), "hangs up without an answer; check scheme and port"),
]
HTTP: list[tuple[Serve, str]] = [
    (
        answering(http(b"", "text/html", "401 No", 'WWW-Authenticate: Basic realm="c"')),
        "refuses user and password (401)",
    ),
    (answering(http(b"", "text/html", "401 No", "WWW-Authenticate: NTLM")), "asks for a login of a kind that is not"),
    (answering(http(b"", "text/html", "403 Forbidden")), "does not let this user see the video (403)"),
    (answering(http(b"", "text/html", "404 Not Found")), "has no video at this path (404)"),
    (answering(http(b"", "text/html", "503 Busy")), "is busy (503)"),
    (answering(http(b"", "text/html", "500 Oops")), "refuses with status 500"),
    (
        answering(http(b"", "text/html", "302 Found", f"Location: /{SECRET}?key={SECRET}")),
        "redirects in a circle; write",
    ),
    (answering(http(b"", "text/html", "302 Found", f"Location: rtsp://{SECRET}/")), "redirects to what is no camera's"),
    (answering(b"RTSP/1.0 400 Bad Request\r\n\r\n"), "answers, but not in HTTP"),
    (answering(b""), "hangs up without an answer"),
]


@pytest.mark.parametrize(("serve", "says"), RTSP, ids=[says[:30] for _, says in RTSP])
def test_each_refusal_of_an_rtsp_camera_has_its_own_words(serve: Serve, says: str) -> None:
    with listening(serve) as port:
        assert says in refusal(f"rtsp://127.0.0.1:{port}")


@pytest.mark.parametrize(("serve", "says"), HTTP, ids=[says[:30] for _, says in HTTP])
def test_each_refusal_of_an_http_camera_has_its_own_words(serve: Serve, says: str) -> None:
    with listening(serve) as port:
        assert says in refusal(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_port_at_which_nothing_listens(scheme: str) -> None:
    said = refusal(f"{scheme}://127.0.0.1:{free_port()}")
    assert "has nothing that listens at this port; check that the camera is on" in said


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_accepts_and_says_nothing(scheme: str) -> None:
    with listening(mute) as port:
        began_s = time.monotonic()
        said = refusal(f"{scheme}://127.0.0.1:{port}", open_timeout_s=2.0)
        assert "takes the connection and then says nothing; restart the camera" in said
        assert time.monotonic() - began_s < LIMIT_S


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_swallows_packets(scheme: str) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)  # the queue of the listener is full now
            assert "does not answer; check that the camera is on" in refusal(
                f"{scheme}://127.0.0.1:{address[1]}", open_timeout_s=0.4
            )


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_name_that_nobody_knows(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "has a name that no name server knows; check the host name" in refusal(f"{scheme}://front-door:1")


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_name_server_that_is_silent_is_not_waited_for(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(LIMIT_S) and [])
    began_s = time.monotonic()
    said = refusal(f"{scheme}://front-door:1", open_timeout_s=0.3)
    done.set()
    assert "has a name that cannot be looked up: the name server is silent; check this device's network" in said
    assert time.monotonic() - began_s < LIMIT_S / 2


def test_an_rtsp_camera_that_redirects_in_a_circle() -> None:
    def serve(connection: socket.socket) -> None:
        while request := head_of(connection):
            number = request.split("CSeq: ")[1].split()[0]
            here = request.split()[1]
            connection.sendall(f"RTSP/1.0 302 Moved\r\nCSeq: {number}\r\nLocation: {here}\r\n\r\n".encode())
            time.sleep(0.02)

    with listening(serve) as port:
        assert "redirects in a circle; write the address" in refusal(f"rtsp://127.0.0.1:{port}", open_timeout_s=3.0)


@contextmanager
def tls(folder: Path) -> Iterator[ssl.SSLContext]:
    """A certificate that nobody knows."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names = ["-subj", "/CN=camera", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    yield context


@pytest.mark.parametrize(("scheme", "serve"), [("rtsps", RTSP[2][0]), ("https", HTTP[3][0])])
def test_a_certificate_that_nobody_knows_is_refused_unless_that_is_wanted(
    scheme: str, serve: Serve, tmp_path: Path
) -> None:
    with tls(tmp_path) as context, listening(serve, context) as port:
        said = refusal(f"{scheme}://127.0.0.1:{port}")
        assert "shows a certificate that cannot be trusted: self" in said
        assert "set tls_verify = false" in said
        assert "has no video at this path (404)" in refusal(f"{scheme}://127.0.0.1:{port}", tls_verify=False)


def test_a_certificate_out_of_date_is_blamed_on_a_clock_that_may_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to trust any certificate because the device booted in 1970."""
    monkeypatch.setattr(clock, "may_explain", lambda _: True)
    with tls(tmp_path) as context, listening(RTSP[2][0], context) as port:
        said = refusal(f"rtsps://127.0.0.1:{port}")
    assert "not valid by this device's clock: " in said
    assert "wait for a time server, or set the clock" in said
    assert "tls_verify" not in said


@pytest.mark.parametrize("scheme", ["rtsps", "https"])
def test_a_port_that_does_not_understand_tls_and_waits(scheme: str) -> None:
    with listening(mute) as port:
        said = refusal(f"{scheme}://127.0.0.1:{port}", open_timeout_s=0.5)
    assert "fails the TLS handshake: no answer; check the port, or use the scheme without the s" in said


@pytest.mark.parametrize("scheme", ["rtsps", "https"])
def test_a_port_without_tls(scheme: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"no TLS here" * 50)

    with listening(serve) as port:
        assert "fails the TLS handshake: " in refusal(f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EHOSTUNREACH, SourceRefusal.UNREACHABLE),
        (errno.ENETUNREACH, SourceRefusal.UNREACHABLE),
        (errno.ECONNRESET, SourceRefusal.HANGS_UP),
        (errno.ETIMEDOUT, SourceRefusal.NO_ANSWER),
    ],
)
def test_error_numbers_have_words(number: int, why: SourceRefusal) -> None:
    refused = of_errno(number)
    assert refused.why is why
    assert "{" not in refused.reason


def test_every_refusal_is_one_line_with_a_remedy() -> None:
    for why in SourceRefusal:
        assert why.reason
        assert why.remedy
        assert why.reason.count("{}") <= 1
    assert of_status(418).reason == "refuses with status 418 I'm a Teapot"
    assert of_status(461, transport="udp").reason == "does not send over UDP (461)"
