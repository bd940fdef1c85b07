"""Settings: a TOML file, environment variables over it, and frozen models that take nothing for something else.

``VAJRA_EDGE_MQTT__HOST=broker`` sets ``[mqtt] host``. Secrets are never settings: a field
names the file that holds one, or systemd's credentials directory does (``mqtt-password``, ``camera-<id>``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vajra_edge.config import checks, environment, places, settings_file
from vajra_edge.config.mistakes import in_one_line
from vajra_edge.errors import SettingsError

DEFAULT_PATH = Path("/etc/vajra-edge/config.toml")
ENV_PREFIX = environment.PREFIX

Identifier: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Ratio: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds: TypeAlias = Annotated[float, Field(gt=0.0, le=86_400.0)]
File: TypeAlias = Annotated[Path, BeforeValidator(checks.path)]
SecretFile: TypeAlias = Annotated[Path, BeforeValidator(checks.secret_file)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(checks.names)]


class Section(BaseModel):
    """A frozen table of the file; an unknown key is an error, and so is ``true`` or ``"1883"`` for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class WeightsSettings(Section):
    """``[weights]``: the network's file and what its metadata may lack."""

    path: File = Field(description="the .pt or .onnx file")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)] | None = Field(
        None, description="if set, a file with another digest is refused"
    )
    class_names: Names | None = Field(None, description="overrides the names in the file's metadata")
    stride: Annotated[int, Field(ge=1, le=128)] | None = Field(
        None, description="supplies the stride where the file's metadata lacks it"
    )
    keys: File = Field(
        Path("/etc/vajra-edge/keys"),
        description="folder of trusted minisign keys (.pub); with a key in it only signed bundles are taken",
    )
    python: File | None = Field(
        None, description="interpreter with torch >= 2.10 that opens .pt files, where the daemon's own lacks it"
    )


class EngineSettings(Section):
    """``[engine]``: what is built."""

    backend: Literal["auto", "tensorrt", "onnxruntime"] = Field(
        "auto", description="auto: TensorRT where there is a GPU"
    )
    target: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|gpu:\d+|dla:[01])$")] = Field(
        "auto", description="auto, cpu, gpu:0, dla:0 or dla:1"
    )
    precision: Literal["auto", "fp32", "tf32", "fp16", "int8"] = Field(
        "auto", description="auto: fp16 on a GPU or DLA, fp32 on a CPU; tf32: a GPU from Ampere on"
    )
    img_size: Annotated[int | tuple[int, int], BeforeValidator(checks.sides)] | None = Field(
        None, description="input side, or [height, width], in pixels; unset: what the weights were made for"
    )
    batch: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="largest number of frames inferred together; unset: what an .onnx file is fixed to, else 1"
    )
    dynamic: bool = Field(
        False,
        description="accept smaller sizes and batches without padding; img_size is the largest, for memory's sake",
    )
    simplify: bool = Field(True, description="run onnxslim over the graph; ONNX Runtime folds fp32 graphs by itself")
    nms_iou: Ratio = Field(0.7, description="boxes of one class that overlap more than this are one object")
    max_det: Annotated[int, Field(ge=1, le=1000)] = Field(300, description="most detections in one frame")
    nms_top_k: Annotated[int, Field(ge=1, le=3840)] = Field(
        500,
        description="candidates that enter NMS; coco128 has at most 366 above 0.05; 3840 is TensorRT's limit",
    )
    opset: Annotated[int, Field(ge=13, le=20)] | None = Field(None, description="unset: chosen for the backend")
    workspace_gib: Annotated[float, Field(gt=0.0, le=64.0)] | None = Field(
        None, description="builder scratch memory; unset: from the memory that is free"
    )
    typing: Literal["auto", "strong", "weak"] = Field("auto", description="TensorRT network typing")
    quantization: Literal["auto", "qdq", "calibrator"] = Field(
        "auto",
        description="route to INT8: Q/DQ nodes or TensorRT's own calibrator (to 10.x); auto: the first, else the other",
    )
    optimization_level: Annotated[int, Field(ge=0, le=5)] = Field(3, description="TensorRT builder effort")
    allow_lower_precision: bool = Field(
        True,
        description="int8 that fails its check, is refused by the library, lacks usable images, or on TensorRT is not "
        "faster than fp16, gives way to fp16, fp32, as tf32 does to fp32; false: the build fails, and int8 of any "
        "speed serves",
    )
    first_boot: Literal["serve", "wait"] = Field(
        "serve", description="serve: an ONNX Runtime plan serves while a slow first build goes on"
    )
    build_timeout_s: Annotated[float, Field(gt=0.0, le=86_400.0)] = Field(7200.0, description="a longer build is ended")


