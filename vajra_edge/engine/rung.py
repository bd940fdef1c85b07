"""Rungs: the ways that a build may take, from what is wanted down to FP32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vajra_edge.engine.spec import EngineSpec, Precision

WAYS = {"qdq": "by Q/DQ", "calibrator": "by the library's calibrator"}
"""Routes to INT8, in words."""


@dataclass(frozen=True)
class Rung:
    """One way.

    Attributes:
        precision: of the bulk of the network.
        quantization: route to INT8, see ``spec.QUANTIZATIONS``; empty for every other precision.
        nms: in-graph NMS as it is wanted; False: it moves to whoever runs the plan.
        high: keys of the layers that the library refused in INT8; they stay out of it.
    """

    precision: Precision
    quantization: str = ""
    nms: bool = True
    high: frozenset[str] = frozenset()

    def __str__(self) -> str:
        way = f" {WAYS.get(self.quantization, self.quantization)}" if self.quantization else ""
        plural = "" if len(self.high) == 1 else "s"
        left = f" with {len(self.high)} refused layer{plural} in fp16" if self.high else ""
        return f"{self.precision.value}{way}{left}{'' if self.nms else ' without in-graph NMS'}"

    def of(self, wanted: EngineSpec) -> EngineSpec:
        """What is wanted, this way."""
        return replace(
            wanted,
            precision=self.precision,
            quantization=self.quantization or wanted.quantization,
            nms=wanted.nms if self.nms else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {
            "precision": self.precision.value,
            "quantization": self.quantization,
            "nms": self.nms,
            "high": sorted(self.high),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Rung:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        high = frozenset(str(key) for key in fields["high"])
        return cls(Precision(fields["precision"]), str(fields["quantization"]), bool(fields["nms"]), high)


def ladder(wanted: EngineSpec, routes: Sequence[str], *, host_nms: bool) -> tuple[Rung, ...]:
    """Every rung that may be tried, in order; layers that turn out to be refused add more.

    Args:
        wanted: what is asked for; without ``allow_lower_precision`` all rungs are of its precision.
        routes: to INT8, the best first.
        host_nms: NMS may move out of the graph.
    """
    precisions = (wanted.precision, *(wanted.precision.fallbacks if wanted.allow_lower_precision else ()))
    inside = (True, False) if host_nms and wanted.nms is not None else (True,)
    return tuple(
        Rung(precision, route, nms)
        for precision in precisions
        for nms in inside
        for route in (routes if precision is Precision.INT8 else ("",))
    )
