"""Replay: a graph on calibration images, by ONNX Runtime on the CPU, exactly as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge import device
from vajra_edge.errors import CalibrationError
from vajra_edge.graph.signature import Signature

Outputs = dict[str, NDArray[Any]]


class Replay:
    """One session.

    Q/DQ pairs run as separate operators around FP32 convolutions: the arithmetic of INT8 kernels that sum without
    overflow, as TensorRT's do, whatever instructions this processor has.

    Args:
        onnx_bytes: the graph.
        signature: tells input, batch and size.
        threads: of the CPU; None: all that this process may use.
        lean: run each node as soon as what it reads is there, and fuse nothing. For a graph of probes, which reads
            every tensor: in its own order ONNX Runtime holds nearly all of them until the end (trained nano at 640:
            1134 MiB, lean 287 MiB and no slower).

    Attributes:
        rows: images in one call at the most.

    Raises:
        CalibrationError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self, onnx_bytes: bytes, signature: Signature, threads: int | None = None, *, lean: bool = False
    ) -> None:
        import onnxruntime

        self._failures = _failures()

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or device.usable_cpus()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if lean:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        except self._failures as error:
            raise CalibrationError(f"ONNX Runtime refuses the graph: {error}", remedy="export it again") from error
        self._names = [entry.name for entry in self._session.get_outputs()]
        self._input = signature.input_name
        self.rows = 1 if signature.dynamic_batch else signature.batch

    def run(self, batch: NDArray[np.float32], known: Mapping[str, NDArray[Any]] | None = None) -> Outputs:
        """Up to ``rows`` images through the graph; the last one fills what is left of a static batch.

        Args:
            batch: (n, 3, H, W) float32, letterboxed.
            known: further inputs by name, for ``rows`` images.

        Returns:
            All outputs by name, as the graph makes them, those of the filling images too.

        Raises:
            CalibrationError: ONNX Runtime fails on the images.
        """
        missing = self.rows - len(batch)
        whole = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        try:
            found = self._session.run(self._names, {self._input: whole, **(known or {})})
        except self._failures as error:
            raise CalibrationError(
                f"ONNX Runtime fails on an image: {error}", remedy="check the weights' input size"
            ) from error
        return dict(zip(self._names, found, strict=True))


def _failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime's binding raises; its own types have no parent in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    kinds = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    return (RuntimeError, ValueError, *(getattr(binding, name) for name in kinds))
