"""Scenes: where the frames of a run come from, and one turn of the real frame loop on them."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.benchmark.contender import Contender
from vajra_edge.benchmark.memory_cameras import EndlessCamera, MemoryCameras
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.record import Path
from vajra_edge.benchmark.sink import CountingSink
from vajra_edge.capture.camera import CameraChanged, Grabber, comes_live
from vajra_edge.capture.children import Children
from vajra_edge.capture.sources import registry
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import InferenceError, SourceError
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.inference.pipeline import FrameSource, LoopFailed, Pipeline
from vajra_edge.media.bgr import in_own_bgr
from vajra_edge.mqtt.messages import EngineTag

DEVICE = "bench"
_STOP_S = _PATIENCE_S = 30.0
_PACED = 2.0  # lengths of a turn at the cameras' pace, which gives few frames and has to tell a p99
_LEAST_FRAMES = 3  # two gaps
_KEPT = 16  # pictures in memory: a second of 1080p would be 180 MB
_ALONE_S = 1.0
_SOURCE_SHARE = 3.0
"""A source is fast enough while this many times the time of its decoder is below the engine's: the picture's way from
the decoder's process takes as long again, and much of what is left is the margin of a machine that is not idle."""


class Scene(Protocol):
    """What a run measures with.

    Attributes:
        capture_ms: each frame that was read and decoded alone.
        full_from_memory: as fast as it goes its frames come from memory.
    """

    capture_ms: Sequence[float]
    full_from_memory: bool

    def suit(self, engine_ms: float) -> None:
        """Be fast enough for an engine that takes so long."""
        ...

    def turn(self, contender: Contender, meter: Meter, seconds: float) -> Path:
        """Let the frame loop run."""
        ...

    def close(self) -> None:
        """End what it started."""
        ...


class MemoryScene:
    """Cameras fed from memory.

    Args:
        images: what they see.
        cameras: how many.
        fps: of each.
        gather_s: longest wait to fill a batch.
    """

    capture_ms: Sequence[float] = ()
    full_from_memory = False

    def __init__(self, images: Sequence[NDArray[np.uint8]], cameras: int, fps: float, gather_s: float) -> None:
        self._images, self._cameras, self._fps, self._gather_s = images, cameras, fps, gather_s

    def suit(self, engine_ms: float) -> None:
        """The cameras set the pace, whatever the engine takes."""

    def turn(self, contender: Contender, meter: Meter, seconds: float) -> Path:
        """At the cameras' pace alone."""
        seconds *= _PACED
        mailboxes = Mailboxes()
        feeder, sink = MemoryCameras(self._images, self._cameras, self._fps, mailboxes), CountingSink(DEVICE)
        loop = _Loop(contender, mailboxes, sink, feeder.names, self._gather_s)
        with meter.running("paced"):
            feeder.start()
            loop.run(seconds, then=feeder.close)
        dropped = sum(mailboxes.dropped(name) for name in feeder.names)
        late_ms = tuple(feeder.late_ms)
        return Path((), tuple(sink.heard), feeder.arrived, dropped, seconds, sink.size_bytes, feeder.names, late_ms)

    def close(self) -> None:
        """Nothing runs between turns."""


class SourceScene:
    """One source, decoded in a process of its own as the daemon's are.

    A clip is read as fast as it goes, and then at its own pace; a live camera has one pace only. Where an engine
    outruns the decoder, the first of these takes its frames from memory: the decoder is not what is measured.

    Args:
        camera: its settings.
        gather_s: longest wait to fill a batch.
        taken: its pictures, and what each took to read and decode; see ``taken_alone``.
    """

    def __init__(self, camera: CameraSettings, gather_s: float, taken: Taken) -> None:
        self.capture_ms: Sequence[float] = taken.took_ms
        self.full_from_memory = False
        self._images = taken.images
        self._gather_s, self._stack = gather_s, ExitStack()
        self._children = Children()
        self._stack.callback(self._children.close)
        looped = camera.model_copy(update={"loop": True})
        self._paced = looped.model_copy(update={"id": "paced", "realtime": True})
        self._live = comes_live(camera)
        full = looped.model_copy(update={"id": "full", "realtime": False, "fps": None})
        self._kept = _Camera(self._paced if self._live else full, self._children)
        self._stack.callback(self._kept.close)
        try:
            self._kept.first()  # its process takes a while to be up
        except BaseException:
            self._stack.close()
            raise

    def suit(self, engine_ms: float) -> None:
        """Feed frames from memory where the clip's would come too slowly for an engine that takes so long."""
        if self.capture_ms:
            self.full_from_memory = _SOURCE_SHARE * median(self.capture_ms) > engine_ms

    def turn(self, contender: Contender, meter: Meter, seconds: float) -> Path:
        """As fast as it goes, then at its pace."""
        full = CountingSink(DEVICE)
        if self._live:
            return self._at_its_pace(self._kept, contender, meter, seconds, full)
        source = EndlessCamera(self._images, "full") if self.full_from_memory else self._kept.mailboxes
        with meter.running("full"):
            _Loop(contender, source, full, ("full",), self._gather_s).run(seconds, least=_LEAST_FRAMES)
        if len(full.heard) < _LEAST_FRAMES:
            self._kept.require()
            raise SourceError(
                f"only {len(full.heard)} frames in {seconds + _PATIENCE_S:.0f} s", remedy="check the clip with predict"
            )
        camera = _Camera(self._paced, self._children)
        try:
            camera.first()
            return self._at_its_pace(camera, contender, meter, seconds, full)
        finally:
            camera.close()

    def close(self) -> None:
        """End the camera and its process."""
        self._stack.close()

    def _at_its_pace(
        self, camera: _Camera, contender: Contender, meter: Meter, seconds: float, full: CountingSink
    ) -> Path:
        seconds *= _PACED
        camera.mailboxes.take(1, 0.0)  # of a live camera it is as old as the turn of the bare engine was long
        sink, counts = CountingSink(DEVICE), [camera.grabber.counters()]
        loop = _Loop(contender, camera.mailboxes, sink, (self._paced.id,), self._gather_s)
        with meter.running("paced", lambda: camera.grabber.counters().pid):
            loop.run(seconds, then=lambda: counts.append(camera.grabber.counters()))
        before, after = counts
        return Path(
            full=tuple(full.heard),
            paced=tuple(sink.heard),
            arrived=after.frames_read - before.frames_read,
            dropped=after.frames_dropped - before.frames_dropped,
            seconds=seconds,
            size_bytes=full.size_bytes + sink.size_bytes,
            cameras=(self._paced.id,),
        )


