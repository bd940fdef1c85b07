"""J: the daemon with this library, by the trial beside this file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ledger
from lab import Lab, Unavailable

TRIAL = Path(__file__).with_name("daemon.py")
SPARE_S = 20.0


def daemon(lab: Lab) -> dict[str, Any]:
    """Run it; its document becomes this cell's findings.

    Raises:
        AssertionError: it ended with a status other than 0.
    """
    if not TRIAL.is_file():
        raise Unavailable("daemon.py is not beside this file")
    folder = lab.partial.parents[1] / "daemon"  # in --out: its journal comes back too, and a later run goes on with it
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "daemon.json"
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
    done = subprocess.run(told, check=False)
    found = ledger.load(out)
    lab.keep(found)
    assert done.returncode == 0, f"the trial ended with {done.returncode}"
    assert found, "the trial wrote nothing"
    return found
