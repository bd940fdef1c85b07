"""J: the daemon with this library, by the trial beside this file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ledger
from lab import Lab, Unavailable, Unfinished

TRIAL = Path(__file__).with_name("daemon.py")
SPARE_S = 20.0


def daemon(lab: Lab) -> dict[str, Any]:
    """Run it; its document becomes this cell's findings.

    Raises:
        AssertionError: a scenario failed.
        Unfinished: some have no verdict yet.
    """
    if not TRIAL.is_file():
        raise Unavailable("daemon.py is not beside this file")
    folder = lab.partial.parents[1] / "daemon"  # in --out: its journal comes back too, and a later run goes on with it
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "daemon.json"
    if (earlier := lab.earlier()) and not out.is_file():
        ledger.replace_file(out, earlier)
    given = {
        "--backend": "onnxruntime" if lab.dry else "tensorrt",
        "--budget-s": max(lab.limit_s - SPARE_S, 30.0),
        "--out": out,
        "--work": lab.work / "daemon",
        "--weights": lab.model("nano"),
        "--clip": lab.data / "videos" / "vtest.avi",
        "--photos": lab.data / "images" / "coco128",
    }
    told = [sys.executable, str(TRIAL), *(str(part) for pair in given.items() for part in pair)]
    if due := _due(ledger.load(out)):
        told += ["--scenarios", ",".join(due)]
    done = subprocess.run(told, check=False)
    found = ledger.load(out)
    lab.keep(found)
    assert found, f"the trial wrote nothing and ended with {done.returncode}"
    failed = [one["name"] for one in found["scenarios"] if one["verdict"] == "failed"]
    assert not failed, f"scenarios failed: {', '.join(failed)}"
    if due := _due(found):
        raise Unfinished(f"scenarios {', '.join(due)} were not run")
    return found


def _due(found: dict[str, Any]) -> list[str]:
    """Numbers of the scenarios without a verdict."""
    return [one["name"].split(" ")[0] for one in found.get("scenarios", ()) if one["verdict"] == "not run"]
