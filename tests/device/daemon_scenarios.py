"""Scenarios: what happens to a daemon in the field, one function each. See ``daemon.py`` for how they are run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import daemon_ears
import orjson
from daemon_ears import Shot
from daemon_record import Record
from daemon_rig import BACKENDS, Rig, Turn, failed, served
from station import build_children

from vajra_edge.build.request import weights_digest
from vajra_edge.plans.fingerprint import LIBRARY, Fingerprint, Part, _hash
from vajra_edge.plans.history import History

Scenario = Callable[[Rig, Record], None]
RETRY_WITHIN_S = 60.0
"""The first retry comes after 30 s."""
MARKED_S = 3.0
"""The daemon notes that a plan is good once it serves, on a thread of its own."""


def boot(rig: Rig, record: Record, *, label: str = "boot") -> tuple[str, float]:
    """Start on what the state folder has, until what is wanted serves; returns its fingerprint and when it started."""
    started_s = rig.start()

    def first_shot() -> Shot | None:
        rig.status()  # notes the stage of a build
        return next(iter(rig.ears.shots(started_s)), None)

    shot: Shot = rig.until("a first detection message", first_shot)
    first = {"s": round(shot.at_s - started_s, 2), "by": f"{shot.fingerprint} {shot.precision} {shot.target}"}
    record.figure(**{f"{label}_first_detection": first})
    turn = rig.turn(started_s)
    record.figure(**{f"{label}_serving_s": turn.to_json()["serving"]})
    record.check(f"{label}: the wanted plan serves", served(turn.status), rig.brief())
    return turn.engine["wanted"], started_s


def ensure(rig: Rig, record: Record) -> str:
    """A fresh process that serves the plan of the first weights and base settings, which is then the current one."""
    rig.stop()
    rig.settings = rig.base()
    rig.write_weights(rig.inputs.weights)
    rig.write()
    wanted, _ = boot(rig, record, label="before")
    good = rig.wait(lambda: rig.store._linked("current") == wanted, MARKED_S)
    if not good:  # it was built just now and is on probation; one that serves from the start is not
        rig.stop()
        wanted, _ = boot(rig, record, label="before_again")
        good = rig.wait(lambda: rig.store._linked("current") == wanted, MARKED_S)
    record.check("before: the plan counts as good", good, rig.store._linked("current"))
    steady = rig.steady(wanted)
    record.figure(before_frame_interval_s=daemon_ears.median_gap_s(steady))
    return str(wanted)


def unbroken(rig: Rig, record: Record, since_s: float, label: str) -> None:
    """No loss of detection messages since then, whatever was swapped."""
    shots = rig.ears.shots(since_s)
    gap_s = daemon_ears.largest_gap_s(shots)
    figures = {
        "messages": len(shots),
        "largest_gap_s": gap_s,
        "median_gap_s": daemon_ears.median_gap_s(shots),
        "swaps": daemon_ears.swaps(shots),
        "lost": daemon_ears.lost(shots),
    }
    record.figure(**{f"{label}_detections": figures})
    limit_s = rig.inputs.gap_s
    record.check(f"{label}: no gap above {limit_s:g} s in the detections", gap_s is not None and gap_s < limit_s, gap_s)
    record.check(f"{label}: no number is missing", figures["lost"] == 0, figures["lost"])


def words(rig: Rig, since_s: float) -> list[str]:
    """Everything that the engine and status topics gave as reasons."""
    told = [said.content.get("why") or said.content.get("reason") for said in rig.ears.said(since_s)]
    return [text for text in dict.fromkeys(told) if text]


def turned(rig: Rig, record: Record, asked_s: float, before: str, label: str) -> Turn:
    """Follow a change to its end, and note what it took."""
    turn = rig.turn(asked_s, before)
    record.figure(**{f"{label}_s": turn.to_json(), f"{label}_plan": rig.built(turn.engine["wanted"])})
    record.figure(**{f"{label}_words": words(rig, asked_s)})
    record.check(f"{label}: the wanted plan serves", served(turn.status), rig.brief())
    rig.steady(turn.engine["wanted"], 10)
    unbroken(rig, record, asked_s, label)
    return turn


def first_boot(rig: Rig, record: Record) -> None:
    """An empty state folder: an ONNX Runtime plan serves while the wanted one is built."""
    rig.stop()
    shutil.rmtree(rig.state_dir, ignore_errors=True)
    rig.settings = rig.base()
    rig.write_weights(rig.inputs.weights)
    rig.write()
    wanted, started_s = boot(rig, record, label="first_boot")
    rig.steady(wanted)
    built = rig.built(wanted)
    rig.first_build_s = built.get("build_s")
    record.figure(plan=built, words=words(rig, started_s))
    shots = rig.ears.shots(started_s)
    meanwhile = [shot for shot in shots if shot.fingerprint != wanted[:12]]
    record.check("an interim plan serves first, on the CPU", meanwhile and meanwhile[0].target == "cpu")
    said = [one for one in rig.ears.said(started_s, "engine") if one.content["fingerprint"]]
    what = {name: said[0].content[name] for name in ("backend", "precision", "target", "fingerprint")} if said else {}
    record.check("the engine topic says ONNX Runtime and FP32 of it", _says(what, "onnxruntime", "fp32"), what)
    what = {name: said[-1].content[name] for name in ("backend", "precision", "target", "fingerprint")} if said else {}
    base = BACKENDS[rig.inputs.backend]
    record.check("then it says what the settings ask for", _says(what, base["backend"], base["precision"]), what)
    interim = meanwhile[0].fingerprint if meanwhile else ""
    rates = {"interim_s": rig.ears.shots(started_s, interim), "wanted_s": rig.ears.shots(started_s, wanted)}
    record.figure(**{name: daemon_ears.median_gap_s(shots) for name, shots in rates.items()})
    record.check("one swap", len(daemon_ears.swaps(shots)) == 1, daemon_ears.swaps(shots))
    record.figure(on_probation=rig.status().get("engine", {}).get("on_probation"))
    unbroken(rig, record, started_s, "first_boot")


def _says(what: dict[str, Any], backend: str, precision: str) -> bool:
    return (what.get("backend"), what.get("precision")) == (backend, precision)


def second_boot(rig: Rig, record: Record) -> None:
    """The plan is there: seconds from the start of the process to the first detection, twice."""
    wanted = ensure(rig, record)
    for number in (1, 2):
        code, seconds = rig.stop()
        record.check(f"stop {number}: exit code 0", code == 0, {"code": code, "s": seconds})
        _, started_s = boot(rig, record, label=f"boot_{number}")
        shots = rig.ears.shots(started_s)
        record.check(
            f"boot {number}: the stored plan alone serves", {one.fingerprint for one in shots} == {wanted[:12]}
        )
        building = [one for one in rig.ears.said(started_s, "engine") if one.content.get("building")]
        record.check(f"boot {number}: nothing is built", not building, len(building))


def new_weights(rig: Rig, record: Record) -> None:
    """The weights file is replaced, and put back."""
    first = ensure(rig, record)
    digest = weights_digest(rig.inputs.second)
    asked_s = time.monotonic()
    rig.say("replace the weights file")
    rig.write_weights(rig.inputs.second)
    turn = turned(rig, record, asked_s, first, "new_weights")
    record.check("the engine topic names the new weights", _last_engine(rig, asked_s).get("weights_sha256") == digest)
    shots = rig.ears.shots(asked_s)
    second = turn.engine["wanted"]
    known = {first[:12], second[:12]}
    record.check("the old plan serves until the new one does", {shot.fingerprint for shot in shots} == known)
    asked_s = time.monotonic()
    rig.say("put the first weights back")
    rig.write_weights(rig.inputs.weights)
    back = turned(rig, record, asked_s, second, "put_back")
    record.check("the stored plan serves again without a build", back.building_after_s is None, back.to_json())


def _last_engine(rig: Rig, since_s: float) -> dict[str, Any]:
    said = rig.ears.said(since_s, "engine")
    return said[-1].content if said else {}


def new_precision(rig: Rig, record: Record) -> None:
    """The settings file asks for INT8, FP32, and what it was."""
    before = ensure(rig, record)
    base = BACKENDS[rig.inputs.backend]["precision"]
    images = {"data": str(rig.inputs.photos), "max_images": rig.inputs.max_images}
    for precision in dict.fromkeys(("int8", "fp32", base)):
        with record.part(precision):
            asked_s = time.monotonic()
            rig.say(f"settings: precision = {precision}")
            rig.settings["calibration"] = images if precision == "int8" else {}
            rig.write(engine={"precision": precision})
            turn = turned(rig, record, asked_s, before, precision)
            before = turn.engine["wanted"] or before
            _judge_precision(record, precision, turn)


def _judge_precision(record: Record, precision: str, turn: Turn) -> None:
    serving = turn.serving
    achieved = {name: serving.get(name) for name in ("wanted_precision", "precision", "rejected")}
    record.check(f"{precision}: is what was asked for", serving.get("wanted_precision") == precision, achieved)
    reached = serving.get("precision") == precision or bool(serving.get("rejected"))
    record.check(f"{precision}: is what serves, or why not is said", reached, achieved)
    verify = serving.get("verify") or {}
    known = ("passed", "judged", "reason", "recall", "latency_p50_ms", "int8_ms", "fp16_ms", "speed")
    record.figure(**{f"{precision}_gate": {name: verify.get(name) for name in known}})
    record.check(f"{precision}: the gate passed it", verify.get("passed"), verify.get("reason"))


def killed_build(rig: Rig, record: Record) -> None:
    """SIGKILL of the build child, then of the daemon in its second try."""
    first = ensure(rig, record)
    before = set(rig.store.plans())
    asked_s = time.monotonic()
    rig.say("settings: simplify = false, which needs a build")
    rig.write(engine={"simplify": False})
    child = in_build(rig, record, "first try")
    os.kill(child, signal.SIGKILL)
    killed_s = time.monotonic()
    rig.say("SIGKILL to the build child")
    told = rig.until("the daemon says so", lambda: _with_error(rig.status()), 15.0)
    retry_in_s = told["engine"]["retry_in_s"]
    record.check("killed child: the status says why", "SIGKILL" in told["reason"], told["reason"])
    record.check("killed child: it will be tried again", retry_in_s is not None, retry_in_s)
    rig.steady(first, 10)
    heard = _last_engine(rig, asked_s)
    record.check("killed child: the engine topic says why", "SIGKILL" in heard.get("why", ""), heard.get("why"))
    record.check("killed child: the old plan serves", heard.get("fingerprint") == first[:12], heard.get("fingerprint"))
    in_build(rig, record, "second try", RETRY_WITHIN_S)
    record.figure(retried_after_s=round(time.monotonic() - killed_s, 1))
    unbroken(rig, record, asked_s, "killed_child")
    _kill_daemon(rig, record, first, before)


def _with_error(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if told.get("engine", {}).get("last_error") else None


def in_build(rig: Rig, record: Record, what: str, limit_s: float | None = None) -> int:
    """Wait until a build child is at its library's work; returns its process id."""
    process = rig.process
    pid = process.pid if process else 0

    def at_work() -> int:
        building = rig.status().get("engine", {}).get("building")
        children = build_children(pid)
        return children[0] if building and building["stage"] == "build" and children else 0

    child = int(rig.until(f"{what}: a build child at work", at_work, limit_s))
    record.check(f"{what}: a build child is at work", child)
    return child