class CalibrationSettings(Section):
    """``[calibration]``: the images INT8 ranges come from."""

    algorithm: Literal["minmax", "percentile", "entropy"] = Field("minmax", description="how ranges are chosen")
    data: File | None = Field(None, description="a data.yaml (its val split), an image folder or a video")
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(1.0, description="share of the images that is used")
    cameras: bool = Field(True, description="without data: collect from the device's own cameras")
    max_images: Annotated[int, Field(ge=8, le=10_000)] = Field(512, description="most images kept")
    sample_s: Seconds = Field(20.0, description="time between two camera samples")
    reuse: bool = Field(False, description="reuse ranges of earlier weights on the same images; said in the manifest")


class DetectSettings(Section):
    """``[detect]``: defaults for cameras that do not set their own; applied in place."""

    confidence: Ratio = Field(0.25, description="lowest confidence published")
    classes: Names | None = Field(None, description="class names to publish; unset: all")


class ZoneSettings(Section):
    """An area of a camera's picture."""

    name: Identifier
    corners: tuple[tuple[Ratio, Ratio], ...]
    dwell_s: Seconds | None = None


class LineSettings(Section):
    """A line through a camera's picture, with a direction."""

    name: Identifier
    start: tuple[Ratio, Ratio]
    end: tuple[Ratio, Ratio]


class CameraSettings(Section):
    """``[[cameras]]``: one source of frames."""

    id: Identifier = Field(description="names the camera in topics")
    source: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="file, folder, rtsp(s)://, http(s)://, /dev/videoN, /dev/v4l/..., csi:N of a Jetson, gst:<pipeline>"
    )
    enabled: bool = Field(True, description="false: known but not opened")
    credentials_file: SecretFile | None = Field(None, description="holds user:password for an rtsp or http source")
    rtsp_transport: Literal["auto", "tcp", "udp"] = Field(
        "auto", description="how an rtsp camera sends; auto: tcp, and udp where that is refused"
    )
    decode: Literal["auto", "nvdec", "cpu"] = Field(
        "auto", description="rtsp: nvdec is a Jetson's decoder, through GStreamer; auto: that where it is there"
    )
    tls_verify: bool = Field(True, description="rtsps and https: false accepts any certificate, and old ciphers")
    realtime: bool = Field(True, description="files: keep the clip's own pace; false: as fast as inference goes")
    loop: bool = Field(False, description="files and folders: start again at the end")
    fps: Annotated[float, Field(gt=0.0, le=1000.0)] | None = Field(
        None,
        description="pace of a folder (unset: 10) and of pictures fetched one by one over http (unset: 1); asked of a "
        "V4L2 or CSI camera (unset: 30 of csi:); caps any other source",
    )
    width_px: Annotated[int, Field(ge=16, le=16_384)] | None = Field(
        None, description="asked of a V4L2 or CSI camera; csi: takes both sides or neither (1920 x 1080)"
    )
    height_px: Annotated[int, Field(ge=16, le=16_384)] | None = Field(
        None, description="asked of a V4L2 or CSI camera; csi: takes both sides or neither (1920 x 1080)"
    )
    open_timeout_s: Seconds = Field(10.0, description="longest wait for a connection")
    stall_s: Seconds = Field(10.0, description="no new frame for this long: the camera is lost")
    freeze_s: Seconds | None = Field(None, description="the same picture for this long: the camera is lost; unset: off")
    healthy_s: Seconds = Field(30.0, description="frames for this long reset the reconnect delay")
    backoff_max_s: Seconds = Field(
        60.0, description="longest delay between two attempts; a refused login waits 10 min more"
    )
    confidence: Ratio | None = Field(None, description="overrides [detect] confidence")
    classes: Names | None = Field(None, description="overrides [detect] classes")
    snapshot_every_s: Seconds | None = Field(None, description="publish a JPEG this often; unset: never")
    track: bool = Field(False, description="say which detections are the same object, by a `track_id`")
    zones: Annotated[tuple[ZoneSettings, ...], BeforeValidator(places.zones)] = Field(
        (),
        description="areas to watch: name, corners as [x, y] from 0 to 1, dwell_s to be told who stays; it tracks, too",
    )
    lines: Annotated[tuple[LineSettings, ...], BeforeValidator(places.lines)] = Field(
        (),
        description="lines to watch: name, start and end as [x, y] from 0 to 1; in is to the right hand; tracks, too",
    )


