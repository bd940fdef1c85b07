"""``doctor``: everything the daemon needs, checked one by one, with what to do about what is missing."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vajra_edge import device
from vajra_edge.backends.base import Backend
from vajra_edge.backends.cuda import CudaRefused, CudaUnavailable
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.capture.url import read_credentials
from vajra_edge.cli import board, sandbox
from vajra_edge.cli.status import document_of
from vajra_edge.cli.terminal import inert
from vajra_edge.config import text_file
from vajra_edge.config.address import Kind, kind_of
from vajra_edge.config.credentials import read_secret
from vajra_edge.config.settings import CameraSettings, Settings, load
from vajra_edge.errors import ControlError, PublishError, VajraError
from vajra_edge.mqtt import events, identity
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.privileges import become_service_user
from vajra_edge.version import VERSION
from vajra_edge.weights import interpreter
from vajra_edge.wording import Setting, say, several

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "onnx",
    "onnxslim",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "cuda-python",
    "torch",
    "paho-mqtt",
    "systemd-python",
)
LITTLE_SPACE_BYTES = 512 * 1024 * 1024
"""A plan of the largest network in FP32 is under 300 MB; two must fit beside each other."""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        verdict: ok, note (works without), or fail.
        found: what was seen.
        remedy: what to do, empty when nothing is.
    """

    name: str
    verdict: str
    found: str
    remedy: str = ""


def doctor(config: Path, *, as_json: bool, quiet: bool, inside: bool = False) -> int:
    """Print the report.

    Args:
        config: the settings file.
        as_json: print the checks as a list of objects.
        quiet: print nothing.
        inside: this process is in the service's sandbox already.

    Returns:
        0, or 1 if any check failed.
    """
    checks = list(_checks(config, inside=True) if inside else _viewed(config))
    if as_json:
        print(orjson.dumps([asdict(check) for check in checks]).decode())  # noqa: T201
    elif not quiet:
        Console().print(_table(checks))
    return int(any(check.verdict == "fail" for check in checks))


def _viewed(config: Path) -> Iterator[Check]:
    """From inside the service's sandbox where root asks and there is one, for what root sees the daemon may not see."""
    arguments = ("doctor", "--inside", "--json", "--config", str(config.absolute()))
    try:
        seen = [Check(**check) for check in orjson.loads(sandbox.run(arguments))]
    except (sandbox.Outside, orjson.JSONDecodeError, TypeError) as error:
        yield Check("view", "note", f"from outside the service's sandbox: {error}", "the daemon may see less than this")
        yield from _checks(config, inside=False)
        return
    yield Check("view", "ok", f"from inside the sandbox of {sandbox.UNIT}, as its user")
    yield from seen


def _checks(config: Path, *, inside: bool) -> Iterator[Check]:
    yield from _machine()
    yield from _versions()
    try:
        settings = load(config)
    except VajraError as error:
        yield Check("settings", "fail", str(error.message), str(error.remedy))
        return
    yield Check("settings", "ok", str(config))
    become_service_user(settings.store.state_dir)  # from here on it is the cameras' and the daemon's word that is read
    yield from _gpu_devices(settings)
    yield from _weights(settings)
    yield from _backends(settings)
    yield from _store(settings)
    yield from _broker(settings)
    yield from _files(settings)
    yield from _gstreamer(settings.cameras)
    streamed = _streamed(settings)
    for camera in settings.cameras:
        if camera.enabled and (closed := board.camera(camera, inside=inside)) is not None:
            yield _of_board(closed, f"camera {camera.id}: {closed.name}")
        check = _camera(camera)
        if check.verdict == "fail" and camera.id in streamed:
            found = f"the daemon has it: {streamed[camera.id]}. A second reader is told: {check.found}"
            check = Check(check.name, "note", found)
        yield check
    if not settings.cameras:
        yield Check("cameras", "fail", "none", "add a [[cameras]] table")


def _machine() -> Iterator[Check]:
    info = device.probe()
    gpus = ", ".join(f"{gpu.name} (sm {gpu.compute_capability})" for gpu in info.gpus) or "no NVIDIA GPU"
    yield Check(
        "machine",
        "ok",
        f"{info.machine or info.cpu}, {info.arch}, {info.cpus} CPUs, "
        f"{info.memory_available_bytes / 1e9:.1f} of {info.memory_bytes / 1e9:.1f} GB free; {gpus}"
        + (f"; Jetson Linux {info.l4t}" if info.l4t else "")
        + (f"; power mode {info.power_mode}" if info.power_mode else ""),
    )


