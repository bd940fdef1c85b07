"""Trial: a stored plan is loaded and run on a blank picture in a process of its own, before the daemon dares to.

``python -m vajra_edge.build.trial`` reads one JSON request on stdin and writes one line of ``protocol``: done, or
failed with the reason. A plan that crashes takes this process down and nothing else.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vajra_edge.backends.base import select
from vajra_edge.build import protocol
from vajra_edge.errors import PlanError, VajraError
from vajra_edge.plans.manifest import Plan
from vajra_edge.plans.store import EngineStore

RUNS = 5
"""Libraries allocate and choose kernels on the first ones."""

TIMEOUT_S = 180.0
"""An Orin loads a large engine within a minute; its first CUDA call may compile kernels."""

_GREY = 114.0 / 255.0


@dataclass(frozen=True)
class TrialRequest:
    """What is tried.

    Attributes:
        state_dir: root of the store.
        fingerprint: of the plan.
        threads: CPU inference threads; None: all.
        timeout_s: longest time from start to end.
    """

    state_dir: Path
    fingerprint: str
    threads: int | None = None
    timeout_s: float = TIMEOUT_S

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"state_dir": str(self.state_dir), "fingerprint": self.fingerprint, "threads": self.threads}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> TrialRequest:
        """The inverse, without the time, which is the parent's to keep.

        Raises:
            KeyError, TypeError: a field is missing.
        """
        return cls(Path(plain["state_dir"]), str(plain["fingerprint"]), plain["threads"])


def run(request: TrialRequest) -> None:
    """Load the plan and run it.

    Raises:
        PlanError: it is gone, damaged, or refused by its library.
        EngineError: the library is absent, or the plan fails on a blank picture.
        StoreError: the store cannot be read.
    """
    plan = EngineStore(request.state_dir, max_bytes=0).get(request.fingerprint)
    if plan is None:
        raise PlanError(f"plan {request.fingerprint[:12]} is not in the store any more", remedy="it is built anew")
    _try(plan, request.threads)


def _try(plan: Plan, threads: int | None) -> None:
    manifest = plan.manifest
    spec = replace(manifest.wanted, precision=manifest.precision, target=manifest.target)
    runner = select(manifest.backend, threads=threads).backend.load(plan.read(), manifest.signature, spec)
    try:
        blank = np.full((manifest.signature.batch, 3, *manifest.signature.resolution_hw), _GREY, np.float32)
        for _ in range(RUNS):
            runner.infer(blank)
    finally:
        runner.close()


def main(arguments: list[str] | None = None) -> int:
    """The child: one request on stdin, one line on stdout, everything else on stderr."""
    parser = argparse.ArgumentParser(prog="vajra_edge.build.trial")
    parser.add_argument("--parent", type=int, help="die with this process")
    parent = parser.parse_args(arguments).parent
    if parent is not None:
        protocol.die_with(parent)
    descriptor = protocol.claim_stdout()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGABRT})  # a daemon may have them blocked
    faulthandler.enable()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="trial: %(message)s")
    line = _answer(sys.stdin.buffer.read())
    protocol.send(descriptor, line)
    return 0 if isinstance(line, protocol.Done) else 1


def _answer(request_json: bytes) -> protocol.Line:
    """Try, and turn whatever stops it into one line: the top of this process."""
    try:
        request = TrialRequest.from_json(json.loads(request_json))
        protocol.give_way()
        run(request)
    except VajraError as error:
        return protocol.Failed(str(error), permanent=False, peak_rss_bytes=protocol.peak_rss_bytes())
    except Exception as error:  # noqa: BLE001  the top of a process: a bug becomes one line, its traceback goes to the journal
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        reason = f"the trial failed with {type(error).__name__}: {text}"
        return protocol.Failed(reason, permanent=False, peak_rss_bytes=protocol.peak_rss_bytes())
    return protocol.Done(request.fingerprint, protocol.peak_rss_bytes())


if __name__ == "__main__":
    sys.exit(main())
