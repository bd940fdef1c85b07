"""The hooks run what CI runs before its tests."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_hooks_are_the_checks_of_the_run_that_ci_makes():
    run = (ROOT / "tests" / "run.sh").read_text(encoding="utf-8")
    checks = [
        line.partition('bin/python" -m ')[2] for line in run.splitlines() if "-m ruff" in line or "-m mypy" in line
    ]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == [f"python -m {check}" for check in checks]
    assert {hook["language"] for hook in hooks} == {"system"}
