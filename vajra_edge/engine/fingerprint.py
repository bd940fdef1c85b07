"""Fingerprint: the digest that says two plans are interchangeable, and the difference of two of them in words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vajra_edge import device
from vajra_edge.engine.request import BuildRequest
from vajra_edge.engine.spec import EngineSpec, NmsSpec, Precision

SCHEMA = 2
"""Raise it when parts are added, removed or mean something else: every stored plan is then built anew."""

PASSES = 4
"""Raise it when our exporter or a graph pass writes another graph for the same request."""

GRAPH_LIBRARIES = ("onnx", "onnxslim")
"""Distributions whose version shapes every graph."""

TRACING, MEASURING = "torch", "onnxruntime"
"""Those that shape the graph of a checkpoint, and the ranges and the choice of layers of INT8. A torch that
[weights] python names is another environment's and cannot be told from here."""

TUNING = frozenset({"power_mode"})
"""Parts of an identity that change which plan is the fastest, not whether one loads and computes right."""

UNREADABLE = " (unreadable)"

LIBRARY = "library"
"""Key of ``Backend.identity`` that holds the library's name and version, like ``TensorRT 10.3.0``."""

SHORT = 12
"""Hex digits of the digest in messages and logs: 48 bits, far more than one device's plans need."""

_DIGEST = 64


@dataclass(frozen=True)
class Fingerprint:
    """What was wanted, hashed.

    Attributes:
        digest: 64 lower-case hex digits; the name of the plan's folder.
        parts: label and value of everything hashed, in order.
    """

    digest: str
    parts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: BuildRequest, identity: Mapping[str, str]) -> Fingerprint:
        """Hash a request on this machine.

        Args:
            request: what is wanted.
            identity: from the backend; an empty value is a version that could not be read, and is hashed under another
                label, so that a broken machine never shares a plan with a sound one.
        """
        parts = (
            ("weights", request.weights_sha256),
            ("class names", ", ".join(map(repr, request.class_names)) if request.class_names else "of the file"),
            ("stride", str(request.stride or "of the file")),
            ("backend", request.backend),
            *_wanted(request.spec),
            *_calibration(request),
            ("passes", str(PASSES)),
            *(_version(name, device.package_version(name)) for name in _libraries(request)),
            *(_version(name, value) for name, value in sorted(identity.items())),
        )
        return cls(_hash(parts), parts)

    @property
    def short(self) -> str:
        """The digest's first digits, for people."""
        return self.digest[:SHORT]

    def explain(self, other: Fingerprint) -> tuple[str, ...]:
        """What changes from this fingerprint to ``other``, one phrase a part; empty if nothing does.

        ``weights same`` is the last phrase where other parts changed and the weights did not.
        """
        moved = _moved(dict(self.parts), dict(other.parts))
        return (*moved.values(), "weights same") if moved and "weights" not in moved else tuple(moved.values())

    def foreign_to(self, identity: Mapping[str, str]) -> tuple[str, ...]:
        """Why a plan built for this does not belong on this machine any more, one phrase a part; empty while it does.

        What could not be read, then or now, says nothing: a driver that is up too late must not cost a good plan.

        Args:
            identity: from the backend, now.
        """
        here = {name: value for name, value in identity.items() if value and name not in TUNING}
        built_on = {label: value for label, value in self._identity() if label in here}
        return tuple(_moved(built_on, {label: here[label] for label in built_on}).values())

    def _identity(self) -> tuple[tuple[str, str], ...]:
        """The parts that the backend gave: those behind the libraries, see ``of``."""
        libraries = {*GRAPH_LIBRARIES, TRACING, MEASURING}
        labels = [label.removesuffix(UNREADABLE) for label, _ in self.parts]
        last = max((index for index, label in enumerate(labels) if label in libraries), default=-1)
        return self.parts[last + 1 :]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {"digest": self.digest, "parts": [list(part) for part in self.parts]}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Fingerprint:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        return cls(str(fields["digest"]), tuple((str(label), str(value)) for label, value in fields["parts"]))


def _hash(parts: Iterable[tuple[str, str]]) -> str:
    """Schema first, then every label and value with its length, so that no two lists of parts can run together."""
    digest = hashlib.sha256(SCHEMA.to_bytes(4, "big"))
    for part in parts:
        for text in part:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _wanted(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    return (
        ("precision", spec.precision.value),
        ("target", str(spec.target)),
        ("input size", _size(spec.resolution_hw) if spec.resolution_hw else "of the weights"),
        ("batch", str(spec.batch)),
        ("dynamic sizes", f"up to {_size(spec.largest_hw)}" if spec.largest_hw else _yes(spec.dynamic)),
        ("NMS", _nms(spec.nms)),
        ("simplify", _yes(spec.simplify)),
        ("opset", str(spec.opset or "of the backend")),
        ("workspace", f"{spec.workspace_gib:g} GiB" if spec.workspace_gib else "automatic"),
        ("typing", spec.typing),
        ("optimization level", str(spec.optimization_level)),
        ("lower precision allowed", _yes(spec.allow_lower_precision)),
    )


def _calibration(request: BuildRequest) -> tuple[tuple[str, str], ...]:
    """Route, algorithm and images, for INT8 only; a set still being collected changes nothing until it is frozen."""
    if request.spec.precision is not Precision.INT8:
        return ()
    calibration = request.calibration
    return (
        ("calibration", calibration.algorithm),
        ("calibration images", request.calibration_digest or "not frozen"),
        ("calibration reuse", _yes(calibration.reuse)),
        ("quantization", request.spec.quantization),
    )


def _libraries(request: BuildRequest) -> tuple[str, ...]:
    traced = request.weights_path.suffix != ".onnx" and request.weights_python is None
    measured = request.spec.precision is Precision.INT8
    return (*GRAPH_LIBRARIES, *((TRACING,) if traced else ()), *((MEASURING,) if measured else ()))


def _nms(nms: NmsSpec | None) -> str:
    return "none" if nms is None else f"iou {nms.iou:g}, max_det {nms.max_det}, top_k {nms.top_k}"


def _size(hw: tuple[int, int]) -> str:
    return f"{hw[0]}x{hw[1]}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _version(label: str, value: str | None) -> tuple[str, str]:
    return (label, value) if value else (f"{label}{UNREADABLE}", "")


def _moved(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Differences in words, by label."""
    labels = [label for label in dict.fromkeys((*before, *after)) if before.get(label) != after.get(label)]
    return {label: _phrase(label, before.get(label), after.get(label)) for label in labels}


def _phrase(label: str, before: str | None, after: str | None) -> str:
    """One difference; a library's value carries its name, ``TensorRT 10.3.0``, which is said once."""
    if before is None or after is None:
        value = _shown(after or before)
        return f"{label} {'added' if before is None else 'gone'}" + (f" ({value})" if value else "")
    name, _, version = after.partition(" ")
    if label == LIBRARY and before.startswith(f"{name} "):
        return f"{before} -> {version}"
    return f"{label} {_shown(before)} -> {_shown(after)}"


def _shown(value: str | None) -> str:
    """A digest as its first digits, anything else whole."""
    text = value or ""
    return text[:SHORT] if len(text) == _DIGEST and set(text) <= set("0123456789abcdef") else text