def _versions() -> Iterator[Check]:
    found = {name: device.package_version(name) for name in PACKAGES}
    yield Check("versions", "ok", ", ".join([f"vajra-edge {VERSION}", *(f"{n} {v}" for n, v in found.items() if v)]))


def _gpu_devices(settings: Settings) -> Iterator[Check]:
    if (lost := board.no_gpu()) is not None:
        verdict = "note" if settings.engine.target == "cpu" else "fail"
        yield Check(lost.name, verdict, lost.found, lost.remedy)
        return
    for finding in board.gpu_devices():
        yield _of_board(finding, finding.name)


def _weights(settings: Settings) -> Iterator[Check]:
    from vajra_edge.build.request import weights_digest

    try:
        digest = weights_digest(settings.weights.path)
    except VajraError as error:
        yield Check("weights", "fail", str(error.message), str(error.remedy))
        return
    expected = settings.weights.sha256
    if expected not in (None, digest):
        remedy = str(say("correct ", Setting.WEIGHTS_SHA256))
        yield Check("weights", "fail", f"{settings.weights.path} has SHA-256 {digest}", remedy)
        return
    yield Check("weights", "ok", f"{settings.weights.path}, SHA-256 {digest[:12]}…")
    if settings.weights.path.suffix == ".pt" and (problem := interpreter.problem(settings.weights.python)):
        yield Check("torch", "fail", problem, str(interpreter.REMEDY))


def _backends(settings: Settings) -> Iterator[Check]:
    from vajra_edge.backends.base import select
    from vajra_edge.build.request import BuildRequest

    for name in ("tensorrt", "onnxruntime"):
        chosen = settings.engine.backend
        wanted = chosen == name
        try:
            backend = select(name).backend
            spec = BuildRequest.of(settings, "0" * 64, backend).spec
            refused = backend.check(spec)
            reason = _only_builds(backend, spec) if refused is None else str(refused)
        except VajraError as error:
            yield Check(f"backend {name}", "fail" if wanted else "note", str(error.message), str(error.remedy))
            continue
        yield Check(
            f"backend {name}",
            ("fail" if wanted else "note") if reason else "ok",
            str(reason or "can build and run this"),
        )
    try:
        choice = select(settings.engine.backend)
    except VajraError as error:
        yield Check("backend", "fail", str(error.message), str(error.remedy))
        return
    yield Check("backend", "note" if choice.instead else "ok", f"{choice.backend.name}: {choice.reason}")
    with suppress(VajraError):  # what is wrong with the settings was told above
        yield from _kernels(choice.backend, BuildRequest.of(settings, "0" * 64, choice.backend).spec)


def _kernels(backend: Backend, spec: EngineSpec) -> Iterator[Check]:
    """Whether frames can be prepared and boxes chosen on the GPU that the plan runs on; nothing where none does."""
    gpu = backend.computes_on_gpu(spec)
    if gpu is None or backend.cannot_run(spec) is not None:
        return
    try:
        Kernels(gpu, None).close()
    except (CudaUnavailable, CudaRefused) as error:
        told = f"frames are prepared on the CPU unless an earlier start compiled our kernels: {error.message}"
        yield Check("kernels", "note", told, str(error.remedy))
    else:
        yield Check("kernels", "ok", f"compile and load: frames are prepared on GPU {gpu}")


def _only_builds(backend: Backend, spec: EngineSpec) -> str | None:
    """TensorRT-RTX builds on a machine whose engines it cannot run."""
    idle = backend.cannot_run(spec)
    return None if idle is None else f"can build this, not run it: {idle}"


def _store(settings: Settings) -> Iterator[Check]:
    root = settings.store.state_dir
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        who = f"uid {os.geteuid()}"
        yield Check("store", "fail", f"{root} is not writable for {who}", "chown it, or run as the service's user")
        return
    free_bytes = shutil.disk_usage(existing).free
    verdict = "ok" if free_bytes >= LITTLE_SPACE_BYTES else "fail"
    remedy = "" if verdict == "ok" else "free at least 0.5 GB there"
    yield Check("store", verdict, f"{root}, {free_bytes / 1e9:.1f} GB free", remedy)


def _broker(settings: Settings) -> Iterator[Check]:
    mqtt = settings.mqtt
    host, port = events.address(mqtt)
    try:
        with socket.create_connection((host, port), timeout=3) as dialled:
            if mqtt.tls:
                identity.tls_context(mqtt).wrap_socket(dialled, server_hostname=host).close()
    except (ssl.SSLError, PublishError) as error:
        refused = events.unreachable(mqtt, error)
        yield Check("broker", "fail", str(refused.message), str(refused.remedy))
        return
    except OSError as error:
        place = several(Setting.MQTT_HOST, Setting.MQTT_PORT)
        remedy = str(say("check ", place, "; the daemon starts without it and keeps trying"))
        yield Check("broker", "fail", f"{host}:{port} does not answer: {error}", remedy)
        return
    yield Check("broker", "ok", f"{host}:{port} answers{'' if mqtt.tls else ', without TLS'}")


