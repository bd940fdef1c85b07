"""Our rules against NVIDIA's answers: every small graph that TensorRT 10.6 was asked about."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vajra_edge.graph.passes import fp16
from vajra_edge.graph.passes.tensorrt_rules import BuildMode, refusals, silus_before_int8
from vajra_edge.graph.topology import Wiring, load

DEVICE = Path(__file__).parents[1] / "device"
RECORDED = json.loads((DEVICE / "results" / "small_graphs.json").read_text())["verdicts"]


def small_graphs() -> Any:
    spec = importlib.util.spec_from_file_location("small_graphs", DEVICE / "small_graphs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_graphs"] = module
    spec.loader.exec_module(module)
    return module


CASES = {case.name: case for case in small_graphs().cases()}


@pytest.mark.parametrize("verdict", RECORDED, ids=lambda one: f"{one['built']}: {one['case']}")
def test_the_rules_say_what_the_library_said(verdict: dict[str, Any]) -> None:
    case = CASES[f"{'strong' if verdict['built'] == 'strong' else 'weak'}: {verdict['case']}"]
    build = BuildMode(strong=case.strong, obeys=verdict["built"] == "obey", pinned=frozenset(case.pins))
    found = refusals(Wiring(load(case.onnx_bytes)), build)
    assert (not found) == verdict["accepted"], found or verdict["errors"]


def test_the_recorded_answers_are_enough_to_judge_by() -> None:
    refused = [one for one in RECORDED if not one["accepted"]]
    assert len({one["case"] for one in refused}) >= 10
    assert len({one["case"] for one in RECORDED if one["accepted"]}) >= 20


def test_a_graph_is_refused_by_the_name_of_the_layer_at_fault() -> None:
    case = CASES["weak: residual without activation, shortcut float"]
    (found,) = refusals(Wiring(load(case.onnx_bytes)), BuildMode(obeys=True))
    assert found.nodes == ("residual_conv", "residual_add")


def test_silus_in_fp32_make_a_strongly_typed_network_with_depthwise_convolutions_buildable() -> None:
    graph = CASES["strong: FP32 depthwise, SiLU, quantizer"].onnx_bytes
    strong = BuildMode(strong=True)
    (broken,) = refusals(Wiring(load(fp16.to_half(graph))), strong)
    assert "depthwise" in broken.reason
    mended = fp16.to_half(graph, keep=silus_before_int8(Wiring(load(graph))))
    assert refusals(Wiring(load(mended)), strong) == ()
