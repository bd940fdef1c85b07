"""Mailboxes: newest wins, fair turns, back-pressure, and everybody wakes at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone

import numpy as np
import pytest
from waiting import LIMIT_S

from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame

FOR_EVER_S = 1e5
"""A wait that the suite's own limit of a test would end."""

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(camera: str, seq: int = 0) -> Frame:
    return Frame(IMAGE, time.monotonic_ns(), datetime.now(timezone.utc), seq, camera)


def boxes(*cameras: str) -> Mailboxes:
    mailboxes = Mailboxes()
    for camera in cameras:
        mailboxes.add(camera)
    return mailboxes


def seqs(frames: list[Frame]) -> list[tuple[str, int]]:
    return [(item.camera, item.seq) for item in frames]


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_the_newest_frame_wins_and_the_displaced_ones_are_counted() -> None:
    mailboxes = boxes("a", "b")
    for seq in range(5):
        mailboxes.put(frame("a", seq))
    assert seqs(mailboxes.take(1, 0.0)) == [("a", 4)]
    assert (mailboxes.dropped("a"), mailboxes.dropped("b")) == (4, 0)


def test_the_image_is_handed_on_without_a_copy() -> None:
    mailboxes = boxes("a")
    sent = frame("a")
    mailboxes.put(sent)
    assert mailboxes.take(1, 0.0)[0] is sent


def test_a_frame_is_taken_once() -> None:
    mailboxes = boxes("a")
    mailboxes.put(frame("a"))
    assert len(mailboxes.take(4, 0.0)) == 1
    assert mailboxes.take(4, 0.0) == []


def test_nothing_within_the_timeout_is_an_empty_list() -> None:
    mailboxes = boxes("a")
    began_s = time.monotonic()
    assert mailboxes.take(1, 0.05) == []
    assert time.monotonic() - began_s >= 0.045


def test_take_wakes_for_the_first_frame() -> None:
    mailboxes = boxes("a")
    thread, answers = in_thread(lambda: mailboxes.take(1, LIMIT_S))
    mailboxes.put(frame("a", 3))
    thread.join(LIMIT_S)
    assert seqs(answers[0]) == [("a", 3)]  # type: ignore[arg-type]


def test_the_longest_unserved_camera_comes_first() -> None:
    mailboxes = boxes("a", "b", "c")
    served: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    for seq in range(30):
        for camera in served:
            mailboxes.put(frame(camera, seq))
        for item in mailboxes.take(1, 0.0):
            served[item.camera] += 1
    assert served == {"a": 10, "b": 10, "c": 10}


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    mailboxes = boxes("fast", "slow")
    mailboxes.put(frame("fast"))
    mailboxes.take(1, 0.0)
    mailboxes.put(frame("slow"))
    mailboxes.put(frame("fast"))
    assert seqs(mailboxes.take(1, 0.0)) == [("slow", 0)]


def test_a_batch_has_one_frame_of_each_camera_up_to_the_limit() -> None:
    mailboxes = boxes("a", "b", "c")
    for camera in "abc":
        mailboxes.put(frame(camera))
    assert seqs(mailboxes.take(2, 0.0)) == [("a", 0), ("b", 0)]
    assert seqs(mailboxes.take(2, 0.0)) == [("c", 0)]


def test_gathering_waits_for_the_other_streaming_camera() -> None:
    mailboxes = boxes("a", "b")
    for camera in "ab":
        mailboxes.put(frame(camera))
    mailboxes.take(2, 0.0)
    mailboxes.put(frame("a", 1))
    thread, answers = in_thread(lambda: mailboxes.take(2, LIMIT_S, gather_s=LIMIT_S))
    time.sleep(0.05)
    assert not answers
    mailboxes.put(frame("b", 1))
    thread.join(LIMIT_S)
    assert sorted(seqs(answers[0])) == [("a", 1), ("b", 1)]  # type: ignore[arg-type]


def test_gathering_ends_with_what_is_there() -> None:
    mailboxes = boxes("a", "b")
    for camera in "ab":
        mailboxes.put(frame(camera))
    mailboxes.take(2, 0.0)
    mailboxes.put(frame("b", 1))
    began_s = time.monotonic()
    assert seqs(mailboxes.take(2, 1.0, gather_s=0.05)) == [("b", 1)]
    assert time.monotonic() - began_s >= 0.045


