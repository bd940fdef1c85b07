"""Wording: what a setting, an argument or a command is called, for whoever reads of it; the one renderer of errors.

A message that names one is a ``Phrase``: text with the names in it as values, put together with ``say``. ``said`` turns
it into a line: ``set [engine] precision = fp16`` for who runs the daemon, ``pass half=True`` for who runs ``export``::

    say("calibrate first, or ", Setting.PRECISION.to("fp16"))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import TypeAlias

MOST_CLIPPED = 40
"""Characters of a stranger's value in a message."""


class Audience(Enum):
    """Who reads: the operator of a daemon, or who calls export, val and predict from a shell or from Python."""

    DAEMON = "daemon"
    COMMAND_LINE = "command line"
    PYTHON = "python"


class Setting(Enum):
    """A setting that messages name, by its dotted field."""

    DEVICE_ID = "device_id"
    WEIGHTS_PATH = "weights.path"
    WEIGHTS_SHA256 = "weights.sha256"
    CLASS_NAMES = "weights.class_names"
    STRIDE = "weights.stride"
    WEIGHTS_PYTHON = "weights.python"
    BACKEND = "engine.backend"
    PRECISION = "engine.precision"
    ALLOW_LOWER_PRECISION = "engine.allow_lower_precision"
    TARGET = "engine.target"
    IMG_SIZE = "engine.img_size"
    BATCH = "engine.batch"
    DYNAMIC = "engine.dynamic"
    SIMPLIFY = "engine.simplify"
    OPSET = "engine.opset"
    TYPING = "engine.typing"
    QUANTIZATION = "engine.quantization"
    WORKSPACE_GIB = "engine.workspace_gib"
    NMS_IOU = "engine.nms_iou"
    MAX_DET = "engine.max_det"
    NMS_TOP_K = "engine.nms_top_k"
    BUILD_TIMEOUT_S = "engine.build_timeout_s"
    DATA = "calibration.data"
    CALIBRATION_CAMERAS = "calibration.cameras"
    FRACTION = "calibration.fraction"
    MQTT_HOST = "mqtt.host"
    MQTT_PORT = "mqtt.port"
    MQTT_TLS = "mqtt.tls"
    MQTT_PROTOCOL = "mqtt.protocol"
    MQTT_ROOT = "mqtt.root"
    MQTT_COMMANDS = "mqtt.commands"
    MQTT_SIGNED_COMMANDS = "mqtt.signed_commands"
    MQTT_HOME_ASSISTANT = "mqtt.home_assistant"
    MQTT_KEEPALIVE_S = "mqtt.keepalive_s"
    MQTT_USERNAME = "mqtt.username"
    MQTT_PASSWORD_FILE = "mqtt.password_file"  # noqa: S105  a name
    MQTT_CA_FILE = "mqtt.ca_file"
    MQTT_CERT_FILE = "mqtt.cert_file"
    MQTT_KEY_FILE = "mqtt.key_file"
    MAX_BYTES = "store.max_bytes"
    STATE_DIR = "store.state_dir"
    CONTROL_SOCKET = "service.control_socket"

    @property
    def section(self) -> str:
        """The table that it is in; empty for one at the top."""
        return self.value.rpartition(".")[0]

    @property
    def key(self) -> str:
        """Its name in that table."""
        return self.value.rpartition(".")[2]

    def to(self, value: Value) -> Choices:
        """What to set it to; ``|`` joins another way out."""
        return Choices((Choice(self, value),))

    def given(self) -> Choices:
        """That it wants a value of the reader's own."""
        return Choices((Choice(self, None),))

    def left_out(self) -> Unset:
        """That what the file has should stand."""
        return Unset(self)


class Argument(Enum):
    """An argument of ``export``, ``val`` or ``predict``, by its name there."""

    MODEL = "model"

    FORMAT = "format"
    IMG_SIZE = "img_size"
    MAX_IMG_SIZE = "max_img_size"
    HALF = "half"
    INT8 = "int8"
    DYNAMIC = "dynamic"
    SIMPLIFY = "simplify"
    WORKSPACE = "workspace"
    NMS = "nms"
    BATCH = "batch"
    DATA = "data"
    FRACTION = "fraction"
    DEVICE = "device"
    QUANTIZATION = "quantization"
    CONF = "conf"
    IOU = "iou"
    MAX_DET = "max_det"
    CLASSES = "classes"
    BY_NUMBER = "by_number"
    NAMES = "names"
    SAVE = "save"
    STREAM = "stream"

    def of(self, value: Value) -> Given:
        """It with its value."""
        return Given(self, value)


