from __future__ import annotations

from dataclasses import replace

import pytest

from vajra_edge.build.rung import Rung, ladder
from vajra_edge.plans.spec import EngineSpec, Precision

INT8 = EngineSpec(precision=Precision.INT8)


def words(spec: EngineSpec, *routes: str) -> list[str]:
    return [str(rung) for rung in ladder(spec, routes)]


def test_every_route_comes_before_the_next_precision():
    assert words(INT8, "calibrator", "qdq") == [
        "int8 by the library's calibrator",
        "int8 by Q/DQ",
        "fp16",
        "fp32",
    ]


def test_above_a_plan_that_is_there_are_the_precisions_that_it_is_lower_than():
    above = [[str(rung) for rung in ladder(INT8, ["qdq"], above=one)] for one in (Precision.FP16, Precision.FP32)]
    assert above == [["int8 by Q/DQ"], ["int8 by Q/DQ", "fp16"]]


def test_what_is_forbidden_is_no_rung():
    assert words(replace(INT8, allow_lower_precision=False), "qdq", "calibrator") == [
        "int8 by Q/DQ",
        "int8 by the library's calibrator",
    ]
    assert words(EngineSpec()) == ["fp32"]


def test_tf32_gives_way_to_fp32_alone_and_no_other_to_it():
    assert words(EngineSpec(precision=Precision.TF32)) == ["tf32", "fp32"]
    assert words(EngineSpec(precision=Precision.FP16)) == ["fp16", "fp32"]


@pytest.mark.parametrize("rung", [Rung(Precision.FP16), Rung(Precision.INT8, "qdq", high=frozenset({"b", "a"}))])
def test_a_rung_comes_back_from_json(rung: Rung):
    assert Rung.from_json(rung.to_json()) == rung


def test_a_rung_says_what_the_backend_is_asked_for():
    asked = Rung(Precision.INT8, "calibrator").of(INT8)
    assert asked == replace(INT8, quantization="calibrator")
    assert Rung(Precision.FP16).of(INT8) == replace(INT8, precision=Precision.FP16)


def test_refused_layers_are_counted_in_words():
    assert str(Rung(Precision.INT8, "qdq", high=frozenset("a"))) == "int8 by Q/DQ with 1 refused layer in fp16"
