"""Rig: broker, subscriber, settings file and the daemon as a process of its own, as ``daemon.py`` uses them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon_ears import Ears, Shot
from daemon_record import Budget, BudgetOver, Missed, Record

from vajra_edge.daemon.control.client import ask
from vajra_edge.demo.broker import Broker, die_with_parent
from vajra_edge.errors import VajraError
from vajra_edge.plans import report_json
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.store import EngineStore

DEVICE, CAMERA = "rig", "gate"
STEP_S = 0.05
STEADY_SHOTS = 20
LOAD_S = 15.0
"""While a plan is loaded nothing is being built, and what went wrong before is still said."""

BACKENDS: dict[str, dict[str, Any]] = {
    "tensorrt": {"backend": "tensorrt", "precision": "fp16", "optimization_level": 0},
    # Another workspace makes another fingerprint, so that the quick plan is one of its own here too.
    "onnxruntime": {"backend": "onnxruntime", "precision": "fp32", "workspace_gib": 1.0},
}


@dataclass(frozen=True)
class Inputs:
    """Files and limits of a run; plans are for ``target``."""

    backend: str
    target: str
    weights: Path
    second: Path
    clip: Path
    photos: Path
    max_images: int
    limit_s: float
    gap_s: float


@dataclass(frozen=True)
class Turn:
    """From a change to the plan that it asks for; times from the change, None where that was not seen."""

    status: dict[str, Any]
    wanted_after_s: float
    building_after_s: float | None
    serving_after_s: float | None

    @property
    def engine(self) -> dict[str, Any]:
        return dict(self.status["engine"])

    @property
    def serving(self) -> dict[str, Any]:
        return self.engine["serving"] or {}

    def to_json(self) -> dict[str, Any]:
        times = {"wanted": self.wanted_after_s, "building": self.building_after_s, "serving": self.serving_after_s}
        return {name: None if value is None else round(value, 2) for name, value in times.items()}


class Rig:
    """Everything around one daemon.

    Args:
        folder: settings, weights and state.
        inputs: of the run.
        budget: for the whole run; every wait ends with it.
        log: the daemon's journal is added to this file.
    """

    def __init__(self, folder: Path, inputs: Inputs, budget: Budget, log: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.inputs, self.budget, self.log = inputs, budget, log
        self.config, self.weights, self.state_dir = folder / "config.toml", folder / "net.onnx", folder / "state"
        self._sockets = tempfile.TemporaryDirectory(prefix="vajra-rig-")  # a socket's path has 108 bytes at the most
        self.socket = Path(self._sockets.name) / "control.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self.first_build_s: float | None = None
        self.longest_build_s = 0.0
        self.record: Record | None = None
        self._broker = Broker("amqtt")
        host, port = self._broker.open()
        self.ears = Ears(host, port, f"vajra/{DEVICE}")
        self._mqtt = {"host": host, "port": port, "protocol": self._broker.protocol}
        self.settings = self.base()

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        self.ears.close()
        self._broker.close()
        self._sockets.cleanup()

    @property
    def store(self) -> EngineStore:
        return EngineStore(self.state_dir, 1 << 40)

    def base(self) -> dict[str, dict[str, Any]]:
        """Settings that every scenario begins with."""
        return {
            "weights": {"path": str(self.weights)},
            "engine": {**BACKENDS[self.inputs.backend], "target": self.inputs.target, "first_boot": "serve"},
            "calibration": {},
            "mqtt": self._mqtt,
            "store": {"state_dir": str(self.state_dir)},
            "service": {"control_socket": str(self.socket), "settle_s": 0.5, "poll_s": 0.2, "drain_s": 5.0},
        }

    def write(self, **sections: dict[str, Any]) -> None:
        """Write the settings file with these changes, by a rename."""
        for name, fields in sections.items():
            self.settings[name] = {**self.settings[name], **fields}
        lines = [f'device_id = "{DEVICE}"']
        for name, fields in self.settings.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in fields.items())]
        lines += ["[[cameras]]", f'id = "{CAMERA}"', f"source = {json.dumps(str(self.inputs.clip))}"]
        lines += ["realtime = true", "loop = true"]
        aside = self.config.with_suffix(".new")
        aside.write_text("\n".join(lines) + "\n")
        aside.replace(self.config)

    def write_weights(self, source: Path) -> None:
        """Replace the weights file by a rename, as a careful operator does."""
        aside = self.weights.with_suffix(".new")
        shutil.copyfile(source, aside)
        aside.replace(self.weights)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "vajra_edge", words[0], "--config", str(self.config), *words[1:]]

    def start(self, fault_after: int | None = None) -> float:
        """Start the daemon; returns when, on the monotonic clock.

        Args:
            fault_after: with the fault of ``faulty`` in it, after so many frames.
        """
        self.say("start the daemon")
        command = self.command("run")
        if fault_after is not None:
            command = [command[0], str(Path(__file__).with_name("faulty.py")), str(fault_after), *command[3:]]
        with self.log.open("ab") as log:
            self.started_s = time.monotonic()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, through a library that is loaded already
            )
        return self.started_s

    def stop(self) -> tuple[int, float]:
        """SIGTERM; returns the exit code and the seconds that it took."""
        process, self.process = self.process, None
        if process is None:
            return 0, 0.0
        self.say("SIGTERM to the daemon")
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return code, round(time.monotonic() - began_s, 2)

    def kill(self) -> int:
        """SIGKILL; returns the exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        self.say("SIGKILL to the daemon")
        process.kill()
        return process.wait()

    def say(self, text: str) -> None:
        if self.record is not None:
            self.record.say("script", text)

    def journal(self, since_bytes: int) -> list[str]:
        with self.log.open("rb") as file:
            file.seek(since_bytes)
            return file.read().decode(errors="replace").splitlines()

    def journal_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def status(self) -> dict[str, Any]:
        """The daemon's own word; empty where it does not answer."""
        try:
            told = list(ask(self.socket, {"verb": "status"}, answer_within_s=10.0))[-1]["status"]
        except (VajraError, OSError, LookupError):
            return {}
        if self.record is not None and (building := told["engine"]["building"]):
            doing = re.sub(r"[0-9.]+", "#", building["message"])
            self.record.say("build", f"{building['fingerprint'][:12]} {building['stage']}: {doing}")
        return dict(told)

    def wait(self, condition: Callable[[], Any], limit_s: float | None = None) -> Any:
        """What the condition came to, or what it was at the end of the time.

        Raises:
            BudgetOver: the time for the whole run is over.
            Missed: the daemon ended meanwhile.
        """
        until_s = time.monotonic() + (self.inputs.limit_s if limit_s is None else limit_s)
        while not (value := condition()):
            if self.budget.left_s < 0:
                raise BudgetOver
            if self.process is not None and self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                raise Missed(f"the daemon ended with exit code {code}")
            if time.monotonic() > until_s:
                break
            time.sleep(STEP_S)
        return value

    def until(self, what: str, condition: Callable[[], Any], limit_s: float | None = None) -> Any:
        """As ``wait``.

        Raises:
            Missed: it did not happen; the message has the daemon's status.
        """
        began_s = time.monotonic()
        if value := self.wait(condition, limit_s):
            return value
        raise Missed(f"{what}: not within {time.monotonic() - began_s:.0f} s; {self.brief()}")

    def brief(self) -> str:
        """The daemon's status in a line."""
        told = self.status()
        if not told:
            return "the daemon does not answer"
        engine = told["engine"]
        kept = {name: engine[name] for name in ("last_error", "retry_in_s", "building", "calibration") if engine[name]}
        plans = {"wanted": str(engine["wanted"])[:12], "serving": (engine["serving"] or {}).get("fingerprint", "")[:12]}
        return json.dumps({"phase": told["phase"], "reason": told["reason"], **plans, **kept})

    def turn(self, since_s: float, before: str | None = None, limit_s: float | None = None) -> Turn:
        """Wait until another plan than ``before`` is wanted, and it serves or has failed for good."""
        wanted_s = building_s = failed_s = None

        def done() -> dict[str, Any] | None:
            nonlocal wanted_s, building_s, failed_s
            told = self.status()
            engine = told.get("engine", {})
            if not engine.get("wanted") or engine["wanted"] == before:
                return None
            now_s = time.monotonic()
            wanted_s = wanted_s or now_s - since_s
            if (building := engine["building"]) and not building["quick"]:
                building_s = building_s or now_s - since_s
            failed_s = (failed_s or now_s) if failed(told) else None
            return told if served(told) or (failed_s is not None and now_s - failed_s > LOAD_S) else None

        told = self.until("the wanted plan serves", done, limit_s)
        serving_s = time.monotonic() - since_s if served(told) else None
        return Turn(told, wanted_s or 0.0, building_s, serving_s)

    def manifest(self, fingerprint: str) -> Manifest | None:
        plan = self.store.get(fingerprint)
        return plan.manifest if plan else None

    def built(self, fingerprint: str) -> dict[str, Any]:
        """Figures of a stored plan's build."""
        manifest = self.manifest(fingerprint)
        if manifest is None:
            return {"stored": False}
        if manifest.backend == self.inputs.backend:
            self.longest_build_s = max(self.longest_build_s, manifest.build_s)
        notes = report_json.write(manifest.report)
        known = ("rung", "stages", "timing_cache", "timing_expected", "nodes", "int8")
        return {
            "fingerprint": fingerprint[:12],
            "backend": manifest.backend,
            "wanted": manifest.wanted.precision.value,
            "precision": manifest.precision.value,
            "target": str(manifest.target),
            "build_s": round(manifest.build_s, 2),
            "created_at": manifest.created_at,
            "size_bytes": manifest.size_bytes,
            "verify": report_json.write_verify(manifest.verify),
            "notes": {name: _bounded(notes[name]) for name in known if name in notes},
            "rejected": [_bounded(one) for one in notes["rejected"]],
        }

    def steady(self, fingerprint: str, shots: int = STEADY_SHOTS, limit_s: float = 15.0) -> list[Shot]:
        """The next messages of a plan."""
        since_s = time.monotonic()
        self.wait(lambda: len(self.ears.shots(since_s, fingerprint)) >= shots, limit_s)
        return self.ears.shots(since_s, fingerprint)


def served(told: dict[str, Any]) -> bool:
    """What is wanted serves, and nothing is being built."""
    engine = told.get("engine", {})
    serving = engine.get("serving")
    return bool(serving) and serving["fingerprint"] == engine["wanted"] and not engine["building"]


def failed(told: dict[str, Any]) -> bool:
    """It does not, and nobody tries again."""
    engine = told.get("engine", {})
    return bool(engine.get("last_error")) and not engine["building"] and engine["retry_in_s"] is None


def _bounded(value: Any) -> Any:
    """Notes hold whole sensitivity curves."""
    if isinstance(value, dict):
        return {key: _bounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and len(value) > 8:
        return f"{len(value)} entries"
    return value
