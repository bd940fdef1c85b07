"""Build outcomes: what the machine hears of a build that came to nothing, and what the history is told."""

from __future__ import annotations

from dataclasses import replace

from vajra_edge.daemon import build_process, events
from vajra_edge.daemon.overview import Observed
from vajra_edge.daemon.reconciler import Reconciler
from vajra_edge.daemon.state_machine import State, Step
from vajra_edge.plans.history import Cause, Follows, History


def weighed(
    told: build_process.BuildSucceeded | build_process.ChildFailed,
    ended: events.BuildFailed,
    s: State,
    known: Observed,
    reconciler: Reconciler,
) -> events.BuildFailed:
    """Have something else wanted where that may help; until it is known, the build only waits.

    Args:
        told: the child's end.
        ended: the same for the machine: there is no plan to load.
        s: the machine's, before it hears of it.
        known: by the supervisor.
        reconciler: asked for something else.
    """
    if isinstance(told, build_process.BuildSucceeded):  # under another name: one of the two misread this machine
        reconciler.again(known.settings, known.weights_sha256)
        return ended
    if not _blames_images(told, s, known) or not reconciler.distrust_images(known.desired, ended):
        return ended
    reconciler.again(known.settings, known.weights_sha256, doubt=ended.reason)
    # A forced build failed for good: its plan may be there already, and stays wanted.
    return replace(ended, permanent=s.forced)


def _blames_images(failed: build_process.ChildFailed, s: State, known: Observed) -> bool:
    """The child says so; or it was killed twice, since calibrating takes more memory than the next precision does."""
    return failed.images or (failed.killed and s.attempts > 0 and known.settings.engine.allow_lower_precision)


def note(history: History, event: events.Event, before: State, after: State) -> None:
    """Tell the history of a build or a load that failed, with what the machine does about it, and when that is over.

    Args:
        history: of this device.
        event: late news of a job that nobody waits for any more is none.
        before: the machine, before it heard of it.
        after: and after.
    """
    if after.wanted is not None and after.wanted != before.wanted:
        history.wanted(after.wanted)
    match event:
        case events.BuildFailed() if event.job == before.building:
            _note(history, Cause.BUILD, event, after)
        case events.LoadFailed() if event.job == before.loading:
            _note(history, Cause.LOAD, event, after)
        case events.Loaded(job) if job == before.loading:
            history.served(job.fingerprint)


def _note(history: History, cause: Cause, event: events.BuildFailed | events.LoadFailed, after: State) -> None:
    follows, retry_in_s = _follows(event.job.fingerprint, after), None
    if follows is Follows.RETRY and after.retry_at_s is not None:
        retry_in_s = after.retry_at_s - event.now_s
    history.note(event.job.fingerprint, cause, event.reason, follows, retry_in_s)


def _follows(fingerprint: str, after: State) -> Follows:
    """A plan that was only to serve meanwhile is not offered again."""
    if fingerprint != after.wanted or after.step is Step.IDLE:
        return Follows.BLOCKED
    return Follows.RETRY if after.step is Step.WAIT else Follows.REBUILD
