"""Run by test_shelf_kills.py: adopts a bundle in a child that is killed before the n-th touch of the disk.

Prints one JSON line a kill point: which serial is in force after it, and after the same was done once more.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from plans.kill_matrix import COMPLETED, Countdown

from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.shelf import Adopted, AdoptionOutcome, Shelf


def adopt(shelf: Shelf, path: Path, keyring: Keyring, adopted: Adopted) -> None:
    with path.open("rb") as file:
        told = shelf.unpack(file, keyring)
    shelf.try_out(told.digest)
    shelf.settle(AdoptionOutcome(told.digest, adopted, serial=told.manifest.serial))


def run_until_killed(shelf: Shelf, path: Path, keyring: Keyring, adopted: Adopted, touches: int) -> bool:
    child = os.fork()
    if child == 0:
        countdown = Countdown(touches)
        os.fsync = countdown.sync
        sys.addaudithook(countdown.hook)
        adopt(shelf, path, keyring, adopted)
        os._exit(COMPLETED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == COMPLETED


def look(shelf: Shelf, keyring: Keyring) -> dict[str, object]:
    there = shelf.in_force(keyring)
    assert there is not None
    content = there.weights_path.read_bytes()
    whole = hashlib.sha256(content).hexdigest() == there.manifest.weights_sha256
    folders = [one.name for one in shelf.root.iterdir() if one.is_dir() and not one.is_symlink()]
    return {"serial": there.manifest.serial, "whole": whole, "tried": there.candidate, "folders": len(folders)}


def main(root: Path, old: Path, new: Path, keys: Path, adopted: Adopted) -> None:
    keyring = Keyring.load(keys)
    for touches in range(1, 500):
        shelf = Shelf(root / str(touches))
        adopt(shelf, old, keyring, Adopted.SERVING)
        completed = run_until_killed(shelf, new, keyring, adopted, touches)
        after = look(shelf, keyring)
        adopt(shelf, new, keyring, adopted)
        again = look(shelf, keyring)
        print(json.dumps({"touches": touches, "completed": completed, "after": after, "again": again}))
        shutil.rmtree(shelf.root)
        if completed:
            return


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), Adopted(sys.argv[5]))
