"""Report: what one build found out, as typed values; the same from the build child to the manifest and on MQTT.

``report_json`` writes and reads them. None: not measured, or not part of this build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, FiniteFloat

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class GateFigures:
    """The accuracy check: how a plan compares with its FP32 reference.

    Attributes:
        passed: the plan may serve.
        judged: there were enough reference boxes for a verdict on agreement.
        reason: in one line, with figures.
        source: where the frames come from.
        frames: how many.
        reference_boxes: of the reference on them, at the published confidence.
        recall: share of those that the plan finds; None where there are none.
        precision: share of the plan's boxes that the reference has; None where there are none.
        mean_iou: of matched boxes, or None.
        score_drift: mean difference of matched scores, or None.
        latency_p50_ms: of one call with one frame, on this device; None where the plan was not run.
        latency_p99_ms: likewise.
        int8_ms: median time of a full batch in INT8, by turns with FP16; None where they were not compared.
        fp16_ms: likewise in FP16.
        speed: what came of that comparison, or why there was none; empty where none was due.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    passed: bool
    judged: bool
    reason: str
    source: str
    frames: Count
    reference_boxes: Count
    recall: Ratio | None
    precision: Ratio | None
    mean_iou: Ratio | None
    score_drift: FiniteFloat | None
    latency_p50_ms: FiniteFloat | None
    latency_p99_ms: FiniteFloat | None
    int8_ms: FiniteFloat | None
    fp16_ms: FiniteFloat | None
    speed: str


@dataclass(frozen=True)
class Bounds:
    """What a plan must reach.

    Attributes:
        recall: least share of the reference's boxes that the plan finds.
        precision: least share of the plan's boxes that the reference has.
        mean_iou: least mean overlap of matched boxes.
        score_drift: largest mean difference of matched scores.
        enough_boxes: reference boxes after which the comparison ends early.
    """

    recall: float
    precision: float
    mean_iou: float
    score_drift: float
    enough_boxes: int


@dataclass(frozen=True)
class VerifyReport:
    """What the accuracy check saw, and what it asked for."""

    figures: GateFigures
    bounds: Bounds


@dataclass(frozen=True)
class RangesReport:
    """Where INT8 ranges come from.

    Attributes:
        algorithm: minmax, percentile or entropy.
        images: that they were measured on.
        key: of their file in the cache.
        source: measured now, from the cache, or reused from other weights.
        collector: which library measured, and why not another; what prepared the images for a GPU.
        images_from: where the images come from.
    """

    algorithm: str
    images: int
    key: str
    source: str
    collector: str
    images_from: str


@dataclass(frozen=True)
class Mixture:
    """One measured choice of layers.

    Attributes:
        layers_kept: out of INT8.
        int8_share: of the multiply-adds, 0..1.
        score_drift: how far it moves scores from FP32, before any threshold.
        box_drift: how far it moves boxes, 1 - IoU.
    """

    layers_kept: int
    int8_share: float
    score_drift: float
    box_drift: float


@dataclass(frozen=True)
class CostlyGroup:
    """Layers that were measured together, their multiply-adds, and the drift that they cost in INT8."""

    layers: tuple[str, ...]
    macs: int
    cost: float


@dataclass(frozen=True)
class Int8Report:
    """How a network was quantized; a mixture that was refused for its drift came to no placement.

    Attributes:
        ranges: where they come from.
        chosen: the mixture that is built; None where no search was made.
        curve: every mixture that was measured, largest share of INT8 first.
        costliest: groups of layers, costliest a multiply-add first.
        share: of the multiply-adds in INT8, 0..1.
        layers: in INT8.
        high: layer outside INT8 -> why.
    """

    ranges: RangesReport | None = None
    chosen: Mixture | None = None
    curve: tuple[Mixture, ...] | None = None
    costliest: tuple[CostlyGroup, ...] | None = None
    share: float | None = None
    layers: int | None = None
    high: Mapping[str, str] | None = None


@dataclass(frozen=True)
class OnnxReport:
    """A plan of ONNX Runtime: its version, the nodes of the optimised graph, and the layout of its output."""

    version: str
    nodes: int
    layout: str


@dataclass(frozen=True)
class Shapes:
    """(N, 3, H, W) that a dynamic network takes: the least, the one it is made for, the most."""

    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]


