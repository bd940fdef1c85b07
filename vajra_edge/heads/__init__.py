"""Heads: what a network's output means, one class a layout.

Another task is another class, and another line in ``HEADS``. Whoever has an output asks ``head_of`` its signature and
decodes; nobody else looks at the layout of an array.
"""

from __future__ import annotations

from collections.abc import Mapping

from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.heads.base import Head, Limits
from vajra_edge.heads.detect import AnchorHead, RowHead

__all__ = ["HEADS", "Head", "Limits", "head_of"]

HEADS: Mapping[Layout, Head] = {Layout.RAW: AnchorHead(), Layout.DETECTIONS: RowHead()}
"""Every layout that a signature may name."""


def head_of(signature: Signature) -> Head:
    """Who reads the output of this network."""
    return HEADS[signature.layout]
