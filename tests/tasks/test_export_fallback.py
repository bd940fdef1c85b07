"""What export does where the library refuses INT8, and where INT8 is the slower one."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import pytest
import tiny
from build.ladder_standin import Standin

from vajra_edge.build import attempt
from vajra_edge.cli import tasks as command
from vajra_edge.errors import BuildError
from vajra_edge.plans import caches
from vajra_edge.plans.spec import Precision, Target
from vajra_edge.progress import Progress
from vajra_edge.quantization.ptq import MEASURED_NOW
from vajra_edge.tasks import export
from vajra_edge.tasks.arguments import ExportArguments
from vajra_edge.tasks.export import Exported


def quiet(_: Progress) -> None:
    pass


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, and pictures in a folder beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(attempt, "Calibration", functools.partial(attempt.Calibration, search=False))
    monkeypatch.setattr(attempt, "by_turns", lambda *_: (5.0, 4.0))
    (tmp_path / "images").mkdir()
    for seed in range(8):
        cv2.imwrite(str(tmp_path / "images" / f"{seed}.png"), tiny.scene(objects=12, seed=seed).image)
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny.network(channels=16))
    return path


def exported(weights: Path, library: Standin, monkeypatch: pytest.MonkeyPatch) -> tuple[Exported, ExportArguments]:
    monkeypatch.setattr(export, "_backend", lambda arguments: (library, Target("cpu")))
    arguments = ExportArguments(
        format="onnx", int8=True, simplify=False, img_size=256, data=str(weights.with_name("images"))
    )
    return export.export(weights, arguments, quiet), arguments


def test_int8_that_was_asked_for_is_written_though_it_is_slower_and_both_times_are_said(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    made, arguments = exported(weights, Standin(compares=True), monkeypatch)
    assert (made.precision, made.path.name) == (Precision.INT8, "tiny.int8.onnx")
    assert (made.int8_ms, made.fp16_ms) == (5.0, 4.0)
    assert {name: made.to_json()[name] for name in ("int8_ms", "fp16_ms")} == {"int8_ms": 5.0, "fp16_ms": 4.0}
    command._show_exported(made, arguments)
    assert "speed: 5.000 ms a call in int8, 4.000 ms in fp16" in capsys.readouterr().out


def test_int8_that_is_refused_gives_fp16_and_is_tried_again_by_the_next_export_with_the_same_ranges(
    weights: Path, monkeypatch: pytest.MonkeyPatch
):
    error = BuildError("no tactic", layer="no such layer")
    refusing = {"int8 qdq": [error], "int8 calibrator": [error]}
    made, _ = exported(weights, Standin(answers=refusing), monkeypatch)
    assert made.precision is Precision.FP16
    assert [one["reason"] for one in made.to_json()["rejected"]] == ["no tactic"] * 2
    assert list((export.cache_dir() / caches.REFUSALS.path).iterdir())
    library = Standin()
    made, _ = exported(weights, library, monkeypatch)
    assert library.rungs == ["int8 qdq"]
    assert made.report.plan.int8.ranges.source != MEASURED_NOW
