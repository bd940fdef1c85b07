"""The build child, held in one stage: whoever ends it ends it there."""

from __future__ import annotations

import sys
import time

from vajra_edge.build import worker
from vajra_edge.progress import Progress

STAGE = sys.argv[1]


class Held(worker._Protocol):
    """Does not come back from the report of ``STAGE``."""

    def report(self, progress: Progress) -> None:
        super().report(progress)
        if progress.stage == STAGE:
            time.sleep(600)


worker._Protocol = Held  # type: ignore[misc]
sys.exit(worker.main(sys.argv[2:]))
