"""Who is charged with a death: real crashes in real threads of a process, and tables of what a process can leave."""

from __future__ import annotations

import importlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import wait_for

from vajra_edge.clock import Moment
from vajra_edge.daemon import death, watchdog
from vajra_edge.daemon.crash_log import CrashLog, Left, Marker
from vajra_edge.daemon.death import Death, End, judge
from vajra_edge.plans.charges import ALONE_S, Charge, Charged, hold_of

A, B = "a" * 64, "b" * 64
HERE = Moment("this", 100.0, 0.0, synchronised=False)
MARKER = Marker(HERE, 1, serving=A, loading=B, killed=4)
SERVES = replace(MARKER, loading=None)

CODE = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from vajra_edge.daemon import aborts
aborts.block()
from vajra_edge.daemon import crash_log, deployment
from vajra_edge.daemon.crash_log import CrashLog
from vajra_edge.daemon.events import Job
from vajra_edge.inference import detector, pipeline
crash_log.HELD_S = 2.0
log = CrashLog(Path(sys.argv[1]))
log.open()
aborts.start()
log.serving("a" * 64)
how, where = sys.argv[2:]
def crash(*_):
    if how == "segv":
        ctypes.string_at(0)
    if how == "abort":
        ctypes.CDLL(None).abort()
    if how == "outside":
        os.kill(os.getpid(), signal.SIGABRT)
    if how == "hold":
        ctypes.PyDLL(None).sleep(60)
    time.sleep(60)
def load(_=None):
    plans = deployment.Plans.__new__(deployment.Plans)
    plans._crash_log, plans._opened = log, where == "load" and crash or (lambda job: time.sleep(60))
    plans._load(Job(1, "b" * 64))
def infer(first=False):
    (detector._first if first else detector._timed)(crash, None)
def loop():
    one = pipeline.Pipeline.__new__(pipeline.Pipeline)
    one._stop, one._beat = threading.Event(), crash
    one._run()
def camera():
    from vajra_edge.capture.camera import Grabber
    one = Grabber.__new__(Grabber)
    one._beat, one._round = crash, crash
    one._run()
beside = [load] if where in ("warm-up", "plan beside a load") else []
targets = {
    "load": load, "plan": infer, "warm-up": lambda: infer(True), "plan beside a load": infer, "loop": loop,
    "camera": camera, "other": crash,
}
for target in beside:
    threading.Thread(target=target, daemon=True).start()
    while b"b" * 64 not in Path(sys.argv[1]).read_bytes():
        time.sleep(0.01)
threading.Thread(target=targets[where], daemon=True).start()
while True:
    log.moves()
    time.sleep(0.05)
