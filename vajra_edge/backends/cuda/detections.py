"""Detections on the GPU: what ``detections.cu`` is told of each image, and what it needs beside the output."""

from __future__ import annotations

import ctypes

from vajra_edge.errors import UnsupportedSpec
from vajra_edge.geometry.letterbox import LetterboxTransform
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.heads import Limits
from vajra_edge.wording import Setting, say

MOST_CANDIDATES = 1024
"""Candidates that suppression takes of an image."""

OVERLAPS_BYTES = MOST_CANDIDATES * MOST_CANDIDATES // 8
"""A bit for each two of them."""

THREADS = 256
"""Of a block of each kernel but ``ranked``."""

RANKED_THREADS = 64
"""Of a block there: all anchors may be candidates, and small blocks keep every processor busy."""

ROW_BYTES = 24
"""x1, y1, x2, y2, score, class, float32 each."""

TALLY_BYTES = 8
"""Candidates of an image and whether a score is not finite, int32 each."""


class ImageBlock(ctypes.Structure):
    """What the kernels read of an image, as ``detections.cu`` declares it."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("confidence", "iou")),
        *((name, ctypes.c_int) for name in ("top_k", "max_det", "ticket")),
        *((name, ctypes.c_float) for name in ("left", "top", "scale", "width", "height")),
    )


class Answer(ctypes.Structure):
    """What the kernels say of an image beside its rows, as ``detections.cu`` declares it."""

    _fields_ = (("rows", ctypes.c_int), ("ticket", ctypes.c_int), ("broken", ctypes.c_int))


def unfit(signature: Signature) -> str | None:
    """Why the GPU cannot choose the objects of a network, so that the host prepares frames too; None if it can."""
    if signature.layout is not Layout.RAW:
        return "NMS is inside the network"
    return None


def image_block(limits: Limits, place: LetterboxTransform, resolution_wh: tuple[int, int], ticket: int) -> ImageBlock:
    """The kernels' view of an image.

    Args:
        limits: what counts; ``top_k`` None takes ``MOST_CANDIDATES``.
        place: where the image lies in the input.
        resolution_wh: of the image, in pixels.
        ticket: stands in the answer again, and so says of which image that is.

    Raises:
        UnsupportedSpec: more candidates are asked for than fit, or one row a class.
    """
    top_k = MOST_CANDIDATES if limits.top_k is None else limits.top_k
    if top_k > MOST_CANDIDATES or limits.every_class:
        raise UnsupportedSpec(
            f"suppression on the GPU takes the best class of at most {MOST_CANDIDATES} candidates",
            remedy=say("lower ", Setting.NMS_TOP_K),
            top_k=top_k,
        )
    width, height = resolution_wh
    return ImageBlock(
        *(limits.confidence, limits.iou, top_k, limits.max_det, ticket),
        *(place.left_px, place.top_px, place.scale, width, height),
    )
