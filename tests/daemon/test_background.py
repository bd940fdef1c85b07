from __future__ import annotations

import queue
import threading
import time

from waiting import LIMIT_S, wait_for

from vajra_edge.daemon.background import LONGEST_S, Background, TaskFailed, TaskMended
from vajra_edge.daemon.watchdog import DESK, Beats
from vajra_edge.errors import StoreError


def refuse() -> None:
    raise StoreError("the disk is full", remedy="free space")


def test_tasks_are_done_in_order_and_their_events_posted(caplog):
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    background = Background(inbox.put)
    for name, task in (("one", lambda: 1), ("quiet", lambda: None), ("full", refuse), ("bug", lambda: int("x"))):
        background.do(name, task)
    background.do("last", lambda: threading.current_thread().name)
    background.start()
    assert background.close(LIMIT_S)
    told = [inbox.get() for _ in range(4)]
    assert told[0] == 1
    assert told[1] == TaskFailed("full", "the disk is full; free space")
    assert told[2] == TaskFailed("bug", "ValueError: invalid literal for int() with base 10: 'x'")
    assert told[3] == "background"
    assert inbox.empty()
    assert "bug failed" in caplog.text


def test_a_task_that_succeeds_after_a_failure_says_so_once_and_for_no_other():
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    background = Background(inbox.put)
    for name, task in (("keep", refuse), ("other", lambda: None), ("keep", lambda: 7), ("keep", lambda: 8)):
        background.do(name, task)
    background.start()
    assert background.close(LIMIT_S)
    told = [inbox.get() for _ in range(4)]
    assert told == [TaskFailed("keep", "the disk is full; free space"), TaskMended("keep"), 7, 8]
    assert inbox.empty()


def test_a_task_that_hangs_is_left_behind():
    background = Background(lambda _: None)
    never = threading.Event()
    background.do("hang", never.wait)
    background.start()
    assert not background.close(0.05)
    never.set()


def test_a_desk_that_never_started_closes():
    assert Background(lambda _: None).close(0.1)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_task_that_hangs_is_named_one_that_works_is_not_and_waiting_for_tasks_is_no_silence():
    clock, go_on, works = Clock(), threading.Event(), threading.Event()
    beats = Beats(clock)
    background = Background(lambda _: None, beats, clock=clock)
    background.start()
    background.do("load plan", go_on.wait)
    wait_for(lambda: background._busy_since_s is not None)
    silent_s = DESK.deadline_s + 1.0

    def seen_hanging() -> bool:
        """The thread had no processor since the last look; on its way into the task it had some."""
        clock.now_s += silent_s
        background.tick()
        return bool(beats.late())

    wait_for(seen_hanging)
    (late,) = beats.late()
    assert str(late) == f"background (load plan) has been silent for {silent_s:.0f} s"

    def works_until_told() -> None:
        while not works.is_set():
            sum(range(10_000))

    background.do("hash", works_until_told)
    go_on.set()
    wait_for(lambda: not beats.late())

    def seen_working() -> bool:
        """The thread had the processor since the last look."""
        background.tick()
        return not beats.late()

    for _ in range(3):
        clock.now_s += DESK.deadline_s + 1.0
        wait_for(seen_working)
    clock.now_s += LONGEST_S + DESK.deadline_s
    time.sleep(0.01)
    background.tick()
    assert beats.late(), "it goes round in circles"
    works.set()
    assert background.close(LIMIT_S)
    clock.now_s += 1000.0
    assert not beats.late(), "it ended on purpose"


def test_looks_do_not_gather_behind_a_task_that_hangs():
    done, go_on = [], threading.Event()
    background = Background(lambda _: None)
    background.do("hang", go_on.wait)
    for number in range(100):
        background.look("look at the disk", lambda number=number: done.append(number))
    background.start()
    go_on.set()
    wait_for(lambda: done)
    background.look("look at the disk", lambda: done.append("again"))
    assert background.close(LIMIT_S)
    assert done == [0, "again"]
