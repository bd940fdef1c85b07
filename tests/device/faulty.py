"""The daemon with a fault in it: after so many frames the GPU is told to read where nothing is.

python tests/device/faulty.py FRAMES run --config FILE
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from typing import Any

from vajra_edge.__main__ import main
from vajra_edge.inference import cuda_slot

NOWHERE = 8
"""An address that no allocation has."""


def spoil(frames: int) -> None:
    real, seen = cuda_slot.frame_block, itertools.count()

    def block(frame: Any, place: Any) -> Any:
        return real(replace(frame, address=NOWHERE) if next(seen) >= frames else frame, place)

    cuda_slot.frame_block = block


if __name__ == "__main__":
    spoil(int(sys.argv.pop(1)))
    sys.exit(main())