class MqttSettings(Section):
    """``[mqtt]``: the broker. No password here: it comes from ``password_file`` or the credentials directory."""

    host: Annotated[str, AfterValidator(checks.broker)] = Field("localhost", description="the broker")
    port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(None, description="unset: 1883, or 8883 with TLS")
    protocol: Literal["auto", "5", "3.1.1"] = Field("auto", description="auto: 5, or 3.1.1 where that is refused")
    username: Annotated[str, AfterValidator(checks.username)] | None = Field(None, description="unset: anonymous")
    password_file: SecretFile | None = Field(None, description="holds the password, one line")
    tls: bool = Field(False, description="encrypt and verify the broker")
    ca_file: File | None = Field(None, description="certificate authority; unset: the system's")
    cert_file: File | None = Field(None, description="client certificate, for mutual TLS")
    key_file: File | None = Field(None, description="key of the client certificate")
    root: Annotated[str, AfterValidator(checks.topic)] = Field("vajra", description="first part of every topic")
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = Field(30, description="MQTT keep alive")
    qos: Annotated[Literal[0, 1], BeforeValidator(checks.whole)] = Field(
        1, description="quality of service of detections; states always use 1"
    )
    max_inflight: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="unacknowledged messages at one time; beyond 100 counts as 100"
    )
    delivery: Literal["durable", "live"] = Field(
        "durable", description="of detections; live: what cannot be sent now is dropped, as always with qos = 0"
    )
    outbox: Literal["disk", "memory"] = Field(
        "disk", description="where unsent messages wait; in memory they end with the process"
    )
    outbox_bytes: Annotated[int, Field(ge=65_536, le=4 * 1024**3)] | None = Field(
        None, description="room for unsent messages, the oldest go first; unset: 256 MiB on disk, 16 MiB in memory"
    )
    outbox_age_s: Annotated[float, Field(gt=0.0, le=31_536_000.0)] = Field(
        604_800.0, description="an older unsent message is dropped"
    )
    commit_every_s: Annotated[float, Field(ge=0.0, le=60.0)] = Field(
        1.0,
        description="a power cut loses what is newer and unsent; 0: nothing that was sent or is older than its group",
    )
    commands: bool = Field(
        False, description="accept rebuild, reload, rollback, snapshot, status, adopt, set and unset over MQTT"
    )
    signed_commands: bool = Field(False, description="of those only what a key in [weights] keys signed")
    home_assistant: Literal["off", "device", "components"] = Field(
        "off", description="appear in Home Assistant by itself; components: in the older form, which openHAB reads"
    )
    discovery_prefix: Annotated[str, AfterValidator(checks.topic)] = Field(
        "homeassistant", description="where Home Assistant looks for devices; openHAB looks below homeassistant"
    )
    outputs: Annotated[tuple[Literal["frigate", "deepstream"], ...], BeforeValidator(checks.outputs)] = Field(
        (), description="say the same as the Frigate NVR (every camera has to track) or DeepStream does, beside our own"
    )
    frigate_prefix: Annotated[str, AfterValidator(checks.topic)] = Field(
        "frigate", description="first levels of Frigate's topics; each device, and a Frigate, needs another"
    )

    @model_validator(mode="after")
    def _belong_together(self) -> MqttSettings:
        if self.tls:
            checks.pair(self.cert_file, self.key_file)
        return self