def test_gathering_does_not_wait_for_a_camera_that_rests() -> None:
    mailboxes = boxes("a", "dead", "never")
    for camera in ("a", "dead"):
        mailboxes.put(frame(camera))
    mailboxes.take(2, 0.0)
    mailboxes.rest("dead", discard=True)
    mailboxes.put(frame("a"))
    assert len(mailboxes.take(4, 1.0, gather_s=FOR_EVER_S)) == 1


def test_gathering_does_not_wait_beyond_the_limit() -> None:
    mailboxes = boxes("a", "b")
    for camera in "ab":
        mailboxes.put(frame(camera))
    mailboxes.take(2, 0.0)
    mailboxes.put(frame("a"))
    assert len(mailboxes.take(1, 1.0, gather_s=FOR_EVER_S)) == 1


def test_a_lost_camera_leaves_no_frame_behind_and_an_ended_one_does() -> None:
    mailboxes = boxes("lost", "ended")
    mailboxes.put(frame("lost"))
    mailboxes.put(frame("ended"))
    mailboxes.rest("lost", discard=True)
    mailboxes.rest("ended", discard=False)
    assert seqs(mailboxes.take(2, 0.0)) == [("ended", 0)]
    assert (mailboxes.dropped("lost"), mailboxes.dropped("ended")) == (1, 0)


def test_waiting_writers_lose_no_frame() -> None:
    mailboxes, stop = boxes("a"), threading.Event()
    thread, _ = in_thread(lambda: [mailboxes.put_wait(frame("a", seq), stop) for seq in range(50)])
    got = [item.seq for _ in range(50) for item in mailboxes.take(1, LIMIT_S)]
    thread.join(LIMIT_S)
    assert got == list(range(50))
    assert mailboxes.dropped("a") == 0


def test_a_waiting_writer_beats_and_gives_up_when_it_shall_stop() -> None:
    mailboxes, stop, beats = boxes("a"), threading.Event(), threading.Event()
    mailboxes.put(frame("a", 0))
    thread, answers = in_thread(lambda: mailboxes.put_wait(frame("a", 1), stop, beats.set))
    assert beats.wait(LIMIT_S)
    stop.set()
    thread.join(LIMIT_S)
    assert answers == [False]
    assert seqs(mailboxes.take(1, 0.0)) == [("a", 0)]


@pytest.mark.parametrize("end", [lambda m: m.close(), lambda m: m.remove("a")])
def test_the_end_wakes_a_waiting_writer(end: Callable[[Mailboxes], None]) -> None:
    mailboxes, stop = boxes("a"), threading.Event()
    mailboxes.put(frame("a"))
    thread, answers = in_thread(lambda: mailboxes.put_wait(frame("a"), stop))
    end(mailboxes)
    thread.join(LIMIT_S)
    assert answers == [False]


def test_close_wakes_the_reader_and_keeps_nothing() -> None:
    mailboxes = boxes("a")
    thread, answers = in_thread(lambda: mailboxes.take(1, 60.0))
    mailboxes.close()
    thread.join(LIMIT_S)
    assert answers == [[]]
    mailboxes.put(frame("a"))
    assert mailboxes.take(1, 0.0) == []


def test_a_removed_camera_takes_no_late_frame() -> None:
    mailboxes = boxes("a")
    mailboxes.put(frame("a", 0))
    mailboxes.remove("a")
    mailboxes.put(frame("a", 1))
    assert mailboxes.take(1, 0.0) == []


def test_adding_again_keeps_the_waiting_frame_and_the_count() -> None:
    mailboxes = boxes("a")
    mailboxes.put(frame("a", 0))
    mailboxes.put(frame("a", 1))
    mailboxes.add("a")
    assert mailboxes.dropped("a") == 1
    assert seqs(mailboxes.take(1, 0.0)) == [("a", 1)]


def test_many_writers_and_one_reader_account_for_every_frame() -> None:
    cameras = [f"camera{number}" for number in range(6)]
    mailboxes = boxes(*cameras)
    threads = [
        threading.Thread(target=lambda name=name: [mailboxes.put(frame(name, seq)) for seq in range(500)])
        for name in cameras
    ]
    for thread in threads:
        thread.start()
    taken: list[Frame] = []
    while any(thread.is_alive() for thread in threads):
        taken += mailboxes.take(3, 0.01)
    while frames := mailboxes.take(3, 0.0):
        taken += frames
    for name in cameras:
        own = [item.seq for item in taken if item.camera == name]
        assert own == sorted(set(own))
        assert len(own) + mailboxes.dropped(name) == 500
