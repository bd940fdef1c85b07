from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import tiny
from waiting import is_alive, wait_for

from vajra_edge.backends import onnxruntime
from vajra_edge.build import protocol, worker
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.errors import (
    BackendUnavailable,
    BuildCancelled,
    BuildError,
    GraphError,
    OutOfMemory,
    StoreError,
    UnsupportedSpec,
    VerifyError,
    WeightsError,
)
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.plans.store import EngineStore
from vajra_edge.progress import Progress

REPOSITORY = Path(__file__).parents[2]


def quiet(_: Progress) -> None:
    pass


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for seed in range(5):
        cv2.imwrite(str(folder / f"{seed}.png"), tiny.scene(objects=8, seed=seed).image)
    return folder


@pytest.fixture
def wanted(tmp_path: Path, frames: Path) -> BuildRequest:
    weights = tmp_path / "tiny.onnx"
    weights.write_bytes(tiny.network())
    spec = EngineSpec(nms=NmsSpec(max_det=20, top_k=30))
    digest = weights_digest(weights)
    return BuildRequest(weights, digest, "onnxruntime", spec, tmp_path / "state", 1 << 30, threads=1, frames=frames)


def rewritten(request: BuildRequest, content: bytes, name: str = "tiny.onnx") -> BuildRequest:
    path = request.weights_path.with_name(name)
    path.write_bytes(content)
    return replace(request, weights_path=path, weights_sha256=weights_digest(path))


def run_child(request: BuildRequest | bytes, **options: object) -> tuple[list[protocol.Line | None], int, str]:
    text = request if isinstance(request, bytes) else json.dumps(request.to_json()).encode()
    done = subprocess.run(
        [sys.executable, "-m", "vajra_edge.build.worker", "--parent", str(os.getpid())],
        input=text, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, **options,
    )  # fmt: skip
    return [protocol.decode(line) for line in done.stdout.splitlines()], done.returncode, done.stderr.decode()


def test_a_build_gives_a_judged_plan_whose_manifest_says_what_it_took(wanted: BuildRequest):
    stages: list[str] = []
    plan = worker.run(wanted, lambda progress: stages.append(progress.stage))
    assert list(dict.fromkeys(stages)) == ["load", "simplify", "build", "verify", "store"]
    manifest = plan.manifest
    assert manifest.verify.figures.judged
    assert manifest.verify.figures.recall == 1.0
    assert (manifest.precision, manifest.target, manifest.weights_name) == (Precision.FP32, Target("cpu"), "tiny.onnx")
    assert set(manifest.report.stages) == {"load", "simplify", "build", "verify"}
    assert manifest.report.stages["verify"].peak_rss_bytes > 10_000_000
    assert manifest.build_s > 0
    runner = onnxruntime.OnnxRuntime(threads=1).load(plan.read(), manifest.signature, manifest.wanted)
    assert (runner.infer(tiny.blob(tiny.scene().image))[0, :, 4] > 0.5).sum() == 6


def test_what_the_store_has_is_not_built_again_unless_forced(wanted: BuildRequest):
    first = worker.run(wanted, quiet)
    stages: list[str] = []
    assert worker.run(wanted, lambda progress: stages.append(progress.stage)) == first
    assert stages == []
    worker.run(replace(wanted, force=True), lambda progress: stages.append(progress.stage))
    assert "build" in stages


def test_the_time_for_a_build_begins_when_it_holds_the_lock(wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    held_s: list[float] = []
    began_s: list[float] = []
    real_lock, real_prove = EngineStore.lock, worker.prove

    @contextlib.contextmanager
    def lock(store: EngineStore, *asked: Any, **options: Any) -> Iterator[None]:
        with real_lock(store, *asked, **options):
            held_s.append(time.monotonic())
            yield

    def prove(*asked: Any, **options: Any) -> Any:
        began_s.append(options["began_s"])
        return real_prove(*asked, **options)

    monkeypatch.setattr(EngineStore, "lock", lock)
    monkeypatch.setattr(worker, "prove", prove)
    worker.run(wanted, quiet)
    assert began_s[0] >= held_s[0]


def test_a_damaged_plan_is_built_again(wanted: BuildRequest):
    plan = worker.run(wanted, quiet)
    plan.path.write_bytes(plan.path.read_bytes()[:-1])
    assert worker.run(wanted, quiet).read()


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (os.urandom(5000), GraphError, "not ONNX"),
        (tiny.network()[:-300], GraphError, "cut short|not valid|no ONNX|metadata|class names"),
        (tiny.network(nan=True), VerifyError, "not finite"),
        (tiny.network(metadata=False), GraphError, "class_names"),
    ],
    ids=["random bytes", "truncated", "gives NaN", "no metadata"],
)
def test_weights_that_make_no_plan_leave_no_plan(wanted: BuildRequest, content: bytes, error: type, reason: str):
    with pytest.raises(error, match=reason) as raised:
        worker.run(rewritten(wanted, content), quiet)
    assert "\n" not in str(raised.value)
    assert EngineStore(wanted.state_dir, 1).plans() == ()


