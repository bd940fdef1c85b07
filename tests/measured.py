"""What a build of INT8 on a DLA core measures, as its manifest holds it, and a plan that serves."""

from __future__ import annotations

from typing import Any

from vajra_edge.plans.plain import Fields
from vajra_edge.plans.report_json import read, read_verify
from vajra_edge.telemetry.plan_view import PlanView

REPORT: dict[str, Any] = {
    "passed": True,
    "judged": True,
    "reason": "agrees with its FP32 reference: 399 of 412 boxes on 64 frames of the device's cameras",
    "source": "the device's cameras (held out of calibration)",
    "frames": 64,
    "reference_boxes": 412,
    "recall": 0.968,
    "precision": 0.971,
    "mean_iou": 0.953,
    "score_drift": 0.0123,
    "latency_p50_ms": 4.9,
    "latency_p99_ms": 6.25,
    "bounds": {"recall": 0.9},
    "int8_ms": 4.812,
    "fp16_ms": 7.305,
    "speed": "4.812 ms a call in int8, 7.305 ms in fp16 (medians by turns)",
}
INT8_NOTES: dict[str, Any] = {
    "ranges": {
        "algorithm": "minmax",
        "images": 448,
        "key": "ab" * 32,
        "source": "measured",
        "collector": "TensorRT on the GPU",
        "images_from": "the device's cameras",
    },
    "chosen": {"layers_kept": 4, "int8_share": 0.9, "score_drift": 0.0081, "box_drift": 0.0064},
    "curve": [],
    "int8_share": 0.9123,
    "int8_layers": 71,
    "high": {},
}
CARD: dict[str, Any] = {
    "macs_share": 0.83,
    "transitions": 2,
    "nodes_on_dla": 40,
    "nodes": 52,
    "regions_possible": 3,
    "regions": [],
    "left_on_gpu": {
        "this device's own DLA compiler refuses it": {"nodes": 9, "first": "/softmax"},
        "beyond the region": {"nodes": 3, "first": "/conv"},
    },
}
NOTES: dict[str, Any] = {"int8": INT8_NOTES, "dla": CARD, "dla_inspected": {"dla": 1, "layers": 9}, "rejected": []}
BUILT = read(Fields(NOTES)).plan
PLAN = PlanView(
    fingerprint="ab" * 32,
    backend="tensorrt",
    wanted_precision="int8",
    precision="fp16",
    target="gpu:0",
    resolution_hw=(640, 640),
    batch=1,
    class_names=("person",),
    weights="net.pt",
    weights_sha256="cd" * 32,
    built_at="2026-11-22T10:00:00Z",
    build_s=61.0,
    verify=read_verify(Fields({"latency_p50_ms": 4.9, "recall": 0.99})),
)
