"""Grabber: one thread a camera, with real clips, real dead ports, and scripted sources where time must stand still."""

from __future__ import annotations

import gc
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import number_of, picture
from ports import free_port
from waiting import LIMIT_S, wait_for

from vajra_edge.capture.camera import CameraChanged, Grabber
from vajra_edge.capture.reconnect import CameraPhase, Policy
from vajra_edge.capture.sources.base import RawFrame, Source
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame

QUICK = Policy(stall_s=5.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)


class Script:
    """A source that plays a list: a number is a picture, an exception is raised, a callable is called first."""

    live = True
    decode_errors = 0

    def __init__(self, *lines: object) -> None:
        self.lines = list(lines)
        self.reads_from: set[str] = set()
        self.closed = 0

    def open(self) -> None:
        """Nothing to acquire."""

    def read(self) -> RawFrame | None:
        self.reads_from.add(threading.current_thread().name)
        while self.lines:
            line = self.lines.pop(0)
            if isinstance(line, BaseException):
                raise line
            if callable(line):
                line()
                continue
            return RawFrame(picture(line)) if isinstance(line, int) else None
        raise SourceError("the stream ended")

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A grabber with its mailbox and everything it says."""

    def __init__(self) -> None:
        self.mailboxes = Mailboxes()
        self.news: queue.SimpleQueue[CameraChanged] = queue.SimpleQueue()
        self.beats = 0
        self.over = threading.Event()  # a script that waits for it holds its line until the test is over
        self.grabbers: list[Grabber] = []

    def beat(self) -> None:
        self.beats += 1

    def start(self, source: object, *scripts: Script, policy: Policy | None = None, **settings: object) -> Grabber:
        camera = CameraSettings.model_validate({"id": "gate", "source": str(source), **settings})
        if scripts:
            left = list(scripts)

            def next_script(_: CameraSettings) -> Source:
                return left.pop(0) if left else Script(SourceError("no more scripts"))

            grabber = Grabber(
                camera, self.mailboxes, self.news.put, self.beat, policy=policy or QUICK, open_source=next_script
            )
        else:
            grabber = Grabber(camera, self.mailboxes, self.news.put, self.beat, policy=policy)
        self.grabbers.append(grabber)
        grabber.start()
        return grabber

    def wait_for(self, phase: CameraPhase) -> CameraChanged:
        while (news := self.news.get(timeout=LIMIT_S)).phase is not phase:
            pass
        return news

    def take(self) -> Frame:
        """The next frame of any camera."""
        (frame,) = self.mailboxes.take(1, LIMIT_S)
        return frame

    def take_all(self) -> list[Frame]:
        """What is there and comes until every camera has ended."""
        frames: list[Frame] = []
        while True:
            over = all(grabber.counters().phase is CameraPhase.ENDED for grabber in self.grabbers)
            batch = self.mailboxes.take(4, 0.02)
            frames += batch
            if over and not batch:
                return frames


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.mailboxes.close()
    made.over.set()
    for grabber in made.grabbers:
        grabber.stop(LIMIT_S)


def no_camera_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("camera-")]


def test_a_clip_as_fast_as_its_reader_loses_no_frame(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(60), realtime=False)
    frames = bench.take_all()
    assert [frame.seq for frame in frames] == list(range(60))
    assert [number_of(frame.image) for frame in frames] == [number % 20 for number in range(60)]
    assert bench.wait_for(CameraPhase.ENDED).reason == ""
    counters = grabber.counters()
    assert (counters.phase, counters.frames_read, counters.frames_dropped, counters.losses) == (
        CameraPhase.ENDED,
        60,
        0,
        0,
    )


def test_images_in_the_pipelines_hands_are_never_written_to(bench: Bench, make_clip: Callable[..., Path]) -> None:
    bench.start(make_clip(40), realtime=False)
    held = bench.take_all()
    assert [number_of(frame.image) for frame in held] == [number % 20 for number in range(40)]
    assert all(frame.image.flags["C_CONTIGUOUS"] for frame in held)


def test_a_clip_in_real_time_keeps_its_pace(bench: Bench, make_clip: Callable[..., Path]) -> None:
    bench.start(make_clip(20, fps=20.0))
    frames = bench.take_all()
    taken_s = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    span_s = (frames[-1].seq - frames[0].seq) / 20.0
    assert taken_s > span_s - 0.1, "never faster; a busy machine may be late"
    assert frames[-1].seq == 19
    assert (frames[-1].taken_at - frames[0].taken_at).total_seconds() == pytest.approx(taken_s, abs=0.4)
    assert frames[0].taken_at.utcoffset() is not None


def test_a_slow_reader_of_a_real_time_clip_gets_the_newest(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(30, fps=60.0))
    bench.wait_for(CameraPhase.ENDED)
    assert [frame.seq for frame in bench.take_all()] == [29]
    assert grabber.counters().frames_dropped == 29


def test_a_looping_clip_never_ends(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(5), realtime=False, loop=True)
    seqs = [bench.take().seq for _ in range(23)]
    assert seqs == list(range(23))
    assert grabber.stop(LIMIT_S)


def test_fps_caps_a_clip_by_its_own_time_line(bench: Bench, make_clip: Callable[..., Path]) -> None:
    bench.start(make_clip(50, fps=50.0), realtime=False, fps=12.5)
    frames = bench.take_all()
    assert [frame.seq for frame in frames] == list(range(13))
    assert [number_of(frame.image) for frame in frames] == [4 * number % 20 for number in range(13)]


def test_a_folder_with_a_damaged_image_counts_it(bench: Bench, tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / "1.png").write_bytes(b"nonsense")
    grabber = bench.start(tmp_path, realtime=False)
    assert [number_of(frame.image) for frame in bench.take_all()] == [0, 2]
    bench.wait_for(CameraPhase.ENDED)
    assert grabber.counters().decode_errors == 1


def test_the_news_of_a_missing_file_names_it_and_the_camera_returns_with_it(
    bench: Bench, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(5)
    hidden = clip.rename(clip.with_suffix(".hidden"))
    bench.start(clip, policy=QUICK, realtime=False)
    lost = bench.wait_for(CameraPhase.BACKOFF)
    assert f"{clip} does not exist" in lost.reason
    assert lost.retry_in_s is not None
    hidden.rename(clip)
    bench.wait_for(CameraPhase.STREAMING)
    assert len(bench.take_all()) == 5


def test_a_lost_camera_is_told_and_yields_nothing_until_it_is_back(bench: Bench) -> None:
    opened_again = threading.Event()
    bench.start("rtsp://cam/1", Script(0, 1, SourceError("cable cut")), Script(opened_again.wait, 2, bench.over.wait))
    assert bench.wait_for(CameraPhase.STREAMING).attempts == 0
    lost = bench.wait_for(CameraPhase.BACKOFF)
    assert (lost.reason, lost.attempts) == ("cable cut", 1)
    assert bench.wait_for(CameraPhase.OPENING).reason == "cable cut"
    assert bench.mailboxes.take(1, 0.2) == [], "a lost camera gave a frame"
    opened_again.set()
    assert bench.wait_for(CameraPhase.STREAMING).reason == ""
    assert bench.take().seq == 2


def test_a_stall_is_told_while_the_read_still_hangs_and_its_late_frame_is_thrown_away(bench: Bench) -> None:
    hanging = threading.Event()
    first = Script(0, hanging.wait, 1)
    policy = Policy(stall_s=1.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    grabber = bench.start("rtsp://cam/1", first, Script(2, bench.over.wait), policy=policy)
    bench.wait_for(CameraPhase.STREAMING)
    bench.take()
    wait_for(lambda: grabber._call_began_s is not None and not first.lines[1:])
    beats = bench.beats
    last_s = grabber._state.last_frame_s
    grabber.tick(last_s + 0.9)
    assert grabber.counters().phase is CameraPhase.STREAMING
    assert bench.beats > beats, "waiting within its own timeout is on purpose"
    grabber.tick(last_s + 1.1)
    assert "no new frame for 1.1 s" in bench.wait_for(CameraPhase.BACKOFF).reason
    beats = bench.beats
    grabber.tick(last_s + 60.0)
    assert bench.beats == beats, "a read that hangs beyond its timeout must not feed the watchdog"
    hanging.set()
    bench.wait_for(CameraPhase.STREAMING)
    assert number_of(bench.take().image) == 2
    assert first.closed == 1


def test_a_tick_between_two_reads_does_nothing(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(2), realtime=False)
    bench.take_all()
    bench.wait_for(CameraPhase.ENDED)
    beats = bench.beats
    grabber.tick(time.monotonic() + 1e6)
    assert bench.beats == beats


def test_a_frozen_picture_is_a_loss(bench: Bench) -> None:
    def nap() -> None:
        time.sleep(0.03)

    policy = Policy(stall_s=5.0, freeze_s=0.05, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    bench.start("rtsp://cam/1", Script(0, nap, 1, nap, 1, nap, 1, nap, 1, nap, 1), policy=policy)
    assert bench.wait_for(CameraPhase.BACKOFF).reason.startswith("the same picture for ")


def test_a_bug_in_a_source_costs_a_reconnection_and_not_the_camera(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    buggy = Script(0, ValueError("from rtsp://a:hunter2@cam"))
    bench.start("rtsp://cam/1", buggy, Script(1, SourceError("end")))
    lost = bench.wait_for(CameraPhase.BACKOFF)
    assert lost.reason == "unexpected ValueError: from rtsp://cam"
    bench.wait_for(CameraPhase.STREAMING)
    assert buggy.closed == 1
    assert "camera gate: unexpected ValueError: from rtsp://cam\n" in caplog.text
    assert "in _round" in caplog.text
    assert "hunter2" not in caplog.text


def test_stop_ends_a_wait_in_backoff_at_once(bench: Bench) -> None:
    policy = Policy(stall_s=5.0, freeze_s=None, healthy_s=60.0, backoff_max_s=600.0, first_delay_s=600.0)
    grabber = bench.start("missing.avi", policy=policy)
    bench.wait_for(CameraPhase.BACKOFF)
    assert grabber.stop(LIMIT_S), "600 s of backoff are left"
    assert bench.wait_for(CameraPhase.CLOSED).attempts == 0
    assert no_camera_threads()


def test_stop_ends_a_wait_for_the_next_image(bench: Bench, tmp_path: Path) -> None:
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    grabber = bench.start(tmp_path, fps=0.001)
    assert bench.take()
    assert grabber.stop(LIMIT_S)


def test_stop_ends_a_wait_for_a_free_slot(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(10), realtime=False)
    bench.wait_for(CameraPhase.STREAMING)
    assert grabber.stop(LIMIT_S)


def test_a_read_stuck_in_the_driver_is_reported_and_ends_later_by_itself(bench: Bench) -> None:
    stuck = threading.Event()
    script = Script(0, stuck.wait, 1)
    grabber = bench.start("/dev/video0", script)
    bench.wait_for(CameraPhase.STREAMING)
    bench.take()
    assert not grabber.stop(0.1)
    assert bench.wait_for(CameraPhase.CLOSED)
    assert script.closed == 0, "released under its reader"
    stuck.set()
    assert grabber.stop(LIMIT_S)
    assert script.closed == 1
    assert bench.mailboxes.take(1, 0.1) == []
    assert bench.news.empty()


def test_only_the_cameras_own_thread_reads_it(bench: Bench) -> None:
    script = Script(*range(50), SourceError("end"))
    bench.start("rtsp://cam/1", script)
    bench.wait_for(CameraPhase.BACKOFF)
    assert script.reads_from == {"camera-gate"}


def test_the_rate_is_measured_while_it_streams_and_zero_when_lost(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(100, fps=50.0))
    bench.wait_for(CameraPhase.STREAMING)
    assert 0.0 < wait_for(lambda: grabber.counters().fps) < 75.0
    assert grabber.stop(LIMIT_S)
    assert grabber.counters().fps == 0.0


def test_several_cameras_share_one_process(bench: Bench, make_clip: Callable[..., Path]) -> None:
    clip = make_clip(30)
    for name in ("gate", "yard", "roof"):
        bench.start(clip, id=name, realtime=False)
    frames = bench.take_all()
    assert {name: sum(frame.camera == name for frame in frames) for name in ("gate", "yard", "roof")} == {
        "gate": 30,
        "yard": 30,
        "roof": 30,
    }


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_dead_camera_retried_200_times_grows_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="vajra_edge.capture.camera")  # the test's own log would grow
    policy = Policy(stall_s=5.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.001, first_delay_s=0.001)
    grabber = bench.start(f"rtsp://127.0.0.1:{free_port()}/x", policy=policy, open_timeout_s=2.0)

    def lose(times: int) -> None:
        for _ in range(times):
            bench.wait_for(CameraPhase.BACKOFF)
        gc.collect()

    lose(50)
    threads, files, bytes_before = threading.active_count(), open_files(), resident_bytes()
    lose(200)
    assert grabber.counters().losses >= 250
    assert threading.active_count() == threads
    assert open_files() <= files + 2  # an attempt may be under way
    assert resident_bytes() - bytes_before < 4 * 1024 * 1024


def test_the_real_clip_in_real_time(bench: Bench, shared_data: Path) -> None:
    bench.start(shared_data / "videos" / "vtest.avi")
    frames = [bench.take() for _ in range(12)]
    seqs = [frame.seq for frame in frames]
    assert seqs == sorted(set(seqs)), "the newest wins where this machine is late"
    assert frames[0].resolution_wh == (768, 576)
    assert (frames[-1].captured_ns - frames[0].captured_ns) / 1e9 > 0.95
    assert not np.array_equal(frames[0].image, frames[-1].image)
