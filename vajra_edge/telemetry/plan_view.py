"""PlanView: a stored plan with the figures of its build, for people and subscribers."""

from __future__ import annotations

from dataclasses import dataclass

from vajra_edge.mqtt.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.plans.fingerprint import WEIGHTS
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.report import BuildReport, PlanReport, RefusedWay, VerifyReport

PASSING = "; another try may do better: vajra-edge rebuild --force"
"""By itself it is tried a few times, see ``missed``: a build at every start would cost minutes of a device that has to
serve.
"""


def int8_of(plan: PlanReport) -> Int8Figures | None:
    """Of the calibration; None where there was none."""
    if (int8 := plan.int8) is None:
        return None
    ranges, chosen = int8.ranges, int8.chosen
    share = int8.share
    if share is None and chosen is not None:  # the drift of what was chosen was refused, so that nothing was placed
        share = chosen.int8_share
    return Int8Figures(
        macs_share=share,
        layers=int8.layers,
        layers_kept=chosen.layers_kept if chosen else None,
        score_drift=chosen.score_drift if chosen else None,
        box_drift=chosen.box_drift if chosen else None,
        ranges=ranges.source if ranges else "",
        algorithm=ranges.algorithm if ranges else "",
        images=ranges.images if ranges else 0,
        images_from=ranges.images_from if ranges else "",
        collector=ranges.collector if ranges else "",
    )


def dla_of(plan: PlanReport) -> DlaFigures | None:
    """Of the report card; None where the plan was not built for a DLA core."""
    if (card := plan.dla) is None:
        return None
    return DlaFigures(
        macs_share=card.macs_share,
        transitions=card.transitions,
        nodes_on_dla=card.nodes_on_dla,
        nodes=card.nodes,
        left_on_gpu={reason: left.nodes for reason, left in card.left_on_gpu.items()},
        loadables=plan.dla_inspected.loadables if plan.dla_inspected is not None else None,
    )


def refused_of(report: BuildReport) -> tuple[Refused, ...]:
    """What was refused before this plan, in order."""
    return tuple(_refused(one) for one in report.refused)


def _refused(one: RefusedWay) -> Refused:
    reason = f"{one.reason}{PASSING if one.passing else ''}"
    figures = one.verify.figures if one.verify is not None else None
    return Refused(one.precision, reason, figures, int8_of(one.plan))


@dataclass(frozen=True)
class PlanView:
    """What was asked, what was achieved, what was measured and what the accuracy check refused.

    Attributes:
        verify: the accuracy check's report; None where none was made.
        rejected: what it refused before this plan, a phrase each.
        int8: figures of the calibration; None of any other precision.
        dla: the report card; None elsewhere.
        refused: ``rejected`` with its figures.
        built_at_synchronised: ``built_at`` is by a clock that was known to be right; None: nobody asked then.
        path: what computes where while it serves; see ``Detector.path``.
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
    built_at_synchronised: bool | None = None
    path: str = ""

    @classmethod
    def of(cls, manifest: Manifest, path: str = "") -> PlanView:
        """What a manifest tells, and its detector."""
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
            built_at_synchronised=manifest.clock_synchronised,
            path=path,
        )


def _what(refused: Refused, manifest: Manifest) -> str:
    """There is more than one way to INT8."""
    same = refused.precision == manifest.precision.value
    return f"another way to {refused.precision}" if same else refused.precision
