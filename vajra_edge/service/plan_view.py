"""PlanView: a stored plan, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vajra_edge.engine.fingerprint import WEIGHTS
from vajra_edge.engine.manifest import Manifest
from vajra_edge.publish.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.service.figures import dla_of, int8_of, refused_of


@dataclass(frozen=True)
class PlanView:
    """What was asked, what was achieved, what was measured and what the gate refused.

    Attributes:
        verify: the gate's report, see ``engine.verify.VerifyReport``.
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
    verify: Mapping[str, Any]
    rejected: tuple[str, ...] = ()
    int8: Int8Figures | None = None
    dla: DlaFigures | None = None
    refused: tuple[Refused, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> PlanView:
        """What a manifest tells."""
        refused = refused_of(manifest.notes)
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
            verify=dict(manifest.verify),
            rejected=tuple(f"{_what(one, manifest)} is not used: {one.reason}" for one in refused),
            int8=int8_of(manifest.notes),
            dla=dla_of(manifest.notes),
            refused=refused,
        )

    @property
    def latency_ms(self) -> float | None:
        """Median time of one batch, as the gate measured it on this device."""
        return latency_ms(self.verify)


def _what(refused: Refused, manifest: Manifest) -> str:
    """There is more than one way to INT8."""
    same = refused.precision == manifest.precision.value
    return f"another way to {refused.precision}" if same else refused.precision


def latency_ms(verify: Mapping[str, Any]) -> float | None:
    """Median time of one call in a gate's report, if the plan was run there."""
    latency = verify.get("latency_p50_ms")
    return float(latency) if isinstance(latency, (int, float)) else None
