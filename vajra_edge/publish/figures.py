"""Figures: what the gate, INT8 calibration and the DLA placement measured, as the ``engine`` topic carries it.

``schema.py`` describes the same fields for validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GateFigures:
    """The gate: how a plan compares with its FP32 reference. None: not measured.

    Attributes:
        passed: the plan may serve.
        judged: there were enough boxes for a verdict.
        reason: in one line.
        source: where the frames come from.
        frames: how many.
        reference_boxes: of the reference on them.
        recall: share of those that the plan finds.
        precision: share of the plan's boxes that the reference has.
        mean_iou: of matched boxes.
        score_drift: mean difference of matched scores.
        latency_p50_ms: of one call with one frame, on this device.
        latency_p99_ms: likewise.
        int8_ms: median time of a full batch in INT8, by turns with FP16.
        fp16_ms: likewise in FP16.
        speed: what came of that comparison, or why there was none; empty where none was due.
    """

    passed: bool = False
    judged: bool = False
    reason: str = ""
    source: str = ""
    frames: int = 0
    reference_boxes: int = 0
    recall: float | None = None
    precision: float | None = None
    mean_iou: float | None = None
    score_drift: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    int8_ms: float | None = None
    fp16_ms: float | None = None
    speed: str = ""


@dataclass(frozen=True)
class Int8Figures:
    """INT8: how much of the network computes in it, and where its ranges come from. None: not measured.

    Attributes:
        macs_share: share of multiply-adds in INT8, 0..1.
        layers: in INT8.
        layers_kept: outside INT8 since they measured as costing too much agreement.
        score_drift: how far the mixture moves scores from FP32, before any threshold.
        box_drift: how far it moves boxes, 1 - IoU.
        ranges: measured, from the cache, or reused from other weights.
        algorithm: minmax, percentile or entropy.
        images: that the ranges come from.
        images_from: where those come from.
        collector: which library measured, and why not another.
    """

    macs_share: float | None = None
    layers: int | None = None
    layers_kept: int | None = None
    score_drift: float | None = None
    box_drift: float | None = None
    ranges: str = ""
    algorithm: str = ""
    images: int = 0
    images_from: str = ""
    collector: str = ""


@dataclass(frozen=True)
class DlaFigures:
    """The DLA's report card.

    Attributes:
        macs_share: share of multiply-adds on the core, 0..1.
        transitions: how often execution passes between GPU and core.
        nodes_on_dla: of the graph.
        nodes: of the graph in all.
        left_on_gpu: how many nodes fell back, by reason.
        loadables: of the finished plan, as its library lists them; None: not looked at.
    """

    macs_share: float = 0.0
    transitions: int = 0
    nodes_on_dla: int = 0
    nodes: int = 0
    left_on_gpu: Mapping[str, int] = field(default_factory=dict)
    loadables: int | None = None


@dataclass(frozen=True)
class Refused:
    """A plan that the gate refused before the one that serves.

    Attributes:
        precision: of it.
        reason: in one line.
        verify: what the gate measured; None where it came to no figures.
        int8: of a plan in INT8.
    """

    precision: str
    reason: str
    verify: GateFigures | None = None
    int8: Int8Figures | None = None
