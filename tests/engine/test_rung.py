from __future__ import annotations

from dataclasses import replace

import pytest

from vajra_edge.engine.rung import Rung, ladder
from vajra_edge.engine.spec import EngineSpec, Precision

INT8 = EngineSpec(precision=Precision.INT8)


def words(spec: EngineSpec, *routes: str, host_nms: bool = False) -> list[str]:
    return [str(rung) for rung in ladder(spec, routes, host_nms=host_nms)]


def test_routes_come_before_the_graph_without_nms_and_both_before_the_next_precision():
    assert words(INT8, "calibrator", "qdq", host_nms=True) == [
        "int8 by the library's calibrator",
        "int8 by Q/DQ",
        "int8 by the library's calibrator without in-graph NMS",
        "int8 by Q/DQ without in-graph NMS",
        "fp16",
        "fp16 without in-graph NMS",
        "fp32",
        "fp32 without in-graph NMS",
    ]


def test_what_is_forbidden_is_no_rung():
    assert words(replace(INT8, allow_lower_precision=False), "qdq", "calibrator") == [
        "int8 by Q/DQ",
        "int8 by the library's calibrator",
    ]
    assert words(EngineSpec(nms=None), host_nms=True) == ["fp32"]


@pytest.mark.parametrize(
    "rung", [Rung(Precision.FP16), Rung(Precision.INT8, "qdq", nms=False, high=frozenset({"b", "a"}))]
)
def test_a_rung_comes_back_from_json(rung: Rung):
    assert Rung.from_json(rung.to_json()) == rung


def test_a_rung_says_what_the_backend_is_asked_for():
    asked = Rung(Precision.INT8, "calibrator", nms=False).of(INT8)
    assert (asked.precision, asked.quantization, asked.nms) == (Precision.INT8, "calibrator", None)
    assert Rung(Precision.FP16).of(INT8) == replace(INT8, precision=Precision.FP16)


def test_refused_layers_are_counted_in_words():
    assert str(Rung(Precision.INT8, "qdq", high=frozenset("a"))) == "int8 by Q/DQ with 1 refused layer in fp16"