class _Camera:
    """A grabber with mailboxes of its own."""

    def __init__(self, camera: CameraSettings, children: Children) -> None:
        self.mailboxes = Mailboxes()
        self._said, self._patience_s = "", camera.open_timeout_s
        self.grabber = Grabber(camera, self.mailboxes, self._hear, _no_beat, children)
        self.grabber.start()

    def first(self) -> None:
        """Wait for its first frame, which is not measured."""
        if not self.mailboxes.take(1, self._patience_s):
            self.require()
            raise SourceError(f"no frame within {self._patience_s:g} s", remedy="check the source with predict")

    def require(self) -> None:
        """Say why there are no frames, where that is known.

        Raises:
            SourceError: it is.
        """
        if self._said:
            raise SourceError(self._said)

    def close(self) -> None:
        self.mailboxes.close()
        self.grabber.stop(5.0)

    def _hear(self, event: CameraChanged) -> None:
        self._said = event.reason


@dataclass(frozen=True)
class _Loop:
    """The real frame loop of one contender."""

    contender: Contender
    source: FrameSource
    sink: CountingSink
    cameras: Sequence[str]
    gather_s: float

    def run(self, seconds: float, then: Callable[[], None] = lambda: None, least: int = 0) -> None:
        """Let it run, ``then`` do this, and let it publish what is in flight.

        Args:
            seconds: how long.
            then: done at the end of that.
            least: messages without which it goes on, but not for ever: of a machine that is busy.

        Raises:
            InferenceError: the plan failed.
        """
        failures: list[str] = []

        def hear(event: object) -> None:
            if isinstance(event, LoopFailed):
                failures.append(event.reason)

        pipeline: Pipeline[EngineTag] = Pipeline(self.source, self.sink, hear, _no_beat, self.gather_s)
        one = self.contender
        pipeline.swap(one.detector, one.tag, dict.fromkeys(self.cameras, one.filter))
        pipeline.start()
        time.sleep(seconds)
        patient_until_s = time.monotonic() + _PATIENCE_S
        while len(self.sink.heard) < least and not failures and time.monotonic() < patient_until_s:
            time.sleep(seconds / 10)
        then()
        pipeline.stop(_STOP_S)
        if failures:
            raise InferenceError(failures[0])


@dataclass(frozen=True)
class Taken:
    """Pictures of a source.

    Attributes:
        images: the first ones.
        took_ms: to read and decode each; of a live camera nothing, for its pace is the world's.
        first: digest of the first one; None of a live camera.
    """

    images: tuple[NDArray[np.uint8], ...]
    took_ms: tuple[float, ...]
    first: str | None

    @property
    def resolution_wh(self) -> tuple[int, int]:
        """Of the first."""
        height, width = self.images[0].shape[:2]
        return int(width), int(height)


def taken_alone(camera: CameraSettings, clock_s: Callable[[], float] = time.perf_counter) -> Taken:
    """Read a source for a second with nothing else running.

    Raises:
        SourceError: it cannot be opened or has no picture.
    """
    if comes_live(camera):
        return _one_live(camera)
    source = registry.make(camera.model_copy(update={"loop": True}))
    images: list[NDArray[np.uint8]] = []
    took_ms: list[float] = []
    try:
        source.open()
        until_s = clock_s() + _ALONE_S
        while not images or clock_s() < until_s:
            began_s = clock_s()
            picture = source.read()
            took_ms.append((clock_s() - began_s) * 1e3)
            if picture is None:
                break
            images += [picture.image] if len(images) < _KEPT else []
    finally:
        source.close()
    return _some(images, took_ms, camera)


def _one_live(camera: CameraSettings) -> Taken:
    children = Children()
    opened = _Camera(camera, children)
    try:
        frames = opened.mailboxes.take(1, camera.open_timeout_s)
        if not frames:
            opened.require()
        return _some([in_own_bgr(frame).image for frame in frames], (), camera)
    finally:
        opened.close()
        children.close()


def _some(images: Sequence[NDArray[np.uint8]], took_ms: Sequence[float], camera: CameraSettings) -> Taken:
    if not images:
        raise SourceError(f"camera {camera.id} gives no picture", remedy="check the source with predict")
    first = None if comes_live(camera) else f"{zlib.crc32(images[0].tobytes()):08x}"
    return Taken(tuple(images), tuple(took_ms), first)


def _no_beat() -> None:
    """Nobody watches a bench."""
