"""Power cuts of the outbox: what a block device holds at a random moment, while a device writes to it.

    .venv/bin/python tests/faults/power_cuts.py --cuts 100 --commit-every-s 0      (as root)

The outbox lies on a disk that ``cut_disk`` cuts the power of, and is opened as after a power cut. It must be whole, go
on counting behind every number that was ever given, and announce those that it lost; with ``commit_every_s = 0`` it
must hold every message that was committed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from faults.chaos_device import CAMERAS
from faults.cut_disk import cuts_of

from vajra_edge.mqtt.outbox_file import OutboxFile
from vajra_edge.mqtt.outbox_values import Queued

DEVICE = Path(__file__).with_name("chaos_device.py")
NOBODY = 1
"""A port that no broker listens on, so that every message waits."""


@dataclass
class Cuts:
    """What came of all of them.

    Attributes:
        whole: cuts after which the file was whole.
        used_again: numbers that were given before a cut and would be given again after it; must be 0.
        unannounced: numbers that were committed, are not there, and are in no gap; must be 0.
        lost: committed messages that are not there.
        worst: the most of these at one cut.
        messages: that were found at the last cut.
    """

    whole: int = 0
    used_again: int = 0
    unannounced: int = 0
    lost: int = 0
    worst: int = 0
    messages: int = 0


def committed(folder: Path) -> dict[str, set[int]]:
    """By camera, from the ledger of the device."""
    found: dict[str, set[int]] = {camera: set() for camera in CAMERAS}
    for line in (folder / "committed").read_text().split("\n")[:-1]:
        camera, _, seq = line.partition("/")
        found[camera].add(int(seq))
    return found


def judge(disk: Path, known: dict[str, set[int]], cuts: Cuts) -> None:
    """Open what a cut left."""
    file = OutboxFile(disk / "outbox", "dev")
    found = file.open()
    assert not file.damage, file.damage
    cuts.whole += 1
    there: dict[str, set[int]] = {camera: set() for camera in CAMERAS}
    after = 0
    while page := file.read(after):
        after = page[-1].number
        note(page, there)
    file.close(tidy=False)
    lost = 0
    for camera, seqs in known.items():
        told = {seq for gap in found.gaps if gap.camera == camera for seq in range(gap.first, gap.last + 1)}
        cuts.used_again += len([seq for seq in seqs if seq >= found.next_seq.get(camera, 0)])
        cuts.unannounced += len(seqs - there[camera] - told)
        lost += len(seqs - there[camera])
    cuts.lost, cuts.worst = cuts.lost + lost, max(cuts.worst, lost)
    cuts.messages = sum(map(len, there.values()))


def note(page: list[Queued], there: dict[str, set[int]]) -> None:
    for message in page:
        there[message.camera].add(message.seq)


def run(folder: Path, *, cuts: int, commit_every_s: float, rate_per_s: float, seed: int) -> Cuts:
    """All of them, one device."""
    account, ledgers = Cuts(), folder / "ledgers"
    ledgers.mkdir()

    def command(disk: Path) -> list[str]:
        (disk / "outbox").mkdir(mode=0o700)
        (ledgers / "outbox").symlink_to(disk / "outbox")
        return [sys.executable, str(DEVICE), str(ledgers), str(NOBODY), str(commit_every_s), str(rate_per_s)]

    for seen, known in cuts_of(
        folder,
        size_mib=96,
        cuts=cuts,
        dice=random.Random(seed),
        command=command,
        ready=lambda: (ledgers / "committed").exists() and (ledgers / "committed").stat().st_size > 0,
        known=lambda: committed(ledgers),
    ):
        judge(seen, known, account)
    return account


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--commit-every-s", type=float, default=1.0)
    parser.add_argument("--rate-per-s", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vajra-edge-"))
    try:
        account = run(folder, **vars(chosen))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{chosen.cuts} cuts, commit_every_s = {chosen.commit_every_s:g}: {account}")
    assert account.whole == chosen.cuts
    assert account.used_again == account.unannounced == 0
    assert account.lost == 0 or chosen.commit_every_s > 0.0


if __name__ == "__main__":
    main()
