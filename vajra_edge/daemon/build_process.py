"""Build process: runs the build child, one at a time, and tells what becomes of it. Its death never takes the daemon.

A plan's trial is run likewise, see ``trial``: request on stdin, lines on stdout, a deadline, a death that is told.

Kills for want of memory are counted by the kernel: a child's SIGKILL was one of these, or somebody's.

Each job has a thread of its own that starts the child, reads its lines, signals it and reaps it, so that no signal can
reach a process that took over its number. The child asks the kernel to be killed when that thread ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import vajra_edge
from vajra_edge.build import protocol, refusals
from vajra_edge.build.request import BuildRequest
from vajra_edge.daemon.watchdog import BUILD, Beats
from vajra_edge.progress import Progress
from vajra_edge.wording import Setting, say

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Kills:
    """A counter that the kernel raises with each process that it kills for want of memory.

    Attributes:
        counter: the file that holds it; two readings compare only where this is the same.
        number: since the group was made, or since the boot.
    """

    counter: str
    number: int


def count(proc: Path = _PROC, groups: Path = _GROUPS) -> Kills | None:
    """The counter of our own control group, else of the whole machine; None where neither can be read.

    Args:
        proc: where procfs is mounted.
        groups: where control groups are.
    """
    counted = (_counted(path) for path in (*_of_group(proc, groups), proc / "vmstat"))
    return next((kills for kills in counted if kills is not None), None)


def _counted(path: Path) -> Kills | None:
    for line in _read(path).splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdecimal():
            return Kills(str(path), int(number))
    return None


def killed_for_memory(proc: Path = _PROC) -> int | None:
    """Processes of the whole machine that the kernel killed for want of memory since its boot; None: it does not say.

    For what outlives a process: systemd makes a control group anew when it restarts a service.
    """
    counted = _counted(proc / "vmstat")
    return None if counted is None else counted.number


def evidence(before: Kills | None, after: Kills | None) -> str:
    """What two readings add to "killed by SIGKILL"; empty where the kernel killed nobody between them."""
    if before is None or after is None or before.counter != after.counter:
        return " by somebody or for want of memory"
    return ", most likely for want of memory" if after.number > before.number else ""


def _of_group(proc: Path, groups: Path) -> tuple[Path, ...]:
    """Files that may count for this process: control groups of the second version, then of the first."""
    found: tuple[Path, ...] = ()
    for line in _read(proc / "self" / "cgroup").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if ".." in group:  # outside what this container sees
            continue
        if not controllers:
            found = (groups / group.lstrip("/") / "memory.events", *found)
        elif "memory" in controllers.split(","):
            found = (*found, groups / "memory" / group.lstrip("/") / "memory.oom_control")
    return found


def _read(path: Path) -> str:
    """Empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


GRACE_S = 10.0
"""From SIGTERM, which a library's long call does not notice, to SIGKILL."""

KILLED_WITHIN_S = 10.0
"""From SIGKILL to giving up: nothing ends a process that waits for a disk or a driver (state D)."""

_COMMAND = (sys.executable, "-m", "vajra_edge.build.worker")
_TURN_S = 0.1
_READ_BYTES = 65_536
_LONGEST_LINE_BYTES = 1_048_576
_NOT_FOR_THE_CHILD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "VAJRA_EDGE_CAMERAS")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildProgressed:
    """The child is alive and got this far."""

    job_id: int
    progress: Progress


@dataclass(frozen=True)
class BuildSucceeded:
    """The plan is in the store; ``peak_rss_bytes`` is the child's largest resident memory."""

    job_id: int
    fingerprint: str
    peak_rss_bytes: int


@dataclass(frozen=True)
class ChildFailed:
    """The child ended without a plan.

    Attributes:
        job_id: of ``Builder.start``.
        message: why, in one line.
        permanent: trying again cannot help.
        peak_rss_bytes: the child's largest resident memory.
        images: see ``protocol.Failed``.
        killed: by SIGKILL, be it the kernel's for want of memory or somebody's.
        crashed: by another signal, as of a fault in a library.
    """

    job_id: int
    message: str
    permanent: bool
    peak_rss_bytes: int
    images: bool = False
    killed: bool = False
    crashed: bool = False


class ChildRequest(Protocol):
    """What a child is asked for."""

    @property
    def timeout_s(self) -> float:
        """Longest time from its start to its end."""
        ...

    @property
    def state_dir(self) -> Path:
        """The state directory that it works on."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What it reads on stdin."""
        ...


