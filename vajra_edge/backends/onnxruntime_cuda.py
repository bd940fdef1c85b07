"""OnnxDeviceRunner: ONNX Runtime's CUDA provider between memory of the GPU and memory of the GPU, on our own stream."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack, suppress
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.check import NOTHING_LEFT
from vajra_edge.backends.device_runner import SLOTS, DeviceSlot
from vajra_edge.backends.onnxruntime_errors import failures, first_line
from vajra_edge.errors import InferenceError, PlanError
from vajra_edge.graph.signature import Signature

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CUDAExecutionProvider"
RECORDS_ITSELF = "ONNX Runtime records a graph of its own"
_TIMES_BEFORE_ITS_OWN_GRAPH = 3
"""Runs of one graph number until ONNX Runtime replays what it recorded: one to allocate, one to record."""


class OnnxDeviceRunner:
    """A ``DeviceRunner``.

    Args:
        plan: an ONNX file.
        signature: of it, float32 at both ends.
        gpu: CUDA's number of the device.
        options: of the session; threads, level and so on.
        provider: further options of the provider.

    Attributes:
        its_own_graph: ONNX Runtime replays a CUDA graph; else every node is queued for itself.

    Raises:
        PlanError: ONNX Runtime refuses the plan, or its output is not the signature's.
        CudaRefused: there is no memory for it.
    """

    def __init__(
        self, plan: bytes, signature: Signature, gpu: int, options: onnxruntime.SessionOptions, provider: dict[str, str]
    ) -> None:
        self.signature, self.gpu = signature, gpu
        self.not_recorded = RECORDS_ITSELF
        self.input_dtype = self.output_dtype = np.dtype(np.float32)
        self._bound: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._session: Any = None
        self._held = ExitStack()
        try:
            with cuda.device(gpu):
                self.stream = self._held.enter_context(cuda.Stream())
                own = {"device_id": str(gpu), "user_compute_stream": str(self.stream.handle), **provider}
                self._session, self.its_own_graph = _session(plan, options, own)
                self._allocate()
        except BaseException:
            self.close()
            raise

    def enqueue(self, slot: int, count: int) -> None:
        """See ``DeviceRunner.enqueue``."""
        count = count if self.signature.dynamic_batch else self.signature.batch
        known = self._bound.get((slot, count))
        if known is None:
            known = self._bound[slot, count] = self._bind(slot, count)
            for _ in range(_TIMES_BEFORE_ITS_OWN_GRAPH):
                self._run(*known)
        self._run(*known)

    def close(self) -> None:
        """Wait for what is queued, then release everything; a second call does nothing."""
        if self._session is not None:
            self._settle()
        self._bound.clear()
        self._session = None
        self._held.close()

    def _settle(self) -> None:
        try:
            self.stream.synchronize()
        except (cuda.CudaRefused, cuda.CudaUnavailable) as error:  # what failed was told to whoever waited for it
            if error.code in NOTHING_LEFT:
                # Its destructor would find a CUDA that refuses everything, and end the process in the middle of its
                # last words (seen with 1.31.1); the process has to end anyway.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))

    def _run(self, binding: Any, options: Any) -> None:
        try:
            self._session.run_with_iobinding(binding, options)
        except failures() as error:
            raise InferenceError(f"ONNX Runtime failed: {first_line(error)}") from error

    def _allocate(self) -> None:
        signature = self.signature
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 3 or not all(isinstance(side, int) for side in shape[1:]):  # noqa: PLR2004  N, rows, anchors
            raise PlanError(f"the plan's output has shape {shape}, which is not known beforehand", remedy="rebuild it")
        self._rows, self.anchors = int(shape[1]), int(shape[2])
        self.slots = tuple(
            DeviceSlot(
                self._buffer(self._input_shape(signature.batch)), self._buffer(self._output_shape(signature.batch))
            )
            for _ in range(SLOTS)
        )

    def _buffer(self, shape: tuple[int, ...]) -> int:
        return self._held.enter_context(cuda.DeviceBuffer(prod(shape) * self.input_dtype.itemsize)).address

    def _input_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, *self.signature.resolution_hw)

    def _output_shape(self, count: int) -> tuple[int, ...]:
        return (count, self._rows, self.anchors)

    def _bind(self, slot: int, count: int) -> tuple[Any, Any]:
        """Where it reads and writes, and how it runs: without waiting, under a graph's number of its own."""
        import onnxruntime

        where, made = self.slots[slot], self._session.io_binding()
        made.bind_input(
            self.signature.input_name, "cuda", self.gpu, np.float32, self._input_shape(count), where.input_address
        )
        made.bind_output(
            self.signature.output_name, "cuda", self.gpu, np.float32, self._output_shape(count), where.output_address
        )
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self.its_own_graph:
            options.add_run_config_entry("gpu_graph_id", str(1 + slot + SLOTS * count))
        return made, options


def _session(
    plan: bytes, options: onnxruntime.SessionOptions, provider: dict[str, str]
) -> tuple[onnxruntime.InferenceSession, bool]:
    """A session, and whether it replays a graph: it refuses to where a node is left to the processor."""
    import onnxruntime

    def opened(graph: str) -> onnxruntime.InferenceSession:
        providers = [(PROVIDER, {**provider, "enable_cuda_graph": graph}), "CPUExecutionProvider"]
        return onnxruntime.InferenceSession(plan, options, providers=providers)

    with suppress(*failures()):
        return opened("1"), True
    try:
        return opened("0"), False
    except failures() as error:
        raise PlanError(f"ONNX Runtime refuses the plan: {first_line(error)}", remedy="rebuild it") from error
