"""The whole daemon on this machine, in nine scenarios: boots, changes, kills, damage, an upgrade, a lost GPU.

    python3 tests/device/daemon.py --backend tensorrt --out daemon.json --budget-s 560
    python3 tests/device/daemon.py --backend onnxruntime --scenarios 1,2,8 --out daemon.json

A broker (amqtt) and the daemon run as processes of their own; a subscriber notes every message with its time. Builds
are of optimization level 0. The result is written after every check; scenarios that an earlier run with the same
``--out`` saw stay in it. ``--work`` keeps the state folder, so that a second run goes on with its plans.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import daemon_record  # noqa: E402
from daemon_record import Budget, BudgetOver, Missed, Record  # noqa: E402
from daemon_rig import BACKENDS, Inputs, Rig  # noqa: E402
from daemon_scenarios import SCENARIOS  # noqa: E402

from vajra_edge import device  # noqa: E402

LIBRARIES = ("tensorrt", "onnxruntime", "onnx", "numpy", "opencv-python-headless", "paho-mqtt", "amqtt", "cuda-python")
RESERVE_S = 5.0
"""Kept for the end: processes are stopped, the result is written."""
BOOTS_S = 20.0
"""What a scenario takes at least beside its builds."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="tensorrt")
    parser.add_argument("--target", default="auto", help="as in the settings: gpu:1 for the second of two")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="numbers, in the order to run them")
    parser.add_argument("--budget-s", type=float, default=560.0, help="for the whole run")
    parser.add_argument("--limit-s", type=float, default=300.0, help="for any one thing that must happen")
    parser.add_argument("--gap-s", type=float, default=3.0, help="between two detection messages")
    parser.add_argument("--out", type=Path, required=True, help="the result, as JSON; the journal lies beside it")
    parser.add_argument("--work", type=Path, help="state folder to go on with; without: a new one, deleted at the end")
    parser.add_argument("--weights", type=Path, default=DATA / "models" / "vajra-v1-nano-det-cctv.onnx")
    parser.add_argument("--second", type=Path, default=ROOT / "vajra_edge" / "demo" / "vajra-v1-nano-cctv.onnx")
    parser.add_argument("--clip", type=Path, default=DATA / "videos" / "vtest.avi")
    parser.add_argument("--photos", type=Path, default=DATA / "images" / "coco128", help="calibrate INT8")
    parser.add_argument("--max-images", type=int, default=64, help="of those")
    given = parser.parse_args()
    if unknown := set(given.scenarios.split(",")) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    for path in (given.weights, given.second, given.clip, given.photos):
        if not path.exists():
            parser.error(f"{path} does not exist")
    return given


