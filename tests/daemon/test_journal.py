from __future__ import annotations

import io
import logging
import os
import sys
import threading

import pytest
from waiting import LIMIT_S, wait_for

from vajra_edge.daemon import systemd
from vajra_edge.daemon.systemd import PriorityFormatter, to_journal


@pytest.mark.parametrize(
    ("level", "prefix"),
    [(logging.DEBUG, "<7>"), (logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"), (50, "<2>")],
)
def test_each_line_carries_its_priority(level, prefix):
    record = logging.LogRecord("n", level, "p", 1, "one\ntwo", (), None)
    assert PriorityFormatter("%(message)s").format(record) == f"{prefix}one\n{prefix}two"


def test_a_tracebacks_lines_carry_it_too():
    try:
        int("boom")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "failed", (), sys.exc_info())
    lines = PriorityFormatter("%(message)s").format(record).splitlines()
    assert len(lines) > 2
    assert all(line.startswith("<3>") for line in lines)


def test_only_the_stream_that_systemd_made_counts(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert to_journal(environ, stream.fileno())
        with (tmp_path / "redirected").open("w") as other:
            assert not to_journal(environ, other.fileno())
        assert not to_journal({}, stream.fileno())
    assert not to_journal(environ, 9999)


@pytest.mark.parametrize(("in_journal", "start"), [(True, "<4>n: careful"), (False, "20")])
def test_set_up_logs_to_stderr_once_and_changes_the_level(monkeypatch, in_journal, start):
    root = logging.RootLogger(logging.WARNING)  # not the real one, which pytest listens at
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(systemd, "to_journal", lambda: in_journal)
    systemd.set_up("error")
    systemd.set_up("warning")
    root.handle(logging.LogRecord("n", logging.WARNING, "p", 1, "careful", (), None))
    root.handlers[0].flush()
    assert len(root.handlers) == 1
    assert root.level == logging.WARNING
    assert sys.stderr.getvalue().startswith(start)


class Stuck(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def write(self, text):
        self.entered.set()
        self.go_on.wait(LIMIT_S)
        return super().write(text)


def test_a_journal_that_hangs_holds_up_nobody_who_logs(monkeypatch):
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    monkeypatch.setattr(systemd, "LINES_KEPT", 10)
    monkeypatch.setattr(systemd, "FLUSH_S", 0.05)
    monkeypatch.setattr(sys, "stderr", stuck := Stuck())
    systemd.set_up("warning")
    for number in range(500):
        root.handle(logging.LogRecord("n", logging.WARNING, "p", 1, "line %d", (number,), None))
        assert not number or stuck.entered.wait(LIMIT_S)
    root.handlers[0].flush()
    stuck.go_on.set()
    wait_for(lambda: not root.handlers[0]._lines.unfinished_tasks)
    told = stuck.getvalue().splitlines()
    assert [line.rpartition(" ")[2] for line in told if " n: line " in line][:5] == ["0", "1", "2", "3", "4"]
    assert "489 lines were lost: nobody took them" in told
    root.handle(logging.LogRecord("n", logging.WARNING, "p", 1, "again", (), None))
    wait_for(lambda: "n: again" in stuck.getvalue())
