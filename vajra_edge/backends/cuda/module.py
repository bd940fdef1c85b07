"""Machine code on the GPU: a module, its kernels and their launch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from vajra_edge.backends.cuda.driver import driver
from vajra_edge.backends.cuda.resources import Resource, Stream


class Module(Resource):
    """Code of one source on the calling thread's current device. Open it inside ``devices.device``.

    Args:
        code: a cubin.
        kernels: names of the kernels wanted of it.

    Raises:
        CudaRefused: it is not for this device, or has no such kernel.
    """

    def __init__(self, code: bytes, kernels: Sequence[str]) -> None:
        self._handle = int(driver().call("cuModuleLoadData", code))
        try:
            self._kernels = {
                name: int(driver().call("cuModuleGetFunction", self._handle, name.encode())) for name in kernels
            }
        except BaseException:
            self.close()
            raise

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: Stream,
        arguments: Sequence[Any],
    ) -> None:
        """Queue a kernel.

        Args:
            kernel: its name.
            grid: blocks in x, y and z.
            block: threads of each.
            stream: where it is queued.
            arguments: of the kernel, each a ``ctypes`` value of its very type; copied before this returns.

        Raises:
            CudaRefused: the launch cannot be.
        """
        pointers = [ctypes.cast(ctypes.pointer(one), ctypes.c_void_p) for one in arguments]
        given = (ctypes.c_void_p * len(pointers))(*pointers)
        driver().call("cuLaunchKernel", self._kernels[kernel], *grid, *block, 0, stream.handle, given, None)

    def close(self) -> None:
        """Unload it; a second call does nothing."""
        handle, self._handle = self._handle, 0
        if handle:
            driver().call("cuModuleUnload", handle)
