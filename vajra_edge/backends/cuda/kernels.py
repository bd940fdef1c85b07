"""Our kernels on one device: compiled for its architecture, or taken from the cache, and loaded."""

from __future__ import annotations

from pathlib import Path

from vajra_edge.backends.cuda import sources
from vajra_edge.backends.cuda.compiler import compiler, machine_code
from vajra_edge.backends.cuda.devices import describe, device
from vajra_edge.backends.cuda.driver import driver
from vajra_edge.backends.cuda.module import Module
from vajra_edge.backends.cuda.resources import Resource


class Kernels(Resource):
    """Letterbox and detections of one device.

    Args:
        gpu: CUDA's number of the device.
        cache: folder of compiled code; None: it is compiled each time.

    Attributes:
        letterbox: puts frames into the network's input.
        detections: reads objects from its output.

    Raises:
        CudaUnavailable: there is no compiler, and the code is not in the cache.
        CudaRefused: it does not compile, or does not load.
    """

    def __init__(self, gpu: int, cache: Path | None) -> None:
        architecture = f"sm_{describe(gpu).compute_capability.replace('.', '')}"
        made_by = compiler(driver().version)
        with device(gpu):
            self.letterbox, self.detections = (
                Module(machine_code(made_by, sources.source(name), name, architecture, cache), kernels)
                for name, kernels in sources.KERNELS.items()
            )

    def close(self) -> None:
        """Unload them; a second call does nothing."""
        self.letterbox.close()
        self.detections.close()