class Run:
    """One run of the chosen scenarios."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._out: Path = given.out.absolute()
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._chosen: list[str] = given.scenarios.split(",")
        self._records: dict[str, Record] = {}
        self._earlier = {} if not self._out.exists() else _earlier(self._out)
        self._about = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "card": (device._run(device.NVIDIA_SMI) or "none").strip(),
            "libraries": _libraries(),
            "backend": given.backend,
            "command": sys.argv[1:],
        }
        self._kept: Path | None = given.work
        self._folder = (given.work or Path(tempfile.mkdtemp(prefix="vajra-daemon-"))).absolute()
        self._budget = Budget(given.budget_s - RESERVE_S)
        names = ("weights", "second", "clip", "photos")
        paths = {name: getattr(given, name).absolute() for name in names}
        limits = {name: getattr(given, name) for name in ("max_images", "limit_s", "gap_s")}
        inputs = Inputs(given.backend, given.target, **paths, **limits)
        self._rig = Rig(self._folder, inputs, self._budget, self._out.with_suffix(".log"))
        if self._kept is not None:
            self._rig.first_build_s = _first_build_s(self._earlier)
            self._rig.longest_build_s = self._rig.first_build_s or 0.0

    def all(self) -> int:
        """Returns 1 if anything failed."""
        try:
            for number in self._chosen:
                self._one(number)
        finally:
            self._rig.close()
            self._save()
            if self._kept is None:
                shutil.rmtree(self._folder, ignore_errors=True)
        return int(any(record.verdict == "failed" for record in self._records.values()))

    def _one(self, number: str) -> None:
        name, scenario, builds = SCENARIOS[number]
        record = self._records[number] = self._rig.record = Record(f"{number} {name}", self._save)
        needed_s = BOOTS_S + builds * self._rig.longest_build_s
        if self._budget.left_s < needed_s:
            record.reason = f"{max(self._budget.left_s, 0):.0f} s are left, it takes {needed_s:.0f} s at least"
            print(f"{record.name}: not run: {record.reason}", flush=True)
            return
        print(f"{record.name} ({self._budget.left_s:.0f} s are left)", flush=True)
        began_bytes = self._rig.journal_bytes()
        record.reason = "the run was ended in it"
        try:
            scenario(self._rig, record)
            record.reason = ""
        except Missed as missed:
            record.reason = ""
            record.check("the scenario comes to its end", passed=False, seen=str(missed))
        except BudgetOver:
            record.reason = "the time for the whole run ended in it"
        except Exception as error:  # noqa: BLE001  a bug in one scenario must not cost the others
            traceback.print_exc()
            record.reason = ""
            record.check("the script has no bug", passed=False, seen=f"{type(error).__name__}: {error}")
        finally:
            self._told(record, began_bytes)
            record.close()
            self._save()
        print(
            f"  {record.verdict} after {record.since():.0f} s{f': {record.reason}' * bool(record.reason)}", flush=True
        )

    def _told(self, record: Record, began_bytes: int) -> None:
        """Add what the daemon said on its topics and in its journal."""
        for said in self._rig.ears.said(record.began_s):
            if text := _text(said.topic, said.content):
                record.say(said.topic, text, said.at_s)
        last = ""
        for shot in self._rig.ears.shots(record.began_s):
            by = f"{shot.fingerprint} {shot.precision} on {shot.target}"
            if by != last:
                record.say("detections", by, shot.at_s)
                last = by
        record.figures["journal"] = self._rig.journal(began_bytes)[-80:]

    def _save(self) -> None:
        seen = {number: record.to_json() for number, record in self._records.items()}
        for number in self._chosen:
            unseen = {"name": f"{number} {SCENARIOS[number][0]}", "verdict": "not run", "checks": [], "log": []}
            seen.setdefault(number, {**unseen, "figures": {}})
        both = {**self._earlier, **{number: one for number, one in seen.items() if _better(one, self._earlier, number)}}
        scenarios = [both[number] for number in sorted(both)]
        daemon_record.write(self._out, {**self._about, "scenarios": scenarios})


def _better(one: dict[str, Any], earlier: dict[str, Any], number: str) -> bool:
    """What was not run takes nothing of an earlier run's away."""
    return number not in earlier or bool(one["checks"])


def _earlier(path: Path) -> dict[str, Any]:
    with suppress(ValueError, KeyError, TypeError):
        return {one["name"].split(" ")[0]: one for one in json.loads(path.read_text())["scenarios"]}
    return {}


def _first_build_s(earlier: dict[str, Any]) -> float | None:
    """Of the first boot in a state folder that this run goes on with."""
    plan = earlier.get("1", {}).get("figures", {}).get("plan", {})
    return plan.get("build_s")


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _text(topic: str, content: dict[str, Any]) -> str:
    """A message in a line, without what changes all the time."""
    if topic == "status":
        return ": ".join(filter(None, (content.get("state", ""), content.get("reason", ""))))
    if topic == "engine":
        names = ("fingerprint", "backend", "precision", "target", "weights")
        serving = " ".join(str(content[name]) for name in names if content.get(name))
        next_ = "".join(f"; {what} {content[what]}" for what in ("building", "loading") if content.get(what))
        return f"serves {serving or 'nothing'}{next_}{'; ' if content.get('why') else ''}{content.get('why', '')}"
    return ": ".join(filter(None, (content.get("state", ""), content.get("reason", "")))) if content else ""


def _ended(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, _ended)
    paths = [ROOT, *(Path(path).absolute() for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, paths))  # children are started in other folders
    began_s = time.monotonic()
    code = Run(given).all()
    print(f"{time.monotonic() - began_s:.0f} s; {given.out}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
