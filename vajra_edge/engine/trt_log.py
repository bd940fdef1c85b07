"""TensorRT's log: errors are kept and become typed exceptions that name the layer; the rest goes to the debug log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
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

    def reason(self) -> str:
        """The first error, which is the cause of the others, on one line."""
        return " ".join(self.errors[0].split()) if self.errors else "the library gave no reason"


def logger(library: Library, lines: Lines) -> Any:
    """An ``ILogger`` that fills ``lines``."""
    trt = library.trt

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]  # a foreign base class without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                lines.errors.append(msg)
            elif severity == trt.ILogger.WARNING:
                lines.warnings.append(msg)

    return Log()


def build_failure(lines: Lines) -> BuildError:
    """The exception for a builder that returned nothing."""
    text = "\n".join(lines.errors)
    reason = lines.reason()
    if "BuildCancel" in text:
        return BuildCancelled("the build was cancelled")
    found = LAYER.search(text)
    layer = found[1].rstrip(".:") if found else None
    where = f" at layer {layer}" if layer and layer not in reason else ""
    if MEMORY.search(text):
        return OutOfMemory(
            f"not enough memory to build{where}: {reason}",
            remedy="stop other programs, lower engine.batch or img_size, or reboot and build first",
            layer=layer,
        )
    return BuildError(f"TensorRT cannot build this network{where}: {reason}", layer=layer)


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
