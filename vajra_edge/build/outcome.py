"""Outcome: what a walk down the precisions ends with, which whoever asked for it matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vajra_edge.build.attempt import Passed
from vajra_edge.build.progress import Stages
from vajra_edge.errors import VajraError
from vajra_edge.plans.report import BuildReport, RefusedWay


@dataclass(frozen=True)
class Proved:
    """A plan that may serve.

    Attributes:
        passed: the plan, the accuracy check's verdict and the signature of its graph.
        rejected: what was refused before it.
    """

    passed: Passed
    rejected: tuple[RefusedWay, ...]

    def report(self, stages: Stages) -> BuildReport:
        """All that is known of the build so far."""
        return BuildReport(self.passed.built.report, str(self.passed.rung), self.rejected, dict(stages.taken))


@dataclass(frozen=True)
class Unproved:
    """No plan that may serve.

    Attributes:
        error: what to say of it, and whether another time may do: ``VerifyError`` where no plan that may be used agrees
            with the reference; ``BuildError``, ``GraphError``, ``UnsupportedSpec`` or ``PlanError`` where the library
            refuses every way; ``OutOfMemory`` or ``InferenceError`` where the device failed at one at least;
            ``CalibrationError`` where the images are failing, or INT8 has none; ``StoreError`` for the disk.
        rejected: what was refused, as in ``Proved``.
    """

    error: VajraError
    rejected: tuple[RefusedWay, ...]


@dataclass(frozen=True)
class Cancelled:
    """Whoever takes the progress wants no plan any more, and says why."""

    reason: str


Outcome: TypeAlias = Proved | Unproved | Cancelled
