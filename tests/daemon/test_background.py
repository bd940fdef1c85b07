from __future__ import annotations

import queue
import threading

from vajra_edge.daemon.background import Background, TaskFailed, TaskMended
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
    assert background.close(5.0)
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
    assert background.close(5.0)
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
