"""Report as JSON: how a build report lies in the manifest, and how it is read back whichever version wrote it.

Names and order are those of the first release; what a build did not do is absent, what it could not measure is null.
Fields that this version does not know are left out, those that it misses have their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from vajra_edge.plans.plain import Fields, Json
from vajra_edge.plans.report import (
    Bounds,
    BuildReport,
    CostlyGroup,
    DlaCard,
    DlaInspected,
    DlaRegion,
    GateFigures,
    Int8Report,
    LeftOnGpu,
    Mixture,
    OnnxReport,
    PlanReport,
    RangesReport,
    RefusedWay,
    Shapes,
    StageReport,
    TensorRTReport,
    VerifyReport,
)

_Object = dict[str, Json]


def write(report: BuildReport) -> dict[str, Json]:
    """The manifest's ``notes``."""
    return {
        **write_plan(report.plan),
        "rung": report.rung,
        "rejected": [write_refused(one) for one in report.refused],
        "stages": {name: asdict(stage) for name, stage in report.stages.items()},
    }


def write_verify(report: VerifyReport | None) -> dict[str, Json]:
    """The manifest's ``verify``; empty where nothing was checked."""
    if report is None:
        return {}
    figures = asdict(report.figures)
    speeds: _Object = {name: figures.pop(name) for name in ("int8_ms", "fp16_ms", "speed")}
    return {**figures, "bounds": asdict(report.bounds), **speeds}


def write_refused(one: RefusedWay) -> dict[str, Json]:
    """One of ``rejected``."""
    return {
        "precision": one.precision,
        "rung": one.rung,
        "reason": one.reason,
        "seconds": one.seconds,
        "report": write_verify(one.verify) or None,
        "notes": write_plan(one.plan),
        "passing": one.passing,
    }


def write_plan(plan: PlanReport) -> dict[str, Json]:
    """One plan: the manifest's ``notes`` but for what is about the whole build, and those of ``rejected``."""
    known: _Object = {}
    if plan.onnx is not None:
        known |= {"onnxruntime": plan.onnx.version, "nodes": plan.onnx.nodes, "layout": plan.onnx.layout}
    if plan.tensorrt is not None:
        known |= _begun(plan.tensorrt)
    if plan.dla is not None:
        known["dla"] = asdict(plan.dla)
    if plan.tensorrt is not None:
        known |= _ended(plan.tensorrt)
    if plan.dla_inspected is not None:
        known["dla_inspected"] = {"dla": plan.dla_inspected.loadables, "layers": plan.dla_inspected.layers}
    if plan.int8 is not None:
        known["int8"] = _int8(plan.int8)
    return known


def _begun(build: TensorRTReport) -> _Object:
    shapes = build.shapes
    return {
        "library": build.library,
        "typing": build.typing,
        "typing_reason": build.typing_reason,
        "compute_capability": build.compute_capability,
        "limits": build.limits,
        "attempts": build.attempts,
        "network_layers": build.network_layers,
        "shapes": {"min": shapes.least, "opt": shapes.best, "max": shapes.most} if shapes else {},
    }


def _ended(build: TensorRTReport) -> _Object:
    kept: _Object = {
        "timing_cache": build.timing_cache,
        "timing_expected": build.timing_expected,
        "calibration": build.calibration,
        "calibration_cache": build.calibration_cache,
    }
    return {
        "build_s": build.build_s,
        "plan_bytes": build.plan_bytes,
        "warnings": build.warnings,
        **_present(kept),
    }


def _int8(int8: Int8Report) -> _Object:
    known: _Object = {
        "ranges": None if int8.ranges is None else asdict(int8.ranges),
        "chosen": None if int8.chosen is None else asdict(int8.chosen),
        "curve": None if int8.curve is None else [asdict(point) for point in int8.curve],
        "costliest": None if int8.costliest is None else [asdict(group) for group in int8.costliest],
        "int8_share": int8.share,
        "int8_layers": int8.layers,
        "high": int8.high,
    }
    return _present(known)


def _present(fields: Mapping[str, Json]) -> _Object:
    return {name: value for name, value in fields.items() if value is not None}


def read(notes: Fields) -> BuildReport:
    """The inverse of ``write``; refused ways whose precision is not told are left out."""
    return BuildReport(
        plan=_read_plan(notes),
        rung=notes.text("rung"),
        refused=tuple(_read_refused(one) for one in notes.each("rejected") if "precision" in one),
        stages={name: _read_stage(one) for name, one in notes.inside("stages").named().items()},
    )


def read_verify(fields: Fields) -> VerifyReport | None:
    """The inverse of ``write_verify``."""
    if not fields:
        return None
    figures = GateFigures(
        passed=fields.flag("passed"),
        judged=fields.flag("judged"),
        reason=fields.text("reason"),
        source=fields.text("source"),
        frames=fields.count("frames"),
        reference_boxes=fields.count("reference_boxes"),
        recall=fields.number_or_none("recall"),
        precision=fields.number_or_none("precision"),
        mean_iou=fields.number_or_none("mean_iou"),
        score_drift=fields.number_or_none("score_drift"),
        latency_p50_ms=fields.number_or_none("latency_p50_ms"),
        latency_p99_ms=fields.number_or_none("latency_p99_ms"),
        int8_ms=fields.number_or_none("int8_ms"),
        fp16_ms=fields.number_or_none("fp16_ms"),
        speed=fields.text("speed"),
    )
    return VerifyReport(figures, _read_bounds(fields.inside("bounds")))