"""


def died(path: Path, how: str, where: str, watch: Callable[[subprocess.Popen[str]], None] = lambda _: None) -> Death:
    command = [sys.executable, "-c", CODE, str(path), how, where]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        watch(process)
        _, told = process.communicate(timeout=90)
    assert process.returncode < 0, told
    log = CrashLog(path)
    left = log.open()
    log.close()
    assert left is not None
    return judge(left)


CRASHES = {
    ("segv", "load"): (B, Charged.LOAD),
    ("abort", "load"): (B, Charged.LOAD),
    ("segv", "warm-up"): (B, Charged.LOAD),
    ("segv", "plan"): (A, Charged.CRASH),
    ("abort", "plan"): (A, Charged.CRASH),
    ("segv", "plan beside a load"): (A, Charged.CRASH),
    ("segv", "loop"): (A, Charged.CRASH),
    ("segv", "camera"): (None, None),
    ("segv", "other"): (None, None),
    ("outside", "plan"): (None, None),
    ("outside", "load"): (None, None),
}


@pytest.mark.parametrize(("how", "where"), CRASHES)
def test_a_crash_is_charged_to_the_plan_that_its_thread_worked_for(tmp_path: Path, how: str, where: str):
    found = died(tmp_path / "running", how, where)
    fingerprint, charged = CRASHES[how, where]
    assert found.fingerprint == fingerprint
    assert found.end is (End.STALL if how == "outside" else End.CRASH)
    if fingerprint is not None:
        assert found.charged is charged
        assert fingerprint[:12] in found.line


def test_a_load_that_keeps_python_from_all_threads_is_charged(tmp_path: Path):
    def abort(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: (path := tmp_path / "running.held").exists() and path.read_bytes().count(b"Timeout (") >= 2)
        process.send_signal(signal.SIGABRT)

    found = died(tmp_path / "running", "hold", "load", abort)
    assert (found.end, found.fingerprint, found.charged) == (End.STALL, B, Charged.LOAD)


def test_a_load_is_not_charged_where_the_whole_process_stood_still(tmp_path: Path):
    def stop(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: (path := tmp_path / "running").exists() and B.encode() in path.read_bytes())
        process.send_signal(signal.SIGSTOP)
        time.sleep(7.0)  # more than three times as long as the load would have needed to be guilty
        process.send_signal(signal.SIGABRT)
        process.send_signal(signal.SIGCONT)

    found = died(tmp_path / "running", "sleep", "load", stop)
    assert (found.end, found.fingerprint) == (End.STALL, None)


def dump(*threads: str, what: str = "Segmentation fault") -> str:
    return "\n\n".join((f"Fatal Python error: {what}", *threads))


def thread(*frames: tuple[str, str], current: bool = False) -> str:
    head = f"{'Current thread' if current else 'Thread'} 0x00007f0000000000 (most recent call first):"
    return "\n".join((head, *(f'  File "/opt/{path}", line 7 in {function}' for path, function in frames)))


RUNS, LOADS, TAKES = thread(death.RUNS), thread(death.LOADS), thread(death.TAKES_ABORTS, current=True)
READS = thread(("vajra_edge/plans/store.py", "get"), death.LOADS)
IDLE = thread(("threading.py", "wait"))
CAMERA = thread(("vajra_edge/capture/children.py", "receive"), ("vajra_edge/capture/camera.py", "_hear"))
SCALES = thread(("vajra_edge/geometry/letterbox.py", "apply"), death.LOOPS)
LETTERBOX = thread(("vajra_edge/geometry/letterbox.py", "apply"), death.LOOPS, current=True)
PUBLISH = thread(("vajra_edge/mqtt/publisher.py", "detections"), death.LOOPS, current=True)


def held(times: int, thread: str) -> tuple[Marker, str, int]:
    """The fault handler's own thread went off so often before the watchdog ended the process."""
    return MARKER, dump(TAKES, thread, what="Aborted"), times


