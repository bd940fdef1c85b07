"""Backend and Runner: what a library must answer, and which library is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine.spec import EngineSpec, Precision, Target
from vajra_edge.graph.signature import Signature


@dataclass(frozen=True)
class Progress:
    """One step of a build.

    Attributes:
        stage: load, export, simplify, calibrate, build, verify or store.
        percent: of the whole stage, 0 to 100, or None where it cannot be known.
        message: what is being done, for a person.
        eta_s: seconds left, or None.
    """

    stage: str
    percent: float | None = None
    message: str = ""
    eta_s: float | None = None


Report = Callable[[Progress], None]
"""Takes progress; raises ``BuildCancelled`` when the build is to stop."""


@dataclass(frozen=True)
class Built:
    """What a backend made.

    Attributes:
        plan: the serialized engine.
        precision: what was achieved, where the builder could not do what was asked.
        target: likewise.
        notes: figures for the manifest (JSON values): layers, timings, report cards.
    """

    plan: bytes
    precision: Precision
    target: Target
    notes: Mapping[str, object]


class Runner(Protocol):
    """One loaded plan, able to run. Not thread-safe: one caller at a time."""

    signature: Signature

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run (n, 3, H, W) RGB 0..1 with n <= ``signature.batch``.

        Returns:
            The signature's output for n images, float32; valid until the next call but one (two slots are in flight).

        Raises:
            InferenceError: n is too large, the shape is wrong, or the library refused.
        """
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...


class Backend(Protocol):
    """A module that builds and loads plans of one library."""

    name: str

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        """What must void a plan when it changes: library version, device, driver, DLA core, power mode."""
        ...

    def check(self, spec: EngineSpec) -> str | None:
        """Why this machine cannot build or run ``spec``, with the remedy; None if it can."""
        ...

    def build(self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report) -> Built:
        """Turn a graph into a plan. Slow; runs in the build child.

        Raises:
            BuildError: and its children.
        """
        ...

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> Runner:
        """Make a stored plan able to run.

        Raises:
            PlanError: the library refuses it; the message says why.
            BackendUnavailable: the library does not load.
        """
        ...
