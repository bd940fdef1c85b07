"""Grabber: one thread and one process a camera, with real clips, real dead ports, and scripts of what cameras do."""

from __future__ import annotations

import gc
import logging
import os
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import acted
import cv2
import numpy as np
import pytest
from pictures import number_of, picture
from ports import free_port
from waiting import LIMIT_S, is_alive, wait_for

from vajra_edge.capture import limits
from vajra_edge.capture.camera import CameraChanged, Grabber
from vajra_edge.capture.children import Children
from vajra_edge.capture.reconnect import CameraPhase, Policy
from vajra_edge.capture.ring import SLOTS
from vajra_edge.config.settings import CameraSettings
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.media.bgr import bgr_of
from vajra_edge.pixel_format import Colorimetry, Matrix, PixelFormat
from vajra_edge.types import Frame

QUICK = Policy(stall_s=60.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
HOLD = ["nap", 600]
HUNG = r"did not answer within \d+ s and was ended"


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """Of all tests here; each camera of theirs has an id of its own, or ends before the next."""
    made = Children(acted.COMMAND)
    yield made
    made.close()


class Bench:
    """A grabber with its mailbox and everything it says."""

    def __init__(self, children: Children, folder: Path) -> None:
        self.children, self.folder = children, folder
        self.mailboxes = Mailboxes()
        self.news: queue.SimpleQueue[CameraChanged] = queue.SimpleQueue()
        self.beats = 0
        self.over = folder / "over"  # a script that waits for it holds its line until the test is over
        self.script = folder / "script.json"
        self.grabbers: list[Grabber] = []

    def beat(self) -> None:
        self.beats += 1

    def start(self, source: object, policy: Policy | None = None, **settings: object) -> Grabber:
        camera = CameraSettings.model_validate({"id": "gate", "source": str(source), **settings})
        grabber = Grabber(camera, self.mailboxes, self.news.put, self.beat, self.children, policy=policy)
        self.grabbers.append(grabber)
        grabber.start()
        return grabber

    def play(self, *openings: list[object], policy: Policy = QUICK, **settings: object) -> Grabber:
        """A live camera that does these things, the last opening again and again."""
        return self.start(acted.script(self.script, *openings), policy, **settings)

    def wait_for(self, phase: CameraPhase) -> CameraChanged:
        while (news := self.news.get(timeout=LIMIT_S)).phase is not phase:
            pass
        return news

    def take(self) -> Frame:
        """The next frame of any camera."""
        (frame,) = self.mailboxes.take(1, LIMIT_S)
        return frame

    def take_all(self) -> list[Frame]:
        """What is there and comes until every camera has ended; copies, for so many slots there are not."""
        frames: list[Frame] = []
        while True:
            over = all(grabber.counters().phase is CameraPhase.ENDED for grabber in self.grabbers)
            batch = self.mailboxes.take(4, 0.02)
            frames += [replace(one, image=one.image.copy()) for one in batch]
            if over and not batch:
                return frames

    def pid(self) -> int:
        """Of the process of the first camera."""
        return wait_for(lambda: self.grabbers[0].counters().pid)


@pytest.fixture
def bench(children: Children, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(children, tmp_path)
    yield made
    made.mailboxes.close()
    made.over.touch()
    for grabber in made.grabbers:
        assert grabber.stop(LIMIT_S)


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


def test_images_in_the_pipelines_hands_are_never_written_to(bench: Bench) -> None:
    bench.play([["paint", 64, 48, None, 0.0]])
    held = [bench.take() for _ in range(3)]
    numbers = [acted.painted(frame.image) for frame in held]
    first = bench.grabbers[0].counters().frames_read
    wait_for(lambda: bench.grabbers[0].counters().frames_read > first + 100)
    assert [acted.painted(frame.image) for frame in held] == numbers
    assert all(frame.image.flags["C_CONTIGUOUS"] and not frame.image.flags["WRITEABLE"] for frame in held)


def test_a_clip_waits_for_who_holds_its_images_and_loses_none(bench: Bench, make_clip: Callable[..., Path]) -> None:
    bench.start(make_clip(40), realtime=False)
    held = [bench.take() for _ in range(3)]
    rest = bench.take_all()
    assert [number_of(frame.image) for frame in (*held, *rest)] == [number % 20 for number in range(40)]


def test_a_live_camera_whose_images_are_all_held_loses_frames_and_counts_them(bench: Bench) -> None:
    grabber = bench.play([["paint", 64, 48, None, 200.0]])

    def lost() -> int:
        """While all images are held; a busy machine may not have painted any meanwhile."""
        held = [bench.take() for _ in range(SLOTS)]
        assert bench.mailboxes.take(1, 0.3) == []
        last = acted.painted(held[-1].image)
        held.clear()
        after = bench.take()
        assert acted.painted(after.image) == after.seq
        return after.seq - last - 1

    gap = wait_for(lost)
    assert grabber.counters().frames_dropped >= gap


def test_a_frame_that_its_source_knows_to_be_old_is_told_so_and_what_was_left_out_before_it_is_counted(
    bench: Bench,
) -> None:
    taken = bench.folder / "taken"
    grabber = bench.play([0, ["until", str(taken)], ["nap", 1.0], ["late", 1, 0.8, 7], ["until", str(bench.over)]])
    first = bench.take()
    taken.touch()
    late = bench.take()
    assert (time.monotonic_ns() - late.captured_ns) / 1e9 >= 0.8
    assert datetime.now(timezone.utc) - late.taken_at >= timedelta(seconds=0.7), "but for the wall clock's own pace"
    assert late.captured_ns > first.captured_ns
    assert late.seq - first.seq == 8
    assert grabber.counters().frames_dropped == 7


def test_frames_keep_their_order_whatever_age_is_told(bench: Bench) -> None:
    taken = bench.folder / "taken"
    bench.play([0, ["until", str(taken)], ["late", 1, 3600.0, 0], ["until", str(bench.over)]])
    first = bench.take()
    taken.touch()
    assert bench.take().captured_ns > first.captured_ns


def test_a_clip_in_real_time_keeps_its_pace(bench: Bench, make_clip: Callable[..., Path]) -> None:
    began_ns = time.monotonic_ns()
    bench.start(make_clip(SLOTS, fps=5.0))  # no more frames than slots: a busy machine loses none of them
    frames = bench.take_all()
    assert frames[-1].seq == SLOTS - 1
    assert (frames[-1].captured_ns - began_ns) / 1e9 > (SLOTS - 1) / 5.0 - 0.01, "a busy machine may be late"
    taken_s = (frames[-1].captured_ns - frames[0].captured_ns) / 1e9
    assert (frames[-1].taken_at - frames[0].taken_at).total_seconds() == pytest.approx(taken_s, abs=30.0)
    assert frames[0].taken_at.utcoffset() is not None


def test_a_slow_reader_of_a_real_time_clip_gets_the_newest(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(SLOTS, fps=60.0))  # of more frames, a busy machine may lose the last
    bench.wait_for(CameraPhase.ENDED)
    assert [frame.seq for frame in bench.take_all()] == [SLOTS - 1]
    assert grabber.counters().frames_dropped == SLOTS - 1


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
    bench.start(clip, QUICK, realtime=False)
    lost = bench.wait_for(CameraPhase.BACKOFF)
    assert f"{clip} does not exist" in lost.reason
    assert lost.retry_in_s is not None
    hidden.rename(clip)
    bench.wait_for(CameraPhase.STREAMING)
    assert len(bench.take_all()) == 5


def test_a_lost_camera_is_told_and_yields_nothing_until_it_is_back(bench: Bench) -> None:
    again = bench.folder / "again"
    bench.play([0, 1, ["fail", "cable cut"]], [["open", "until", str(again)], 2, ["until", str(bench.over)]])
    assert bench.wait_for(CameraPhase.STREAMING).attempts == 0
    lost = bench.wait_for(CameraPhase.BACKOFF)
    assert (lost.reason, lost.attempts) == ("cable cut", 1)
    assert bench.wait_for(CameraPhase.OPENING).reason == "cable cut"
    assert bench.mailboxes.take(1, 0.2) == [], "a lost camera gave a frame"
    again.touch()
    assert bench.wait_for(CameraPhase.STREAMING).reason == ""
    assert bench.take().seq == 2


def test_a_stall_is_told_and_its_process_replaced(bench: Bench) -> None:
    policy = Policy(stall_s=2.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    bench.play([0, HOLD], [2, ["until", str(bench.over)]], policy=policy)
    bench.wait_for(CameraPhase.STREAMING)
    stalled = bench.pid()
    assert "no new frame for " in bench.wait_for(CameraPhase.BACKOFF).reason
    bench.wait_for(CameraPhase.STREAMING)
    assert number_of(bench.take().image) == 2
    assert bench.pid() != stalled
    assert not is_alive(stalled)


def test_a_slow_camera_is_neither_stalled_nor_without_a_rate(bench: Bench) -> None:
    policy = Policy.of(CameraSettings(id="slow", source="rtsp://cam/1", fps=0.05, stall_s=10.0), live=True)
    assert policy.stall_s == 40.0
    grabber = bench.play([0, 1, ["until", str(bench.over)]], policy=policy)
    wait_for(lambda: grabber.counters().frames_read == 2)
    assert grabber.counters().fps > 0.0


def test_frames_above_the_cap_keep_a_camera_from_its_stall(bench: Bench) -> None:
    """Six seconds of frames, of which the cap takes the first, and a stall after four without any."""
    policy = Policy(stall_s=4.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    painted = bench.folder / "painted"
    lines = [["paint", 64, 48, 120, 20.0], ["tell", str(painted)], ["until", str(bench.over)]]
    grabber = bench.play(lines, policy=policy, fps=0.001)
    bench.wait_for(CameraPhase.STREAMING)
    bench.wait_for(CameraPhase.BACKOFF)
    assert painted.exists(), "lost while frames came that nobody wants"
    assert grabber.counters().frames_read == 1


def test_time_in_which_this_process_stood_still_is_not_the_cameras(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on an emulated board: a library loaded for 16 s with the interpreter's lock, and the camera was reopened."""
    policy = Policy(stall_s=4.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    grabber = bench.play([["paint", 64, 48, 1200, 20.0], ["until", str(bench.over)]], policy=policy)
    bench.wait_for(CameraPhase.STREAMING)
    stood_still = threading.Event()

    def stand_still(_pid: int) -> int:
        if not stood_still.is_set():
            time.sleep(6.0)
            stood_still.set()
        return 0

    monkeypatch.setattr(limits, "memory_bytes", stand_still)
    wait_for(stood_still.is_set, LIMIT_S)
    read = grabber.counters().frames_read
    wait_for(lambda: grabber.counters().frames_read > read + 20, LIMIT_S)
    assert grabber.counters().losses == 0


def test_a_frozen_picture_is_a_loss(bench: Bench) -> None:
    policy = Policy(stall_s=5.0, freeze_s=0.05, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    same = [["nap", 0.03], 1] * 8
    bench.play([0, *same], policy=policy, freeze_s=0.05)
    assert bench.wait_for(CameraPhase.BACKOFF).reason.startswith("the same picture for ")


def test_a_picture_is_frozen_whatever_the_byte_that_says_nothing_does(bench: Bench) -> None:
    policy = Policy(stall_s=5.0, freeze_s=0.05, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    same = [["nap", 0.03], ["give", 1, "BGRX", "BT709", False]] * 8
    bench.play([0, *same], policy=policy, freeze_s=0.05)
    assert bench.wait_for(CameraPhase.BACKOFF).reason.startswith("the same picture for ")


@pytest.mark.parametrize("pixels", PixelFormat)
def test_pictures_travel_as_they_come_with_what_their_numbers_mean(bench: Bench, pixels: PixelFormat) -> None:
    meaning = Colorimetry(Matrix.BT601, full_range=True)
    grabber = bench.play([["give", 7, pixels.name, meaning.matrix.name, meaning.full_range], HOLD])
    frame = bench.take()
    assert (frame.pixels, frame.colorimetry, frame.resolution_wh) == (pixels, meaning, (64, 48))
    assert np.abs(bgr_of(frame).astype(int) - picture(7)).max() <= 2
    assert frame.memory is not None
    assert frame.memory.holds(frame.image)
    assert grabber.counters().resolution_wh == (64, 48)


def test_a_bug_in_a_source_costs_a_reconnection_and_not_the_camera(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.play([0, ["bug", "from rtsp://a:hunter2@cam"]], [1, ["until", str(bench.over)]])
    assert bench.wait_for(CameraPhase.BACKOFF).reason == "unexpected ValueError: from rtsp://cam"
    bench.wait_for(CameraPhase.STREAMING)
    assert bench.script.with_suffix(".closed").exists()
    assert "camera gate: unexpected ValueError: from rtsp://cam\n" in caplog.text
    assert "in _bug" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_a_source_logs_reaches_the_log_without_passwords(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (bench.folder / "pictures").mkdir()
    cv2.imwrite(str(bench.folder / "pictures" / "0.png"), picture(0))
    (bench.folder / "pictures" / "1.png").write_bytes(b"nonsense")
    bench.start(bench.folder / "pictures", realtime=False)
    bench.take_all()
    assert re.search(r"camera gate: \S*1\.png: not an image", caplog.text)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([["signal", "SEGV"]], "the decoder crashed (SIGSEGV): Fatal Python error: Segmentation fault"),
        ([["crash"]], "the decoder crashed (SIGSEGV): Fatal Python error: Segmentation fault"),
        ([["say", "free(): invalid pointer"], ["signal", "ABRT"]], "the decoder crashed (SIGABRT): free(): invalid"),
        ([["signal", "KILL"]], "the decoder was killed (SIGKILL)"),
        ([["say", "at rtsp://a:hunter2@cam"], ["exit", 3]], "ended with exit code 3: at rtsp://cam"),
    ],
)
def test_a_decoder_that_dies_costs_a_reconnection(bench: Bench, lines: list[object], reason: str) -> None:
    bench.play([0, *lines], [1, ["until", str(bench.over)]])
    assert reason in bench.wait_for(CameraPhase.BACKOFF).reason
    bench.wait_for(CameraPhase.STREAMING)
    assert number_of(bench.take().image) in (0, 1)


def test_a_decoder_that_dies_before_its_first_frame_is_tried_again(bench: Bench) -> None:
    bench.play([["open", "signal", "SEGV"]], [["open", "exit", 1]], [5, ["until", str(bench.over)]])
    assert "SIGSEGV" in bench.wait_for(CameraPhase.BACKOFF).reason
    assert "exit code 1" in bench.wait_for(CameraPhase.BACKOFF).reason
    bench.wait_for(CameraPhase.STREAMING)
    assert number_of(bench.take().image) == 5


def test_an_opening_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vajra_edge.capture.camera.GRACE_S", 0.2)
    bench.play([["open", *HOLD]], [0, ["until", str(bench.over)]], open_timeout_s=1.5)
    hung = bench.pid()
    assert re.fullmatch(HUNG, bench.wait_for(CameraPhase.BACKOFF).reason)
    bench.wait_for(CameraPhase.STREAMING)
    assert not is_alive(hung)


@pytest.mark.parametrize("how", [signal.SIGSTOP, None])
def test_a_read_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch, how: signal.Signals | None) -> None:
    """A clip, which never counts as stalled."""
    monkeypatch.setattr("vajra_edge.capture.camera.GRACE_S", 0.2)
    policy = Policy(stall_s=None, freeze_s=None, healthy_s=60.0, backoff_max_s=0.02, first_delay_s=0.01)
    stop = ["nap", 600] if how is None else ["signal", "STOP"]
    bench.play([0, stop], [1, ["until", str(bench.over)]], policy=policy, stall_s=1.5)
    hung = bench.pid()
    assert re.fullmatch(HUNG, bench.wait_for(CameraPhase.BACKOFF).reason)
    bench.wait_for(CameraPhase.STREAMING)
    assert not is_alive(hung)


def test_a_decoder_that_eats_memory_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMORY_BYTES", 200 * 1024**2)
    bench.play([0, ["hold", 300 * 1024**2], HOLD], [1, ["until", str(bench.over)]])
    reason = bench.wait_for(CameraPhase.BACKOFF).reason
    assert reason.startswith("the decoder took ")
    assert reason.endswith("MB of memory, allowed are 210 MB")
    bench.wait_for(CameraPhase.STREAMING)


def test_one_allocation_beyond_everything_fails_at_once(bench: Bench) -> None:
    bench.play([0, ["hold", 2 * limits.DATA_BYTES]], [1, ["until", str(bench.over)]])
    assert bench.wait_for(CameraPhase.BACKOFF).reason.startswith("the decoder asked for more memory than a camera may")


def test_a_killed_process_is_replaced_and_the_others_stay(bench: Bench) -> None:
    other = Bench(bench.children, bench.folder)
    bench.play([["paint", 64, 48, None, 50.0]])
    other.script = bench.folder / "other.json"
    healthy = other.play([["paint", 64, 48, None, 50.0]], id="yard")
    killed = bench.pid()
    other.take()
    os.kill(killed, signal.SIGKILL)
    assert bench.wait_for(CameraPhase.BACKOFF).reason == "the decoder was killed (SIGKILL)"
    bench.wait_for(CameraPhase.STREAMING)
    counters = healthy.counters()
    assert (counters.losses, counters.starts, counters.phase) == (0, 1, CameraPhase.STREAMING)
    assert healthy.stop(LIMIT_S)


def test_without_its_fork_server_every_camera_is_back_in_another(tmp_path: Path) -> None:
    children = Children(acted.COMMAND)
    bench = Bench(children, tmp_path)
    grabber = bench.play([["paint", 64, 48, None, 50.0]])
    bench.wait_for(CameraPhase.STREAMING)
    first = bench.pid()
    assert children._server is not None
    children._server[0].kill()
    bench.wait_for(CameraPhase.BACKOFF)
    bench.wait_for(CameraPhase.STREAMING)
    assert not is_alive(first)
    assert grabber.stop(LIMIT_S)
    children.close()


def test_the_size_of_its_frames_is_known_when_it_is_said_to_stream(bench: Bench) -> None:
    sizes: list[tuple[int, int] | None] = []

    def post(news: CameraChanged) -> None:
        if news.phase is CameraPhase.STREAMING:
            sizes.append(grabber.counters().resolution_wh)

    source = acted.script(bench.script, [["paint", 64, 48, 1, 20.0], HOLD])
    camera = CameraSettings(id="gate", source=source)
    grabber = Grabber(camera, bench.mailboxes, post, bench.beat, bench.children, policy=QUICK)
    bench.grabbers.append(grabber)
    grabber.start()
    assert wait_for(lambda: sizes)[0] == (64, 48)


def test_a_change_of_resolution_in_mid_stream_is_followed(bench: Bench) -> None:
    sizes = [(64, 48), (320, 240), (160, 120)]
    bench.play([["paint", *size, 40, 200.0] for size in sizes] + [["until", str(bench.over)]])
    seen: list[tuple[int, int]] = []
    held: list[tuple[Frame, int]] = []
    while (160, 120) not in seen:
        frame = bench.take()
        if frame.resolution_wh not in seen:
            seen.append(frame.resolution_wh)
            held.append((frame, acted.painted(frame.image)))
    assert seen == sizes
    assert [acted.painted(frame.image) for frame, _ in held] == [number for _, number in held]
    assert bench.grabbers[0].counters().resolution_wh == (160, 120)


def test_no_picture_is_ever_mixed_from_two(bench: Bench) -> None:
    """A reader that is slower than the camera, with two frames in its hands at any time."""
    bench.play([["paint", 640, 480, None, 0.0]])
    held: list[tuple[Frame, int]] = []
    for _ in range(150):
        frame = bench.take()
        held.append((frame, acted.painted(frame.image)))
        for kept, number in held:
            assert number >= 0
            assert acted.painted(kept.image) == number
        held = held[-2:]


def test_stop_ends_a_wait_in_backoff_at_once(bench: Bench) -> None:
    policy = Policy(stall_s=5.0, freeze_s=None, healthy_s=60.0, backoff_max_s=600.0, first_delay_s=600.0)
    grabber = bench.start("missing.avi", policy)
    bench.wait_for(CameraPhase.BACKOFF)
    assert grabber.stop(LIMIT_S), "600 s of backoff are left"
    assert bench.wait_for(CameraPhase.CLOSED).attempts == 0
    assert no_camera_threads()


def test_a_wrong_password_is_tried_again_once_its_file_is_written(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "gate"
    file.write_text("admin:hunter2\n")
    grabber = bench.play(
        [["open", "refuse"]], [["open", "refuse"]], [["paint", 64, 48, None, 50.0]], credentials_file=str(file)
    )
    assert (bench.wait_for(CameraPhase.BACKOFF).retry_in_s or 0.0) < 1.0
    locked = bench.wait_for(CameraPhase.BACKOFF)
    assert (locked.retry_in_s or 0.0) >= 600.0
    assert "it may lock this user out" in locked.reason
    file.write_text("admin:swordfish\n")
    assert bench.wait_for(CameraPhase.BACKOFF).reason == "user and password were changed here"
    bench.wait_for(CameraPhase.STREAMING)
    assert grabber.counters().losses == 2, "a changed password is no loss"


def test_a_password_of_which_nothing_changes_is_left_alone_for_ten_minutes(bench: Bench) -> None:
    grabber = bench.play([["open", "refuse"]])
    wait_for(lambda: grabber.counters().losses == 2)
    beats = bench.beats
    wait_for(lambda: bench.beats > beats + 3)  # it looks up once a second, and the watchdog hears of it
    assert grabber.counters().starts == 2


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


def test_a_read_that_hangs_at_stop_is_killed(bench: Bench) -> None:
    grabber = bench.play([0, HOLD])
    bench.wait_for(CameraPhase.STREAMING)
    bench.take()
    hung = bench.pid()
    assert not grabber.stop(0.1)
    assert bench.wait_for(CameraPhase.CLOSED)
    assert grabber.stop(LIMIT_S)
    assert not is_alive(hung)
    assert bench.mailboxes.take(1, 0.1) == []
    assert bench.news.empty()


def test_a_stop_lets_the_source_close(bench: Bench) -> None:
    grabber = bench.play([["paint", 64, 48, None, 50.0]])
    bench.wait_for(CameraPhase.STREAMING)
    assert grabber.stop(LIMIT_S)
    assert bench.script.with_suffix(".closed").exists()


def test_the_rate_is_measured_while_it_streams_and_zero_when_lost(bench: Bench, make_clip: Callable[..., Path]) -> None:
    grabber = bench.start(make_clip(100, fps=50.0), loop=True)
    bench.wait_for(CameraPhase.STREAMING)
    wait_for(lambda: 0.0 < grabber.counters().fps < 75.0)  # of the first two frames alone, one may be late
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


def test_a_camera_reopened_200_times_grows_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="vajra_edge.capture.camera")  # the test's own log would grow
    policy = Policy(stall_s=5.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.001, first_delay_s=0.001)
    grabber = bench.play([0, 1, ["fail", "cable cut"]], [["signal", "SEGV"]], [0, ["fail", "cut"]], policy=policy)

    def lose(times: int) -> None:
        for _ in range(times):
            bench.wait_for(CameraPhase.BACKOFF)
        gc.collect()

    lose(20)
    server = bench.children._server
    assert server is not None
    serves = Path(f"/proc/{server[0].pid}/fd")
    threads, files, bytes_before = threading.active_count(), open_files(), resident_bytes()
    of_server = len(list(serves.iterdir()))
    lose(200)
    assert grabber.counters().starts >= 220
    wait_for(lambda: threading.active_count() <= threads)
    wait_for(lambda: open_files() <= files + 3)  # an attempt may be under way
    wait_for(lambda: len(list(serves.iterdir())) <= of_server + 3)
    assert resident_bytes() - bytes_before < 4 * 1024 * 1024


def test_a_dead_port_is_told(bench: Bench) -> None:
    bench.start(f"rtsp://127.0.0.1:{free_port()}/x", QUICK, open_timeout_s=2.0)
    assert "127.0.0.1" in bench.wait_for(CameraPhase.BACKOFF).reason


def test_an_address_of_no_known_kind_is_a_reason_and_no_crash(bench: Bench) -> None:
    bench.start("ftp://cam/1", QUICK)
    assert "scheme ftp is not supported" in bench.wait_for(CameraPhase.BACKOFF).reason


def test_the_real_clip_in_real_time(bench: Bench, shared_data: Path) -> None:
    began_ns = time.monotonic_ns()
    bench.start(shared_data / "videos" / "vtest.avi")
    frames = [replace(frame, image=frame.image.copy()) for frame in (bench.take() for _ in range(12))]
    seqs = [frame.seq for frame in frames]
    assert seqs == sorted(set(seqs)), "the newest wins where this machine is late"
    assert frames[0].resolution_wh == (768, 576)
    assert (frames[-1].captured_ns - began_ns) / 1e9 > 1.05, "ten a second"
    assert not np.array_equal(frames[0].image, frames[-1].image)
