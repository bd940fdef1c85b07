"""Figures: a build's report -> the figures of it that people and subscribers read."""

from __future__ import annotations

from vajra_edge.engine.report import BuildReport, PlanReport, RefusedWay
from vajra_edge.publish.figures import DlaFigures, Int8Figures, Refused

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
    gate = one.verify.figures if one.verify is not None else None
    return Refused(one.precision, reason, gate, int8_of(one.plan))