class Command(Enum):
    """A command that may help, as it is typed after ``vajra-edge``."""

    REBUILD = "rebuild"
    REBUILD_FORCE = "rebuild --force"
    DOCTOR = "doctor"
    CALIBRATION_DELETE = "calibration --delete"


Value: TypeAlias = "str | int | float | bool | PurePath | tuple[int, ...]"


@dataclass(frozen=True)
class Choice:
    """A setting and the value that it should have; None: one that the reader knows."""

    setting: Setting
    value: Value | None


@dataclass(frozen=True)
class Choices:
    """Ways out, of which one is enough."""

    ways: tuple[Choice, ...]

    def __or__(self, other: Choices) -> Choices:
        return Choices((*self.ways, *other.ways))


@dataclass(frozen=True)
class Unset:
    """A setting that stands in the way of what a file has; the argument has a default of its own, so it is passed."""

    setting: Setting


@dataclass(frozen=True)
class Several:
    """Settings of one section that are named together, like ``[mqtt] host and port``."""

    settings: tuple[Setting, ...]
    last: str


@dataclass(frozen=True)
class Given:
    """An argument with its value, like ``img_size=640``."""

    argument: Argument
    value: Value


Name: TypeAlias = "Setting | Argument"
Part: TypeAlias = "str | Setting | Choices | Unset | Several | Argument | Given | Command"


