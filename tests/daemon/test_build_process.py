from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import tiny
from waiting import LIMIT_S, is_alive, wait_for

from vajra_edge.build import protocol
from vajra_edge.build.refusals import RefusalCause, Refusals
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.daemon import build_process
from vajra_edge.daemon.build_process import Builder, BuildEvent, BuildProgressed, BuildSucceeded, ChildFailed, Kills
from vajra_edge.plans.spec import EngineSpec, NmsSpec
from vajra_edge.plans.store import EngineStore
from vajra_edge.progress import Progress


@pytest.fixture
def wanted(tmp_path: Path) -> BuildRequest:
    weights, frames = tmp_path / "tiny.onnx", tmp_path / "frames"
    weights.write_bytes(tiny.network())
    frames.mkdir()
    for seed in range(4):
        cv2.imwrite(str(frames / f"{seed}.png"), tiny.scene(objects=8, seed=seed).image)
    spec = EngineSpec(nms=NmsSpec(max_det=20, top_k=30))
    digest = weights_digest(weights)
    return BuildRequest(weights, digest, "onnxruntime", spec, tmp_path / "state", 1 << 30, threads=1, frames=frames)


class Heard:
    """Everything a builder posted."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[BuildEvent] = queue.SimpleQueue()
        self.progress: list[BuildProgressed] = []
        self.on_progress: Callable[[BuildProgressed], None] = lambda event: None

    def post(self, event: BuildEvent) -> None:
        if isinstance(event, BuildProgressed):
            self.progress.append(event)
            self.on_progress(event)
        else:
            self.inbox.put(event)

    def end(self, timeout_s: float = LIMIT_S) -> BuildSucceeded | ChildFailed:
        return self.inbox.get(timeout=timeout_s)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def builder(heard: Heard) -> Iterator[Builder]:
    made = Builder(heard.post, grace_s=1.0)
    yield made
    made.close()


def saying(heard: Heard, code: str, grace_s: float = 1.0) -> Builder:
    """A builder whose child is this Python code."""
    return Builder(heard.post, grace_s, [sys.executable, "-c", code])


def children() -> list[int]:
    """Our own living children that build."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (path / "status").read_text(), (path / "cmdline").read_text()
        except OSError:
            continue
        builds = "vajra_edge.build.worker" in command or "held_build.py" in command
        if f"PPid:\t{os.getpid()}\n" in status and builds and "State:\tZ" not in status:
            found.append(int(path.name))
    return found


def test_a_build_is_reported_until_its_plan_is_in_the_store(builder: Builder, heard: Heard, wanted: BuildRequest):
    builder.start(7, wanted)
    end = heard.end()
    assert isinstance(end, BuildSucceeded), end
    assert end.job_id == 7
    assert end.peak_rss_bytes > 10_000_000
    assert EngineStore(wanted.state_dir, 1).get(end.fingerprint)
    assert [event.job_id for event in heard.progress] == [7] * len(heard.progress)
    assert heard.progress[0].progress.stage == "load"
    assert children() == []


def test_what_cannot_be_built_is_told_with_its_reason(builder: Builder, heard: Heard, wanted: BuildRequest):
    wanted.weights_path.write_bytes(b"random")
    builder.start(1, replace(wanted, weights_sha256=weights_digest(wanted.weights_path)))
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert "not ONNX" in end.message
    assert end.permanent
    assert "\n" not in end.message


@pytest.mark.parametrize("stage", ["load", "simplify", "build", "verify", "store"])
def test_a_child_killed_in_any_stage_fails_for_now_and_the_next_build_succeeds(
    builder: Builder, heard: Heard, wanted: BuildRequest, stage: str
):
    good = EngineStore(wanted.state_dir, 1 << 30)
    held = Builder(heard.post, 1.0, [sys.executable, str(Path(__file__).with_name("held_build.py")), stage])

    def kill(event: BuildProgressed) -> None:
        if event.progress.stage == stage:
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    heard.on_progress = kill
    held.start(1, wanted)
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert "the build child was killed by SIGKILL" in end.message
    assert end.killed
    assert not end.permanent
    heard.on_progress = lambda event: None
    builder.start(2, wanted)
    again = heard.end()
    assert isinstance(again, BuildSucceeded)
    assert good.get(again.fingerprint).read()


