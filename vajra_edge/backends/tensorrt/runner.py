"""TrtRunner: one deserialised plan that runs batches from host memory at fixed addresses."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends import cuda
from vajra_edge.backends.device_runner import SLOTS
from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.backends.tensorrt.log import LibraryLog, listening, logger
from vajra_edge.errors import ForeignPlan, InferenceError, PlanError
from vajra_edge.graph.signature import Signature
from vajra_edge.heads import head_of
from vajra_edge.plans.engine_file import plan_header
from vajra_edge.wording import Setting, say

FREE = say("free memory of the GPU, or lower ", Setting.BATCH)
REBUILD = "rebuild the engine on this device"
WARM_UP_CALLS = 2
"""The first call loads kernels lazily; the second shows that it is over."""

log = logging.getLogger(__name__)


class TrtRunner:
    """A Runner; see ``backends.base``. Opens and warms up on construction, and gives everything back on failure.

    Args:
        library: the TensorRT that built the plan.
        plan: the serialized engine.
        signature: of its graph.
        gpu: CUDA's number of the device.
        dla_core: the core its DLA layers run on, or None.

    Raises:
        ForeignPlan: another library or release built the plan.
        PlanError: the library refuses it, or its tensors are not the signature's.
        InferenceError: it loads and does not run.
    """

    def __init__(
        self, library: Library, plan: bytes, signature: Signature, *, gpu: int = 0, dla_core: int | None = None
    ) -> None:
        require_release(library, plan)
        self.signature = signature
        self._library = library
        self._gpu = gpu
        self._lines = LibraryLog()
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._shape: tuple[int, ...] = ()
        self._turn = 0
        self._held = ExitStack()
        try:
            with cuda.device(gpu):
                self._runtime, self._engine, self._context = deserialise(library, self._lines, plan, dla_core)
                with listening(self._lines):
                    self._allocate()
                self._warm_up()
        except BaseException:
            self.close()
            raise

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run (n, 3, H, W) RGB 0..1, n <= ``signature.batch``; see ``backends.base.Runner``."""
        with listening(self._lines):  # anew: what an earlier call logged is not this one's reason
            return self._run(batch)

    def close(self) -> None:
        """Release the plan, its memory and its stream; a second call does nothing."""
        # The context goes before the engine, the engine before its runtime: TensorRT's order.
        self._context = self._engine = self._runtime = None
        self._held.close()

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = self._shape_for(batch)
        cuda.call("cudaSetDevice", self._gpu)  # the current device is a thread's own
        count = len(batch)
        self._set_shape(shape)
        target = self._input.array.reshape(-1)[: prod(shape)].reshape(shape)
        np.copyto(target[:count], batch, casting="same_kind")
        self._stream.copy(self._addresses[self.signature.input_name], self._input.address, target[:count].nbytes)
        if not self._context.execute_async_v3(self._stream.handle):
            raise InferenceError(f"TensorRT refused to run: {self._lines.reason()}", shape=shape)
        slot = self._outputs[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        found = slot.array.reshape(-1)[: prod(self._made)].reshape(self._made)[:count]
        self._stream.copy(slot.address, self._addresses[self.signature.output_name], found.nbytes)
        self._waiter.wait()
        return np.asarray(found, np.float32)

    def _allocate(self) -> None:
        """Take every buffer for the largest shape, once; addresses never change after this."""
        trt, engine = self._library.trt, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [self.signature.input_name] or self.signature.output_name not in names:
            raise PlanError(
                f"the plan's tensors are {', '.join(names)}, not "
                f"{self.signature.input_name} and {self.signature.output_name}",
                remedy=REBUILD,
            )
        # A plan may be more fixed than its graph: builds for a DLA are.
        self._open = [int(side) == -1 for side in engine.get_tensor_shape(self.signature.input_name)]
        self._most_hw = self.signature.most_hw if self._open[2] else self.signature.resolution_hw
        most = (self.signature.batch, 3, *self._most_hw)
        self._set_shape(most)
        self._require_layout()
        self._stream = self._held.enter_context(cuda.Stream())
        self._waiter = self._held.enter_context(cuda.Waiter(self._stream))
        self._addresses: dict[str, int] = {}
        for name in names:
            self._addresses[name] = self._buffer(name)
        self._input = self._pinned(self.signature.input_name, most)
        # as many outputs stay valid: the one returned last and the one before
        self._outputs = [self._pinned(self.signature.output_name, self._made) for _ in range(SLOTS)]

    def _buffer(self, name: str) -> int:
        shape = tuple(int(side) for side in self._context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise PlanError(f"the shape of tensor {name} depends on its values: {shape}", remedy=REBUILD)
        buffer = self._held.enter_context(
            cuda.DeviceBuffer(prod(shape) * dtype_of(self._library, self._engine, name).itemsize)
        )
        if not self._context.set_tensor_address(name, buffer.address):
            raise PlanError(f"{self._library} refuses a buffer for {name}: {self._lines.reason()}", remedy=REBUILD)
        return buffer.address

    def _pinned(self, name: str, shape: tuple[int, ...]) -> cuda.PinnedBuffer:
        return self._held.enter_context(cuda.PinnedBuffer(shape, dtype_of(self._library, self._engine, name)))

    def _warm_up(self) -> None:
        zeros = np.zeros((self.signature.batch, 3, *self.signature.resolution_hw), np.float32)
        for _ in range(WARM_UP_CALLS):
            self.infer(zeros)
        log.info("%s %s", self._library, self._waiter.measure(lambda: self.infer(zeros)))

    def _shape_for(self, batch: NDArray[np.float32]) -> tuple[int, ...]:
        """The shape the plan runs ``batch`` in: padded to the full batch where its batch is fixed."""
        signature = self.signature
        if self._context is None:
            raise InferenceError("the runner is closed")
        if batch.ndim != 4 or batch.shape[1] != 3:  # noqa: PLR2004  N, 3, H, W
            raise InferenceError(f"a batch of shape {batch.shape} is not (n, 3, height, width)", shape=batch.shape)
        count, _, height, width = batch.shape
        if not 1 <= count <= signature.batch:
            raise InferenceError(
                f"{count} images, the engine takes 1 to {signature.batch}",
                remedy=say("send fewer at once, or raise ", Setting.BATCH, " and rebuild"),
                count=count,
            )
        most_h, most_w = self._most_hw
        fits = 0 < height <= most_h and 0 < width <= most_w
        whole = not height % signature.stride and not width % signature.stride
        if (height, width) != signature.resolution_hw and not (self._open[2] and fits and whole):
            allowed = f"{most_h}x{most_w}" + (f" or less by {signature.stride}" if self._open[2] else "")
            raise InferenceError(f"images of {height}x{width} pixels, the engine takes {allowed}", shape=batch.shape)
        return (count if self._open[0] else signature.batch, 3, height, width)

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        name = self.signature.input_name
        if not self._context.set_input_shape(name, shape):
            raise InferenceError(f"{self._library} refuses {name} of {shape}: {self._lines.reason()}", shape=shape)
        self._shape = shape
        self._made = tuple(int(side) for side in self._context.get_tensor_shape(self.signature.output_name))

    def _require_layout(self) -> None:
        rows = head_of(self.signature).rows(self.signature)
        if len(self._made) != 3 or self._made[1] != rows:  # noqa: PLR2004  N, rows, columns
            raise PlanError(
                f"the plan's output has shape {self._made}, its signature says {rows} rows",
                remedy=REBUILD,
            )


def deserialise(library: Library, lines: LibraryLog, plan: bytes, dla_core: int | None = None) -> tuple[Any, Any, Any]:
    """A plan's ``Runtime``, ``ICudaEngine`` and ``IExecutionContext``, to be let go in the opposite order.

    Raises:
        PlanError: the library refuses the plan.
        InferenceError: there is no memory for it now, which is no fault of the plan's.
    """
    with listening(lines):
        runtime, engine = engine_of(library, lines, plan, dla_core)
        context = engine.create_execution_context()
        if context is None:
            raise InferenceError(f"{library} cannot make an execution context: {lines.reason()}", remedy=FREE)
        return runtime, engine, context


def engine_of(library: Library, lines: LibraryLog, plan: bytes, dla_core: int | None = None) -> tuple[Any, Any]:
    """A plan's ``Runtime`` and ``ICudaEngine``; whoever calls listens to ``lines``. Raises as ``deserialise`` does."""
    runtime = library.trt.Runtime(logger(library))
    if dla_core is not None:
        runtime.DLA_core = dla_core  # before deserialising: later it would be core 0 (onnxruntime#26680)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        if lines.memory():
            raise InferenceError(f"{library} cannot load the plan: {lines.reason()}", remedy=FREE)
        raise PlanError(f"{library} refuses the plan: {lines.reason()}", remedy=REBUILD)
    return runtime, engine


def dtype_of(library: Library, engine: Any, name: str) -> np.dtype[Any]:
    """A tensor's type: float32 in plans of ours, float16 in upstream's half plans.

    Raises:
        PlanError: it is another.
    """
    trt = library.trt
    found = engine.get_tensor_dtype(name)
    kinds = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16, trt.DataType.INT32: np.int32}
    if found not in kinds:
        raise PlanError(f"tensor {name} is of type {found}, not a float", remedy=REBUILD)
    return np.dtype(kinds[found])


def require_release(library: Library, plan: bytes) -> None:
    """TensorRT itself only logs a number that does not match; this names both releases.

    Raises:
        ForeignPlan: another library or release built the plan.
        PlanError: it is no plan.
    """
    header = plan_header(plan)
    if header.library != library.name or not header.same_release(library.version):
        raise ForeignPlan(
            f"the plan was built by {header}, this device has {library}", remedy=REBUILD, header=str(header)
        )
