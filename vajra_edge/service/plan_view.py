"""PlanView: a stored plan, for people."""

from __future__ import annotations

from dataclasses import dataclass

from vajra_edge.engine.fingerprint import WEIGHTS
from vajra_edge.engine.manifest import Manifest
from vajra_edge.engine.report import VerifyReport
from vajra_edge.publish.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.service.figures import dla_of, int8_of, refused_of


@dataclass(frozen=True)
class PlanView:
    """What was asked, what was achieved, what was measured and what the gate refused.

    Attributes:
        verify: the gate's report; None where none was made.
        rejected: what it refused before this plan, a phrase each.
        int8: figures of the calibration; None of any other precision.
        dla: the report card; None elsewhere.
        refused: ``rejected`` with its figures.
    """

    fingerprint: str
    backend: str
    wanted_precision: str
    precision: str
    target: str
    resolution_hw: tuple[int, int]
    batch: int
    class_names: tuple[str, ...]
    weights: str
    weights_sha256: str
    built_at: str
    build_s: float
    verify: VerifyReport | None
    rejected: tuple[str, ...] = ()
    int8: Int8Figures | None = None
    dla: DlaFigures | None = None
    refused: tuple[Refused, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> PlanView:
        """What a manifest tells."""
        refused = refused_of(manifest.report)
        return cls(
            fingerprint=manifest.fingerprint.digest,
            backend=manifest.backend,
            wanted_precision=manifest.wanted.precision.value,
            precision=manifest.precision.value,
            target=str(manifest.target),
            resolution_hw=manifest.signature.resolution_hw,
            batch=manifest.signature.batch,
            class_names=manifest.signature.class_names,
            weights=manifest.weights_name,
            weights_sha256=manifest.fingerprint.value(WEIGHTS),
            built_at=manifest.created_at,
            build_s=manifest.build_s,
            verify=manifest.verify,
            rejected=tuple(f"{_what(one, manifest)} is not used: {one.reason}" for one in refused),
            int8=int8_of(manifest.report.plan),
            dla=dla_of(manifest.report.plan),
            refused=refused,
        )


def _what(refused: Refused, manifest: Manifest) -> str:
    """There is more than one way to INT8."""
    same = refused.precision == manifest.precision.value
    return f"another way to {refused.precision}" if same else refused.precision