def _kill_daemon(rig: Rig, record: Record, first: str, before: set[str]) -> None:
    """And start it again."""
    process = rig.process
    children = build_children(process.pid) if process else []
    earlier = _charged(rig, first)
    killed_s = time.monotonic()
    rig.kill()
    rig.wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 10.0)
    gone = [child for child in children if not Path(f"/proc/{child}").exists()]
    record.check("killed daemon: the build child dies with it", children and gone == children, children)
    rig.wait(lambda: _is_lost(rig, killed_s), 10.0)
    record.check("killed daemon: the broker says lost", _is_lost(rig, killed_s))
    plans, staging = set(rig.store.plans()), sorted(path.name for path in (rig.state_dir / "staging").iterdir())
    record.check("killed daemon: no plan is there that was not", plans == before, len(plans - before))
    whole = all(rig.store.get(plan) is not None for plan in plans)
    record.check("killed daemon: every plan in the store is whole", whole, [plan[:12] for plan in plans])
    record.figure(left_in_staging=staging)
    wanted, started_s = boot(rig, record, label="restart")
    rig.steady(wanted, 10)
    shots = rig.ears.shots(started_s)
    record.check("restart: the good plan serves first", shots[0].fingerprint == first[:12], shots[0].fingerprint)
    record.check("restart: then the wanted one", len(daemon_ears.swaps(shots)) == 1, daemon_ears.swaps(shots))
    record.figure(restart_plan=rig.built(wanted), restart_words=words(rig, started_s))
    charged = _charged(rig, first)
    record.check("restart: a plan is not charged with a SIGKILL", charged == earlier, charged)
    unbroken(rig, record, started_s, "restart")


