"""Figures: a manifest's report and notes -> the figures that people and subscribers read.

Notes are whatever a build wrote, perhaps one of another version: what is missing there is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vajra_edge.publish.figures import DlaFigures, GateFigures, Int8Figures, Refused

PASSING = "; another try may do better: vajra-edge rebuild --force"
"""By itself it is tried a few times, see ``missed``: a build at every start would cost minutes of a device that has to
serve.
"""


def gate_of(report: object) -> GateFigures | None:
    """Of ``VerifyReport.to_json``; None where no gate was made."""
    noted = _mapping(report)
    if not noted:
        return None
    return GateFigures(**{one.name: noted[one.name] for one in fields(GateFigures) if one.name in noted})


def int8_of(notes: Mapping[str, Any]) -> Int8Figures | None:
    """Of a plan's notes; None where it was not calibrated."""
    noted = _mapping(notes.get("int8"))
    if not noted:
        return None
    ranges, chosen = _mapping(noted.get("ranges")), _mapping(noted.get("chosen"))
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
    card = _mapping(notes.get("dla"))
    if not card:
        return None
    left = {reason: _mapping(told).get("nodes") for reason, told in _mapping(card.get("left_on_gpu")).items()}
    return DlaFigures(
        macs_share=card.get("macs_share", 0.0),
        transitions=card.get("transitions", 0),
        nodes_on_dla=card.get("nodes_on_dla", 0),
        nodes=card.get("nodes", 0),
        left_on_gpu={reason: nodes for reason, nodes in left.items() if nodes is not None},
        loadables=_mapping(notes.get("dla_inspected")).get("dla"),
    )


def refused_of(notes: Mapping[str, Any]) -> tuple[Refused, ...]:
    """What the gate refused before this plan, in order."""
    rejected = notes.get("rejected")
    entries = map(_mapping, rejected if isinstance(rejected, (list, tuple)) else ())
    return tuple(_refused(entry) for entry in entries if "precision" in entry)


def _refused(entry: Mapping[str, Any]) -> Refused:
    int8 = int8_of(_mapping(entry.get("notes")))
    reason = f"{entry.get('reason', '')}{PASSING if entry.get('passing') is True else ''}"
    return Refused(str(entry["precision"]), reason, gate_of(entry.get("report")), int8)


def _mapping(noted: object) -> Mapping[str, Any]:
    """What was noted, or nothing where it is absent or of another shape."""
    return noted if isinstance(noted, Mapping) else {}
