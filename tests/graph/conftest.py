"""Networks small enough to reason about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

Maker = Callable[..., bytes]


def make_reshaping_network(
    *,
    input_shape: tuple[int | str, ...] = (1, 3, 32, 32),
    output_shape: tuple[int | str | None, ...] = (1, 6, 512),
    opset: int = 17,
    metadata: dict[str, str] | None = None,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    rows = output_shape[1] if len(output_shape) > 1 and isinstance(output_shape[1], int) else 6
    rank = [0, rows, -1] if len(output_shape) == 3 else [-1]
    shape = numpy_helper.from_array(np.array(rank, np.int64), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["output0"])],
        "reshaping",
        [helper.make_tensor_value_info("images", kind, input_shape)],
        [helper.make_tensor_value_info("output0", kind, output_shape)],
        [shape],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    words = {"names": '["person", "car"]', "stride": "32"} if metadata is None else metadata
    helper.set_model_props(network, words)
    return network.SerializeToString()


@pytest.fixture(scope="session")
def reshaping_network() -> Maker:
    """A network with two classes that returns its input, reshaped to (N, 6, H * W / 2): tests choose the raw output."""
    return make_reshaping_network