@dataclass(frozen=True)
class Phrase:
    """Text that names settings, arguments or commands; as a string it is for the daemon's operator."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return said(self, Audience.DAEMON)


Text: TypeAlias = "str | Phrase"


def say(*parts: Part | Text) -> Phrase:
    """A phrase; phrases within it are taken apart."""
    flat: list[Part] = []
    for part in parts:
        flat += part.parts if isinstance(part, Phrase) else (part,)
    return Phrase(tuple(flat))


def several(*settings: Setting, last: str = "and") -> Several:
    """Settings of one section, named together."""
    return Several(settings, last)


def named(text: Text) -> tuple[Name, ...]:
    """The settings and arguments that a text is about, each once."""
    return tuple(dict.fromkeys(_names(text)))


def said(text: Text, audience: Audience) -> str:
    """The one renderer: a text in the words of its reader."""
    if isinstance(text, str):
        return text
    return "".join(_part(part, audience) for part in text.parts)


def shown(text: str) -> str:
    r"""A text that can be printed and sent: the bytes of a file's name that are no UTF-8 become ``\udce9``.

    Archives of other systems leave such names; Python holds them as half characters, which no encoder takes.
    """
    return text.encode(errors="backslashreplace").decode()


def clipped(value: object) -> str:
    """A stranger's value in JSON, in a few characters. What holds others is named and not looked into.

    A thousand lists within each other are read by a parser, and are too deep for Python to write.
    """
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else repr(str(value)[:MOST_CLIPPED])


def _names(text: Text) -> Iterator[Name]:
    for part in () if isinstance(text, str) else text.parts:
        match part:
            case Setting() | Argument():
                yield part
            case Choices(ways):
                yield from (way.setting for way in ways)
            case Unset(setting):
                yield setting
            case Several(settings):
                yield from settings
            case Given(argument):
                yield argument
            case str() | Command():
                pass


def _part(part: Part, audience: Audience) -> str:  # noqa: PLR0911  one return a kind of part
    match part:
        case str():
            return part
        case Setting():
            return _listed((part,), "", audience)
        case Unset(setting):
            name = _listed((setting,), "", audience)
            return f"unset {name}" if audience is Audience.DAEMON else f"pass the {name} it has"
        case Several(settings, last):
            return _listed(settings, f" {last} ", audience)
        case Choices(ways):
            return _put(ways) if audience is Audience.DAEMON else _passed(ways, audience)
        case Argument():
            return part.value
        case Given(argument, value):
            return f"{argument.value}={_python(value) if audience is Audience.PYTHON else _typed(value)}"
        case Command():
            known = f"vajra-edge {part.value}"
            return known if audience is Audience.DAEMON else _COMMANDS_INSTEAD.get(part, known)


def _listed(settings: tuple[Setting, ...], last: str, audience: Audience) -> str:
    """``[engine] batch or img_size``; without its section what is an argument too, for whoever passes those."""
    theirs = {} if audience is Audience.DAEMON else {**_ARGUMENT_NAMES, **_NAMES_INSTEAD}
    names = [theirs.get(one, one.key) for one in settings]
    text = f"{', '.join(names[:-1])}{last}{names[-1]}"
    section = settings[0].section
    return f"[{section}] {text}" if section and settings[0] not in theirs else text


def _put(ways: tuple[Choice, ...]) -> str:
    """``set [engine] quantization = qdq, or backend = tensorrt``: a section is named where it changes."""
    told, section = [], ""
    for way in ways:
        place = f"[{way.setting.section}] " if way.setting.section not in {"", section} else ""
        section = way.setting.section
        told.append(f"{place}{way.setting.key}{'' if way.value is None else f' = {_toml(way.value)}'}")
    return f"set {', or '.join(told)}"


def _passed(ways: tuple[Choice, ...], audience: Audience) -> str:
    """The same with arguments: ``pass quantization=qdq, or format=engine``."""
    told: list[str] = []
    for way in ways:
        text = _argument(way, audience)
        again = text.startswith("pass ") and told and told[-1].startswith("pass ")
        told.append(text.removeprefix("pass ") if again else text)
    return ", or ".join(told)


def _argument(way: Choice, audience: Audience) -> str:
    setting, value = way.setting, way.value
    if (instead := _INSTEAD.get((setting, value)) or _INSTEAD.get((setting, None))) is not None:
        return "".join(_part(part, audience) for part in instead.parts)
    if (argument := _ARGUMENTS.get(setting)) is None:
        return _put((way,))
    return f"pass {argument.value if value is None else _part(argument.of(value), audience)}"


def _toml(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _typed(value: Value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _python(value: Value) -> str:
    if isinstance(value, (str, PurePath)):
        return f'"{value}"'
    return repr(value)


_ARGUMENTS: Mapping[Setting, Argument] = {
    Setting.TARGET: Argument.DEVICE,
    Setting.IMG_SIZE: Argument.IMG_SIZE,
    Setting.BATCH: Argument.BATCH,
    Setting.DYNAMIC: Argument.DYNAMIC,
    Setting.SIMPLIFY: Argument.SIMPLIFY,
    Setting.QUANTIZATION: Argument.QUANTIZATION,
    Setting.WORKSPACE_GIB: Argument.WORKSPACE,
    Setting.NMS_IOU: Argument.IOU,
    Setting.MAX_DET: Argument.MAX_DET,
    Setting.DATA: Argument.DATA,
    Setting.FRACTION: Argument.FRACTION,
    Setting.CLASS_NAMES: Argument.NAMES,
}
"""Settings that are an argument of ``export`` too, with the same values."""

_ARGUMENT_NAMES: Mapping[Setting, str] = {setting: argument.value for setting, argument in _ARGUMENTS.items()}

_INSTEAD: Mapping[tuple[Setting, Value | None], Phrase] = {
    (Setting.PRECISION, "fp32"): say("pass neither ", Argument.HALF, " nor ", Argument.INT8),
    (Setting.PRECISION, "fp16"): say("pass ", Argument.HALF.of(True)),
    (Setting.PRECISION, "int8"): say("pass ", Argument.INT8.of(True)),
    (Setting.BACKEND, "tensorrt"): say("pass ", Argument.FORMAT.of("engine")),
    (Setting.BACKEND, "onnxruntime"): say("pass ", Argument.FORMAT.of("onnx")),
    (Setting.STRIDE, None): say("write 'stride' into the file's metadata"),
    (Setting.WEIGHTS_PYTHON, None): say("run this with it"),
}
"""What to do in the place of setting something to a value, where no argument is its equal; None: to any value."""

_NAMES_INSTEAD: Mapping[Setting, str] = {
    Setting.PRECISION: "half or int8",
    Setting.BACKEND: "format",
    Setting.WEIGHTS_PATH: "the path",
    Setting.STRIDE: "'stride' in the file's metadata",
}

_COMMANDS_INSTEAD: Mapping[Command, str] = {Command.REBUILD: "another export", Command.REBUILD_FORCE: "another export"}