TABLE = {
    "it ended in order": (replace(SERVES, ended=True), "", HERE, 4, End.ORDERLY, None),
    "SIGKILL": (SERVES, "", HERE, 4, End.KILLED, None),
    "SIGKILL at a load": (MARKER, "", HERE, 4, End.KILLED, None),
    "SIGKILL for want of memory": (SERVES, "", HERE, 5, End.MEMORY, None),
    "SIGKILL for want of memory at a load": (MARKER, "", HERE, 5, End.MEMORY, B),
    "the kernel does not count": (MARKER, "", HERE, None, End.KILLED, None),
    "a power cut": (MARKER, "", replace(HERE, boot="next"), 0, End.POWER, None),
    "the kernel names no boot": (
        replace(MARKER, at=replace(HERE, boot="")),
        "",
        replace(HERE, boot=""),
        4,
        End.POWER,
        None,
    ),
    "a crash before a power cut": (
        MARKER,
        dump(thread(death.LOADS, current=True)),
        replace(HERE, boot="next"),
        0,
        End.CRASH,
        B,
    ),
    "a library's thread while the plan runs": (SERVES, dump(RUNS, IDLE), HERE, 4, End.CRASH, A),
    "a library's thread while a plan loads": (MARKER, dump(RUNS, LOADS), HERE, 4, End.CRASH, B),
    "a library's thread, and a camera's waits": (SERVES, dump(RUNS, CAMERA), HERE, 4, End.CRASH, A),
    "a library's thread, and a picture is scaled": (SERVES, dump(RUNS, SCALES), HERE, 4, End.CRASH, None),
    "a library's thread while nothing runs": (SERVES, dump(IDLE), HERE, 4, End.CRASH, None),
    "an abort, and the fault handler died before it named the thread": (
        SERVES,
        dump(RUNS, dump(), what="Aborted"),
        HERE,
        4,
        End.CRASH,
        None,
    ),
    "a crash, and the fault handler died once it had named the thread": (
        SERVES,
        dump(thread(death.RUNS, current=True), IDLE, dump()),
        HERE,
        4,
        End.CRASH,
        A,
    ),
    "a picture that the letterbox dies of": (SERVES, dump(LETTERBOX), HERE, 4, End.CRASH, None),
    "a message that the publisher dies of": (SERVES, dump(PUBLISH), HERE, 4, End.CRASH, None),
    "a crash before anything served": (
        replace(SERVES, serving=None),
        dump(thread(death.RUNS, current=True)),
        HERE,
        4,
        End.CRASH,
        None,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_a_process_leaves_tells_how_it_ended(name: str):
    marker, dumped, now, killed, end, fingerprint = TABLE[name]
    found = judge(Left(marker, dumped, now, killed))
    assert (found.end, found.fingerprint) == (end, fingerprint)
    assert bool(found.line) == (end is not End.ORDERLY)


LATE = {
    "the loop, and the fault handler died": (
        ("pipeline",),
        SERVES,
        dump(RUNS, dump(), what="Aborted"),
        End.WATCHDOG,
        A,
    ),
    "nobody was late": ((), SERVES, dump(TAKES, RUNS, what="Aborted"), End.STALL, None),
    "the loop, and the plan runs": (("pipeline",), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, A),
    "the loop and its frames": (("frames", "pipeline"), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, A),
    "the loop, and nothing runs": (("pipeline",), SERVES, dump(TAKES, IDLE, what="Aborted"), End.WATCHDOG, None),
    "a camera": (("camera gate",), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, None),
    "a camera and the loop": (("camera gate", "pipeline"), SERVES, dump(TAKES, RUNS, what="A"), End.WATCHDOG, None),
    "the broker's thread": (("mqtt",), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, None),
    "the disk": (("background", "watch"), MARKER, dump(TAKES, IDLE, what="Aborted"), End.WATCHDOG, None),
    "a load": (("background",), MARKER, dump(TAKES, LOADS, what="Aborted"), End.WATCHDOG, B),
    "a load, and the loop": (("background", "pipeline"), MARKER, dump(TAKES, LOADS, RUNS), End.WATCHDOG, None),
    "the disk that a load reads from": (("background",), MARKER, dump(TAKES, READS), End.WATCHDOG, None),
    "the desk, and the plan runs": (("background",), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, None),
    "the desk at another task": (("background",), MARKER, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, None),
    "the pictures": (("pictures",), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, None),
    "the pictures and the loop": (("pictures", "pipeline"), SERVES, dump(TAKES, RUNS), End.WATCHDOG, None),
    "a build": (("build",), SERVES, dump(TAKES, IDLE, what="Aborted"), End.WATCHDOG, None),
    "frames, and the plan runs": (("frames",), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, A),
    "frames, and the plan does not": (("frames",), SERVES, dump(TAKES, IDLE, what="Aborted"), End.WATCHDOG, None),
    "frames and the broker": (("frames", "mqtt"), SERVES, dump(TAKES, RUNS, what="Aborted"), End.WATCHDOG, None),
}


HOLDS = {
    "a library holds Python at a load": (held(2, LOADS), End.STALL, B),
    "it stood still at a load, and went on": (held(1, LOADS), End.STALL, None),
    "a library holds Python, and nothing loads": (held(3, RUNS), End.STALL, None),
    "a disk holds Python at a load": (held(3, READS), End.STALL, None),
}


@pytest.mark.parametrize("name", LATE)
def test_the_watchdogs_abort_is_charged_only_where_the_plans_loop_alone_was_late(name: str):
    late, marker, dumped, end, fingerprint = LATE[name]
    found = judge(Left(replace(marker, late=late), dumped, HERE, 4))
    assert (found.end, found.fingerprint) == (end, fingerprint)
    for loop in late:
        assert loop in found.line


@pytest.mark.parametrize("name", HOLDS)
def test_an_abort_is_charged_to_a_load_only_where_all_of_python_stood_still_again_and_again(name: str):
    (marker, dumped, alarms), end, fingerprint = HOLDS[name]
    found = judge(Left(marker, dumped, HERE, 4, alarms))
    assert (found.end, found.fingerprint) == (end, fingerprint)


def test_a_traceback_that_is_cut_off_anywhere_charges_nobody_who_is_not_named():
    whole = dump(IDLE, thread(death.RUNS, current=True), LOADS)
    guilty = whole.index(death.RUNS[1])
    for cut in range(len(whole) + 1):
        found = judge(Left(MARKER, whole[:cut], HERE, 4))
        assert found.line
        assert found.fingerprint in ((None, A) if cut > guilty else (None,)), whole[:cut]


@pytest.mark.parametrize("seed", range(20))
def test_two_tracebacks_written_at_once_are_judged(seed: int):
    dice = random.Random(seed)
    for _ in range(50):
        pieces = [[*f"{dump(TAKES, LOADS, RUNS, what=what)}"] for what in ("Aborted", "Segmentation fault")]
        told = ""
        while any(pieces):
            piece = dice.choice([one for one in pieces if one])
            count = dice.randint(1, 40)
            told, piece[:count] = told + "".join(piece[:count]), []
        assert judge(Left(MARKER, told, HERE, 4)).line


def test_the_loops_are_there_that_are_judged_by_name():
    table = {loop for loop in vars(watchdog).values() if isinstance(loop, watchdog.Loop)}
    starving = {loop.name for loop in table if loop.vital is not watchdog.Vital.NEVER}
    assert {*death.PLANS_LOOPS, watchdog.DESK.name} <= starving
    assert {name for names in LATE.values() for name in names[0]} >= {loop.name for loop in table} - {"control"}


@pytest.mark.parametrize("where", [death.LOADS, death.WARMS_UP, death.RUNS, death.LOOPS, death.TAKES_ABORTS])
def test_the_functions_are_there_that_a_traceback_is_read_by(where: tuple[str, str]):
    path, function = where
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    code = Path(module.__file__).read_text()
    assert f"def {function}(" in code


@pytest.mark.parametrize("path", [*death.NOT_THE_PLANS, *death.DRAWS, death.READS])
def test_the_modules_are_there_that_a_traceback_is_read_by(path: str):
    assert (Path(death.__file__).parents[2] / path).exists()


FIRST: dict[str, tuple[str, tuple[str, ...]]] = {
    "its load": (thread(death.LOADS, current=True), ()),
    "camera": (thread(("vajra_edge/capture/camera.py", "_run"), current=True), ()),
    "other": (thread(("threading.py", "run"), current=True), ()),
    "letterbox": (LETTERBOX, ()),
    "stall": (TAKES, ()),
    "camera late": (TAKES, ("camera gate",)),
    "disk late": (TAKES, ("background", "watch")),
}
"""The thread in which a signal came, and which loops were late."""

SILENT = ("kill", "memory", "power")


def left_by(what: str, marker: Marker, now: Moment) -> Left:
    """What a process leaves that dies of this while an innocent plan serves, and perhaps while another one loads."""
    if what in SILENT:
        memory = what == "memory"
        return Left(replace(marker, loading=None) if memory else marker, "", now, 5 if memory else 4)
    first, late = FIRST[what]
    working = [RUNS, *([LOADS] if marker.loading and what != "its load" and not late else [])]
    return Left(replace(marker, late=late), dump(first, *working, what="any"), now, 4)


@pytest.mark.parametrize("block", range(10))
def test_no_walk_charges_a_plan_with_what_others_did_and_none_is_refused_for_good(block: int):
    for seed in range(block * 40, (block + 1) * 40):
        dice = random.Random(seed)
        charges: dict[str, list[Charge]] = {A: [], B: []}
        boot, boot_s, unix_s = 0, 5.0, 0.0
        for _ in range(80):
            passed_s = dice.choice([2.0, 30.0, 400.0, 9000.0])
            boot_s, unix_s = boot_s + passed_s, unix_s + passed_s
            marker = replace(MARKER, at=Moment(f"b{boot}", boot_s, unix_s, dice.random() < 0.5))
            what = dice.choice((*FIRST, *SILENT))
            marker = replace(marker, loading=B if what == "its load" or dice.random() < 0.5 else None)
            if what == "power":
                boot, boot_s = boot + 1, dice.uniform(1.0, 20.0)
            now = Moment(f"b{boot}", boot_s, unix_s, dice.random() < 0.5)
            found = judge(left_by(what, marker, now))
            assert (found.fingerprint == B) == (what == "its load"), what
            if found.fingerprint:
                charges[found.fingerprint].append(Charge(found.charged, found.line, now))
            assert hold_of(charges[A]) is None
            hold = hold_of(charges[B])
            assert hold is None or hold.left_s(now, alone=True) <= max(ALONE_S)