class StoreSettings(Section):
    """``[store]``: where plans live."""

    state_dir: File = Field(Path("/var/lib/vajra-edge"), description="plans, keys, calibration images")
    max_bytes: Annotated[int, Field(ge=1024 * 1024)] = Field(
        4 * 1024**3, description="of plans, bundles, unsent messages and history; older plans beyond this go"
    )


class ServiceSettings(Section):
    """``[service]``: the daemon itself."""

    control_socket: Annotated[Path, BeforeValidator(checks.socket)] = Field(
        Path("/run/vajra-edge/control.sock"), description="where rebuild and status ask"
    )
    settle_s: Seconds = Field(2.0, description="a changed file must stay unchanged for this long")
    poll_s: Seconds = Field(1.0, description="how often files are looked at")
    drain_s: Seconds = Field(10.0, description="longest time for a clean stop")
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(None, description="CPU inference threads; unset: all")
    batch_wait_ms: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        5.0, description="longest wait for other cameras' frames to fill a batch"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what goes to the journal")


class Settings(BaseSettings):
    """Everything the operator decides."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    device_id: Identifier | None = Field(None, description="names the device in topics; unset: from /etc/machine-id")
    weights: WeightsSettings
    engine: EngineSettings = EngineSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    detect: DetectSettings = DetectSettings()
    cameras: Annotated[tuple[CameraSettings, ...], Field(max_length=64), BeforeValidator(checks.cameras)] = ()
    mqtt: MqttSettings = MqttSettings()
    store: StoreSettings = StoreSettings()
    service: ServiceSettings = ServiceSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What it is given, alone: ``load`` lays the environment over the file, to name the variable at fault."""
        return (init_settings,)

    @model_validator(mode="after")
    def _camera_ids_differ(self) -> Settings:
        checks.differ([camera.id for camera in self.cameras])
        return self

    @model_validator(mode="after")
    def _can_be_told(self) -> Settings:
        if "frigate" in self.mqtt.outputs:
            checks.tracked([camera.id for camera in self.cameras if not is_tracked(camera)])
            checks.apart([camera.id for camera in self.cameras], [z.name for c in self.cameras for z in c.zones])
        return self


def is_tracked(camera: CameraSettings) -> bool:
    """Who comes and goes can be told only of objects that are known again."""
    return camera.track or bool(camera.zones or camera.lines)


def load(
    path: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read the file, put the environment over it, and check everything.

    Args:
        path: a TOML file; None: environment and ``overrides`` alone.
        overrides: values under the environment and over the file, as nested dicts (the demo's and tests' way in).
        environ: the environment.

    Raises:
        SettingsError: the file cannot be read, or a field is wrong; every wrong field is named with its value.
    """
    from_file = settings_file.read(path) if path is not None else {}
    from_environment = environment.read(environ, Settings)
    given = merged(merged(from_file, overrides or {}), from_environment.values)
    # the library would take another case for a section, and a leading _ for an argument of its own
    known = {name: given[name] for name in Settings.model_fields if name in given}
    cameras = given.get("cameras")
    wrong = [*checks.strangers(given, known), *checks.sources(cameras), *checks.csi_sizes(cameras)]
    try:
        taken = Settings.model_validate(known)
    except ValidationError as error:
        wrong = [*error.errors(), *wrong]
    if wrong:
        where = f"settings file {path}" if path is not None else "settings"
        raise SettingsError(f"{where}: {in_one_line(wrong, given, from_environment.variables, Settings)}", path=where)
    return taken


def leaf_fields() -> tuple[str, ...]:
    """Every dotted field of the settings, a camera's as ``cameras.<field>``."""
    return tuple(".".join(part for part in place if part) for place in environment.places(Settings))


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with the values of ``over`` in it, table by table."""
    both = dict(under)
    for key, value in over.items():
        tables = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if tables else value
    return both