def test_weights_of_another_kind_are_refused(wanted: BuildRequest):
    with pytest.raises(WeightsError, match=r"neither \.pt nor \.onnx; .*never loaded"):
        worker.run(rewritten(wanted, b"ftrt", "built-elsewhere.engine"), quiet)


def test_weights_that_changed_since_they_were_hashed_are_tried_again(wanted: BuildRequest):
    wanted.weights_path.write_bytes(tiny.network(gain=21.0))
    with pytest.raises(BuildError, match="changed while they were read") as raised:
        worker.run(wanted, quiet)
    assert not raised.value.permanent


def test_a_checkpoint_that_changed_is_tried_again_and_a_wrong_one_is_not(wanted: BuildRequest):
    wrong = rewritten(wanted, b"PK\x03\x04 no checkpoint", "wrong.pt")
    with pytest.raises(WeightsError):
        worker.run(wrong, quiet)
    wrong.weights_path.write_bytes(b"PK\x03\x04 another")
    with pytest.raises(BuildError, match="changed while they were read"):
        worker.run(wrong, quiet)


def test_weights_that_are_gone_are_an_error_of_the_weights(wanted: BuildRequest):
    wanted.weights_path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        worker.run(wanted, quiet)


def test_weights_beyond_the_limit_are_not_read_whole(wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "MAX_ONNX_BYTES", 100)
    with pytest.raises(WeightsError, match="larger than"):
        worker.run(wanted, quiet)


def test_what_the_backend_cannot_do_is_said_before_any_work(wanted: BuildRequest):
    with pytest.raises(UnsupportedSpec, match="precision = fp32"):
        worker.run(replace(wanted, spec=replace(wanted.spec, precision=Precision.FP16)), quiet)
    assert not wanted.state_dir.exists()


def test_a_cancel_between_two_stages_stops_the_build(wanted: BuildRequest):
    def stop(progress: Progress) -> None:
        if progress.stage == "verify":
            raise BuildCancelled("asked to")

    with pytest.raises(BuildCancelled):
        worker.run(wanted, stop)
    assert EngineStore(wanted.state_dir, 1).plans() == ()
    assert worker.run(wanted, quiet), "the lock is free again"


def test_a_plan_that_cannot_run_here_is_stored_without_a_verdict(wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnxruntime.OnnxRuntime, "cannot_run", lambda self, spec: "no GPU is seen")
    verdict = worker.run(wanted, quiet).manifest.verify.figures
    assert (verdict.judged, verdict.recall, verdict.latency_p50_ms) == (False, None, None)
    assert "no GPU is seen" in verdict.reason


def test_the_child_answers_in_lines_and_keeps_libraries_off_the_pipe(wanted: BuildRequest):
    lines, code, stderr = run_child(wanted)
    assert code == 0, stderr
    assert all(line is not None for line in lines)
    assert isinstance(lines[-1], protocol.Done)
    assert lines[-1].peak_rss_bytes > 10_000_000
    assert EngineStore(wanted.state_dir, 1).get(lines[-1].fingerprint)


