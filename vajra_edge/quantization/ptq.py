"""Post-training quantization: from an exported FP32 graph to the one that a builder is given for FP16 or INT8.

Every backend is given its graph by this module, so that one measured recipe serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vajra_edge.errors import VerifyError
from vajra_edge.graph.passes import fp16, qdq, qoperator
from vajra_edge.graph.passes.instrument import Mixtures
from vajra_edge.graph.passes.nms import raw_output
from vajra_edge.graph.passes.qdq import Placement
from vajra_edge.graph.signature import Signature
from vajra_edge.graph.topology import Wiring, elements, key, load, macs_by_layer
from vajra_edge.plans.report import CostlyGroup, Int8Report, PlanReport, RangesReport
from vajra_edge.progress import Report
from vajra_edge.quantization import layer_search
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.layer_search import WORST, LayerChoice, Point, Trials
from vajra_edge.quantization.observer import observe
from vajra_edge.quantization.ranges import Observe, RangeCache, Ranges, key_of, structure_of

CANDIDATE_IMAGES = 32
"""Images from which those with the most to detect are taken to judge mixtures."""

NOTED_GROUPS = 20

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
        reuse: ranges of earlier weights of the same network on the same images may be used; said in the report.
        fresh: measure even what the cache has.
        search: measure which layers cost most and leave them out of INT8; False quantizes by the static rules alone.
        threads: of the CPU; None: all.
        keep: layers and residual additions that stay out of INT8 whatever they cost, by key, each with its reason.
        fused: the graph is for ONNX Runtime's CPU kernels instead of TensorRT, see ``graph.passes.qoperator``.
        observe: measures the ranges that the cache does not have.
    """

    images: CalibrationSet
    algorithm: str = "minmax"
    cache: RangeCache | None = None
    reuse: bool = False
    fresh: bool = False
    search: bool = True
    threads: int | None = None
    keep: Mapping[str, str] = field(default_factory=dict)
    fused: bool = False
    observe: Observe = observe


def prepare_half(onnx_bytes: bytes) -> bytes:
    """FP16 with FP32 boxes, see ``graph.passes.fp16``.

    Raises:
        GraphError: the graph cannot be converted.
    """
    return fp16.to_half(onnx_bytes)


def prepare_int8(
    onnx_bytes: bytes, signature: Signature, calibration: Calibration, report: Report
) -> tuple[bytes, Int8Report]:
    """Explicit INT8 with the layers that cost most left in FP32 (``prepare_half`` behind it makes those FP16).

    Args:
        onnx_bytes: the FP32 graph, with or without NMS.
        signature: its signature.
        calibration: images, algorithm, cache.
        report: takes progress; may raise to stop.

    Returns:
        The Q/DQ graph, and how it was made.

    Raises:
        CalibrationError: the images are short or failing, or the network is not finite on one.
        VerifyError: no mixture worth building is close enough to FP32; ``values["plan"]`` has the curve.
        GraphError: the graph cannot be quantized.
    """
    ranges, source = ranges_for(onnx_bytes, signature, calibration, report)
    wiring = Wiring(load(onnx_bytes))
    macs = macs_by_layer(wiring, signature.resolution_hw)
    keep = dict(calibration.keep)
    told = Int8Report(ranges=source)
    if calibration.search:
        choice = _choose(onnx_bytes, signature, calibration, ranges, macs, report)
        keep = {**dict.fromkeys(choice.point.high, MEASURED), **keep}
        told = _with_choice(told, choice, wiring)
        _require_faithful(choice.point, told)
    placed = qdq.place(wiring, keep)
    share = sum(count for key, count in macs.items() if key in placed.layers) / max(sum(macs.values()), 1)
    names = _names(wiring)
    high = {names.get(key, key): reason for key, reason in placed.high.items()}
    told = replace(told, share=round(share, 4), layers=len(placed.layers), high=high)
    return _quantized(onnx_bytes, placed, ranges, calibration), told


