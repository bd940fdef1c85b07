"""In-graph NMS: ``output0`` becomes ``detections``, with static shapes and operators that every runtime has.

The ``top_k`` anchors with the best class scores, sorted, give a K x K matrix S of who would suppress whom: ``S[j, i]``
is 1 where j is better than i, of the same class, and overlaps it by more than ``iou``. Sequential greedy NMS is the one
solution of ``keep[i] = no j with S[j, i] and keep[j]``. Each pass computes the right side for all i at once, as one
vector-matrix product, starting from "all kept".

How many passes: a box is settled one pass after the first of its kept rivals, or, where it is kept itself, one pass
after the last of its suppressed rivals; from then on it stays right. So n passes settle every chain of suppressions (a
over b over c ...) of n links. Beyond that the error has one side: after an even number of passes the kept boxes
include every box that sequential NMS keeps, after an odd number only such boxes (the right side is antitone, so
iterates from above alternate around its fixed point). ``PASSES`` is even: a longer chain may leave a duplicate, and
never loses an object.

Box arithmetic is FP32 whatever the network is; all nodes are named ``/nms/...`` so that precision passes leave them.
TensorRT's weak typing cannot pin all of it to FP32, a comparison least of all: areas are in units that FP16 holds too.
The confidence threshold comes afterwards, outside: for greedy NMS a worse box never changes the fate of a better one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vajra_edge.errors import GraphError
from vajra_edge.graph import metadata, signature
from vajra_edge.graph.passes.nodes import Nodes
from vajra_edge.graph.signature import BOX_ROWS, DETECTION_COLUMNS, Layout
from vajra_edge.graph.topology import Wiring, check, drop_unread, parse, raise_opset, serialize, shape_of

if TYPE_CHECKING:
    import onnx

    from vajra_edge.plans.spec import NmsSpec

PASSES = 12
"""Even (see above). On 128 COCO photos, at any IoU from 0.3 to 0.9, chains took at most 6 passes for scores above 0.05
and 8 for scores above 0.001."""
SCORE_FLOOR = 0.001
"""Rows at or below it are empty: upstream's lowest useful threshold, that of val."""
MOST_CANDIDATES = 3840
"""TensorRT's largest K for TopK (its operator documentation)."""
LONGEST_SIDE = 64
"""Of the input, at most, in the unit of areas: FP16 ends at 65504, the area of a box four times as long, and keeps all
its digits down to the area of a pixel in 4096."""
PREFIX = "/nms/"
OUTPUT = "detections"
_OLDEST_OPSET = 13


def add_nms(onnx_bytes: bytes, spec: NmsSpec, largest_hw: tuple[int, int] | None = None) -> bytes:
    """Replace the RAW output of a network by DETECTIONS.

    Args:
        onnx_bytes: a network whose output is (N, 4 + classes, anchors); N and anchors may be dynamic. Its metadata
            must hold the class names and the stride.
        spec: overlap, rows and candidates; written into the metadata, where ``signature.read`` finds them.
        largest_hw: largest input in pixels that a network with open sizes will be given; None: what it says itself.

    Returns:
        The network with one output, ``detections`` (N, max_det, 6) float32: x1, y1, x2, y2 in input pixels, score,
        class; best score first, all zero in empty rows.

    Raises:
        GraphError: the figures are out of range, or the network has another layout or cannot be raised to opset 13.
    """
    _check_figures(spec)
    found = signature.read(onnx_bytes)
    if found.layout is not Layout.RAW:
        raise GraphError(f"the network holds NMS already, iou {found.nms_iou}", remedy="give one exported without nms")
    network = raise_opset(parse(onnx_bytes), _OLDEST_OPSET)
    raw = next(value for value in network.graph.output if value.name == found.output_name)
    anchors = (shape_of(raw) or (None,))[-1]
    batch = found.batch if not found.dynamic_batch else "batch"
    unit = _unit(max(largest_hw or found.most_hw))
    _append(network, raw.name, anchors if isinstance(anchors, int) else None, len(found.class_names), unit, spec)
    _set_output(network, (batch, spec.max_det, DETECTION_COLUMNS))
    metadata.put(network, {"nms_iou": spec.iou, "max_det": spec.max_det, "top_k": spec.top_k})
    check(network, "after NMS was added")
    return serialize(network)


