"""Milliseconds that in-graph NMS adds to an image on this CPU: ``python tests/bench/nms_ms.py [threads]``."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.graph.passes.nms import add_nms
from vajra_edge.plans.spec import NmsSpec

CLASSES, SIZE, ANCHORS, RUNS = 80, 640, 8400, 100


def network() -> bytes:
    """A constant 640 x 640 output of VajraV1's shape with 8,400 crowded boxes; the image is added times zero."""
    rng = np.random.default_rng(0)
    raw = rng.random((1, 4 + CLASSES, ANCHORS), np.float32)
    raw[:, :2] *= SIZE
    raw[:, 2:4] *= SIZE / 3
    raw[:, 4:] **= 8
    constants = {"raw": raw, "zero": np.float32(0), "start": [0] * 4, "end": [1] * 4, "flat": [1, 1, 1]}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    nodes = [
        helper.make_node("Slice", ["images", "start", "end"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "flat"], ["scalar"]),
        helper.make_node("Mul", ["scalar", "zero"], ["nothing"]),
        helper.make_node("Add", ["raw", "nothing"], ["output0"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, SIZE, SIZE))
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, raw.shape)
    graph = helper.make_graph(nodes, "constant", [image], [output], tensors)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(content, {"names": json.dumps([str(k) for k in range(CLASSES)]), "stride": "32"})
    return content.SerializeToString()


def times_ms(content: bytes, threads: int) -> tuple[float, float]:
    """Median and fastest of the runs; on a busy machine only the second means anything."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    images = np.zeros((1, 3, SIZE, SIZE), np.float32)
    measured = []
    for _ in range(RUNS):
        begin_ns = time.perf_counter_ns()
        session.run(None, {"images": images})
        measured.append((time.perf_counter_ns() - begin_ns) / 1e6)
    return statistics.median(measured), min(measured)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    bare = times_ms(network(), threads)
    added = {}
    for top_k in (300, 1000, 3840):
        whole = times_ms(add_nms(network(), NmsSpec(top_k=top_k)), threads)
        added[top_k] = {
            "median_ms": round(whole[0] - bare[0], 2),
            "fastest_ms": round(whole[1] - bare[1], 2),
        }
    print(json.dumps({"threads": threads, "added_by_top_k": added}))


if __name__ == "__main__":
    main()
