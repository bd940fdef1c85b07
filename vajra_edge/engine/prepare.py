"""Prepare: from an exported FP32 graph to the one that a builder is given for FP16 or INT8.

Every backend is given its graph by this module, so that one measured recipe serves them all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine import sensitivity
from vajra_edge.engine.backend import Progress, Report
from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.engine.drift import Drift, drift
from vajra_edge.engine.observation import Observe, observe
from vajra_edge.engine.ranges import RangeCache, Ranges, key_of, structure_of
from vajra_edge.engine.replay import Replay
from vajra_edge.engine.sensitivity import WORST, Choice, Clock, Point
from vajra_edge.errors import CalibrationError, VerifyError
from vajra_edge.graph import half, placement, qdq, qlinear, switches
from vajra_edge.graph.macs import elements, macs_by_layer
from vajra_edge.graph.placement import Placement
from vajra_edge.graph.signature import Signature
from vajra_edge.graph.wiring import Wiring, load

Notes = dict[str, object]

CANDIDATE_IMAGES = 32
"""Images from which those with the most to detect are taken to judge mixtures."""

BUDGET_S = 900.0
"""Time for choosing the mixture, beside the minutes that a TensorRT build takes."""

MEASURED_NOW = "measured"
"""Source of ranges that neither the cache nor earlier weights gave."""

MEASURED = "costs more agreement a multiply-add than others: measured"


@dataclass(frozen=True)
class Calibration:
    """How INT8 is calibrated.

    Attributes:
        images: the frozen set.
        algorithm: minmax, percentile or entropy.
        cache: where range files are kept; None keeps none.
        reuse: ranges of earlier weights of the same network on the same images may be used; said in the notes.
        fresh: measure even what the cache has.
        budget_s: time for choosing the mixture; 0 quantizes by the static rules alone.
        threads: of the CPU; None: all.
        keep: layers and residual additions that stay out of INT8 whatever they cost, by key, each with its reason.
        fused: the graph is for ONNX Runtime's CPU kernels instead of TensorRT, see ``graph.qlinear``.
        observe: measures the ranges that the cache does not have.
    """

    images: CalibrationSet
    algorithm: str = "minmax"
    cache: RangeCache | None = None
    reuse: bool = False
    fresh: bool = False
    budget_s: float = BUDGET_S
    threads: int | None = None
    keep: Mapping[str, str] = field(default_factory=dict)
    fused: bool = False
    observe: Observe = observe


def prepare_half(onnx_bytes: bytes) -> tuple[bytes, Notes]:
    """FP16 with FP32 boxes, see ``graph.half``.

    Raises:
        GraphError: the graph cannot be converted.
    """
    return half.to_half(onnx_bytes), {"precision_pass": "half"}


def prepare_int8(
    onnx_bytes: bytes, signature: Signature, calibration: Calibration, report: Report, clock: Clock = time.monotonic
) -> tuple[bytes, Notes]:
    """Explicit INT8 with the layers that cost most left in FP32 (``prepare_half`` behind it makes those FP16).

    Args:
        onnx_bytes: the FP32 graph, with or without NMS.
        signature: its signature.
        calibration: images, algorithm, cache.
        report: takes progress; may raise to stop.
        clock: seconds, monotonic.

    Returns:
        The Q/DQ graph, and notes for the manifest: ranges, share of multiply-adds in INT8, the curve, and each layer
        outside INT8 with its reason.

    Raises:
        CalibrationError: the images are short or failing, or the network is not finite on one.
        VerifyError: no mixture worth building is close enough to FP32; ``values["notes"]`` has the curve.
        GraphError: the graph cannot be quantized.
    """
    ranges, source = ranges_for(onnx_bytes, signature, calibration, report)
    wiring = Wiring(load(onnx_bytes))
    macs = macs_by_layer(wiring, signature.resolution_hw)
    keep = dict(calibration.keep)
    notes: Notes = {"ranges": source}
    if calibration.budget_s > 0:
        choice = _choose(onnx_bytes, signature, calibration, ranges, macs, report, clock)
        keep = {**dict.fromkeys(choice.point.high, MEASURED), **keep}
        notes |= _choice_notes(choice, wiring)
        _require_faithful(choice.point, notes)
    placed = placement.place(wiring, keep)
    share = sum(count for key, count in macs.items() if key in placed.layers) / max(sum(macs.values()), 1)
    names = _names(wiring)
    notes |= {
        "int8_share": round(share, 4),
        "int8_layers": len(placed.layers),
        "high": {names.get(key, key): reason for key, reason in placed.high.items()},
    }
    return _quantized(onnx_bytes, placed, ranges, calibration), notes


def _quantized(onnx_bytes: bytes, placed: Placement, ranges: Ranges, calibration: Calibration) -> bytes:
    quantized = qdq.quantize(onnx_bytes, placed, ranges.amax(), ranges.means())
    return qlinear.to_qlinear(quantized, ranges.limits()) if calibration.fused else quantized


def ranges_for(
    onnx_bytes: bytes, signature: Signature, calibration: Calibration, report: Report
) -> tuple[Ranges, Notes]:
    """Ranges from the cache on an exact hit, from earlier weights if that was asked for, else measured and kept.

    Raises:
        CalibrationError: the images are short or failing.
        StoreError: the cache cannot be written.
    """
    images, algorithm = calibration.images, calibration.algorithm
    found, source = (None, "") if calibration.fresh else _kept(onnx_bytes, calibration)
    if found is None:
        found = calibration.observe(onnx_bytes, signature, images, algorithm, report, calibration.threads)
        source = MEASURED_NOW
        if calibration.cache:
            calibration.cache.put(found)
    notes = {"algorithm": found.algorithm, "images": found.images, "key": found.key, "source": source}
    return found, notes | {"collector": found.collector, "images_from": images.source}


def _kept(onnx_bytes: bytes, calibration: Calibration) -> tuple[Ranges | None, str]:
    """What the cache has for this build, and how it came by it."""
    cache, set_digest, algorithm = calibration.cache, calibration.images.digest, calibration.algorithm
    if cache is None:
        return None, ""
    if (found := cache.get(key_of(onnx_bytes, set_digest, algorithm))) is not None:
        return found, "cache"
    if calibration.reuse:
        return cache.similar(structure_of(onnx_bytes), set_digest, algorithm), "reused: measured with other weights"
    return None, ""


def _choose(
    onnx_bytes: bytes,
    signature: Signature,
    calibration: Calibration,
    ranges: Ranges,
    macs: Mapping[str, int],
    report: Report,
    clock: Clock,
) -> Choice:
    wiring = Wiring(load(onnx_bytes))
    placed = placement.place(wiring, calibration.keep)
    work = {key: count for key, count in macs.items() if key in placed.layers}
    work |= elements(wiring, placed.shortcuts, signature.resolution_hw)
    units = list(work)
    quantized = _quantized(onnx_bytes, placed, ranges, calibration)
    output = switches.raw_output(onnx_bytes, signature)
    graph = switches.switchable(onnx_bytes, quantized, units, output)
    lab = _Lab(Replay(graph, signature, calibration.threads), output, units, report)
    lab.pick(calibration.images.some(CANDIDATE_IMAGES), signature.resolution_hw)
    return sensitivity.choose(lab.trial, work, sum(macs.values()), calibration.budget_s, clock)


class _Lab:
    """Runs mixtures over the few images that show most, and compares with FP32 on them."""

    def __init__(self, replay: Replay, output: str, units: list[str], report: Report) -> None:
        self.replay = replay
        self.output = output
        self.units = units
        self.report = report
        self.images: list[NDArray[np.float32]] = []
        self.reference: list[NDArray[np.float32]] = []
        self.trials = 0

    def pick(self, candidates: CalibrationSet, input_hw: tuple[int, int]) -> None:
        """Keep the images with the largest sum of scores, largest first; no more of them are ever held."""
        images, rows = iter(candidates.inputs(input_hw)), self.replay.rows
        kept: list[tuple[float, NDArray[np.float32], NDArray[np.float32]]] = []
        while some := list(itertools.islice(images, rows)):
            made = self._run(some, frozenset())
            kept += [
                (float(row[4:].max(axis=0).sum()), image, row.copy()) for image, row in zip(some, made, strict=True)
            ]
            kept = sorted(kept, key=lambda entry: -entry[0])[: sensitivity.CONFIRM_IMAGES]
        self.images = [image for _, image, _ in kept]
        self.reference = [made for _, _, made in kept]

    def trial(self, on: frozenset[str], count: int) -> Drift:
        self.trials += 1
        self.report(Progress("calibrate", None, f"choosing layers: trial {self.trials}"))
        rows, images = self.replay.rows, self.images[:count]
        found = [one for at in range(0, len(images), rows) for one in self._run(images[at : at + rows], on)]
        return drift(self.reference[:count], found)

    def _run(self, images: list[NDArray[np.float32]], on: frozenset[str]) -> list[NDArray[np.float32]]:
        """RAW output (4 + classes, anchors) of each of up to ``rows`` images."""
        flags = np.array([unit in on for unit in self.units], bool)
        made: Any = self.replay.run(np.concatenate(images), {switches.INPUT: flags})[self.output]
        if not np.isfinite(made).all() and not on:
            raise CalibrationError("the network is not finite on a calibration image", remedy="check the weights")
        return list(made[: len(images)])


def _require_faithful(point: Point, notes: Notes) -> None:
    """The gate counts boxes and would let pass what costs points; see ``sensitivity.WORST``."""
    if point.drift.within(WORST):
        return
    raise VerifyError(
        f"int8 drifts from FP32 by {point.drift.score:.3f} in scores and {point.drift.box:.3f} in boxes with "
        f"{point.share:.0%} of the multiply-adds in it, over the limits of {WORST.score:g} and {WORST.box:g}",
        remedy="choose a higher precision, or calibrate on images of the scene",
        notes={"int8": notes},
    )


def _choice_notes(choice: Choice, wiring: Wiring) -> Notes:
    names = _names(wiring)
    costliest = [
        {"layers": [names.get(key, key) for key in group.layers], "macs": group.macs, "cost": round(group.cost, 5)}
        for group in choice.groups[:20]
    ]
    return {"chosen": choice.point.to_json(), "curve": [p.to_json() for p in choice.curve], "costliest": costliest}


def _names(wiring: Wiring) -> dict[str, str]:
    return {str(node.output[0]): str(node.name or node.output[0]) for node in wiring.nodes}
