"""Serving: the frame loop with the plan that serves, its filters, and its figures. Called by the supervisor alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from vajra_edge.capture.mailboxes import Mailboxes
from vajra_edge.detect.detector import Filter
from vajra_edge.detections import Detections
from vajra_edge.engine.request import nms_of
from vajra_edge.frames import Frame
from vajra_edge.pipeline import Pipeline, PipelineCounters
from vajra_edge.publish.messages import EngineTag
from vajra_edge.service.beats import Beats
from vajra_edge.service.plan_view import latency_ms
from vajra_edge.service.plans import Ready
from vajra_edge.service.probation import Tally, unfit
from vajra_edge.settings import Settings

log = logging.getLogger(__name__)

DEADLINE_S = 30.0
"""A batch that takes longer is stuck: a slow CPU needs a few seconds for the largest network."""

Sink = Callable[[Frame, Detections, EngineTag, int], None]


class Serving:
    """What takes the frames.

    Args:
        mailboxes: where frames come from.
        sink: where detections go.
        post: takes ``pipeline.InferFailed`` and ``pipeline.Exhausted``; only enqueues.
        beats: watches the loop.
        settings: thresholds, filters and NMS.
        max_frames: end after this many detection messages; None: never.
    """

    def __init__(
        self,
        mailboxes: Mailboxes,
        sink: Sink,
        post: Callable[[object], None],
        beats: Beats,
        settings: Settings,
        max_frames: int | None,
    ) -> None:
        self._mailboxes, self._sink, self._post, self._settings = mailboxes, sink, post, settings
        self._beat = beats.expect("pipeline", DEADLINE_S)
        self._max_frames = max_frames
        self._past: dict[str, int] = {}
        self._before, self._tally = Tally(), Tally()
        self._old: Ready | None = None
        self._ready: Ready | None = None
        self._broken = False
        self._pipeline = self._make_pipeline()

    def start(self) -> None:
        """Let the loop run; without a plan it only waits."""
        self._pipeline.start()

    @property
    def ready(self) -> Ready | None:
        """The plan that serves."""
        return self._ready

    def swap(self, ready: Ready) -> None:
        """Let ``ready`` take the frames; after a failure, in a new loop. The old one is the caller's to close."""
        self._old, self._ready = self._ready, ready
        self._before, self._tally = self._tally, Tally()
        if self._broken:
            self._past = self.published()
            self._pipeline = self._make_pipeline()
            self._pipeline.start()
            self._broken = False
        ready.detector.set_nms(nms_of(self._settings.engine))
        names = ready.manifest.signature.class_names
        self._pipeline.swap(ready.detector, ready.tag, filters_of(self._settings, names))

    def apply(self, settings: Settings) -> None:
        """Use these thresholds and filters, and this NMS where it is not baked in, from the next frame on."""
        self._settings = settings
        if self._ready:
            self._ready.detector.set_nms(nms_of(settings.engine))
        names = self._ready.manifest.signature.class_names if self._ready else ()
        self._pipeline.apply(filters_of(settings, names), settings.service.batch_wait_ms / 1e3)

    def failed(self) -> None:
        """The loop has ended with a failure; the next swap starts another."""
        self._broken = True
        self._pipeline.stop(0.0)

    def unfit(self) -> str:
        """Why the plan on probation must not stay; empty while nothing speaks against it."""
        if self._old is None or self._ready is None:
            return ""
        old, new = self._old.manifest, self._ready.manifest
        before_ms, after_ms = latency_ms(old.verify), latency_ms(new.verify)
        ratio = after_ms / before_ms if before_ms and after_ms else None
        same = old.signature.class_names == new.signature.class_names
        return unfit(self._before.figures(), self._tally.figures(), ratio, same_classes=same)

    def unknown_classes(self) -> str:
        """A warning about class names in the settings that the serving plan does not know; else empty."""
        if self._ready is None:
            return ""
        known = self._ready.manifest.signature.class_names
        asked = {name for classes in _classes(self._settings).values() for name in classes or ()}
        unknown = sorted(asked - set(known))
        return f"no such class: {', '.join(unknown)}; the network knows {_few(known)}" if unknown else ""

    def published(self) -> dict[str, int]:
        """Detection messages by camera, since the start."""
        now = self._pipeline.counters().published
        return {camera: self._past.get(camera, 0) + now.get(camera, 0) for camera in {*self._past, *now}}

    def counters(self) -> PipelineCounters:
        """Of the loop that runs now."""
        return self._pipeline.counters()

    def stop(self, timeout_s: float) -> bool:
        """Publish what is in flight and end the loop; whether it ended in time."""
        return self._pipeline.stop(timeout_s)

    def _make_pipeline(self) -> Pipeline[EngineTag]:
        left = None if self._max_frames is None else max(self._max_frames - sum(self._past.values()), 0)
        gather_s = self._settings.service.batch_wait_ms / 1e3
        return Pipeline(self._mailboxes, self._publish, self._post, self._beat, gather_s, max_frames=left)

    def _publish(self, frame: Frame, found: Detections, tag: EngineTag, certain: int) -> None:
        self._sink(frame, found, tag, certain)
        self._tally.add((time.monotonic_ns() - frame.captured_ns) / 1e6, len(found))


def filters_of(settings: Settings, class_names: Sequence[str]) -> dict[str, Filter]:
    """Each camera's threshold and class ids; a name that the network does not know lets nothing through."""
    filters = {}
    for camera in settings.cameras:
        confidence = settings.detect.confidence if camera.confidence is None else camera.confidence
        wanted = _classes(settings)[camera.id]
        ids = None if wanted is None else frozenset(i for i, name in enumerate(class_names) if name in wanted)
        filters[camera.id] = Filter(confidence, ids)
    return filters


def _classes(settings: Settings) -> dict[str, tuple[str, ...] | None]:
    default = settings.detect.classes
    return {camera.id: default if camera.classes is None else camera.classes for camera in settings.cameras}


def _few(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
