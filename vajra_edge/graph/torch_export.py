"""Torch export: a checkpoint becomes an ONNX file without metadata. Needs torch, and onnx for torch's exporter.

torch has two exporters. Measured with torch 2.13 and onnxslim 0.1.98 on the trained nano network in deploy form, by
``tests/bench/export_bench.py --exporters``:

==========================  =====================  ======================
                            TorchScript, opset 17  dynamo, opset 18
==========================  =====================  ======================
nodes, after onnxslim       518, 411               414, 411
the same, dynamic           632, 507               506, 506
TensorRT-RTX 1.7            parses and builds      parses and builds
box, score to torch         4.3e-4 px, 1.4e-7      4.3e-4 px, 1.4e-7
the same, dynamic           4.3e-4 px, 7.7e-7      4.3e-4 px, 7.7e-7
time on two busy cores      7.7 s                  21 s; dynamic 46 s
peak memory                 407 MiB                716 MiB
opsets below 18             yes                    ONNX Runtime refuses
needs besides torch         onnx                   onnx, onnxscript
==========================  =====================  ======================

After onnxslim the static graphs have the same 411 nodes, so the older exporter is kept: it writes opsets
below 18 itself (dynamo writes 18 and converts down, and its ``Split`` then keeps an attribute that 17 lacks), it is
quicker, and it runs in a Python that has little else than torch.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vajra_edge.errors import GraphError, WeightsError
from vajra_edge.weights import checkpoint, interpreter

if TYPE_CHECKING:
    from vajra_edge.weights.vajra_v1 import VajraV1

INPUT_NAME, OUTPUT_NAME = "images", "output0"
STRIDES_PX = (8, 16, 32)
STRIDE_PX = STRIDES_PX[-1]
DEFAULT_HW = (640, 640)
DEFAULT_OPSET = 17  # read whole by TensorRT 10.x and ONNX Runtime
OPSETS = range(13, 21)  # 13: per-channel Q/DQ; 20: the last that torch's TorchScript exporter knows
_DYNAMIC_TRACE_HW = (96, 160)  # small, so that tracing is quick; no side of any map is one pixel or equal to another
_DYNAMIC_AXES = {INPUT_NAME: {0: "batch", 2: "height", 3: "width"}, OUTPUT_NAME: {0: "batch", 2: "anchors"}}
_OPEN_BATCH = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}


@dataclass(frozen=True)
class Order:
    """What to trace.

    Attributes:
        path: the ``.pt`` file.
        resolution_hw: input height and width in pixels; None: what the weights were trained for, else 640x640.
        dynamic: leave height and width open.
        opset: version of the ONNX operators, 13 to 20.
        fused: fold batch norms and parallel branches first.
        expected_sha256: ``[weights] sha256``.
    """

    path: Path
    resolution_hw: tuple[int, int] | None = None
    dynamic: bool = False
    opset: int = DEFAULT_OPSET
    fused: bool = True
    expected_sha256: str | None = None


@dataclass(frozen=True)
class Traced:
    """A network as ONNX, and what its checkpoint says.

    Attributes:
        onnx_bytes: ``images`` (batch, 3, H, W) -> ``output0`` (batch, 4 + classes, anchors), batch left open.
        class_names: one name a class.
        size: nano, small, medium, large or xlarge.
        stride: largest stride in pixels.
        task: ``detect``.
        sha256: digest of the checkpoint.
        resolution_hw: what H and W are, or were meant to be where they are left open.
    """

    onnx_bytes: bytes
    class_names: tuple[str, ...]
    size: str
    stride: int
    task: str
    sha256: str
    resolution_hw: tuple[int, int]


def check(order: Order) -> None:
    """Refuse what cannot be traced, before anything is loaded.

    Raises:
        GraphError: the opset or the size.
    """
    if order.opset not in OPSETS:
        raise GraphError(f"opset {order.opset} cannot be written", remedy=f"use {OPSETS[0]} to {OPSETS[-1]}")
    if order.resolution_hw is not None and any(side < STRIDE_PX or side % STRIDE_PX for side in order.resolution_hw):
        height, width = order.resolution_hw
        raise GraphError(f"input size {height}x{width} is not made of multiples of {STRIDE_PX}", remedy="round it up")


def trace(order: Order) -> Traced:
    """Open the checkpoint, rebuild its network and write it as ONNX, in this process.

    Raises:
        WeightsError: the checkpoint is refused, or torch is absent or too old.
        GraphError: the opset or size cannot be written.
    """
    check(order)
    if importlib.util.find_spec("onnx") is None:
        raise WeightsError("exporting a .pt file needs onnx, which this Python lacks", remedy=interpreter.REMEDY)
    source = checkpoint.load(order.path, order.expected_sha256)
    from vajra_edge.weights import fusion, vajra_v1

    network = vajra_v1.build(source)
    if order.fused:
        fusion.fuse(network)
    resolution_hw = order.resolution_hw or source.resolution_hw or DEFAULT_HW
    about = Traced(
        b"", source.class_names, source.size, source.stride, source.task, source.sha256, resolution_hw=resolution_hw
    )
    del source  # its tensors are copied into the network; xlarge's are 146 MB
    return replace(about, onnx_bytes=_written(network, None if order.dynamic else resolution_hw, order.opset))


def _written(network: VajraV1, fixed_hw: tuple[int, int] | None, opset: int) -> bytes:
    """Trace one image; the batch stays open, since the network never looks at it."""
    import torch

    network.head.fixed_hw = fixed_hw
    image = torch.zeros((1, 3, *(fixed_hw or _DYNAMIC_TRACE_HW)))
    file = io.BytesIO()
    # oneDNN writes machine code at run time; where MemoryDenyWriteExecute= forbids that, no primitive can be made.
    with _quiet(torch), torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        torch.onnx.export(
            network,
            (image,),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes=_OPEN_BATCH if fixed_hw else _DYNAMIC_AXES,
        )
    return file.getvalue()


@contextmanager
def _quiet(torch: Any) -> Iterator[None]:
    """Without torch's notices: this exporter is the older one, traced sizes become constants, there is no Intel GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)
        yield
