"""Head: the contract between an output of a network and what was found in an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import NotFinite
from vajra_edge.geometry.letterbox import LetterboxTransform
from vajra_edge.graph.signature import Signature
from vajra_edge.types import Detections


@dataclass(frozen=True)
class Limits:
    """Which candidates count as found. What is baked into a network stays as it is there.

    Attributes:
        confidence: lowest confidence.
        iou: boxes of one class that overlap more are one object.
        max_det: most objects of an image.
        top_k: candidates by best score that enter NMS; None: all.
        every_class: a candidate is told once for each class above ``confidence``, as upstream's val does, instead of
            for its best one.
    """

    confidence: float
    iou: float = 0.7
    max_det: int = 300
    top_k: int | None = None
    every_class: bool = False


def require_finite(scores: NDArray[np.float32]) -> None:
    """Let scores pass that are numbers.

    Raises:
        NotFinite: one is not, so that none of the image counts.
    """
    if not np.isfinite(scores).all():
        raise NotFinite


class Head(Protocol):
    """Reads one layout of outputs. Holds nothing, so that any thread may use it.

    A task that finds more than boxes (masks, key points, angles) returns a subclass of ``Detections`` that holds that
    too, and moves it in ``to_image``; one that finds less, as a classifier, boxes the whole input.
    """

    def rows(self, signature: Signature) -> int:
        """Length of the output's second axis, after the batch."""
        ...

    def decode(self, signature: Signature, output: NDArray[np.float32], limits: Limits) -> Detections:
        """What was found in one image.

        Args:
            signature: of the network.
            output: one image of its output, without the batch axis; it is not kept.
            limits: what counts.

        Returns:
            In pixels of the network's input, best first.

        Raises:
            NotFinite: a score is no number or infinite: the computation broke, and the image is not an empty one.
        """
        ...

    def to_image(self, found: Detections, place: LetterboxTransform, resolution_wh: tuple[int, int]) -> Detections:
        """The same in pixels of the image.

        Args:
            found: of ``decode``.
            place: where the image lies in the input.
            resolution_wh: of the image.
        """
        ...
