"""A plan without a daemon: worked out as the daemon would, taken from the store or built in a child."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace

from vajra_edge.engine.history import History
from vajra_edge.engine.manifest import Plan
from vajra_edge.engine.request import BuildRequest
from vajra_edge.engine.store import EngineStore
from vajra_edge.errors import BuildError
from vajra_edge.progress import Progress
from vajra_edge.service.builder import Builder, BuildFailed, BuildProgressed, BuildSucceeded
from vajra_edge.service.wish import Wish, Wishes
from vajra_edge.settings import Settings


def wish_of(settings: Settings) -> tuple[Wish, EngineStore]:
    """Which plan settings and weights ask for here, and the store that may hold it.

    Raises:
        VajraError: see ``Wishes.work_out``.
    """
    store = EngineStore(settings.store.state_dir, settings.store.max_bytes)
    return Wishes(store, History(settings.store.state_dir)).work_out(settings), store


def ready_plan(settings: Settings, *, force: bool = False, show: Callable[[Progress], None] = lambda _: None) -> Plan:
    """The wanted plan, built in a child if the store lacks it or ``force`` asks for it.

    Args:
        settings: the operator's.
        force: build even if the plan is there.
        show: takes the child's progress.

    Raises:
        VajraError: the wish cannot be worked out.
        BuildError: the build failed.
    """
    wish, store = wish_of(settings)
    plan = None if force else store.get(wish.fingerprint.digest)
    if plan is None:
        _build(replace(wish.request, force=force), show)
        plan = store.get(wish.fingerprint.digest)
    if plan is None:
        raise BuildError(f"plan {wish.fingerprint.short} is not in the store after its build", remedy="see the log")
    return plan


def _build(request: BuildRequest, show: Callable[[Progress], None]) -> None:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    builder = Builder(inbox.put)
    try:
        builder.start(0, request)
        while True:
            match inbox.get():
                case BuildProgressed(_, progress):
                    show(progress)
                case BuildSucceeded():
                    return
                case BuildFailed() as failed:
                    raise BuildError(failed.message)
    finally:
        builder.close()