def _read_bounds(fields: Fields) -> Bounds:
    return Bounds(
        recall=fields.number("recall"),
        precision=fields.number("precision"),
        mean_iou=fields.number("mean_iou"),
        score_drift=fields.number("score_drift"),
        enough_boxes=fields.count("enough_boxes"),
    )


def _read_refused(one: Fields) -> RefusedWay:
    return RefusedWay(
        precision=one.text("precision"),
        rung=one.text("rung"),
        reason=one.text("reason"),
        seconds=one.number("seconds"),
        verify=read_verify(one.inside("report")),
        plan=_read_plan(one.inside("notes")),
        passing=one.flag("passing"),
    )


def _read_stage(one: Fields) -> StageReport:
    return StageReport(one.number("seconds"), one.count("peak_rss_bytes"))


def _read_plan(notes: Fields) -> PlanReport:
    onnx = OnnxReport(notes.text("onnxruntime"), notes.count("nodes"), notes.text("layout"))
    card, inspected, int8 = notes.inside("dla"), notes.inside("dla_inspected"), notes.inside("int8")
    return PlanReport(
        onnx=onnx if "onnxruntime" in notes else None,
        tensorrt=_read_tensorrt(notes) if "library" in notes else None,
        dla=_read_card(card) if card else None,
        dla_inspected=DlaInspected(inspected.count("dla"), inspected.count("layers")) if inspected else None,
        int8=_read_int8(int8) if int8 else None,
    )


def _read_tensorrt(notes: Fields) -> TensorRTReport:
    return TensorRTReport(
        library=notes.text("library"),
        typing=notes.text("typing"),
        typing_reason=notes.text("typing_reason"),
        compute_capability=notes.text("compute_capability"),
        limits=notes.text("limits"),
        attempts=notes.texts("attempts"),
        network_layers=notes.count("network_layers"),
        shapes=_read_shapes(notes.inside("shapes")),
        build_s=notes.number("build_s"),
        plan_bytes=notes.count("plan_bytes"),
        warnings=notes.texts("warnings"),
        timing_cache=notes.text_or_none("timing_cache"),
        timing_expected=notes.text_or_none("timing_expected"),
        calibration=notes.text_or_none("calibration"),
        calibration_cache=notes.text_or_none("calibration_cache"),
    )


def _read_shapes(fields: Fields) -> Shapes | None:
    return Shapes(fields.counts("min"), fields.counts("opt"), fields.counts("max")) if "opt" in fields else None


def _read_card(fields: Fields) -> DlaCard:
    left = fields.inside("left_on_gpu").named()
    return DlaCard(
        macs_share=fields.number("macs_share"),
        transitions=fields.count("transitions"),
        nodes_on_dla=fields.count("nodes_on_dla"),
        nodes=fields.count("nodes"),
        regions_possible=fields.count("regions_possible"),
        regions=tuple(_read_region(one) for one in fields.each("regions")),
        left_on_gpu={
            reason: LeftOnGpu(one.count("nodes"), one.text("first")) for reason, one in left.items() if "nodes" in one
        },
    )


def _read_region(one: Fields) -> DlaRegion:
    return DlaRegion(
        nodes=one.count("nodes"),
        first=one.text("first"),
        last=one.text("last"),
        macs=one.count("macs"),
        entering_bytes=one.count("entering_bytes"),
        leaving_bytes=one.count("leaving_bytes"),
    )


def _read_int8(fields: Fields) -> Int8Report:
    ranges, chosen = fields.inside("ranges"), fields.inside("chosen")
    curve = tuple(_read_mixture(one) for one in fields.each("curve"))
    costliest = tuple(
        CostlyGroup(one.texts("layers"), one.count("macs"), one.number("cost")) for one in fields.each("costliest")
    )
    return Int8Report(
        ranges=_read_ranges(ranges) if ranges else None,
        chosen=_read_mixture(chosen) if chosen else None,
        curve=curve if "curve" in fields else None,
        costliest=costliest if "costliest" in fields else None,
        share=fields.number_or_none("int8_share"),
        layers=fields.count_or_none("int8_layers"),
        high=fields.inside("high").named_texts() if "high" in fields else None,
    )


def _read_ranges(fields: Fields) -> RangesReport:
    return RangesReport(
        algorithm=fields.text("algorithm"),
        images=fields.count("images"),
        key=fields.text("key"),
        source=fields.text("source"),
        collector=fields.text("collector"),
        images_from=fields.text("images_from"),
    )


def _read_mixture(one: Fields) -> Mixture:
    return Mixture(
        layers_kept=one.count("layers_kept"),
        int8_share=one.number("int8_share"),
        score_drift=one.number("score_drift"),
        box_drift=one.number("box_drift"),
    )
