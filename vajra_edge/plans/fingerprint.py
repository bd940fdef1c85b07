"""Fingerprint: the digest that says two plans are interchangeable, and the difference of two of them in words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from vajra_edge import device
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision

SCHEMA = 2
"""Raise it when parts are added, removed or mean something else: every stored plan is then built anew."""

PASSES = 5
"""Raise it when our exporter or a graph pass writes another graph for the same request."""

GRAPH_LIBRARIES = ("onnx", "onnxslim")
"""Distributions whose version shapes every graph."""

TRACING, MEASURING = "torch", "onnxruntime"
"""Those that shape the graph of a checkpoint, and the ranges and the choice of layers of INT8. A torch that
[weights] python names is another environment's and cannot be told from here."""

TUNING = frozenset({"power_mode"})
"""Parts of an identity that change which plan is the fastest, not whether one loads and computes right."""

LIBRARY = "library"
"""Key of ``Backend.identity`` that holds the library's name and version, like ``TensorRT 10.3.0``."""

WEIGHTS, IMAGES = "weights", "calibration_images"
"""Keys of parts that others look up."""

LABELS = {
    WEIGHTS: "weights",
    "class_names": "class names",
    "stride": "stride",
    "backend": "backend",
    "precision": "precision",
    "target": "target",
    "input_size": "input size",
    "batch": "batch",
    "dynamic_sizes": "dynamic sizes",
    "nms": "NMS",
    "simplify": "simplify",
    "opset": "opset",
    "workspace": "workspace",
    "typing": "typing",
    "optimization_level": "optimization level",
    "allow_lower_precision": "lower precision allowed",
    "calibration": "calibration",
    IMAGES: "calibration images",
    "calibration_reuse": "calibration reuse",
    "quantization": "quantization",
    "passes": "passes",
}
"""Key -> label of what a request gives. Labels are hashed: another text is another digest, and every plan is built
anew."""

_KEYS = {label: key for key, label in LABELS.items()}

UNREADABLE = " (unreadable)"
"""Ends the label of a version that could not be read."""

SHORT = 12
"""Hex digits of the digest in messages and logs: 48 bits, far more than one device's plans need."""

_DIGEST = 64


class Request(Protocol):
    """What a fingerprint is of: a ``build.request.BuildRequest``."""

    @property
    def weights_path(self) -> Path:
        """Of the weights file."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Of its content."""
        ...

    @property
    def weights_python(self) -> Path | None:
        """Another Python that opens it; None: this one."""
        ...

    @property
    def backend(self) -> str:
        """Name of the library."""
        ...

    @property
    def spec(self) -> EngineSpec:
        """What is wanted of the engine."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Instead of those of the file."""
        ...

    @property
    def stride(self) -> int | None:
        """Instead of that of the file."""
        ...

    @property
    def calibration(self) -> CalibrationSettings:
        """How INT8 is calibrated."""
        ...

    @property
    def calibration_digest(self) -> str | None:
        """Of the images."""
        ...


@dataclass(frozen=True)
class Part:
    """One thing hashed.

    Attributes:
        key: what code looks it up by; neither hashed nor stored.
        label: what it is, for people; hashed.
        value: empty where it could not be read; hashed.
    """

    key: str
    label: str
    value: str

    @classmethod
    def of(cls, key: str, value: str) -> Part:
        """A part of the request."""
        return cls(key, LABELS[key], value)

    @classmethod
    def version(cls, key: str, value: str | None) -> Part:
        """Of a library, or what the backend says of this machine; see ``Fingerprint.of`` for what cannot be read."""
        return cls(key, key, value) if value else cls(key, f"{key}{UNREADABLE}", "")


@dataclass(frozen=True)
class Fingerprint:
    """What was wanted, hashed.

    Attributes:
        digest: 64 lower-case hex digits; the name of the plan's folder.
        parts: everything hashed, in order.
    """

    digest: str
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, request: Request, identity: Mapping[str, str]) -> Fingerprint:
        """Hash a request on this machine.

        Args:
            request: what is wanted.
            identity: from the backend; an empty value is a version that could not be read, and is hashed under another
                label, so that a broken machine never shares a plan with a sound one.
        """
        names = ", ".join(map(repr, request.class_names)) if request.class_names else "of the file"
        parts = (
            Part.of(WEIGHTS, request.weights_sha256),
            Part.of("class_names", names),
            Part.of("stride", str(request.stride or "of the file")),
            Part.of("backend", request.backend),
            *_wanted(request.spec),
            *_calibration(request),
            Part.of("passes", str(PASSES)),
            *(Part.version(name, device.package_version(name)) for name in _libraries(request)),
            *(Part.version(name, value) for name, value in sorted(identity.items())),
        )
        return cls(_hash(parts), parts)

    @property
    def short(self) -> str:
        """The digest's first digits, for people."""
        return self.digest[:SHORT]

    def value(self, key: str) -> str:
        """Of the part with this key; empty where there is none, as in plans that other versions built."""
        return next((part.value for part in self.parts if part.key == key), "")

    def explain(self, other: Fingerprint) -> tuple[str, ...]:
        """What changes from this fingerprint to ``other``, one phrase a part; empty if nothing does.

        ``weights same`` is the last phrase where other parts changed and the weights did not.
        """
        moved = _moved(self.parts, other.parts)
        same = bool(moved) and self.value(WEIGHTS) == other.value(WEIGHTS)
        return (*moved, "weights same") if same else moved

    def foreign_to(self, identity: Mapping[str, str]) -> tuple[str, ...]:
        """Why a plan built for this does not belong on this machine any more, one phrase a part; empty while it does.

        What could not be read, then or now, says nothing: a driver that is up too late must not cost a good plan.

        Args:
            identity: from the backend, now.
        """
        here = {key: value for key, value in identity.items() if value and key not in TUNING}
        built_on = [part for part in self.parts if part.key in here and part.value]
        return _moved(built_on, [replace(part, value=here[part.key]) for part in built_on])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {"digest": self.digest, "parts": [[part.label, part.value] for part in self.parts]}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Fingerprint:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        return cls(str(fields["digest"]), tuple(_part(str(label), str(value)) for label, value in fields["parts"]))