def _quantized(onnx_bytes: bytes, placed: Placement, ranges: Ranges, calibration: Calibration) -> bytes:
    quantized = qdq.quantize(onnx_bytes, placed, ranges.amax(), ranges.means())
    return qoperator.to_qlinear(quantized, ranges.limits()) if calibration.fused else quantized


def ranges_for(
    onnx_bytes: bytes, signature: Signature, calibration: Calibration, report: Report
) -> tuple[Ranges, RangesReport]:
    """Ranges from the cache on an exact hit, from earlier weights if that was asked for, else measured and kept.

    Raises:
        CalibrationError: the images are short or failing.
        StoreError: the cache cannot be written.
    """
    images, algorithm = calibration.images, calibration.algorithm
    found, source = (None, "") if calibration.fresh else _kept(onnx_bytes, signature.resolution_hw, calibration)
    if found is None:
        found = calibration.observe(onnx_bytes, signature, images, algorithm, report, calibration.threads)
        told = filter(None, (found.collector, images.preparation.told))
        found = replace(found, collector="; ".join(told))
        source = MEASURED_NOW
        if calibration.cache:
            calibration.cache.put(found)
    return found, RangesReport(found.algorithm, found.images, found.key, source, found.collector, images.source)


def _kept(onnx_bytes: bytes, resolution_hw: tuple[int, int], calibration: Calibration) -> tuple[Ranges | None, str]:
    """What the cache has for this build, and how it came by it."""
    cache, set_digest, algorithm = calibration.cache, calibration.images.digest, calibration.algorithm
    if cache is None:
        return None, ""
    if (found := cache.get(key_of(onnx_bytes, resolution_hw, set_digest, algorithm))) is not None:
        return found, "cache"
    if calibration.reuse:
        return cache.similar(
            structure_of(onnx_bytes, resolution_hw), set_digest, algorithm
        ), "reused: measured with other weights"
    return None, ""


def _choose(
    onnx_bytes: bytes,
    signature: Signature,
    calibration: Calibration,
    ranges: Ranges,
    macs: Mapping[str, int],
    report: Report,
) -> LayerChoice:
    wiring = Wiring(load(onnx_bytes))
    placed = qdq.place(wiring, calibration.keep)
    work = {name: count for name, count in macs.items() if name in placed.layers}
    work |= elements(wiring, placed.shortcuts, signature.resolution_hw)
    work = {key(node): work[key(node)] for node in wiring.nodes if key(node) in work}
    quantized = _quantized(onnx_bytes, placed, ranges, calibration)
    output = raw_output(onnx_bytes, signature)
    mixtures, most = Mixtures(onnx_bytes, quantized, list(work), output), layer_search.most_images(work)
    trials = Trials(mixtures, output, signature, calibration.threads, report, most)
    trials.pick(calibration.images.some(CANDIDATE_IMAGES))
    return layer_search.choose(trials.run, work, sum(macs.values()))


def _require_faithful(point: Point, told: Int8Report) -> None:
    """The accuracy check counts boxes and would let pass what costs points; see ``layer_search.WORST``."""
    if point.drift.within(WORST):
        return
    raise VerifyError(
        f"int8 drifts from FP32 by {point.drift.score:.3f} in scores and {point.drift.box:.3f} in boxes with "
        f"{point.share:.0%} of the multiply-adds in it, over the limits of {WORST.score:g} and {WORST.box:g}",
        remedy="choose a higher precision, or calibrate on images of the scene",
        plan=PlanReport(int8=told),
        drift=point.drift,
    )


def _with_choice(told: Int8Report, choice: LayerChoice, wiring: Wiring) -> Int8Report:
    names = _names(wiring)
    costliest = (
        CostlyGroup(tuple(names.get(key, key) for key in group.layers), group.macs, round(group.cost, 5))
        for group in choice.groups[:NOTED_GROUPS]
    )
    curve = tuple(point.mixture() for point in choice.curve)
    return replace(told, chosen=choice.point.mixture(), curve=curve, costliest=tuple(costliest))


def _names(wiring: Wiring) -> dict[str, str]:
    return {str(node.output[0]): str(node.name or node.output[0]) for node in wiring.nodes}
