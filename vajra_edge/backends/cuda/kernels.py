"""Our kernels on one device: compiled for its architecture, or taken from the cache, and loaded."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from vajra_edge.backends.cuda import sources
from vajra_edge.backends.cuda.check import CudaRefused, CudaUnavailable
from vajra_edge.backends.cuda.compiler import Absent, Compiler, compiler, machine_code
from vajra_edge.backends.cuda.devices import describe, device
from vajra_edge.backends.cuda.driver import driver
from vajra_edge.backends.cuda.module import Module
from vajra_edge.backends.cuda.resources import Resource

log = logging.getLogger(__name__)


class Kernels(Resource):
    """Letterbox and detections of one device.

    Args:
        gpu: CUDA's number of the device.
        cache: folder of compiled code; None: it is compiled each time.

    Attributes:
        letterbox: puts frames into the network's input.
        detections: reads objects from its output.

    Raises:
        CudaUnavailable: there is no compiler, and the cache has not all that it made of these sources.
        CudaRefused: it does not compile, or does not load.
    """

    def __init__(self, gpu: int, cache: Path | None) -> None:
        self._gpu = gpu
        self._architecture = f"sm_{describe(gpu).compute_capability.replace('.', '')}"
        self._made_by = _compiler()
        with device(gpu), ExitStack() as taken:
            self.letterbox = taken.enter_context(self._module("letterbox", cache))
            self.detections = taken.enter_context(self._module("detections", cache))
            self._held = taken.pop_all()
        if isinstance(self._made_by, Absent):
            log.warning("our kernels are those that an earlier start compiled: %s", self._made_by.error)

    def close(self) -> None:
        """Unload them; a second call does nothing."""
        with device(self._gpu):
            self._held.close()

    def _module(self, name: str, cache: Path | None) -> Module:
        """Of the cache if that loads; what is whole there may be of no use all the same."""
        try:
            return self._loaded(name, cache)
        except CudaRefused:
            if cache is None:
                raise
            return self._loaded(name, None)

    def _loaded(self, name: str, cache: Path | None) -> Module:
        code = machine_code(self._made_by, sources.source(name), name, self._architecture, cache)
        return Module(code, sources.KERNELS[name])


def _compiler() -> Compiler | Absent:
    """The compiler, which knows its release, and so whether what is kept is its own."""
    try:
        return compiler(driver().version)
    except CudaUnavailable as error:
        return Absent(error)