class _Unkillable(Exception):
    """It does not end though SIGKILL was sent long ago."""


BuildEvent: TypeAlias = BuildProgressed | BuildSucceeded | ChildFailed
Post: TypeAlias = Callable[[BuildEvent], None]


class Builder:
    """Posts any number of ``BuildProgressed`` and then exactly one of the other two for each job.

    Args:
        post: takes events, from the job's thread; must only enqueue.
        grace_s: see ``GRACE_S``.
        command: the child; ``--parent <pid>`` is added.
        name: of what it does, for people.
        beats: watches the job's thread; None: nobody does.
    """

    def __init__(
        self,
        post: Post,
        grace_s: float = GRACE_S,
        command: Sequence[str] = _COMMAND,
        name: str = "build",
        beats: Beats | None = None,
    ) -> None:
        self._post, self._beats = post, beats or Beats()
        self._grace_s = grace_s
        self._command = command
        self._name = name
        self._job: _Job | None = None

    def start(self, job_id: int, request: ChildRequest) -> None:
        """Build in a child; while an earlier one still ends, the new one waits."""
        self._job = _Job(job_id, request, self._post, self._grace_s, self._command, self._name, self._beats, self._job)
        self._job.thread.start()

    def cancel(self, job_id: int) -> None:
        """Ask the job's child to stop, kill it after the grace; nothing if the job is not the latest."""
        if self._job is not None and self._job.job_id == job_id:
            self._job.cancelled.set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Cancel what runs and wait for its end; whether it ended in time. A second call does nothing."""
        if self._job is None:
            return True
        self._job.cancelled.set()
        self._job.thread.join(timeout_s)
        if self._job.thread.is_alive():
            return False
        self._job = None
        return True


class _Job:
    """One child from start to end."""

    def __init__(
        self,
        job_id: int,
        request: ChildRequest,
        post: Post,
        grace_s: float,
        command: Sequence[str],
        name: str,
        beats: Beats,
        before: _Job | None,
    ) -> None:
        self.job_id, self._beats = job_id, beats
        self.cancelled = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"{name}-{job_id}", daemon=True)
        self._name = name
        self._request, self._post, self._grace_s, self._command = request, post, grace_s, command
        self._before = before
        self._answer: protocol.Done | protocol.Failed | None = None
        self._rest = b""
        self._peak_rss_bytes = 0
        self._deadline_s = self._kill_s = float("inf")
        self._overdue = self._killed = False
        self._kills: Kills | None = None

    def _run(self) -> None:
        if self._before is not None:
            self._before.thread.join()
            self._before = None
        self._beats.expect(*BUILD)
        try:
            event = self._end(self._build())
        except _Unkillable as left:
            _LOGGER.error("%s", left)  # noqa: TRY400  a traceback would tell nothing
            event = ChildFailed(self.job_id, str(left), permanent=False, peak_rss_bytes=self._peak_rss_bytes)
        except Exception as error:  # the top of a thread: whatever it is becomes an event
            _LOGGER.exception("%s %d", self._name, self.job_id)
            reason = f"the {self._name} child cannot be run: {type(error).__name__}: {error}"
            event = ChildFailed(self.job_id, reason, permanent=False, peak_rss_bytes=self._peak_rss_bytes)
        self._beats.forget(BUILD.name)
        self._post(event)

    def _build(self) -> int | None:
        """Run the child to its end; its return code, or None where it was cancelled before it began."""
        if self.cancelled.is_set():
            return None
        self._deadline_s = time.monotonic() + self._request.timeout_s
        self._kills = count()
        process = subprocess.Popen(
            [*self._command, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
        try:
            self._send_request(process)
            while not self._ended(process):
                self._beats.beat(BUILD.name)
                self._listen(process, _TURN_S)
                self._signal(process)
        except _Unkillable:
            self._leave_behind(process)
            raise
        except BaseException:
            self._reap(process)
            raise
        self._reap(process)
        return process.returncode

    def _send_request(self, process: subprocess.Popen[bytes]) -> None:
        """A child that died already does not read it; its end says why."""
        stdin = process.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError), stdin:
                stdin.write(json.dumps(self._request.to_json()).encode())

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it exited; it stays a zombie, so that its number is not given away."""
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _listen(self, process: subprocess.Popen[bytes], wait_s: float) -> bool:
        """Take what the child wrote, waiting for it; whether there was anything."""
        self._peak_rss_bytes = max(self._peak_rss_bytes, protocol.peak_rss_bytes(process.pid))
        stdout = process.stdout
        if stdout is None or not select.select([stdout], [], [], wait_s)[0]:
            return False
        read = os.read(stdout.fileno(), _READ_BYTES)
        if not read:
            time.sleep(wait_s)  # it closed its pipe and has not exited yet
            return False
        *lines, rest = (self._rest + read).split(b"\n")
        self._rest = rest[-_LONGEST_LINE_BYTES:]
        for text in lines:
            self._take(text)
        return True

    def _take(self, text: bytes) -> None:
        line = protocol.decode(text)
        if isinstance(line, Progress):
            if line.waiting:
                self._deadline_s = time.monotonic() + self._request.timeout_s
            self._post(BuildProgressed(self.job_id, line))
        elif line is not None:
            self._answer = line
        elif text.strip():
            _LOGGER.info("%s %d: %s", self._name, self.job_id, text[:300].decode(errors="replace"))

    def _signal(self, process: subprocess.Popen[bytes]) -> None:
        now_s = time.monotonic()
        self._overdue = self._overdue or now_s > self._deadline_s
        if self._kill_s == float("inf") and (self._overdue or self.cancelled.is_set()):
            os.kill(process.pid, signal.SIGTERM)  # ``send_signal`` would reap it before ``_reap`` does
            self._kill_s = now_s + self._grace_s
        elif now_s > self._kill_s:
            if self._killed:
                raise _Unkillable(f"the {self._name} child (pid {process.pid}) cannot be killed and is left behind")
            os.killpg(process.pid, signal.SIGKILL)
            self._killed, self._kill_s = True, now_s + KILLED_WITHIN_S

    def _leave_behind(self, process: subprocess.Popen[bytes]) -> None:
        """Nothing waits for it any more, ``Popen`` when it is collected included."""
        process.returncode = 0
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        """Nothing of the child's session outlives it: the exporter's interpreter is in it too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        while self._listen(process, 0.0):
            pass
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if self.cancelled.is_set() and not self._overdue and process.returncode == -signal.SIGKILL:
            refusals.excuse(self._request.state_dir, process.pid)
        if usage.ru_maxrss * 1024 > protocol.peak_rss_bytes():
            # Beyond our own peak it is the child's for certain, see ``protocol.peak_rss_bytes``.
            self._peak_rss_bytes = max(self._peak_rss_bytes, usage.ru_maxrss * 1024)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _end(self, code: int | None) -> BuildEvent:
        """What became of the job: what the child said, unless it was stopped or said nothing."""
        answer = self._answer
        if answer is not None:
            self._peak_rss_bytes = max(self._peak_rss_bytes, answer.peak_rss_bytes)
        if isinstance(answer, protocol.Done):
            return BuildSucceeded(self.job_id, answer.fingerprint, self._peak_rss_bytes)
        images = killed = crashed = False
        if self._overdue:
            limit = f"{self._request.timeout_s:g} s"
            remedy = say("; raise ", Setting.BUILD_TIMEOUT_S) if isinstance(self._request, BuildRequest) else ""
            message = str(say(f"the {self._name} took longer than {limit}", remedy))
            permanent = True
        elif self.cancelled.is_set():
            message, permanent = f"the {self._name} was cancelled", False
        elif answer is not None:
            message, permanent, images = answer.message, answer.permanent, answer.images
        else:
            killed = code == -signal.SIGKILL
            told = evidence(self._kills, count()) if killed else ""
            crashed = (code or 0) < 0 and not killed
            message, permanent = f"the {self._name} {_death(code or 0, self._peak_rss_bytes, told)}", False
        return ChildFailed(self.job_id, message, permanent, self._peak_rss_bytes, images, killed, crashed)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what is the daemon's alone, and with the way to this package."""
    package = str(Path(vajra_edge.__file__).parents[1])
    paths = [package, *filter(None, [own.get("PYTHONPATH")])]
    kept = {name: value for name, value in own.items() if name not in _NOT_FOR_THE_CHILD}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _death(code: int, peak_rss_bytes: int, told: str) -> str:
    """Why a child that said nothing ended; ``told`` is what the kernel tells of a kill."""
    peak = f"its memory peaked at {peak_rss_bytes / 1e6:.0f} MB"
    if code == -signal.SIGKILL:
        return f"child was killed by SIGKILL{told} ({peak})"
    if code < 0:
        return f"child crashed with {signal.Signals(-code).name} ({peak}); the journal may have its traceback"
    return f"child ended with exit code {code} and no reason; the journal may have it"