def _part(label: str, value: str) -> Part:
    """Stored labels have lost their keys; those of libraries and of the machine are keys themselves."""
    return Part(_KEYS.get(label, label.removesuffix(UNREADABLE)), label, value)


def _hash(parts: Iterable[Part]) -> str:
    """Schema first, then every label and value with its length, so that no two lists of parts can run together."""
    digest = hashlib.sha256(SCHEMA.to_bytes(4, "big"))
    for part in parts:
        for text in (part.label, part.value):
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _wanted(spec: EngineSpec) -> tuple[Part, ...]:
    return (
        Part.of("precision", spec.precision.value),
        Part.of("target", str(spec.target)),
        Part.of("input_size", _size(spec.resolution_hw) if spec.resolution_hw else "of the weights"),
        Part.of("batch", str(spec.batch or "of the weights")),
        Part.of("dynamic_sizes", f"up to {_size(spec.largest_hw)}" if spec.largest_hw else _yes(spec.dynamic)),
        Part.of("nms", _nms(spec.nms)),
        Part.of("simplify", _yes(spec.simplify)),
        Part.of("opset", str(spec.opset or "of the backend")),
        Part.of("workspace", f"{spec.workspace_gib:g} GiB" if spec.workspace_gib else "automatic"),
        Part.of("typing", spec.typing),
        Part.of("optimization_level", str(spec.optimization_level)),
        Part.of("allow_lower_precision", _yes(spec.allow_lower_precision)),
    )


def _calibration(request: Request) -> tuple[Part, ...]:
    """Route, algorithm and images, for INT8 only; a set still being collected changes nothing until it is frozen."""
    if request.spec.precision is not Precision.INT8:
        return ()
    calibration = request.calibration
    return (
        Part.of("calibration", calibration.algorithm),
        Part.of(IMAGES, request.calibration_digest or "not frozen"),
        Part.of("calibration_reuse", _yes(calibration.reuse)),
        Part.of("quantization", request.spec.quantization),
    )


def _libraries(request: Request) -> tuple[str, ...]:
    traced = request.weights_path.suffix != ".onnx" and request.weights_python is None
    measured = request.spec.precision is Precision.INT8
    return (*GRAPH_LIBRARIES, *((TRACING,) if traced else ()), *((MEASURING,) if measured else ()))


def _nms(nms: NmsSpec | None) -> str:
    return "none" if nms is None else f"iou {nms.iou:g}, max_det {nms.max_det}, top_k {nms.top_k}"


def _size(hw: tuple[int, int]) -> str:
    return f"{hw[0]}x{hw[1]}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _moved(before: Iterable[Part], after: Iterable[Part]) -> tuple[str, ...]:
    """Differences in words; a target that the machine names too is said once."""
    old, new = ({part.key: part for part in parts} for parts in (before, after))
    keys = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    return tuple(_phrase(old.get(key), new.get(key)) for key in keys)


def _phrase(before: Part | None, after: Part | None) -> str:
    """One difference; a library's value carries its name, ``TensorRT 10.3.0``, which is said once."""
    if before is None or after is None:
        lone = ((before, "gone"), (after, "added"))
        return "".join(f"{part.label} {verb}{_aside(part)}" for part, verb in lone if part is not None)
    name, _, version = after.value.partition(" ")
    if after.key == LIBRARY and before.value.startswith(f"{name} ") and version:
        return f"{before.value} -> {version}"
    return f"{after.label.removesuffix(UNREADABLE)} {_shown(before)} -> {_shown(after)}"


def _aside(part: Part) -> str:
    return f" ({_shown(part)})" if part.value else ""


def _shown(part: Part) -> str:
    """A digest as its first digits, anything else whole."""
    text = part.value or "unreadable"
    return text[:SHORT] if len(text) == _DIGEST and set(text) <= set("0123456789abcdef") else text
