"""TrtReplay: a calibration engine that runs images and hands back a few numbers of each of its tensors."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine import cuda
from vajra_edge.engine.cuda import DeviceBuffer, PinnedBuffer
from vajra_edge.engine.replay import Outputs
from vajra_edge.engine.trt_library import Library
from vajra_edge.engine.trt_log import Lines, listening
from vajra_edge.engine.trt_runner import REBUILD, deserialise, dtype_of
from vajra_edge.errors import InferenceError, PlanError


class TrtReplay:
    """One plan with one input and any outputs, all of fixed shapes. Opens on construction; close it.

    Args:
        library: the TensorRT that built the plan.
        plan: the serialized engine.
        gpu: CUDA's number of the device.

    Raises:
        PlanError: the library refuses the plan or a buffer.
        InferenceError: CUDA refuses; mostly for want of memory.
    """

    def __init__(self, library: Library, plan: bytes, *, gpu: int) -> None:
        self._library = library
        self._gpu = gpu
        self._lines = Lines()
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._held = ExitStack()
        self._outputs: dict[str, tuple[DeviceBuffer, PinnedBuffer]] = {}
        try:
            with cuda.device(gpu):
                self._runtime, self._engine, self._context = deserialise(library, self._lines, plan)
                self._stream = self._held.enter_context(cuda.Stream())
                with listening(self._lines):
                    self._allocate()
        except BaseException:
            self.close()
            raise

    def run(self, batch: NDArray[np.float32]) -> Outputs:
        """Run (n, 3, H, W) RGB 0..1 with n up to the plan's batch; the last image fills what is left of it.

        Returns:
            All outputs by name; their content is valid until the next call.

        Raises:
            InferenceError: TensorRT or CUDA refuses.
        """
        cuda.call("cudaSetDevice", self._gpu)  # the current device is a thread's own
        there, here = self._input
        here.array[: len(batch)] = batch
        here.array[len(batch) :] = batch[-1]
        self._stream.copy(there.address, here.address, here.nbytes)
        with listening(self._lines):
            if not self._context.execute_async_v3(self._stream.handle):
                raise InferenceError(f"TensorRT refused to run: {self._lines.reason()}")
        for there, here in self._outputs.values():
            self._stream.copy(here.address, there.address, here.nbytes)
        self._stream.synchronize()
        return {name: here.array for name, (_, here) in self._outputs.items()}

    def close(self) -> None:
        """Release the plan, its memory and its stream; a second call does nothing."""
        self._context = self._engine = self._runtime = None
        self._held.close()

    def _allocate(self) -> None:
        trt = self._library.trt
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self._input = self._buffers(name)
            else:
                self._outputs[name] = self._buffers(name)

    def _buffers(self, name: str) -> tuple[DeviceBuffer, PinnedBuffer]:
        shape = tuple(int(side) for side in self._context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise PlanError(f"the shape of tensor {name} is open: {shape}", remedy=REBUILD)
        here = self._held.enter_context(PinnedBuffer(shape, dtype_of(self._library, self._engine, name)))
        there = self._held.enter_context(DeviceBuffer(here.nbytes))
        if not self._context.set_tensor_address(name, there.address):
            raise PlanError(f"{self._library} refuses a buffer for {name}: {self._lines.reason()}", remedy=REBUILD)
        return there, here
