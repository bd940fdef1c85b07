"""Makes ``vajra_edge/demo/vajra-v1-nano-cctv.onnx`` and measures that it detects what the FP32 export does.

    python tests/bench/demo_network.py ../shared/data/models/vajra-v1-nano-det-cctv.pt out.onnx [video [first frame]]

Needs torch >= 2.10. The weights are stored in FP16, as the checkpoint itself stores them, each with a Cast to FP32
before its reader; every library folds such a cast when it loads the network, so arithmetic stays FP32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.geometry.boxes import iou
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.graph import export, topology
from vajra_edge.graph.assemble import simplify
from vajra_edge.heads.detect import best_class

SMALLEST = 256  # elements; biases and shapes stay FP32


def compacted(onnx_bytes: bytes) -> bytes:
    network = topology.parse(onnx_bytes)
    casts = []
    for tensor in network.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size >= SMALLEST:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), f"{name}_stored"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *network.graph.node]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    topology.check(network, "after its weights were stored in FP16")
    return topology.serialize(network)


def detections(onnx_bytes: bytes, video: Path, first: int):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    letterbox = Letterbox((640, 640))
    capture = cv2.VideoCapture(str(video))
    number = -1
    while (read := capture.read())[0]:
        number += 1
        if number >= first:
            batch = np.empty((1, 3, 640, 640), np.float32)
            placement = letterbox.apply(read[1], batch[0])
            (output,) = session.run(None, {"images": batch})
            yield placement, best_class(output[0], 0.25, 0.7, 300)


def main() -> None:
    weights, output = Path(sys.argv[1]), Path(sys.argv[2])
    full = simplify(export.from_checkpoint(weights, resolution_hw=(640, 640)))
    compact = compacted(full)
    output.write_bytes(compact)
    print(f"FP32 {len(full)} bytes, compact {len(compact)} bytes, {len(onnx.load_from_string(full).graph.node)} nodes")
    if len(sys.argv) > 3:
        compare(full, compact, Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)


def compare(full: bytes, compact: bytes, video: Path, first: int) -> None:
    frames = boxes = unequal = 0
    worst_px = worst_score = 0.0
    for (_, a), (_, b) in zip(detections(full, video, first), detections(compact, video, first), strict=True):
        frames += 1
        boxes += len(a.xyxy)
        overlap = iou(a.xyxy, b.xyxy)
        same = len(a.xyxy) == len(b.xyxy) and (not len(a.xyxy) or overlap.max(1).min() > 0.9)
        if not same:
            unequal += 1
            print(f"frame {first + frames - 1}: {np.round(a.confidence, 3)} against {np.round(b.confidence, 3)}")
            continue
        if len(a.xyxy):
            other = overlap.argmax(1)
            assert (a.class_id == b.class_id[other]).all()
            worst_px = max(worst_px, float(np.abs(a.xyxy - b.xyxy[other]).max()))
            worst_score = max(worst_score, float(np.abs(a.confidence - b.confidence[other]).max()))
    print(f"{frames} frames, {boxes} boxes, {unequal} frames differ; worst {worst_px:.3f} px, score {worst_score:.4f}")


if __name__ == "__main__":
    main()
