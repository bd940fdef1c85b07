"""Export: VajraV1 weights -> an ONNX file with the metadata that upstream's own export carries."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vajra_edge import errors
from vajra_edge.errors import GraphError, WeightsError
from vajra_edge.graph import metadata, topology, torch_export
from vajra_edge.version import VERSION
from vajra_edge.weights import interpreter
from vajra_edge.wording import Setting, say

if TYPE_CHECKING:
    import onnx

_CHILD = Path(torch_export.__file__).with_name("torch_export_child.py")


def from_checkpoint(
    path: Path,
    *,
    resolution_hw: tuple[int, int] | None = None,
    batch: int = 1,
    dynamic: bool = False,
    opset: int | None = None,
    fused: bool = True,
    expected_sha256: str | None = None,
    python: Path | None = None,
) -> bytes:
    """Export a VajraV1 detection checkpoint in FP32, without NMS.

    Args:
        path: the ``.pt`` file.
        resolution_hw: input height and width in pixels, multiples of 32; None: what the weights were trained for.
        batch: images in one call; with ``dynamic`` the most.
        dynamic: leave batch, height and width open.
        opset: version of the ONNX operators; None: 17.
        fused: fold batch norms and parallel branches, as every export should; False keeps the train form.
        expected_sha256: ``[weights] sha256``: another file is refused.
        python: ``[weights] python``: opens the file in that interpreter; None: in this process.

    Returns:
        A serialized ONNX file: ``images`` (batch, 3, H, W), RGB, 0..1 -> ``output0`` in ``Layout.RAW``. Equal arguments
        give equal bytes.

    Raises:
        UnsafeWeights: the file asks for code or memory, or is not the one expected.
        WeightsError: it is damaged, foreign or of another task, or there is no torch >= 2.10 to open it.
        GraphError: the size, batch or opset cannot be written.
    """
    if batch < 1:
        raise GraphError(f"batch {batch} is not a positive number")
    order = torch_export.Order(
        path, resolution_hw, dynamic, opset or torch_export.DEFAULT_OPSET, fused, expected_sha256
    )
    torch_export.check(order)
    traced = torch_export.trace(order) if python is None else _trace_elsewhere(order, python)
    return _annotated(traced, order, batch)


def _trace_elsewhere(order: torch_export.Order, python: Path) -> torch_export.Traced:
    with tempfile.TemporaryDirectory(prefix="vajra-edge-") as folder:
        output = Path(folder) / "traced.onnx"
        fields = {**asdict(order), "path": str(order.path.absolute()), "output": str(output)}
        try:
            child = subprocess.run(
                [str(python), "-I", "-B", str(_CHILD)],
                input=json.dumps(fields),
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise WeightsError(
                say(Setting.WEIGHTS_PYTHON, f" {python} does not run: {error.strerror}"),
                remedy=interpreter.REMEDY,
                python=python,
            ) from error
        answer = _answer(child, python)
        answer["class_names"] = tuple(answer["class_names"])
        answer["resolution_hw"] = tuple(answer["resolution_hw"])
        return torch_export.Traced(onnx_bytes=output.read_bytes(), **answer)


def _answer(child: subprocess.CompletedProcess[str], python: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (child.stderr.strip().splitlines() or ["no output"])[-1]
        raise WeightsError(
            say(Setting.WEIGHTS_PYTHON, f" {python} failed with exit code {child.returncode}: {last[:200]}"),
            remedy="it must be Python >= 3.10 with torch >= 2.10 and onnx",
            python=python,
        ) from error
    if "error" in answer:
        kind = getattr(errors, str(answer["error"]), WeightsError)
        raise kind(f"{answer['message']} (opened by {python})", remedy=str(answer["remedy"]))
    return answer


def _annotated(traced: torch_export.Traced, order: torch_export.Order, batch: int) -> bytes:
    """The shapes as asked for, and the metadata."""
    network = topology.parse(traced.onnx_bytes)
    traced = replace(traced, onnx_bytes=b"")  # xlarge: 280 MB
    height, width = traced.resolution_hw
    rows, anchors = 4 + len(traced.class_names), sum(height * width // stride**2 for stride in torch_export.STRIDES_PX)
    (images,), (output,) = network.graph.input, network.graph.output
    if order.dynamic:
        _set_shape(output, {1: rows})
    else:
        _set_shape(images, {0: batch})
        _set_shape(output, {0: batch, 1: rows, 2: anchors})
    network.producer_name, network.producer_version = "vajra-edge", VERSION
    arguments = {"batch": batch, "half": False, "dynamic": order.dynamic, "opset": order.opset, "nms": False}
    metadata.put(
        network,
        {
            "description": f"VajraV1 {traced.size} detection",
            "version": VERSION,
            "stride": traced.stride,
            "task": traced.task,
            "batch": batch,
            "img_size": list(traced.resolution_hw),
            "names": str(dict(enumerate(traced.class_names))),  # upstream reads a Python literal with whole-number keys
            "args": str(arguments),
            "weights_sha256": traced.sha256,
        },
    )
    return topology.serialize(network)


def _set_shape(value: onnx.ValueInfoProto, sides: Mapping[int, int]) -> None:
    for axis, side in sides.items():
        value.type.tensor_type.shape.dim[axis].dim_value = side
