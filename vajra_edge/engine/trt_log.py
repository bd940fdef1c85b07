"""TensorRT's log: errors are kept and become typed exceptions that name the layer; warnings are kept, the rest is not.

The library has one logger a process: the first that a Builder or Runtime was given, until none of them is left, and it
keeps no reference. So there is one ``Log`` for each library. It lives as long as the process, and hands on what it is
told to the ``Lines`` that listen at that time.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from vajra_edge.engine.trt_library import Library
from vajra_edge.errors import BuildCancelled, BuildError, GraphError, OutOfMemory

KEPT = 100
"""Lines kept of each kind; a failing build says what matters in its last few."""

MEMORY = re.compile(
    r"out ?of ?memory|insufficient memory|memory is insufficient|cudaErrorMemoryAllocation|bad_alloc"
    r"|requested amount of GPU memory|could not find any implementation",
    re.IGNORECASE,
)
"""What a build without enough memory logs; 'could not find any implementation' mostly is one (TensorRT#3355, #4258)."""

LAYER = re.compile(
    r"(?:implementation for node|node number \d+|[Ll]ayer|[Nn]ode(?: name)?:?)\s+"
    r"[({]?(?:ForeignNode)?\[?([\w/][\w/:-]+(?:\.[\w/:-]+)*)"
)


class Lines:
    """What the library said. TensorRT calls from several threads; appending to a deque is atomic."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=KEPT)
        self.warnings: deque[str] = deque(maxlen=KEPT)

    def clear(self) -> None:
        """Forget everything, before another attempt."""
        self.errors.clear()
        self.warnings.clear()

    def memory(self) -> bool:
        """Whether an error speaks of want of memory."""
        return MEMORY.search("\n".join(self.errors)) is not None

    def reason(self) -> str:
        """The first error, which is the cause of the others, on one line."""
        return " ".join(self.errors[0].split()) if self.errors else "the library gave no reason"


class Audience:
    """Whose lines take what the library says now: the thread that listens, its lines, the newest last.

    Read from the library's own threads: the tuple is replaced under the lock and never changed.
    """

    def __init__(self) -> None:
        self._open: tuple[tuple[int, Lines], ...] = ()
        self._lock = threading.Lock()

    @contextmanager
    def joined(self, lines: Lines) -> Iterator[None]:
        """See ``listening``."""
        lines.clear()
        entry = (threading.get_ident(), lines)
        with self._lock:
            self._open = (*self._open, entry)
        try:
            yield
        finally:
            with self._lock:
                self._open = tuple(other for other in self._open if other is not entry)

    def present(self) -> Sequence[Lines]:
        """The lines of the thread that asks; for a thread of the library's own, which has none, all there are."""
        here, entries = threading.get_ident(), self._open
        mine = [lines for thread, lines in entries if thread == here]
        return mine[-1:] or [lines for _, lines in entries]


_AUDIENCE = Audience()
_LOGS: dict[Any, Any] = {}
_LOGS_LOCK = threading.Lock()


def listening(lines: Lines) -> AbstractContextManager[None]:
    """Let ``lines`` take what the library says in a block, and forget what it said before.

    Two blocks may be open at once: a plan runs while another is loaded. Each then gets the messages of its own thread.
    """
    return _AUDIENCE.joined(lines)


def logger(library: Library) -> Any:
    """The ``ILogger`` of a library, always the same one."""
    with _LOGS_LOCK:
        if library.trt not in _LOGS:
            _LOGS[library.trt] = _log(library.trt)
        return _LOGS[library.trt]


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # a foreign base class without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            for lines in _AUDIENCE.present():
                if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                    lines.errors.append(msg)
                elif severity == trt.ILogger.WARNING:
                    lines.warnings.append(msg)

    return Log()


def build_failure(lines: Lines, doing: str = "build this network") -> BuildError | BuildCancelled | OutOfMemory:
    """The exception for a builder that returned nothing.

    Args:
        lines: what was logged.
        doing: what was tried, after "cannot".
    """
    text = "\n".join(lines.errors)
    reason = lines.reason()
    if "BuildCancel" in text:
        return BuildCancelled("the build was cancelled")
    found = LAYER.search(text)
    layer = found[1].rstrip(".:") if found else None
    where = f" at layer {layer}" if layer and layer not in reason else ""
    if lines.memory():
        return OutOfMemory(
            f"not enough memory to {doing}{where}: {reason}",
            remedy="stop other programs, lower engine.batch or img_size, or reboot and build first",
            layer=layer,
        )
    return BuildError(f"TensorRT cannot {doing}{where}: {reason}", layer=layer)


def parse_failure(library: Library, errors: Sequence[Any], lines: Lines) -> GraphError:
    """The exception for a graph that the ONNX parser refused; it names the node.

    Args:
        library: whose errors these are.
        errors: ``ParserError`` objects.
        lines: what was logged, used when the parser recorded no error.
    """
    if not errors:
        return GraphError(f"TensorRT cannot read this graph: {lines.reason()}", remedy="export it again")
    error = errors[0]
    node = f"number {error.node()}" if error.node() >= 0 else ""  # an error without a node says -1
    if library.has("ParserError.node_name"):
        node = f"{error.node_name()} ({error.node_operator()})" if error.node_name() else node
    where = f" at node {node}" if node else ""
    return GraphError(
        f"TensorRT cannot read this graph{where}: {error.desc()}",
        remedy="export it again, or with another engine.opset",
        node=node,
    )