KILLS_ITSELF = "import os; os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ([Kills("group", 1), Kills("group", 2)], "killed by SIGKILL, most likely for want of memory (its memory"),
        ([Kills("group", 1), Kills("group", 1)], "killed by SIGKILL (its memory"),
        ([None, None], "killed by SIGKILL by somebody or for want of memory (its memory"),
    ],
)
def test_want_of_memory_is_blamed_for_a_kill_only_on_the_kernels_word(
    heard: Heard, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch, counted: list[Kills | None], said: str
):
    monkeypatch.setattr(build_process, "count", iter(counted).__next__)
    saying(heard, KILLS_ITSELF).start(1, wanted)
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert said in end.message
    assert (end.killed, end.permanent) == (True, False)


def test_a_cancelled_build_ends_and_leaves_no_child(builder: Builder, heard: Heard, wanted: BuildRequest):
    heard.on_progress = lambda event: builder.cancel(1)
    builder.start(1, wanted)
    assert heard.end() == ChildFailed(1, "the build was cancelled", permanent=False, peak_rss_bytes=ANY)
    assert children() == []
    heard.on_progress = lambda event: None
    builder.start(2, wanted)
    builder.cancel(1)
    assert isinstance(heard.end(), BuildSucceeded), "an old number cancels nothing"


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


ANY = _Any()


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(heard: Heard, wanted: BuildRequest, tmp_path: Path):
    deaf = tmp_path / "deaf"
    builder = saying(heard, f"{IGNORES_SIGTERM}open({str(deaf)!r}, 'w').close(); time.sleep(600)")
    builder.start(1, wanted)
    wait_for(deaf.exists)
    began_s = time.monotonic()
    builder.cancel(1)
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert end.message == "the build was cancelled"
    assert time.monotonic() - began_s > 0.9


IGNORES_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); "

