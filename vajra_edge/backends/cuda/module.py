"""Machine code on the GPU: a module, its kernels and their launches."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from vajra_edge.backends.cuda.check import NOTHING_LEFT, CudaRefused, CudaUnavailable
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

    def prepared(
        self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], arguments: Sequence[Any]
    ) -> Launch:
        """A launch that can be queued often.

        Args:
            kernel: its name.
            grid: blocks in x, y and z.
            block: threads of each.
            arguments: of the kernel, each a ``ctypes`` value of its very type; read at each ``queue``.
        """
        return Launch(self._kernels[kernel], (*grid, *block), arguments)

    def close(self) -> None:
        """Unload it; a second call does nothing."""
        handle, self._handle = self._handle, 0
        if handle:
            try:
                driver().call("cuModuleUnload", handle)
            except (CudaRefused, CudaUnavailable) as error:  # of a lost context there is nothing to unload any more
                if error.code not in NOTHING_LEFT:
                    raise


class Launch:
    """One kernel with its grid and arguments; made by ``Module.prepared``, and of use until the module is closed."""

    def __init__(self, function: int, sizes: tuple[int, ...], arguments: Sequence[Any]) -> None:
        self._arguments = tuple(arguments)  # the pointers below point to them
        pointers = [ctypes.cast(ctypes.pointer(one), ctypes.c_void_p) for one in self._arguments]
        self._given = (ctypes.c_void_p * len(pointers))(*pointers)
        self._function, self._sizes = function, sizes

    def queue(self, stream: Stream) -> None:
        """Queue it; the arguments are copied before this returns.

        Raises:
            CudaRefused: the launch cannot be.
        """
        driver().call("cuLaunchKernel", self._function, *self._sizes, 0, stream.handle, self._given, None)
