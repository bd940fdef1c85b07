"""Probe: what a network gives for one picture, to see what it is where its shapes alone do not say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import GraphError

_CELL_PX = 16
_ERRORS_ONLY = 3


def look(onnx_bytes: bytes, input_name: str, batch: int, size_hw: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """Run one picture on the CPU.

    Args:
        onnx_bytes: a network with one image input, float32.
        input_name: of it.
        batch: as many times the picture.
        size_hw: of the picture in pixels.

    Returns:
        What comes out, by the outputs' names; of tensors alone.

    Raises:
        GraphError: ONNX Runtime refuses the network or fails on it.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = [getattr(state, text) for text in dir(state)]
    failures = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY + 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, {input_name: np.repeat(picture(size_hw), batch, axis=0)})
    except failures as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(
            f"the network does not run at {size_hw[0]}x{size_hw[1]} (height x width): {reason[:300]}",
            remedy="export it again",
        ) from error
    return {
        name: np.asarray(value, np.float32)
        for name, value in zip(names, found, strict=True)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    }


def picture(size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(1, 3, H, W) RGB 0..1: patches of colour, the same at each call."""
    height, width = size_hw
    coarse = np.random.default_rng(0).random((1, 3, -(-height // _CELL_PX), -(-width // _CELL_PX)), np.float32)
    fine = coarse.repeat(_CELL_PX, axis=2).repeat(_CELL_PX, axis=3)
    return np.ascontiguousarray(fine[:, :, :height, :width])
