"""TrtDeviceRunner: one deserialised plan that computes in memory of the GPU, with a context for each graph of it.

TensorRT leaves undefined what a recorded CUDA graph does once the context that it was recorded from was given another
shape or address (developer guide, "CUDA Graphs"). So each slot and number of images has a context of its own, made when
it is first needed; they share one scratch memory, for they never compute at once.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from math import prod
from typing import Any

from vajra_edge.backends import cuda
from vajra_edge.backends.device_runner import SLOTS, DeviceSlot
from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.backends.tensorrt.log import LibraryLog, listening
from vajra_edge.backends.tensorrt.runner import REBUILD, dtype_of, engine_of, require_release
from vajra_edge.errors import InferenceError, PlanError
from vajra_edge.graph.signature import Signature
from vajra_edge.heads import head_of

_ON_DLA = "a DLA core's work is not part of a CUDA graph"


class TrtDeviceRunner:
    """A ``DeviceRunner``; opens on construction, and gives everything back on failure.

    Args:
        library: the TensorRT that built the plan.
        plan: the serialized engine.
        signature: of its graph.
        gpu: CUDA's number of the device.
        dla_core: the core its DLA layers run on, or None.

    Raises:
        ForeignPlan: another library or release built the plan.
        PlanError: the library refuses it, or its tensors are not the signature's.
        InferenceError: there is no memory for it.
    """

    def __init__(
        self, library: Library, plan: bytes, signature: Signature, *, gpu: int = 0, dla_core: int | None = None
    ) -> None:
        require_release(library, plan)
        self.signature, self.gpu = signature, gpu
        self.not_recorded = "" if dla_core is None else _ON_DLA
        self._library = library
        self._lines = LibraryLog()
        self._runtime: Any = None
        self._engine: Any = None
        self._contexts: dict[tuple[int, int], Any] = {}
        self._held = ExitStack()
        try:
            with cuda.device(gpu), listening(self._lines):
                self._runtime, self._engine = engine_of(library, self._lines, plan, dla_core)
                self._allocate()
        except BaseException:
            self.close()
            raise

    def enqueue(self, slot: int, count: int) -> None:
        """See ``DeviceRunner.enqueue``."""
        with listening(self._lines):
            count = count if self._open_batch else self.signature.batch
            context = self._contexts.get((slot, count)) or self._context(slot, count)
            if not context.execute_async_v3(self.stream.handle):
                raise InferenceError(f"TensorRT refused to run: {self._lines.reason()}", count=count)

    def close(self) -> None:
        """Wait for what is queued, then release everything; a second call does nothing."""
        if self._engine is not None and hasattr(self, "stream"):
            with suppress(cuda.CudaRefused, cuda.CudaUnavailable):  # whoever waited was told
                self.stream.synchronize()
        # Contexts go before the engine, the engine before its runtime: TensorRT's order.
        self._contexts.clear()
        self._engine = self._runtime = None
        self._held.close()

    def _allocate(self) -> None:
        trt, engine, signature = self._library.trt, self._engine, self.signature
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [signature.input_name] or signature.output_name not in names:
            raise PlanError(
                f"the plan's tensors are {', '.join(names)}, not {signature.input_name} and {signature.output_name}",
                remedy=REBUILD,
            )
        self._open_batch = int(engine.get_tensor_shape(signature.input_name)[0]) == -1
        self.stream = self._held.enter_context(cuda.Stream())
        self._scratch = self._held.enter_context(cuda.DeviceBuffer(int(engine.device_memory_size_v2)))
        self.input_dtype = dtype_of(self._library, engine, signature.input_name)
        self.output_dtype = dtype_of(self._library, engine, signature.output_name)
        whole = self._bare_context(signature.batch)
        output = self._output_shape(whole)
        self.anchors = output[2]
        self._unread = {
            name: self._buffer(prod(whole.get_tensor_shape(name)) * dtype_of(self._library, engine, name).itemsize)
            for name in names
            if name not in (signature.input_name, signature.output_name)
        }
        self.slots = tuple(
            DeviceSlot(
                self._buffer(prod(self._input_shape(signature.batch)) * self.input_dtype.itemsize),
                self._buffer(prod(output) * self.output_dtype.itemsize),
            )
            for _ in range(SLOTS)
        )

    def _buffer(self, nbytes: int) -> int:
        return self._held.enter_context(cuda.DeviceBuffer(nbytes)).address

    def _input_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, *self.signature.resolution_hw)

    def _output_shape(self, context: Any) -> tuple[int, ...]:
        """Of a full batch.

        Raises:
            PlanError: it is not the signature's.
        """
        found = tuple(int(side) for side in context.get_tensor_shape(self.signature.output_name))
        rows = head_of(self.signature).rows(self.signature)
        if len(found) != 3 or found[1] != rows or min(found) < 1:  # noqa: PLR2004  N, rows, anchors
            raise PlanError(
                f"the plan's output has shape {found}, its signature says {rows} rows",
                remedy=REBUILD,
            )
        return found

    def _bare_context(self, count: int) -> Any:
        """A context without memory that knows how many images it computes."""
        strategy = self._library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise InferenceError(f"{self._library} cannot make an execution context: {self._lines.reason()}")
        name, shape = self.signature.input_name, self._input_shape(count)
        if not context.set_input_shape(name, shape):
            raise InferenceError(f"{self._library} refuses {name} of {shape}: {self._lines.reason()}", shape=shape)
        return context

    def _context(self, slot: int, count: int) -> Any:
        context = self._bare_context(count)
        context.set_device_memory(self._scratch.address, self._scratch.nbytes)
        where = self.slots[slot]
        own = {self.signature.input_name: where.input_address, self.signature.output_name: where.output_address}
        for name, address in (own | self._unread).items():
            if not context.set_tensor_address(name, address):
                raise PlanError(f"{self._library} refuses a buffer for {name}: {self._lines.reason()}", remedy=REBUILD)
        self._contexts[slot, count] = context
        return context
