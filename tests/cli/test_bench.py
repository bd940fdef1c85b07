from __future__ import annotations

import json

import pytest

from vajra_edge.__main__ import main
from vajra_edge.cli import bench
from vajra_edge.config.settings import load
from vajra_edge.plans.spec import NmsSpec


def test_the_figures_of_a_tiny_network(place, capsys):
    words = ["--seconds", "2", "--weights", str(place.weights), "--source", str(place.pictures), "--threads", "1"]
    assert main(["bench", "--json", *words]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures["stage_ms"]) == {"prepare", "inference", "decode", "publish"}
    assert min(figures["inference_ms"], figures["frame_ms"]) > 0
    assert figures["frames_per_s"] == pytest.approx(1e3 / figures["frame_ms"], rel=0.01)
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert figures["blocks"] == len(figures["ratios"]) >= 2
    assert figures["threads"] == 1


def test_nms_outside_the_engine_is_as_the_settings_say(place):
    settings = load(place.config, {"engine": {"nms_iou": 0.5, "max_det": 9}})
    with bench.opened(settings) as run:
        assert run._detector._nms == NmsSpec(iou=0.5, max_det=9)


def test_the_table_for_a_person(place, capsys):
    words = ["--seconds", "2", "--weights", str(place.weights), "--source", str(place.pictures)]
    assert main(["bench", *words]) == 0
    assert "bare inference" in capsys.readouterr().out


def test_without_a_camera_there_is_nothing_to_measure(place, capsys):
    place.config.write_text(place.config.read_text().split("[[cameras]]")[0])
    assert main(["bench", "--config", str(place.config)]) == 1
    assert "no camera to measure with" in capsys.readouterr().err
