"""What the stored manifests of ``test_manifest`` do not have in them: the library's own calibrator, and open shapes."""

from __future__ import annotations

import json

import pytest

from vajra_edge.plans import report_json
from vajra_edge.plans.plain import Fields
from vajra_edge.plans.report import BuildReport, PlanReport, RefusedWay, Shapes, StageReport, TensorRTReport

CALIBRATED = TensorRTReport(
    library="TensorRT 10.3.0",
    typing="weak",
    typing_reason="asked for",
    compute_capability="8.7",
    limits="workspace 512 MiB",
    attempts=("workspace 1024 MiB", "workspace 512 MiB"),
    network_layers=182,
    shapes=Shapes((1, 3, 32, 32), (4, 3, 640, 640), (4, 3, 640, 640)),
    build_s=301.25,
    plan_bytes=9,
    warnings=("no FP16 weights",),
    calibration="the cache",
    calibration_cache="0123.cache",
)
REPORT = BuildReport(
    PlanReport(tensorrt=CALIBRATED),
    "int8 by the library's calibrator",
    (RefusedWay("int8", "int8 by Q/DQ", "no tactic", 12.0, passing=True),),
    {"build": StageReport(302.5, 1 << 30)},
)


def test_a_report_is_read_as_it_was_written():
    assert report_json.read(Fields(json.loads(json.dumps(report_json.write(REPORT))))) == REPORT


def test_what_a_build_did_not_do_is_absent():
    written = report_json.write(REPORT)
    assert written["shapes"] == {"min": (1, 3, 32, 32), "opt": (4, 3, 640, 640), "max": (4, 3, 640, 640)}
    assert (written["calibration"], written["calibration_cache"]) == ("the cache", "0123.cache")
    assert not {"onnxruntime", "int8", "dla", "dla_inspected", "timing_cache", "timing_expected"} & set(written)


@pytest.mark.parametrize("plain", [None, [], "int8", {"dla": 5, "int8": [], "stages": "none", "rejected": {"int8": 1}}])
def test_a_report_of_another_shape_is_read_with_what_is_understood(plain: object):
    assert report_json.read(Fields(plain)) == BuildReport()
