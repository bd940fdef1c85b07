"""Run by test_store.py: commits and promotes a plan in a child that is killed before the n-th touch of the disk.

Prints one JSON line a kill point: what stood before the kill, and what a fresh start finds after it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from vajra_edge import durable
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.store import EngineStore

TOUCHES = {"open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "ctypes.dlopen"}
COMPLETED = 0


class Countdown:
    """Kills the process before its n-th touch of the disk."""

    def __init__(self, touches: int) -> None:
        self.left = touches
        self.fsync = os.fsync

    def touch(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in TOUCHES:
            self.touch()

    def sync(self, descriptor: int) -> None:
        self.touch()
        self.fsync(descriptor)


def change(store: EngineStore, manifest: Manifest) -> None:
    store.commit(b"plan of the new weights" * 1000, manifest)
    store.mark_good(manifest.fingerprint.digest)
    store.prune()


def run_until_killed(store: EngineStore, manifest: Manifest, touches: int) -> bool:
    """Whether it came to its end."""
    child = os.fork()
    if child == 0:
        countdown = Countdown(touches)
        os.fsync = countdown.sync
        sys.addaudithook(countdown.hook)
        change(store, manifest)
        os._exit(COMPLETED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == COMPLETED


def look(store: EngineStore, wanted: str) -> dict[str, object]:
    current, plan = store.current(), store.get(wanted)
    return {
        "current": current.fingerprint if current else None,
        "wanted": plan is not None and plan.read() == b"plan of the new weights" * 1000,
        "wanted_found": plan is not None,
        "staged": len(list((store.root / "staging").iterdir())) if (store.root / "staging").is_dir() else 0,
    }


def main(root: Path, scenario: str) -> None:
    old, new = (Manifest.from_json(plain) for plain in json.loads(sys.stdin.read()))
    if scenario == "no exchange":
        durable._exchange = lambda first, second: False
    for touches in range(1, 500):
        store = EngineStore(root / str(touches), 1 if scenario == "replace old" else 1 << 30)
        if scenario != "first boot":
            store.mark_good(store.commit(b"plan of the old weights", old).fingerprint)
        if scenario in ("forced", "no exchange"):
            store.commit(b"plan of the new weights, built before", new)
            store.mark_good(new.fingerprint.digest)
        completed = run_until_killed(store, replace(new), touches)
        after = look(store, new.fingerprint.digest)
        change(EngineStore(store.root, store.max_bytes), new)
        again = look(store, new.fingerprint.digest)
        print(json.dumps({"touches": touches, "completed": completed, "after": after, "again": again}))
        if completed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