def _charged(rig: Rig, plan: str) -> list[str]:
    """What the plan is charged with by now; a scenario before may have lost it the GPU."""
    return [one.reason for one in History(rig.store.root).failures() if one.fingerprint == plan]


def _is_lost(rig: Rig, since_s: float) -> bool:
    return any(said.content.get("state") == "lost" for said in rig.ears.said(since_s, "status"))


def damaged_plan(rig: Rig, record: Record) -> None:
    """The stored plan has other bytes, or half of them, when the daemon starts."""
    for name, spoil in (("flipped", _flip), ("truncated", _truncate)):
        with record.part(name):
            first = ensure(rig, record)
            created_at = rig.built(first).get("created_at")
            rig.stop()
            aside = set(_quarantined(rig))
            spoil(rig.state_dir / "engines" / first / "plan")
            rig.say(f"the plan is {name}")
            wanted, started_s = boot(rig, record, label=name)
            rig.steady(wanted, 10)
            built = rig.built(wanted)
            record.figure(**{f"{name}_plan": built, f"{name}_words": words(rig, started_s)})
            record.check(f"{name}: the same plan is built anew", wanted == first, wanted[:12])
            record.check(f"{name}: it is another one", built.get("created_at") != created_at, built.get("created_at"))
            building = any(one.content.get("building") for one in rig.ears.said(started_s, "engine"))
            record.check(f"{name}: the engine topic says that it is built", building)
            new = {folder: reason for folder, reason in _quarantined(rig).items() if folder not in aside}
            record.check(f"{name}: the damaged one is in quarantine, with the reason", len(new) == 1, new)
            told = words(rig, started_s)
            said = any(reason in text for reason in new.values() for text in told)
            record.check(f"{name}: a topic says what was wrong with it", said, told)
            unbroken(rig, record, started_s, name)


