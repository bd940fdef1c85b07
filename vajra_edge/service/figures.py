"""Figures: a manifest's report and notes -> the figures that people and subscribers read.

Notes are whatever a build wrote, perhaps one of another version: what is missing there is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vajra_edge.publish.figures import DlaFigures, GateFigures, Int8Figures, Refused


def gate_of(report: Mapping[str, Any] | None) -> GateFigures | None:
    """Of ``VerifyReport.to_json``; None where no gate was made."""
    if not report:
        return None
    return GateFigures(**{one.name: report[one.name] for one in fields(GateFigures) if one.name in report})


def int8_of(notes: Mapping[str, Any]) -> Int8Figures | None:
    """Of a plan's notes; None where it was not calibrated."""
    noted = notes.get("int8")
    if not noted:
        return None
    ranges, chosen = noted.get("ranges") or {}, noted.get("chosen") or {}
    return Int8Figures(
        macs_share=noted.get("int8_share", chosen.get("int8_share")),  # the second alone where its drift was refused
        layers=noted.get("int8_layers"),
        layers_kept=chosen.get("layers_kept"),
        score_drift=chosen.get("score_drift"),
        box_drift=chosen.get("box_drift"),
        ranges=ranges.get("source", ""),
        algorithm=ranges.get("algorithm", ""),
        images=ranges.get("images", 0),
        images_from=ranges.get("images_from", ""),
        collector=ranges.get("collector", ""),
    )


def dla_of(notes: Mapping[str, Any]) -> DlaFigures | None:
    """Of a plan's notes; None where it was not built for a DLA core."""
    card = notes.get("dla")
    if not card:
        return None
    return DlaFigures(
        macs_share=card.get("macs_share", 0.0),
        transitions=card.get("transitions", 0),
        nodes_on_dla=card.get("nodes_on_dla", 0),
        nodes=card.get("nodes", 0),
        left_on_gpu={reason: left["nodes"] for reason, left in card.get("left_on_gpu", {}).items()},
        loadables=(notes.get("dla_inspected") or {}).get("dla"),
    )


def refused_of(notes: Mapping[str, Any]) -> tuple[Refused, ...]:
    """What the gate refused before this plan, in order."""
    return tuple(
        Refused(one["precision"], one["reason"], gate_of(one.get("report")), int8_of(one.get("notes") or {}))
        for one in notes.get("rejected", ())
    )
