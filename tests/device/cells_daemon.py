"""J: the daemon with this library, by the trial beside this file."""

from __future__ import annotations

import os
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
    out = lab.work / "daemon.json"
    out.unlink(missing_ok=True)
    backend = "onnxruntime" if lab.dry else "tensorrt"
    budget_s = str(max(lab.limit_s - SPARE_S, 30.0))
    told = [sys.executable, str(TRIAL), "--backend", backend, "--budget-s", budget_s, "--out", str(out)]
    if "--data" in TRIAL.read_text():
        told += ["--data", str(lab.data)]
    done = subprocess.run(told, check=False, env=dict(os.environ))
    found = ledger.load(out)
    lab.keep(found)
    assert done.returncode == 0, f"the trial ended with {done.returncode}"
    assert found, "the trial wrote nothing"
    return found