BEGUN = """
import json, os, pathlib, signal, sys, time
from vajra_edge.build.refusals import Refusals
from vajra_edge.build.rung import Rung
from vajra_edge.plans.spec import Precision
signal.signal(signal.SIGTERM, signal.SIG_IGN)
state_dir = pathlib.Path(json.loads(sys.stdin.read())["state_dir"])
with Refusals(state_dir, "a" * 64, "TensorRT").attempt(Rung(Precision.INT8, "qdq")):
    (state_dir / "begun").write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_kill_counts_against_the_way_that_was_tried_unless_it_ended_a_cancelled_build(
    heard: Heard, wanted: BuildRequest, cancelled: bool
):
    said = wanted.state_dir / "begun"
    for number in (1, 2):
        said.unlink(missing_ok=True)
        builder = saying(heard, BEGUN)
        builder.start(number, wanted)
        pid = int(wait_for(lambda: said.exists() and said.read_text()))
        if cancelled:
            builder.cancel(number)
        else:
            os.kill(pid, signal.SIGKILL)
        assert isinstance(heard.end(), ChildFailed)
    found = Refusals(wanted.state_dir, "a" * 64, "TensorRT").all()
    assert [one.cause for one in found.values()] == ([] if cancelled else [RefusalCause.CRASH])


def test_a_build_beyond_its_time_is_ended_and_not_tried_again(heard: Heard, wanted: BuildRequest):
    builder = saying(heard, "import time; time.sleep(60)")
    builder.start(1, replace(wanted, timeout_s=0.5))
    end = heard.end()
    assert end == ChildFailed(
        1, "the build took longer than 0.5 s; raise [engine] build_timeout_s", permanent=True, peak_rss_bytes=ANY
    )


def test_the_time_for_a_build_begins_when_it_need_not_wait_for_another_any_more(heard: Heard, wanted: BuildRequest):
    waits = protocol.encode(Progress("load", None, "another build", waiting=True)).decode()
    done = protocol.encode(protocol.Done("a" * 64, 1)).decode()
    wait = f"import time\nfor _ in range(10):\n print({waits!r}, flush=True); time.sleep(0.5)\n"
    builder = saying(heard, f"{wait}print({done!r}, flush=True)")
    builder.start(1, replace(wanted, timeout_s=4.0))
    assert isinstance(heard.end(), BuildSucceeded)


def test_a_new_build_waits_until_the_cancelled_one_is_gone(heard: Heard, wanted: BuildRequest, tmp_path: Path):
    deaf = tmp_path / "deaf"
    builder = saying(heard, f"{IGNORES_SIGTERM}open({str(deaf)!r}, 'w').close(); time.sleep(600)", grace_s=0.5)
    builder.start(1, wanted)
    wait_for(deaf.exists)
    builder.cancel(1)
    builder.start(2, wanted)
    time.sleep(0.2)
    builder.cancel(2)
    assert [heard.end().job_id, heard.end().job_id] == [1, 2]


def test_a_build_cancelled_before_it_began_starts_no_child(heard: Heard, wanted: BuildRequest, tmp_path: Path):
    trace = tmp_path / "started"
    builder = saying(heard, f"open({str(trace)!r}, 'a').write('x'); import time; time.sleep(60)", grace_s=0.3)
    builder.start(1, wanted)
    wait_for(lambda: trace.exists() and trace.read_text())
    builder.start(2, wanted)
    builder.cancel(2)
    builder._job._before.cancelled.set()
    assert {heard.end().job_id, heard.end().job_id} == {1, 2}
    assert trace.read_text() == "x"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "ended with exit code 3 and no reason"),
        ("pass", "ended with exit code 0 and no reason"),
        ("import os; os.kill(os.getpid(), 11)", "crashed with SIGSEGV"),
        ("import os; os.close(1); os._exit(5)", "exit code 5"),
        ("import sys, os; os.write(1, b'half a line'); os._exit(4)", "exit code 4"),
    ],
)
def test_a_child_that_dies_without_a_word_is_a_failure_that_may_pass(
    heard: Heard, wanted: BuildRequest, code: str, said: str
):
    saying(heard, code).start(1, wanted)
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert said in end.message
    assert not end.permanent


def test_garbage_on_the_pipe_is_tolerated(heard: Heard, wanted: BuildRequest):
    code = (
        "import os\n"
        "os.write(1, b'hello\\n\\xff\\xfe\\n[1]\\n' + b'x' * 3_000_000 + b'\\n')\n"
        'os.write(1, b\'{"event": "progress", "stage": "build"}\\n\')\n'
        'os.write(1, b\'{"event": "done", "fingerprint": "abc", "peak_rss_bytes": 9}\\ntrailing\')'
    )
    saying(heard, code).start(1, wanted)
    end = heard.end()
    assert isinstance(end, BuildSucceeded)
    assert end.fingerprint == "abc"
    assert [event.progress.stage for event in heard.progress] == ["build"]


def test_what_a_child_started_does_not_outlive_it(heard: Heard, wanted: BuildRequest, tmp_path: Path):
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        "made = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(made.pid)); raise SystemExit(1)"
    )
    saying(heard, code).start(1, wanted)
    assert isinstance(heard.end(), ChildFailed)
    wait_for(lambda: not is_alive(int(note.read_text())))


def test_a_child_that_cannot_be_started_is_an_event(heard: Heard, wanted: BuildRequest):
    Builder(heard.post, 1.0, ["/no/such/program"]).start(1, wanted)
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert "cannot be run" in end.message
    assert not end.permanent


def test_a_request_larger_than_the_pipe_reaches_a_child_that_never_reads(heard: Heard, wanted: BuildRequest):
    names = tuple(f"class {number}" for number in range(20_000))
    saying(heard, "raise SystemExit(2)").start(1, replace(wanted, class_names=names))
    assert "exit code 2" in heard.end().message


def test_closing_cancels_and_closes_again(heard: Heard, wanted: BuildRequest):
    builder = saying(heard, "import time; time.sleep(60)")
    builder.start(1, wanted)
    time.sleep(0.3)
    builder.close()
    builder.close()
    assert isinstance(heard.end(0.1), ChildFailed)


def test_the_child_gets_nothing_that_is_the_daemons_alone(
    heard: Heard, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    told = tmp_path / "environment"
    code = f"import json, os; json.dump([dict(os.environ), os.getcwd()], open({str(told)!r}, 'w'))"
    saying(heard, code).start(1, wanted)
    heard.end()
    environment, folder = json.loads(told.read_text())
    assert "NOTIFY_SOCKET" not in environment
    assert "CREDENTIALS_DIRECTORY" not in environment
    assert folder == "/"


def test_the_peak_of_memory_is_reported_even_of_a_killed_child(heard: Heard, wanted: BuildRequest, tmp_path: Path):
    note = tmp_path / "pid"
    code = f"import os, time; x = b'x' * 400_000_000; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    builder = saying(heard, code)
    builder.start(1, wanted)
    wait_for(lambda: builder._job._peak_rss_bytes > 400_000_000)
    os.kill(int(wait_for(lambda: note.exists() and note.read_text())), signal.SIGKILL)
    end = heard.end()
    assert 400_000_000 < end.peak_rss_bytes < 600_000_000
    assert f"{end.peak_rss_bytes / 1e6:.0f} MB" in end.message


def test_the_peak_is_not_that_of_a_larger_parent(heard: Heard, wanted: BuildRequest):
    ballast = b"x" * 300_000_000
    saying(heard, "import time; time.sleep(0.5)").start(1, wanted)
    assert heard.end().peak_rss_bytes < 100_000_000 < len(ballast) < protocol.peak_rss_bytes()


def test_the_supervisors_import_of_the_builder_loads_no_heavy_library():
    code = (
        "import sys; import vajra_edge.daemon.build_process;"
        "sys.exit(', '.join({'torch', 'onnx', 'onnxruntime', 'tensorrt', 'onnxslim'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_child_that_ends_at_the_moment_of_the_signal_is_reaped_once(
    heard: Heard, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """``Popen.send_signal`` would reap it, and what the kernel tells of its end would be lost."""
    go = tmp_path / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n time.sleep(0.01)"
    builder = saying(heard, code, grace_s=LIMIT_S)
    ended = build_process._Job._ended
    kill, killed = os.kill, []

    def late(job, process):
        found = ended(job, process)
        if not found and not killed:
            go.touch()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it ends after the look at it
        return found

    monkeypatch.setattr(build_process._Job, "_ended", late)
    monkeypatch.setattr(build_process.os, "kill", lambda pid, number: killed.append(number) or kill(pid, number))
    builder.start(1, replace(wanted, timeout_s=0.0))
    end = heard.end()
    assert isinstance(end, ChildFailed)
    assert killed == [signal.SIGTERM]
    assert "took longer than 0 s" in end.message
    builder.close()


def test_a_child_that_nothing_ends_is_left_behind_and_named(
    heard: Heard, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build_process, "KILLED_WITHIN_S", 0.3)
    for name in ("kill", "killpg"):
        monkeypatch.setattr(build_process.os, name, lambda *_: None)  # as in state D: the signal waits
    builder = saying(heard, "import time; time.sleep(600)", grace_s=0.1)
    builder.start(1, replace(wanted, timeout_s=0.2))
    end = heard.end()
    monkeypatch.undo()
    assert isinstance(end, ChildFailed)
    found = re.fullmatch(r"the build child \(pid (\d+)\) cannot be killed and is left behind", end.message)
    assert found, end.message
    assert not end.permanent
    assert builder.close(LIMIT_S)
    os.kill(int(found[1]), signal.SIGKILL)
    os.waitpid(int(found[1]), 0)


def test_a_stop_does_not_wait_for_a_child_longer_than_it_may(heard: Heard, wanted: BuildRequest, tmp_path: Path):
    deaf, go = tmp_path / "deaf", tmp_path / "go"
    waits = f"open({str(deaf)!r}, 'w').close()\nwhile not __import__('os').path.exists({str(go)!r}):\n time.sleep(0.01)"
    builder = saying(heard, IGNORES_SIGTERM + waits, grace_s=600.0)
    builder.start(1, wanted)
    wait_for(deaf.exists)
    assert builder.close(0.2) is False
    go.touch()
    assert builder.close(LIMIT_S) is True
