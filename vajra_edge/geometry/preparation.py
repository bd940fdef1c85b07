"""Preparation: what puts images into a network's input, where that need not be the host's letterbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.geometry.letterbox import Letterbox, LetterboxTransform


class Prepares(Protocol):
    """Puts an image into the network's input, as ``Letterbox`` does."""

    def apply(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> LetterboxTransform:
        """Write ``image`` into ``out``; see ``Letterbox.apply``."""
        ...


@dataclass(frozen=True)
class Preparation:
    """What prepares images.

    Attributes:
        kernel: a GPU's letterbox for one size of input, lent by whoever opened it; None: the host's.
        way: names what the kernel makes of an image, for the keys of what is measured on it; empty: the host's.
        told: for the manifest: what prepares, and why not another; empty where that is a matter of course.
    """

    kernel: Prepares | None = None
    way: str = ""
    told: str = ""

    def for_input(self, input_hw: tuple[int, int]) -> Prepares:
        """What prepares for an input of this height and width."""
        return self.kernel or Letterbox(input_hw)


HOST = Preparation()
"""The host's letterbox, where nobody expects another."""