@dataclass(frozen=True)
class TensorRTReport:
    """How TensorRT built a plan.

    Attributes:
        library: name and version.
        typing: strong or weak.
        typing_reason: why.
        compute_capability: of the GPU that the plan is for.
        limits: on memory and effort, of the attempt that succeeded.
        attempts: the limits of every attempt, with what was lowered before the first.
        network_layers: of the parsed network.
        shapes: None of a static network.
        build_s: of the attempt that succeeded.
        plan_bytes: size of the plan.
        warnings: of the library, the first few.
        timing_cache: file of the tactics' timings, or why it was not kept; None where none is.
        timing_expected: likewise, of how long such a build takes.
        calibration: where the library's own calibrator had its scales from; None where it set none.
        calibration_cache: file of those scales, or why there is none.
    """

    library: str
    typing: str
    typing_reason: str
    compute_capability: str
    limits: str
    attempts: tuple[str, ...]
    network_layers: int
    shapes: Shapes | None
    build_s: float
    plan_bytes: int
    warnings: tuple[str, ...]
    timing_cache: str | None = None
    timing_expected: str | None = None
    calibration: str | None = None
    calibration_cache: str | None = None


@dataclass(frozen=True)
class DlaRegion:
    """Nodes of the graph that run on the core as one.

    Attributes:
        nodes: how many.
        first: key of the first.
        last: key of the last.
        macs: their multiply-adds.
        entering_bytes: what passes from the GPU, for one image.
        leaving_bytes: what passes back.
    """

    nodes: int
    first: str
    last: str
    macs: int
    entering_bytes: int
    leaving_bytes: int


@dataclass(frozen=True)
class LeftOnGpu:
    """How many nodes one reason kept from the core, and the first of them."""

    nodes: int
    first: str


@dataclass(frozen=True)
class DlaCard:
    """The DLA's report card.

    Attributes:
        macs_share: share of multiply-adds on the core, 0..1.
        transitions: how often execution passes between GPU and core.
        nodes_on_dla: of the graph.
        nodes: of the graph in all.
        regions_possible: that there were to choose from.
        regions: those chosen, best first.
        left_on_gpu: what fell back, by reason, the most frequent first.
    """

    macs_share: float
    transitions: int
    nodes_on_dla: int
    nodes: int
    regions_possible: int
    regions: tuple[DlaRegion, ...]
    left_on_gpu: Mapping[str, LeftOnGpu]


@dataclass(frozen=True)
class DlaInspected:
    """Layers of the finished plan on the core, and all layers, as the library lists them."""

    loadables: int
    layers: int


@dataclass(frozen=True)
class PlanReport:
    """What one plan is, whether it passed its accuracy check or was refused.

    Attributes:
        onnx: of a plan of ONNX Runtime.
        tensorrt: of a plan of TensorRT.
        dla: of a plan for a DLA core.
        dla_inspected: likewise, of what the builder made of it.
        int8: of one in INT8 that this package quantized.
    """

    onnx: OnnxReport | None = None
    tensorrt: TensorRTReport | None = None
    dla: DlaCard | None = None
    dla_inspected: DlaInspected | None = None
    int8: Int8Report | None = None


NO_PLAN = PlanReport()
"""Where nothing is known of a plan, or there was none."""


@dataclass(frozen=True)
class RefusedWay:
    """A way down the ladder that came to nothing.

    Attributes:
        precision: of it.
        rung: the way, in words.
        reason: in one line.
        seconds: it took.
        verify: what the accuracy check saw; None where it came to no figures.
        plan: what is known of the plan.
        passing: for a cause that may pass, so that another try may do better.
    """

    precision: str
    rung: str
    reason: str
    seconds: float
    verify: VerifyReport | None = None
    plan: PlanReport = NO_PLAN
    passing: bool = False


@dataclass(frozen=True)
class StageReport:
    """What one stage took: time, and the largest resident memory up to its end."""

    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class BuildReport:
    """One build, from the weights to the plan that passed.

    Attributes:
        plan: what was built.
        rung: the way to it, in words.
        refused: the ways that were refused before, in order.
        stages: by name, in order.
    """

    plan: PlanReport = NO_PLAN
    rung: str = ""
    refused: tuple[RefusedWay, ...] = ()
    stages: Mapping[str, StageReport] = field(default_factory=dict)

    def plans(self) -> Iterator[PlanReport]:
        """Of the plan, and of those that were refused before it."""
        yield self.plan
        yield from (one.plan for one in self.refused)
