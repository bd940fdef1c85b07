"""Setbacks: what the machine hears of a build that came to nothing, and whether the wish is worked out again."""

from __future__ import annotations

from dataclasses import replace

from vajra_edge.service import builder, events
from vajra_edge.service.overview import Known
from vajra_edge.service.phases import State
from vajra_edge.service.wishing import Wishing


def weighed(
    told: builder.BuildSucceeded | builder.BuildFailed,
    ended: events.BuildFailed,
    s: State,
    known: Known,
    wishing: Wishing,
) -> events.BuildFailed:
    """Have something else wanted where that may help; until it is known, the build only waits.

    Args:
        told: the child's end.
        ended: the same for the machine: there is no plan to load.
        s: the machine's, before it hears of it.
        known: by the supervisor.
        wishing: asked for something else.
    """
    if isinstance(told, builder.BuildSucceeded):  # under another name: one of the two misread this machine
        wishing.again(known.settings, known.weights_sha256)
        return ended
    if not _blames_images(told, s, known) or not wishing.distrust_images(known.wish, ended):
        return ended
    wishing.again(known.settings, known.weights_sha256, doubt=ended.reason)
    # A forced build failed for good: its plan may be there already, and stays wanted.
    return replace(ended, permanent=s.forced)


def _blames_images(failed: builder.BuildFailed, s: State, known: Known) -> bool:
    """The child says so; or it was killed twice, since calibrating takes more memory than the next precision does."""
    return failed.images or (failed.killed and s.attempts > 0 and known.settings.engine.allow_lower_precision)
