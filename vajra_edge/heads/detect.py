"""Detect: heads of networks that find boxes, and what they do to the arrays of one image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vajra_edge.geometry.boxes import cxcywh_to_xyxy, nms
from vajra_edge.geometry.letterbox import LetterboxTransform
from vajra_edge.graph.signature import BOX_ROWS, Signature
from vajra_edge.heads.base import Limits, require_finite
from vajra_edge.types import Detections

MOST_CANDIDATES = 30_000
"""Candidates that enter NMS in ``multi_label``: upstream's ``max_nms``."""


class _BoxHead:
    """What every head has that finds boxes and nothing else."""

    def to_image(self, found: Detections, place: LetterboxTransform, resolution_wh: tuple[int, int]) -> Detections:
        """The same boxes in pixels of the image, clipped to it."""
        return Detections(place.to_image(found.xyxy, resolution_wh), found.confidence, found.class_id)


class AnchorHead(_BoxHead):
    """``Layout.RAW``: boxes and class scores of every anchor; NMS is done here."""

    def rows(self, signature: Signature) -> int:
        """Four of the box, one a class."""
        return BOX_ROWS + len(signature.class_names)

    def decode(self, signature: Signature, output: NDArray[np.float32], limits: Limits) -> Detections:
        """See ``best_class`` and ``multi_label``."""
        del signature
        if limits.every_class:
            return multi_label(output, limits.confidence, limits.iou, limits.max_det)
        return best_class(output, limits.confidence, limits.iou, limits.max_det, limits.top_k)


class RowHead(_BoxHead):
    """``Layout.DETECTIONS``: one object a row, chosen in the network; its own limits come first."""

    def rows(self, signature: Signature) -> int:
        """As many as the network tells of objects."""
        return signature.max_det or 0

    def decode(self, signature: Signature, output: NDArray[np.float32], limits: Limits) -> Detections:
        """See ``rows_of_detections``."""
        return rows_of_detections(output, limits.confidence, limits.max_det if signature.end_to_end else None)


def rows_of_detections(output: NDArray[np.float32], confidence: float, max_det: int | None = None) -> Detections:
    """One image of a DETECTIONS output.

    Args:
        output: (max_det, 6) x1, y1, x2, y2 in input pixels, score, class; score 0 in empty rows.
        confidence: rows below it go.
        max_det: most rows kept; None: all.

    Returns:
        Detections in input pixels, best score first.

    Raises:
        NotFinite: a score is no number or infinite, be it of a row that would be empty.
    """
    require_finite(output[:, 4])
    kept = output[(output[:, 4] >= confidence) & (output[:, 4] > 0)]
    kept = kept[np.argsort(-kept[:, 4], kind="stable")[:max_det]]
    return Detections(kept[:, :4].copy(), kept[:, 4].copy(), kept[:, 5].astype(np.int32))


def best_class(
    output: NDArray[np.float32], confidence: float, iou_above: float, max_det: int, top_k: int | None = None
) -> Detections:
    """One image of a RAW output, the best class an anchor, as upstream's predict does.

    Args:
        output: (4 + classes, anchors) cx, cy, w, h in input pixels, then class scores.
        confidence: anchors whose best score is not above it go (upstream's comparison).
        iou_above: see ``boxes.nms``.
        max_det: most rows kept.
        top_k: anchors by best score that enter NMS; None: all.

    Raises:
        NotFinite: an anchor's best score is no number or infinite.
    """
    best = _best_scores(output)  # the one pass over every score: half of the 0.4 ms for 80 classes and 8400 anchors
    anchors = np.flatnonzero(best > confidence)
    if top_k is not None and len(anchors) > top_k:
        anchors = anchors[np.argsort(-best[anchors], kind="stable")[:top_k]]
    class_id = output[4:, anchors].argmax(axis=0).astype(np.int32)
    return _suppress(output, anchors, best[anchors], class_id, iou_above, max_det)


def multi_label(output: NDArray[np.float32], confidence: float, iou_above: float, max_det: int) -> Detections:
    """One image of a RAW output, every class of an anchor that is above ``confidence``, as upstream's val does.

    Raises:
        NotFinite: see ``best_class``.
    """
    _best_scores(output)
    class_id, anchors = np.nonzero(output[4:] > confidence)
    scores = output[4 + class_id, anchors]
    best = np.argsort(-scores, kind="stable")[:MOST_CANDIDATES]
    return _suppress(output, anchors[best], scores[best], class_id[best].astype(np.int32), iou_above, max_det)


def _best_scores(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each anchor; one score that is no number is the best of its anchor, and so are no anchor's lost."""
    best: NDArray[np.float32] = output[4:].max(axis=0)
    require_finite(best)
    return best


def _suppress(
    output: NDArray[np.float32],
    anchors: NDArray[np.intp],
    scores: NDArray[np.float32],
    class_id: NDArray[np.int32],
    iou_above: float,
    max_det: int,
) -> Detections:
    xyxy = cxcywh_to_xyxy(output[:4, anchors].T)
    rows = nms(xyxy, scores, class_id, iou_above, max_det)
    return Detections(xyxy[rows], scores[rows], class_id[rows])
