"""Power cuts of plans, history, charges and calibration set: what a block device holds at a random moment.

    .venv/bin/python tests/faults/power_cuts_state.py --cuts 100      (as root)

As ``power_cuts.py`` does with the outbox. A writer stores plans, makes each the current one, notes what happened,
charges plans and collects images, all as fast as it can, and says of each what it has done. After a cut every plan has
to be whole, the current one has to be the one that was named last or the next, and history, charges and images have to
hold what was said, or more.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np
from faults.chaos_device import Ledger
from faults.cut_disk import cuts_of
from stored import plan_manifest

from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened
from vajra_edge.plans.charges import Charged
from vajra_edge.plans.history import History
from vajra_edge.plans.store import EngineStore
from vajra_edge.quantization import camera_samples
from vajra_edge.types import Frame

PLANS, MOST_IMAGES, PLAN_BYTES = 5, 12, 50_000
CHARGED = "f" * 64


@dataclass
class Cuts:
    """What came of all of them.

    Attributes:
        whole: cuts after which nothing was damaged.
        damaged: what was, one line each.
        torn: cuts that tore the last line of the history, which is told.
        forgotten: what was said to be done and is not there; must be empty.
        rounds: how far the writer had come at the last cut.
    """

    whole: int
    damaged: list[str]
    torn: int
    forgotten: list[str]
    rounds: int


def plan_of(number: int) -> tuple[str, bytes]:
    """Name and content of the plan of a round; the same name has another content in a later one."""
    return f"{number % PLANS}", number.to_bytes(4, "big") * (PLAN_BYTES // 4)


def write(root: Path, ledger: Ledger) -> Iterator[None]:
    """One round after the other, each step of which is said once it is done."""
    camera_samples.LEAST_FREE_BYTES = 0
    store, log, history = EngineStore(root, 4 * PLAN_BYTES), AuditLog(root), History(root)
    sampler, dice = camera_samples.Sampler(root / camera_samples.FOLDER, most=MOST_IMAGES), np.random.default_rng(1)
    for number in count():
        name, content = plan_of(number)
        manifest = plan_manifest(name)
        store.commit(content, manifest)
        store.mark_good(manifest.fingerprint.digest)
        ledger.write(json.dumps({"round": number, "current": manifest.fingerprint.digest}))
        store.prune()
        entry = log.append(AuditEntry(Happened.SWAPPED, manifest.fingerprint.digest, "a round"))
        ledger.write(json.dumps({"history": entry.number}))
        history.charge(CHARGED, Charged.CRASH, str(number))
        ledger.write(json.dumps({"charge": number}))
        image = np.kron(dice.integers(0, 255, (8, 8, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
        sampler.offer(Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), number, "gate"), 3)
        ledger.write(json.dumps({"images": [one.name for one in camera_samples.listed(sampler.folder)]}))
        yield


def said(ledger: Path) -> dict[str, Any]:
    """The last of each kind."""
    known: dict[str, Any] = {}
    for line in ledger.read_text().split("\n")[:-1]:
        known |= json.loads(line)
    return known


def judge(root: Path, known: dict[str, Any], cuts: Cuts) -> None:
    """Open what a cut left, as a start does."""
    before = len(cuts.damaged)
    judge_plans(EngineStore(root, 1 << 30), known, cuts)
    judge_history(AuditLog(root), known, cuts)
    charges = History(root)._charges().get(CHARGED, ())
    if int(charges[-1].reason if charges else -1) < known.get("charge", -1):
        cuts.forgotten.append(f"charge {known['charge']}")
    folder = root / camera_samples.FOLDER
    there = {one.name for one in camera_samples.listed(folder)}
    cuts.damaged += [f"image {name}" for name in there if camera_samples.of_file(folder / name) is None]
    if len({*known.get("images", ())} - there) > 1:  # a new one takes the place of one
        cuts.forgotten.append(f"images {sorted({*known['images']} - there)}")
    cuts.whole += len(cuts.damaged) == before
    cuts.rounds = known["round"]


def judge_plans(store: EngineStore, known: dict[str, Any], cuts: Cuts) -> None:
    for name in store.plans():
        plan = store.get(name)
        content = plan.read() if plan is not None else b""
        if content != content[:4] * (PLAN_BYTES // 4):
            cuts.damaged.append(f"plan {name}")
    current, after = store.current(), plan_manifest(plan_of(known["round"] + 1)[0]).fingerprint.digest
    if current is None or current.fingerprint not in (known["current"], after):
        cuts.forgotten.append(f"current {known['current']}, is {current}")


def judge_history(log: AuditLog, known: dict[str, Any], cuts: Cuts) -> None:
    read = log.read()
    torn = [doubt for doubt in read.doubts if "torn" in doubt]
    cuts.torn += bool(torn)
    cuts.damaged += [doubt for doubt in read.doubts if doubt not in torn]
    last = read.entries[-1].number if read.entries else 0
    if last < known.get("history", 0):
        cuts.forgotten.append(f"history {known['history']}")
    if log.append(AuditEntry(Happened.SWAPPED)).number != last + 1:
        cuts.damaged.append("a number of the history is given twice")


def run(folder: Path, *, cuts: int, seed: int) -> Cuts:
    """All of them, one writer."""
    account, ledger = Cuts(0, [], 0, [], 0), folder / "ledger"
    for seen, known in cuts_of(
        folder,
        size_mib=96,
        cuts=cuts,
        dice=random.Random(seed),
        command=lambda disk: [sys.executable, __file__, "--write", str(disk / "state"), "--ledger", str(ledger)],
        ready=lambda: ledger.exists() and "current" in said(ledger),
        known=lambda: said(ledger),
    ):
        judge(seen / "state", known, account)
    return account


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="be the writer, into this folder")
    parser.add_argument("--ledger", type=Path, help="of the writer")
    chosen = parser.parse_args()
    if chosen.write:
        for _ in write(chosen.write, Ledger(chosen.ledger)):
            pass
    folder = Path(tempfile.mkdtemp(prefix="vajra-edge-"))
    try:
        account = run(folder, cuts=chosen.cuts, seed=chosen.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{chosen.cuts} cuts: {account}")
    assert account.whole == chosen.cuts
    assert not account.forgotten


if __name__ == "__main__":
    main()
