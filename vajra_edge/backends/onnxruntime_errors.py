"""What ONNX Runtime raises, which shares no base class of its own."""

from __future__ import annotations


def failures() -> tuple[type[Exception], ...]:
    """Its exceptions, for an ``except``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [getattr(state, text) for text in dir(state)]
    return tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception))


def first_line(error: Exception) -> str:
    """Its message without the stack below it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