@pytest.mark.parametrize(
    ("request_json", "reason"),
    [(b"", "JSONDecodeError|not a build request|failed with"), (b"{}", "not a build request"), (b"[]", "not a build")],
)
def test_a_request_that_is_none_fails_in_one_line(request_json: bytes, reason: str):
    lines, code, _ = run_child(request_json)
    assert code == 1
    assert isinstance(lines[-1], protocol.Failed)
    assert "request" in lines[-1].message or "JSON" in lines[-1].message


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (GraphError("x"), True),
        (WeightsError("x"), True),
        (VerifyError("x"), True),
        (UnsupportedSpec("x"), True),
        (BuildError("x"), True),
        (BuildCancelled("x"), False),
        (OutOfMemory("x"), False),
        (StoreError("x"), False),
        (BackendUnavailable("x"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_may_pass_is_tried_again(error: Exception, permanent: bool):
    assert worker._permanent(error) is permanent


@pytest.mark.parametrize(("error", "said"), [(MemoryError(), "ran out of memory"), (ZeroDivisionError("a\nb"), "a b")])
def test_a_bug_or_want_of_memory_becomes_one_line(
    wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "run", fail)
    monkeypatch.setattr(worker.build_protocol, "give_way", lambda limit: None)
    line = worker._answer(json.dumps(wanted.to_json()).encode(), quiet)
    assert isinstance(line, protocol.Failed)
    assert said in line.message
    assert not line.permanent


def test_the_child_gives_way_to_the_daemon(wanted: BuildRequest):
    code = (
        "import os, resource; from pathlib import Path; from vajra_edge.build import protocol\n"
        "protocol.give_way(10**12)\n"
        "print(os.nice(0), Path('/proc/self/oom_score_adj').read_text().strip(),"
        "resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1024,"
        "resource.getrlimit(resource.RLIMIT_AS)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(os.nice(0) + 10), "500", "0", "True", str(10**12)]


def test_a_limit_that_is_lower_already_stays():
    code = (
        "import resource; from vajra_edge.build import protocol\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n"
        "protocol.give_way(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(100, 200)"


def test_too_little_address_space_is_a_failure_that_may_pass(wanted: BuildRequest):
    lines, code, _ = run_child(replace(wanted, address_space_bytes=400_000_000))
    assert code != 0
    last = lines[-1]
    assert last is None or isinstance(last, Progress) or (isinstance(last, protocol.Failed) and not last.permanent)


def test_the_child_dies_with_its_parent(wanted: BuildRequest):
    parent = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-m', 'vajra_edge.build.worker', '--parent', str(os.getpid())]\n"
        "made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(made.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        pid = int(first.stdout.readline())
        wait_for(lambda: "--parent" in Path(f"/proc/{pid}/cmdline").read_text())
        time.sleep(0.7)
        assert is_alive(pid)
        first.kill()
    wait_for(lambda: not is_alive(pid))


def test_a_child_whose_parent_is_gone_already_does_not_start(wanted: BuildRequest):
    done = subprocess.run(
        [sys.executable, "-m", "vajra_edge.build.worker", "--parent", "1"],
        input=b"", capture_output=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"parent ended" in done.stderr


def test_sigterm_cancels_a_child_even_where_the_parent_has_it_blocked(wanted: BuildRequest):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        made = subprocess.Popen(
            [sys.executable, "-m", "vajra_edge.build.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with made:
        made.stdin.write(json.dumps(wanted.to_json()).encode())
        made.stdin.close()
        assert isinstance(protocol.decode(made.stdout.readline()), Progress)
        made.send_signal(signal.SIGTERM)
        last = [protocol.decode(line) for line in made.stdout][-1]
    assert isinstance(last, protocol.Failed)
    assert last.message == "the build was cancelled"
    assert EngineStore(wanted.state_dir, 1).plans() == ()


def test_two_builds_at_once_take_turns(wanted: BuildRequest):
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    other = rewritten(wanted, tiny.network(gain=22.0), "other.onnx")
    made = []
    with EngineStore(wanted.state_dir, 1).lock("build"):  # until all are there
        for request in (wanted, other, wanted):
            one = subprocess.Popen(
                [sys.executable, "-m", "vajra_edge.build.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            )  # fmt: skip
            one.stdin.write(json.dumps(request.to_json()).encode())
            one.stdin.close()
            made.append(one)
        waits = [protocol.decode(one.stdout.readline()) for one in made]
    assert all("waiting for another build: build (pid" in progress.message for progress in waits)
    lasts = []
    for one in made:
        with one:
            lasts.append([protocol.decode(line) for line in one.stdout])
    assert all(isinstance(lines[-1], protocol.Done) for lines in lasts)
    assert len({lines[-1].fingerprint for lines in lasts}) == 2


def test_the_peak_of_memory_is_the_childs_own_and_not_its_parents():
    ballast = bytearray(os.urandom(1)) * 300_000_000
    code = "from vajra_edge.build import protocol; print(protocol.peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(ballast) > int(done.stdout)
    assert protocol.peak_rss_bytes() > 300_000_000
    assert protocol.peak_rss_bytes(999_999_999) == 0


def test_proving_reports_the_stage_it_is_in(wanted: BuildRequest):
    seen: list[Progress] = []
    worker.run(wanted, seen.append)
    assert any(progress.message == "fp32: building for cpu with onnxruntime" for progress in seen)
    assert any(progress.percent == 100.0 for progress in seen)