def raw_output(onnx_bytes: bytes, known: signature.Signature) -> str:
    """The tensor in the RAW layout: the output, or what enters the in-graph NMS.

    Raises:
        GraphError: the graph has another NMS than ours.
    """
    if known.layout is Layout.RAW:
        return known.output_name
    if known.end_to_end:
        raise GraphError(
            "the network is end to end: it has no scores of every anchor, by which int8 is chosen and judged",
            remedy="export it again with nms=None (earlier: end2end=False, nms=False), or choose fp16",
        )
    wiring = Wiring(parse(onnx_bytes))
    tail = {name for name, node in wiring.producer.items() if node.name.startswith(PREFIX)}
    entering = {
        name
        for made in tail
        for name in wiring.activations(wiring.producer[made])
        if name not in tail and name in wiring.producer
    }
    if len(entering) != 1:
        raise GraphError(
            f"{len(entering)} tensors enter the NMS of the graph",
            remedy="give a graph without NMS",
            found=len(entering),
        )
    return entering.pop()


def without_nms(onnx_bytes: bytes) -> bytes:
    """The network as it was before ``add_nms``: its output is the RAW one again.

    Raises:
        GraphError: the graph has another NMS than ours.
    """
    found = signature.read(onnx_bytes)
    raw = raw_output(onnx_bytes, found)
    network = parse(onnx_bytes)
    needed, kept = {raw}, []
    for node in reversed(network.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    nodes = kept[::-1]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    del network.graph.output[:]
    network.graph.output.append(_float_output(raw, None))
    drop_unread(network.graph)
    network = _inferred(network)
    metadata.drop(network, ("nms_iou", "max_det", "top_k"))
    check(network, "after NMS was taken out")
    return serialize(network)


def _check_figures(spec: NmsSpec) -> None:
    limits = {"iou": (0, 1), "max_det": (1, MOST_CANDIDATES), "top_k": (1, MOST_CANDIDATES)}
    for name, (low, high) in limits.items():
        if not low <= getattr(spec, name) <= high:
            raise GraphError(f"NMS {name} is {getattr(spec, name)}", remedy=f"choose between {low} and {high}")


def _inferred(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with the shape of its output, as far as inference finds it."""
    import onnx

    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(network)
    return inferred


def _float_output(name: str, shape: tuple[int | str, ...] | None) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _set_output(network: onnx.ModelProto, shape: tuple[int | str, ...]) -> None:
    del network.graph.output[:]
    network.graph.output.append(_float_output(OUTPUT, shape))


def _unit(longest_px: int) -> float:
    """Of areas, in 1/px: a power of two, so that FP32 rounds as it does in pixels."""
    return 2.0 ** -max(0, math.ceil(math.log2(longest_px / LONGEST_SIDE)))


def _append(network: onnx.ModelProto, raw: str, anchors: int | None, classes: int, unit: float, spec: NmsSpec) -> None:
    graph = Nodes(network, PREFIX, [OUTPUT])
    candidates = spec.top_k if anchors is None else min(spec.top_k, anchors)
    if anchors is None:  # a small picture may have fewer anchors than TopK takes: empty ones fill up
        raw = graph.node("Pad", "padded", raw, graph.integers("padding", 0, 0, 0, 0, 0, candidates))
    score, box_rows, label = _candidates(graph, raw, candidates, classes)
    corners = _corners(graph, *box_rows)
    suppresses = _suppression(graph, _scaled(graph, corners, unit), label, candidates, spec.iou)
    kept_score = graph.node("Mul", "kept_score", score, _greedy(graph, suppresses, candidates))
    rows = graph.node("Concat", "rows", *corners, kept_score, label, axis=1)
    _best_rows(graph, rows, kept_score, min(spec.max_det, candidates), spec.max_det)


def _candidates(graph: Nodes, raw: str, candidates: int, classes: int) -> tuple[str, list[str], str]:
    """The best anchors, best first: scores (N, 1, K), the four box rows (N, 1, K) each, classes (N, 1, K) as float."""
    scores = graph.part("scores", raw, BOX_ROWS, BOX_ROWS + classes, 1)
    best = graph.largest("best", scores, 1)
    top = graph.nodes("TopK", ["score", "anchor"], best, graph.integers("top_k", candidates), axis=2)
    every_row = graph.node("Expand", "anchor_rows", top[1], graph.integers("raw_rows", 1, BOX_ROWS + classes, 1))
    taken = graph.node("GatherElements", "taken", raw, every_row, axis=2)
    sizes = graph.integers("row_sizes", 1, 1, 1, 1, classes)
    *box_rows, class_scores = graph.nodes("Split", ["cx", "cy", "w", "h", "class_scores"], taken, sizes, axis=1)
    label = graph.node("ArgMax", "label_id", class_scores, axis=1, keepdims=1)
    return top[0], box_rows, graph.to_float("label", label)


def _corners(graph: Nodes, cx: str, cy: str, w: str, h: str) -> list[str]:
    """x1, y1, x2, y2, each (N, 1, K)."""
    half = graph.constant("half", np.array(0.5, np.float32))
    half_w = graph.node("Mul", "half_w", w, half)
    half_h = graph.node("Mul", "half_h", h, half)
    return [
        graph.node("Sub", "x1", cx, half_w),
        graph.node("Sub", "y1", cy, half_h),
        graph.node("Add", "x2", cx, half_w),
        graph.node("Add", "y2", cy, half_h),
    ]


def _scaled(graph: Nodes, corners: list[str], unit: float) -> list[str]:
    factor = graph.constant("unit", np.array(unit, np.float32))
    return [graph.node("Mul", corner.removeprefix(PREFIX) + "_scaled", corner, factor) for corner in corners]


def _suppression(graph: Nodes, corners: list[str], label: str, candidates: int, iou: float) -> str:
    """(N, K, K) float 0 or 1: row j would suppress column i.

    ``shared / (area_j + area_i - shared) > iou`` is asked as ``shared > iou / (1 + iou) * (area_j + area_i)``: one
    matrix operation less, and no division by the zero area of an empty box.
    """
    x1, y1, x2, y2 = corners
    width = graph.node("Relu", "width", graph.node("Sub", "signed_width", x2, x1))
    height = graph.node("Relu", "height", graph.node("Sub", "signed_height", y2, y1))
    share = graph.constant("share", np.array(iou / (1 + iou), np.float32))
    area = graph.node("Mul", "area_share", graph.node("Mul", "area", width, height), share)
    shared_w = graph.node("Relu", "shared_w", _overlap(graph, "x", x1, x2))
    shared = graph.node("Mul", "shared", shared_w, _overlap(graph, "y", y1, y2))
    limit = graph.node("Add", "limit", graph.column(area), area)
    overlaps = graph.node("Greater", "overlaps", shared, limit)
    same_class = graph.node("Equal", "same_class", graph.column(label), label)
    rank = np.arange(candidates, dtype=np.float32)
    better = graph.node(
        "Less",
        "better",
        graph.constant("rank_column", rank.reshape(1, candidates, 1)),
        graph.constant("rank", rank.reshape(1, 1, candidates)),
    )
    rivals = graph.node("And", "rivals", same_class, better)
    return graph.to_float("suppresses", graph.node("And", "suppresses_flag", overlaps, rivals))


def _overlap(graph: Nodes, axis: str, low: str, high: str) -> str:
    """Length of the common part along one axis, (N, K, K), negative where there is none."""
    nearest = graph.node("Min", f"min_{axis}2", graph.column(high), high)
    furthest = graph.node("Max", f"max_{axis}1", graph.column(low), low)
    return graph.node("Sub", f"overlap_{axis}", nearest, furthest)


def _greedy(graph: Nodes, suppresses: str, candidates: int) -> str:
    """(N, 1, K) float: 1 where kept, 0 where suppressed. The products are counts, exact in FP32 and in TF32."""
    one = graph.constant("one", np.array(1, np.float32))
    keep = graph.constant("all_kept", np.ones((1, 1, candidates), np.float32))
    for number in range(PASSES):
        suppressors = graph.node("MatMul", f"suppressors_{number}", keep, suppresses)
        keep = graph.node("Relu", f"keep_{number}", graph.node("Sub", f"free_{number}", one, suppressors))
    return keep


def _best_rows(graph: Nodes, rows: str, score: str, count: int, max_det: int) -> None:
    """The ``count`` best of ``rows`` (N, 6, K) as ``detections`` (N, max_det, 6), zero at and below the floor."""
    best = graph.nodes("TopK", ["best_score", "best_rank"], score, graph.integers("rows_taken", count), axis=2)
    every_column = graph.node("Expand", "best_columns", best[1], graph.integers("columns", 1, DETECTION_COLUMNS, 1))
    taken = graph.node("GatherElements", "best_rows", rows, every_column, axis=2)
    floor = graph.constant("floor", np.array(SCORE_FLOOR, np.float32))
    filled = graph.to_float("filled", graph.node("Greater", "filled_flag", best[0], floor))
    # a product and not a choice: a box that is not finite stays visible to the accuracy check
    cleared = graph.node("Mul", "cleared", taken, filled)
    if count == max_det:
        graph.node("Transpose", OUTPUT, cleared, perm=[0, 2, 1])
    else:
        table = graph.node("Transpose", "table", cleared, perm=[0, 2, 1])
        graph.node("Pad", OUTPUT, table, graph.integers("empty_rows", 0, 0, 0, 0, max_det - count, 0))
