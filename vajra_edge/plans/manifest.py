"""Manifest and Plan: what a stored plan is, and what it was wanted to be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.errors import PlanError
from vajra_edge.graph.signature import Signature
from vajra_edge.plans import report_json
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.plain import Fields
from vajra_edge.plans.report import BuildReport, VerifyReport
from vajra_edge.plans.spec import EngineSpec, Precision, Target

SCHEMA = 1
"""Raise it when the manifest's fields mean something else; older plans are then built anew."""


@dataclass(frozen=True)
class Manifest:
    """What is known about one plan.

    Attributes:
        fingerprint: what was wanted, with its parts in words.
        backend: the library that built it and loads it.
        signature: input, output, class names.
        wanted: the specification asked for.
        precision: what was achieved, after the accuracy check.
        target: likewise.
        verify: report of the accuracy check; None where none was made.
        report: of the build.
        weights_name: file name of the weights, for people.
        build_s: seconds from the request to the commit, without the wait for another build.
        created_at: UTC, ISO 8601.
        sha256: hex digest of the plan; filled in by ``EngineStore.commit``.
        size_bytes: likewise, its length.
        schema: see ``SCHEMA``.
        clock_synchronised: ``created_at`` is by a clock that was known to be right; None: nobody asked then.
    """

    fingerprint: Fingerprint
    backend: str
    signature: Signature
    wanted: EngineSpec
    precision: Precision
    target: Target
    verify: VerifyReport | None
    report: BuildReport
    weights_name: str
    build_s: float
    created_at: str
    sha256: str = ""
    size_bytes: int = 0
    schema: int = SCHEMA
    clock_synchronised: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        noted = {} if self.clock_synchronised is None else {"clock_synchronised": self.clock_synchronised}
        return {
            "fingerprint": self.fingerprint.to_json(),
            "backend": self.backend,
            "signature": self.signature.to_json(),
            "wanted": self.wanted.to_json(),
            "precision": self.precision.value,
            "target": str(self.target),
            "verify": report_json.write_verify(self.verify),
            "notes": report_json.write(self.report),
            "weights_name": self.weights_name,
            "build_s": self.build_s,
            "created_at": self.created_at,
            **noted,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "schema": self.schema,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Manifest:
        """The inverse of ``to_json``; a field that this version does not know is passed over.

        Raises:
            KeyError, TypeError, ValueError, UnsupportedSpec: a field is missing or of another type.
        """
        return cls(
            fingerprint=Fingerprint.from_json(plain["fingerprint"]),
            backend=str(plain["backend"]),
            signature=Signature.from_json(plain["signature"]),
            wanted=EngineSpec.from_json(plain["wanted"]),
            precision=Precision(plain["precision"]),
            target=Target.parse(plain["target"]),
            verify=report_json.read_verify(Fields(plain["verify"])),
            report=report_json.read(Fields(plain["notes"])),
            weights_name=str(plain["weights_name"]),
            build_s=float(plain["build_s"]),
            created_at=str(plain["created_at"]),
            sha256=str(plain["sha256"]),
            size_bytes=int(plain["size_bytes"]),
            schema=int(plain["schema"]),
            clock_synchronised=plain["clock_synchronised"] is True if "clock_synchronised" in plain else None,
        )

    @property
    def lowered(self) -> bool:
        """The plan runs in another precision or elsewhere than was asked for."""
        return (self.precision, self.target) != (self.wanted.precision, self.wanted.target)

    @property
    def latency_ms(self) -> float | None:
        """Median time of one batch, by the accuracy check on this device; None where it did not run there."""
        return self.verify.figures.latency_p50_ms if self.verify is not None else None


@dataclass(frozen=True)
class Plan:
    """A stored plan that was whole and this device's own when it was looked up.

    Attributes:
        fingerprint: 64 hex digits, the name of its folder.
        path: the plan file.
        manifest: what it is.
    """

    fingerprint: str
    path: Path
    manifest: Manifest

    def read(self) -> bytes:
        """The plan's bytes, checked against the manifest once more.

        Raises:
            PlanError: the file changed since it was looked up, or cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise PlanError(f"plan {self.path} cannot be read: {error.strerror}", path=self.path) from error
        if hashlib.sha256(content).hexdigest() != self.manifest.sha256:
            raise PlanError(f"plan {self.path} is damaged: its SHA-256 differs", remedy="rebuild it", path=self.path)
        return content
