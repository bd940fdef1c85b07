"""Boxes: overlap and non-maximum suppression on the host."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def cxcywh_to_xyxy(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 4) centre x, centre y, width, height to left, top, right, bottom; any unit."""
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair: (n, 4) and (m, 4) xyxy to (n, m); 0 where both are empty."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    result: NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def nms(
    xyxy: NDArray[np.float32], scores: NDArray[np.float32], class_id: NDArray[np.int32], iou_above: float, max_det: int
) -> NDArray[np.intp]:
    """Greedy per-class non-maximum suppression.

    Args:
        xyxy: (n, 4).
        scores: (n,).
        class_id: (n,); boxes of different classes never suppress each other.
        iou_above: a box that overlaps a better one of its class by more than this goes.
        max_det: most rows kept.

    Returns:
        Indices of the kept rows, best score first.
    """
    if len(scores) == 0:
        return np.zeros(0, np.intp)
    xywh = np.concatenate((xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]), axis=1).astype(np.float64)
    suppress: Any = cv2.dnn.NMSBoxesBatched  # its stub names lists where it takes arrays
    rows = np.asarray(suppress(xywh, scores, class_id, 0.0, iou_above), np.intp).reshape(-1)
    order = np.argsort(-scores[rows], kind="stable")
    return rows[order][:max_det]