def _files(settings: Settings) -> Iterator[Check]:
    """Certificates and secrets that settings name; what is in them is not told."""
    mqtt, readable = settings.mqtt, True
    for field in ("ca_file", "cert_file", "key_file"):
        path: Path | None = getattr(mqtt, field)
        content = text_file.read_bytes(path, identity.MOST_PEM_BYTES) if path is not None else b""
        if isinstance(content, text_file.Unreadable):
            readable = False
            yield Check(f"mqtt.{field}", "fail", f"{path} {content.what}", content.remedy)
        elif path is not None and not mqtt.tls:
            yield Check(f"mqtt.{field}", "note", "not used: tls is off, and nothing is encrypted", "set tls = true")
    yield from _unless(lambda: read_secret("mqtt-password", mqtt.password_file), "mqtt.password_file")
    if mqtt.tls and readable:
        yield from _unless(lambda: identity.tls_context(mqtt), "mqtt.tls")
    if mqtt.password_file is not None and mqtt.username is None:
        yield Check("mqtt.password_file", "note", "not used without a username", "set username")
    for camera in settings.cameras:
        name = f"camera {camera.id} credentials"
        yield from _unless(partial(read_credentials, camera.id, camera.credentials_file), name)
        if "@" in camera.source.partition("://")[2] or "user-pw" in camera.source:
            remedy = "write user:password into credentials_file, and leave them out of source"
            yield Check(name, "note", "a user or password stands in the settings file", remedy)


def _unless(read: Callable[[], object], name: str) -> Iterator[Check]:
    """A failed check, if reading fails."""
    try:
        read()
    except VajraError as error:
        yield Check(name, "fail", str(error.message), str(error.remedy))


def _gstreamer(cameras: Sequence[CameraSettings]) -> Iterator[Check]:
    """Whether PyGObject finds GStreamer, on a Jetson and wherever a camera cannot do without it."""
    from vajra_edge.capture.sources import appsink

    needed = any(one.enabled and _needs_gstreamer(one) for one in cameras)
    if not needed and not device.is_jetson():
        return
    if absent := appsink.why_no_gobject():
        told = f"{absent}: cameras are decoded by the CPU, and csi: cannot be opened"
        yield Check("gstreamer", "fail" if needed else "note", told, f"apt-get install {appsink.PACKAGES}")
    else:
        yield Check("gstreamer", "ok", "PyGObject finds it: csi: and the hardware decoder can be used")


def _needs_gstreamer(camera: CameraSettings) -> bool:
    """It has no other way to its pictures; a pipeline of the settings has OpenCV's, and ``decode = "auto"`` the CPU."""
    in_hardware = camera.decode == "nvdec" and camera.source.startswith("rtsp")
    return in_hardware or kind_of(camera.source) is Kind.CSI


def _streamed(settings: Settings) -> dict[str, str]:
    """What the daemon says of each camera that it reads now; nothing where none answers."""
    try:
        cameras = document_of(settings.service.control_socket)["cameras"]
    except ControlError:
        return {}
    return {view["id"]: f"{view['fps']:.1f} frames/s" for view in cameras if view["state"] == "streaming"}


def _camera(camera: CameraSettings) -> Check:
    from vajra_edge.capture.trial import first_frame

    name = f"camera {camera.id}"
    if not camera.enabled:
        return Check(name, "note", "not enabled")
    try:
        frame = first_frame(camera)
    except VajraError as error:
        return Check(name, "fail", str(error.message), str(error.remedy))
    if frame is None:
        return Check(name, "fail", "opened, but holds no image", "check [[cameras]] source")
    width, height = frame.resolution_wh
    return Check(name, "ok", f"delivers {width} x {height}")


def _of_board(finding: board.Finding, name: str) -> Check:
    return Check(name, "fail" if finding.remedy else "ok", finding.found, finding.remedy)


def _table(checks: list[Check]) -> Table:
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")  # a path that is cut short is of no use
    for check in checks:
        text = escape(inert(check.found)) + (f"\n[bold]{escape(inert(check.remedy))}[/]" if check.remedy else "")
        table.add_row(f"[{colours[check.verdict]}]{check.verdict}[/]", escape(inert(check.name)), text)
    return table
