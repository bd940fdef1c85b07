"""Figures: what INT8 calibration and the DLA placement measured, as the ``engine`` topic carries it.

``schema.py`` validates by the same records, and by ``GateFigures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict, FiniteFloat

from vajra_edge.plans.report import Count, GateFigures, Ratio


@dataclass(frozen=True)
class Int8Figures:
    """INT8: how much of the network computes in it, and where its ranges come from. None: not measured.

    Attributes:
        macs_share: share of multiply-adds in INT8, 0..1.
        layers: in INT8.
        layers_kept: outside INT8 since they measured as costing too much agreement.
        score_drift: how far the mixture moves scores from FP32, before any threshold.
        box_drift: how far it moves boxes, 1 - IoU.
        ranges: measured, from the cache, or reused from other weights.
        algorithm: minmax, percentile or entropy.
        images: that the ranges come from.
        images_from: where those come from.
        collector: which library measured, and why not another; what prepared the images for a GPU.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    macs_share: Ratio | None
    layers: Count | None
    layers_kept: Count | None
    score_drift: FiniteFloat | None
    box_drift: FiniteFloat | None
    ranges: str
    algorithm: str
    images: Count
    images_from: str
    collector: str


@dataclass(frozen=True)
class DlaFigures:
    """The DLA's report card.

    Attributes:
        macs_share: share of multiply-adds on the core, 0..1.
        transitions: how often execution passes between GPU and core.
        nodes_on_dla: of the graph.
        nodes: of the graph in all.
        left_on_gpu: how many nodes fell back, by reason.
        loadables: of the finished plan, as its library lists them; None: not looked at.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    macs_share: Ratio
    transitions: Count
    nodes_on_dla: Count
    nodes: Count
    left_on_gpu: Mapping[str, Count]
    loadables: Count | None


@dataclass(frozen=True)
class Refused:
    """A plan that the accuracy check refused before the one that serves.

    Attributes:
        precision: of it.
        reason: in one line.
        verify: what the accuracy check measured; None where it came to no figures.
        int8: of a plan in INT8.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    precision: str
    reason: str
    verify: GateFigures | None
    int8: Int8Figures | None
