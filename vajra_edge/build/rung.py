"""Rungs: the ways that a build may take, from what is wanted down to FP32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vajra_edge.plans.spec import EngineSpec, Precision

WAYS = {"qdq": "by Q/DQ", "calibrator": "by the library's calibrator"}
"""Routes to INT8, in words."""


@dataclass(frozen=True)
class Rung:
    """One way.

    Attributes:
        precision: of the bulk of the network.
        quantization: route to INT8, see ``spec.QUANTIZATIONS``; empty for every other precision.
        high: keys of the layers that the library refused in INT8; they stay out of it.
    """

    precision: Precision
    quantization: str = ""
    high: frozenset[str] = frozenset()

    def __str__(self) -> str:
        way = f" {WAYS.get(self.quantization, self.quantization)}" if self.quantization else ""
        plural = "" if len(self.high) == 1 else "s"
        left = f" with {len(self.high)} refused layer{plural} in fp16" if self.high else ""
        return f"{self.precision.value}{way}{left}"

    def of(self, wanted: EngineSpec) -> EngineSpec:
        """What is wanted, this way."""
        return replace(wanted, precision=self.precision, quantization=self.quantization or wanted.quantization)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {
            "precision": self.precision.value,
            "quantization": self.quantization,
            "high": sorted(self.high),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Rung:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        high = frozenset(str(key) for key in fields["high"])
        return cls(Precision(fields["precision"]), str(fields["quantization"]), high)


def ladder(wanted: EngineSpec, routes: Sequence[str], *, above: Precision | None = None) -> tuple[Rung, ...]:
    """Every rung that may be tried, in order; layers that turn out to be refused add more.

    Args:
        wanted: what is asked for; without ``allow_lower_precision`` all rungs are of its precision.
        routes: to INT8, the best first.
        above: of a plan that is there: only what it is lower than; None: there is none.
    """
    precisions = (wanted.precision, *(wanted.precision.fallbacks if wanted.allow_lower_precision else ()))
    if above in precisions:
        precisions = precisions[: precisions.index(above)]
    return tuple(
        Rung(precision, route)
        for precision in precisions
        for route in (routes if precision is Precision.INT8 else ("",))
    )
