"""TensorRT's log: errors are kept and become typed exceptions that name the layer; warnings are kept, the rest is not.

The library has one logger a process: the first that a Builder or Runtime was given, until none of them is left, and it
keeps no reference. So there is one ``Log`` for each library. It lives as long as the process, and hands on what it is
told to the ``LibraryLog`` that listens at that time.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.errors import BuildCancelled, BuildError, GraphError, OutOfMemory
from vajra_edge.wording import Setting, say, several

KEPT = 100
"""Lines kept of each kind; a failing build says what matters in its last few."""

SMALLER = several(Setting.BATCH, Setting.IMG_SIZE, last="or")

MEMORY = re.compile(
    r"out[ _]?of[ _]?memory|insufficient memory|memory is insufficient|cudaErrorMemoryAllocation|bad_alloc"
    r"|requested amount of GPU memory|ALLOC_FAILED|could not allocate|NvMapMemAlloc"
    r"|initialization failure with error:? 2\b",
    re.IGNORECASE,
)
"""What a build without enough memory logs, in an error or in a warning that a tactic is passed over for it. CUDA's
error 2 is its want of memory, and is what starting the library says of it (YOLOX#515)."""

UNSAID = re.compile(r"Error Code \d+: \w+ \(no further information\)")
"""All that a build says whose kernels did not fit (10.6, 1 GiB free). With memory at hand it means something else."""

STRUCTURE = re.compile(r"candidateRequirements|No supported formats")
"""The graph itself is refused, before any tactic is tried: memory has no part in it, whatever else was logged."""

NO_IMPLEMENTATION = re.compile(r"could not find any implementation for node (.+)", re.IGNORECASE | re.DOTALL)
"""Every tactic of a region failed. A want of memory only where other lines speak of one (TensorRT#3355, #4258)."""

REGION = re.compile(
    r"implementation for node (?P<tactics>.+?)\.?\)?$"
    r"|candidateRequirements\.empty\(\) failed\. (?P<formats>.+?)\[[A-Z_]+\]: All of the candidates"
    r"|No supported formats for (?P<supported>.+?), please check",
    re.DOTALL,
)
"""Where the builder names a fused region: ``a + PWN(b, c)``, ``{ForeignNode[a...b]}``, ``weight + conv + add``."""

NODE = re.compile(r"[\w/][\w/:.-]*")
WRAPPERS = frozenset({"PWN", "ForeignNode"})

SKIPPED = re.compile(r"Skipping tactic", re.IGNORECASE)
"""An error by its severity; the builder goes on with the next tactic, so that it is not why a build failed."""

LAYER = re.compile(
    r"(?:node number \d+|[Ll]ayer|[Nn]ode(?: name)?:?)\s+[({]?(?:ForeignNode)?\[?([\w/][\w/:-]+(?:\.[\w/:-]+)*)"
)


class LibraryLog:
    """What the library said. TensorRT calls from several threads; appending to a deque is atomic."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=KEPT)
        self.warnings: deque[str] = deque(maxlen=KEPT)

    def clear(self) -> None:
        """Forget everything, before another attempt."""
        self.errors.clear()
        self.warnings.clear()

    def memory(self, *, scarce: bool = False) -> bool:
        """Whether an error speaks of want of memory, or a warning where no tactic was left in the end.

        Args:
            scarce: little was free when the build began; an error that says nothing is then taken for it too.
        """
        text = "\n".join(self.errors)
        if scarce and UNSAID.search(text):
            return True
        if STRUCTURE.search(text):
            return False
        if NO_IMPLEMENTATION.search(text):
            return MEMORY.search("\n".join((text, *self.warnings))) is not None
        return MEMORY.search("\n".join(error for error in self.errors if not SKIPPED.search(error))) is not None

    def reason(self) -> str:
        """The first error that ended something, which is the cause of the others, on one line."""
        causes = [error for error in self.errors if not SKIPPED.search(error)] or list(self.errors)
        return " ".join(causes[0].split()) if causes else "the library gave no reason"

    def layers(self) -> tuple[str, ...]:
        """The layers that the errors name, those of a fused region one by one; constants are among them."""
        found: list[str] = []
        for text in self.errors:
            match = REGION.search(" ".join(text.split()))
            if match is not None:
                region = next(part for part in match.groups() if part)
                found += [name.rstrip(".") for name in NODE.findall(region.replace("...", " "))]
            elif (single := LAYER.search(text)) is not None:
                found.append(single[1].rstrip(".:"))
        return tuple(name for name in dict.fromkeys(found) if name and name not in WRAPPERS)


class Listeners:
    """Whose lines take what the library says now: the thread that listens, its lines, the newest last.

    Read from the library's own threads: the tuple is replaced under the lock and never changed.
    """

    def __init__(self) -> None:
        self._open: tuple[tuple[int, LibraryLog], ...] = ()
        self._lock = threading.Lock()

    @contextmanager
    def joined(self, lines: LibraryLog) -> Iterator[None]:
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

    def present(self) -> Sequence[LibraryLog]:
        """The lines of the thread that asks; for a thread of the library's own, which has none, all there are."""
        here, entries = threading.get_ident(), self._open
        mine = [lines for thread, lines in entries if thread == here]
        return mine[-1:] or [lines for _, lines in entries]


_AUDIENCE = Listeners()
_LOGS: dict[Any, Any] = {}
_LOGS_LOCK = threading.Lock()


def listening(lines: LibraryLog) -> AbstractContextManager[None]:
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


def build_failure(
    lines: LibraryLog, doing: str = "build this network", *, scarce: bool = False
) -> BuildError | BuildCancelled | OutOfMemory:
    """The exception for a builder that returned nothing.

    Args:
        lines: what was logged.
        doing: what was tried, after "cannot".
        scarce: see ``Lines.memory``.

    Returns:
        Its ``values`` have ``layers``, the names at fault, and ``no_tactic``: no kernel could do one region.
    """
    reason, layers = lines.reason(), lines.layers()
    if "BuildCancel" in "\n".join(lines.errors):
        return BuildCancelled("the build was cancelled")
    where = f" at layer {layers[0]}" if layers and layers[0] not in reason else ""
    no_tactic = NO_IMPLEMENTATION.search("\n".join(lines.errors)) is not None
    named: dict[str, Any] = {"layer": layers[0] if layers else None, "layers": layers, "no_tactic": no_tactic}
    if lines.memory(scarce=scarce):
        return OutOfMemory(
            f"not enough memory to {doing}{where}: {reason}",
            remedy=say("stop other programs, lower ", SMALLER, ", or reboot and build first"),
            **named,
        )
    return BuildError(f"TensorRT cannot {doing}{where}: {reason}", **named)


def parse_failure(errors: Sequence[Any], lines: LibraryLog) -> GraphError:
    """The exception for a graph that the ONNX parser refused; it names the node.

    Args:
        errors: ``ParserError`` objects.
        lines: what was logged, used when the parser recorded no error.
    """
    if not errors:
        return GraphError(f"TensorRT cannot read this graph: {lines.reason()}", remedy="export it again")
    error = errors[0]
    node = f"number {error.node()}" if error.node() >= 0 else ""  # an error without a node says -1
    node = f"{error.node_name()} ({error.node_operator()})" if error.node_name() else node
    where = f" at node {node}" if node else ""
    return GraphError(
        f"TensorRT cannot read this graph{where}: {error.desc()}",
        remedy=say("export it again, or with another ", Setting.OPSET),
        node=node,
    )