def _flip(plan: Path) -> None:
    """Ten bytes in the middle; the length stays."""
    with plan.open("r+b") as file:
        file.seek(plan.stat().st_size // 2)
        content = file.read(10)
        file.seek(-len(content), os.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in content))


def _truncate(plan: Path) -> None:
    os.truncate(plan, plan.stat().st_size // 2)


def _quarantined(rig: Rig) -> dict[str, str]:
    found = (rig.state_dir / "quarantine").glob("*/reason.txt")
    return {path.parent.name: path.read_text().strip() for path in found}


def foreign_plan(rig: Rig, record: Record) -> None:
    """What an upgrade of the library leaves behind: plans of the release before, signed by this very device."""
    first = ensure(rig, record)
    rig.stop()
    aged = _age_plans(rig)
    record.figure(aged={old[:12]: new[:12] for old, new in aged.items()})
    rig.say("every plan is one of an earlier library")
    _boot_beside(rig, record, first, set(aged.values()), "upgraded")
    with record.part("in_place"):
        rig.stop()
        _age_in_place(rig, first)
        rig.say("the wanted plan's own place holds a plan of an earlier library")
        _boot_beside(rig, record, first, set(), "in_place")


def _boot_beside(rig: Rig, record: Record, first: str, foreign: set[str], label: str) -> None:
    began_bytes = rig.journal_bytes()
    wanted, started_s = boot(rig, record, label=label)
    rig.steady(wanted, 10)
    shots = rig.ears.shots(started_s)
    seen = {shot.fingerprint for shot in shots}
    record.check(f"{label}: no plan of the other library serves", not seen & {one[:12] for one in foreign}, list(seen))
    record.check(f"{label}: the wanted plan is the one of before", wanted == first, wanted[:12])
    manifest = rig.manifest(wanted)
    own = manifest is not None and not any(_OLD in part.value for part in manifest.fingerprint.parts)
    record.check(f"{label}: it is built anew by this library", own)
    told = [*words(rig, started_s), *(line for line in rig.journal(began_bytes) if _OLD in line)]
    record.check(f"{label}: what changed is said", any(_OLD in text for text in told), told[:6])
    record.figure(**{f"{label}_plan": rig.built(wanted), f"{label}_words": words(rig, started_s)})
    unbroken(rig, record, started_s, label)


_OLD = "0.9.9"


def _old_parts(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(
        replace(part, value=f"{part.value.split(' ')[0]} {_OLD}") if part.key == LIBRARY else part for part in parts
    )


def _age_plans(rig: Rig) -> dict[str, str]:
    """Every plan of the backend becomes one that an earlier library built, as the store itself would have kept it."""
    store, aged = rig.store, {}
    links = [store._linked(link) for link in ("previous", "current")]
    for fingerprint in store.plans():
        plan = store.get(fingerprint)
        if plan is None or plan.manifest.backend != rig.inputs.backend:
            continue
        parts = _old_parts(plan.manifest.fingerprint.parts)
        old = Fingerprint(_hash(parts), parts)
        store.commit(plan.read(), replace(plan.manifest, fingerprint=old))
        aged[fingerprint] = old.digest
        shutil.rmtree(rig.state_dir / "engines" / fingerprint)
    for link in links:
        if link in aged:
            store.mark_good(aged[link])
    return aged


def _age_in_place(rig: Rig, fingerprint: str) -> None:
    """The name stays, the parts are those of an earlier library: what two readings of one machine would leave."""
    plan = rig.store.get(fingerprint)
    if plan is not None:
        old = Fingerprint(fingerprint, _old_parts(plan.manifest.fingerprint.parts))
        rig.store.commit(plan.read(), replace(plan.manifest, fingerprint=old))


def forced_rebuild(rig: Rig, record: Record) -> None:
    """``rebuild --force``: the same network again, with the timings of the first build."""
    first = ensure(rig, record)
    old = rig.built(first)
    asked_s = time.monotonic()
    rig.say("vajra-edge rebuild --force")
    command = subprocess.Popen(
        rig.command("rebuild", "--force", "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        ended = rig.wait(lambda: rig.status() and command.poll() is not None)
    finally:
        command.kill()
        said = command.communicate()[0].decode(errors="replace").strip()
    taken_s = round(time.monotonic() - asked_s, 2)
    record.check("the command ends well", ended and command.returncode == 0, said[-400:])
    told = _parsed(said)
    record.check("it built the plan that is wanted", told.get("fingerprint") == first and told.get("built"), told)
    rig.until("nothing is being built, and the plan serves", lambda: served(rig.status()), 20.0)
    rig.steady(first, 10)
    new = rig.built(first)
    record.check("the plan is another one", new.get("created_at") != old.get("created_at"), new.get("created_at"))
    times = {"first_build_s": rig.first_build_s, "build_before_s": old.get("build_s"), "build_s": new.get("build_s")}
    record.figure(**times, command_s=taken_s, plan=new, words=words(rig, asked_s))
    record.check("nothing failed", not failed(rig.status()), rig.brief())
    unbroken(rig, record, asked_s, "rebuild")


def lost_gpu(rig: Rig, record: Record) -> None:
    """The GPU is told to read where nothing is, and CUDA ends all of the process's work."""
    rig.settings = rig.base()
    rig.write_weights(rig.inputs.weights)
    rig.write()
    ensure(rig, record)
    path = rig.status().get("engine", {}).get("serving", {}).get("path", "")
    record.figure(path=path)
    if not record.check("the plan's frames are prepared on a GPU, which can be lost", path.startswith("GPU"), path):
        return
    rig.stop()
    began, before = rig.start(fault_after=200), rig.journal_bytes()
    process = rig.process
    record.check("it serves first", rig.wait(lambda: rig.ears.shots(began)))
    code = rig.wait(lambda: process.poll() if process is not None else None)
    ended_s = time.monotonic()
    record.check("the process ends by itself, and not as if all were well", code not in {None, 0}, code)
    rig.process = None
    shots = rig.ears.shots(began)
    record.figure(shots=len(shots), lines=[line for line in rig.journal(before) if "CUDA" in line][:4])
    record.check("some two hundred frames were told", 100 <= len(shots) <= 210, len(shots))
    time.sleep(2.0)
    record.check("nothing is told afterwards", not rig.ears.shots(ended_s))
    boot(rig, record, label="after_lost_gpu")


def _parsed(said: str) -> dict[str, Any]:
    try:
        return dict(orjson.loads(said.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return {}


SCENARIOS: dict[str, tuple[str, Scenario, int]] = {
    "1": ("first boot, an ONNX Runtime plan meanwhile", first_boot, 1),
    "2": ("second boot with the stored plan", second_boot, 0),
    "3": ("weights replaced", new_weights, 1),
    "4": ("precision changed", new_precision, 3),
    "5": ("build child and daemon killed in a build", killed_build, 2),
    "6": ("damaged plan", damaged_plan, 2),
    "7": ("plan of another library version", foreign_plan, 2),
    "8": ("forced rebuild", forced_rebuild, 1),
    "9": ("a GPU that is lost", lost_gpu, 0),
}
"""Name, function, and how many builds it takes at least, by number."""
