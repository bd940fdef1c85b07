"""The script for machines with a GPU, on ONNX Runtime and a tiny network, so that it does not rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from station import ROOT

SCRIPT = ROOT / "tests" / "device" / "daemon.py"


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    for name, gain in (("net", 20.0), ("second", 30.0)):
        (tmp_path / f"{name}.onnx").write_bytes(tiny.network(gain=gain))
    files = {"weights": "net.onnx", "second": "second.onnx", "photos": ".", "work": "work", "out": "seen.json"}
    clip = ["--clip", str(ROOT / "vajra_edge" / "demo" / "clip.mp4")]
    paths = [word for name, file in files.items() for word in (f"--{name}", str(tmp_path / file))]
    return ["--backend", "onnxruntime", "--gap-s", "60", *clip, *paths]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)


def seen(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "seen.json").read_text())["scenarios"]


def test_a_first_boot_is_seen_from_the_interim_plan_to_the_wanted_one(inputs: list[str], tmp_path: Path):
    ended = run(*inputs, "--scenarios", "1", "--budget-s", "120")
    (scenario,) = seen(tmp_path)
    assert scenario["verdict"] == "ok", json.dumps(scenario, indent=1)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert scenario["figures"]["plan"]["verify"]["passed"]
    topics = {topic for _, topic, _ in scenario["log"]}
    assert {"script", "status", "engine", "detections"} <= topics


def test_without_time_left_nothing_is_run_and_that_is_recorded(inputs: list[str], tmp_path: Path):
    ended = run(*inputs, "--scenarios", "1,2", "--budget-s", "6")
    assert ended.returncode == 0, ended.stderr
    assert [scenario["verdict"] for scenario in seen(tmp_path)] == ["not run", "not run"]
    assert "not run" in ended.stdout


def test_what_was_not_run_takes_nothing_of_an_earlier_result_away(inputs: list[str], tmp_path: Path):
    kept = {"name": "1 first boot", "verdict": "ok", "checks": [], "figures": {"s": 3}, "log": []}
    (tmp_path / "seen.json").write_text(json.dumps({"scenarios": [kept]}))
    assert run(*inputs, "--scenarios", "1,2", "--budget-s", "6").returncode == 0
    first, second = seen(tmp_path)
    assert first == kept
    assert second["verdict"] == "not run"


def test_a_scenario_that_is_not_there_is_one_line(inputs: list[str]):
    ended = run(*inputs, "--scenarios", "10")
    assert ended.returncode == 2
    assert "no scenario 10; there are 1, 2" in ended.stderr
