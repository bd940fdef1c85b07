"""Intake: the weights file -> FP32 ONNX bytes, and proof that they are those of the file that was asked for."""

from __future__ import annotations

import hashlib

from vajra_edge.engine.request import BuildRequest, weights_digest
from vajra_edge.errors import BuildError, WeightsError

MAX_ONNX_BYTES = 1 << 30
"""Read no further: ``graph.proto`` refuses more."""


def size_bytes(request: BuildRequest) -> int:
    """Length of the weights file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return request.weights_path.stat().st_size
    except OSError as error:
        raise _unreadable(request, error) from error


def onnx_of(request: BuildRequest) -> bytes:
    """The network of the weights file as FP32 ONNX.

    Raises:
        WeightsError: the file is absent, damaged, or of another kind.
        GraphError: it cannot be exported as asked for.
        BuildError: it is not the file that was asked for, for it changed meanwhile; not permanent.
    """
    path = request.weights_path
    if path.suffix == ".onnx":
        content = _read(request)
        if hashlib.sha256(content).hexdigest() != request.weights_sha256:
            raise _changed(request)
        return content
    if path.suffix in (".pt", ".pth"):
        return _exported(request)
    raise WeightsError(
        f"weights {path} are neither .pt nor .onnx",
        remedy="give one of these; engines built elsewhere are never loaded",
        path=path,
    )


def _read(request: BuildRequest) -> bytes:
    try:
        with request.weights_path.open("rb") as file:
            content = file.read(MAX_ONNX_BYTES + 1)
    except OSError as error:
        raise _unreadable(request, error) from error
    if len(content) > MAX_ONNX_BYTES:
        raise WeightsError(f"weights {request.weights_path} are larger than 1 GiB", remedy="export a smaller network")
    return content


def _exported(request: BuildRequest) -> bytes:
    from vajra_edge.graph import export

    spec = request.spec
    try:
        return export.from_checkpoint(
            request.weights_path,
            resolution_hw=spec.resolution_hw,
            batch=spec.batch,
            dynamic=spec.dynamic,
            opset=spec.opset,
            expected_sha256=request.weights_sha256,
            python=request.weights_python,
        )
    except WeightsError as error:
        if weights_digest(request.weights_path) != request.weights_sha256:
            raise _changed(request) from error
        raise


def _changed(request: BuildRequest) -> BuildError:
    error = BuildError(
        f"weights {request.weights_path} changed while they were read",
        remedy="the build starts again with the new file",
    )
    error.permanent = False
    return error


def _unreadable(request: BuildRequest, error: OSError) -> WeightsError:
    path = request.weights_path
    return WeightsError(f"weights {path} cannot be read: {error.strerror}", remedy="copy the file again", path=path)
