"""Ranges: how large each tensor of a graph gets on the calibration images; a value, and its file.

The file is the same whoever measured: ONNX Runtime on a CPU (``quantization.observer``) or a calibration engine
(``backends.tensorrt.calibration_engine``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vajra_edge import durable, state_file
from vajra_edge.errors import CalibrationError
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Report
from vajra_edge.quantization.calibration_set import Inputs

SCHEMA = 2
"""Changes when the meaning of a file or the way it is measured does; older files are then not used."""

PREPROCESSING = "letterbox-114-bilinear-rgb-1"
"""Names what ``geometry.letterbox`` does to an image; changes with it. What a kernel makes of it instead is in the
digest of the images."""


@dataclass(frozen=True)
class Range:
    """One tensor.

    Attributes:
        low: smallest value seen.
        high: largest value seen.
        amax: largest magnitude that INT8 must hold; below max(-low, high) where an algorithm clips outliers.
        mean: mean value of each channel (axis 1), of tensors that convolutions read; else empty.
    """

    low: float
    high: float
    amax: float
    mean: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ranges:
    """All tensors of one graph.

    Attributes:
        tensors: range by tensor name.
        algorithm: minmax, percentile or entropy.
        key: digest of all that the ranges depend on, see ``key_of``.
        structure: digest of the graph without its weights, see ``structure_of``.
        set_digest: digest of the images and their preparation.
        images: how many images were seen.
        collector: which library measured, where, and why not another, and what prepared the images; for the manifest.
    """

    tensors: Mapping[str, Range]
    algorithm: str
    key: str
    structure: str
    set_digest: str
    images: int
    collector: str = ""

    def amax(self) -> dict[str, float]:
        """Largest magnitude that INT8 must hold, by tensor."""
        return {name: entry.amax for name, entry in self.tensors.items()}

    def limits(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value, no further out than ``amax``, by tensor."""
        return {name: (max(one.low, -one.amax), min(one.high, one.amax)) for name, one in self.tensors.items()}

    def means(self) -> dict[str, tuple[float, ...]]:
        """Mean of each channel, by tensor, where it was measured."""
        return {name: entry.mean for name, entry in self.tensors.items() if entry.mean}

    def with_amax(self, amax: Mapping[str, float], algorithm: str) -> Ranges:
        """The same measurement with other limits."""
        tensors = {name: replace(entry, amax=amax.get(name, entry.amax)) for name, entry in self.tensors.items()}
        return replace(self, tensors=tensors, algorithm=algorithm)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values with a digest over them all, read back by ``from_json``."""
        rows = {name: [entry.low, entry.high, entry.amax, list(entry.mean)] for name, entry in self.tensors.items()}
        head = {name: getattr(self, name) for name in (*_TEXTS, "images")}
        body = {"schema": SCHEMA, **head, "tensors": rows}
        return {**body, _DIGEST: _digest(body)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Ranges:
        """The inverse of ``to_json``.

        Raises:
            CalibrationError: a field is missing, of another type, of another schema, not a finite number, or not what
                was written.
        """
        try:
            _require_ours(fields)
            tensors = {str(name): _range(row) for name, row in fields["tensors"].items()}
            texts = {name: str(fields[name]) for name in _TEXTS}
            return cls(tensors, images=int(fields["images"]), **texts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CalibrationError(f"not a range file: {error}", remedy="delete it and calibrate again") from error


_DIGEST = "sha256"
_TEXTS = ("algorithm", "key", "structure", "set_digest", "collector")


def _require_ours(fields: Mapping[str, Any]) -> None:
    if (schema := int(fields["schema"])) != SCHEMA:
        raise CalibrationError(f"range file of schema {schema}, this version reads {SCHEMA}", remedy="calibrate again")
    if fields[_DIGEST] != _digest({name: fields[name] for name in fields if name != _DIGEST}):
        raise ValueError("its content is not what was written")


def _digest(body: Mapping[str, Any]) -> str:
    """A bit that flips in a limit would ruin one layer, and might pass the accuracy check."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _range(row: Any) -> Range:
    low, high, amax, mean = row
    entry = Range(float(low), float(high), float(amax), tuple(float(value) for value in mean))
    if not all(map(math.isfinite, (entry.low, entry.high, entry.amax, *entry.mean))) or entry.amax < 0:
        raise ValueError(f"a range of {entry.amax}")
    return entry


def key_of(onnx_bytes: bytes, resolution_hw: tuple[int, int], set_digest: str, algorithm: str) -> str:
    """Digest of graph with weights, preprocessing, images and algorithm: equal only if the ranges would be.

    Args:
        onnx_bytes: the FP32 graph.
        resolution_hw: that the images are brought to; a graph with open sizes is the same for all of them.
        set_digest: of the images, see ``Inputs.digest``.
        algorithm: minmax, percentile or entropy.
    """
    size = "x".join(map(str, resolution_hw))
    parts = (str(SCHEMA), hashlib.sha256(onnx_bytes).hexdigest(), PREPROCESSING, size, set_digest, algorithm)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def structure_of(onnx_bytes: bytes, resolution_hw: tuple[int, int]) -> str:
    """Digest of the graph's operators and tensor names, and of the input: equal for retrained weights of one network.

    Raises:
        GraphError: the bytes are not an ONNX graph.
    """
    from vajra_edge.graph.topology import parse

    graph = parse(onnx_bytes).graph
    rows = ["x".join(map(str, resolution_hw))]
    rows += [f"{node.op_type} {' '.join(node.input)} > {' '.join(node.output)}" for node in graph.node]
    rows += sorted(f"{tensor.name} {list(tensor.dims)}" for tensor in graph.initializer)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


@dataclass(frozen=True)
class RangeCache:
    """Range files by key in one folder.

    Attributes:
        folder: under the state directory; created when first written.
    """

    folder: Path

    def get(self, key: str) -> Ranges | None:
        """The ranges measured for exactly this key; None if there are none or their file is damaged."""
        found = self._read(self.folder / f"{key}.json")
        return found if found is not None and found.key == key else None

    def similar(self, structure: str, set_digest: str, algorithm: str) -> Ranges | None:
        """The newest ranges of the same network with other weights on the same images; for those who asked to reuse."""
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        every = (self._read(path) for path in paths)
        wanted = (structure, set_digest, algorithm)
        return next(
            (one for one in every if one and (one.structure, one.set_digest, one.algorithm) == wanted),
            None,
        )

    def drop(self, key: str) -> None:
        """Forget what was measured for this key; nothing happens where there is none.

        Raises:
            StoreError: the disk refuses.
        """
        with durable.reported(self.folder, "written"):
            (self.folder / f"{key}.json").unlink(missing_ok=True)

    def put(self, ranges: Ranges) -> None:
        """Write the file in one step.

        Raises:
            StoreError: the disk refuses.
        """
        with durable.reported(self.folder, "written"):
            durable.make_folder(self.folder)
            content = json.dumps(ranges.to_json()).encode()
            path = self.folder / f"{ranges.key}.json"
            durable.replace(path, content, self.folder)
            durable.make_newest(path, self.folder)

    def _read(self, path: Path) -> Ranges | None:
        try:
            return Ranges.from_json(state_file.parse(state_file.read(path)))
        except (OSError, ValueError, RecursionError, CalibrationError):
            return None


Observe = Callable[[bytes, Signature, Inputs, str, Report, "int | None"], Ranges]
"""Measures ranges: the FP32 graph, its signature, the images, the algorithm, progress, threads of the CPU."""
