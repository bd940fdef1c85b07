"""Record: what the turns of one contender gave, and the figures that it comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from statistics import median

import numpy as np

from vajra_edge.benchmark.figures import Figures, Frames, Host, Messages, Ratio, Setup, Stages, Subject, Turn, Use
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.sink import Heard
from vajra_edge.benchmark.spread import Spread
from vajra_edge.version import VERSION

BUSY = 0.3
"""Load before the start, by processor, from which on figures are those of a machine with other work."""

UNSTEADY = 1.25
"""Quotient of the largest and the smallest ratio of a run, from which on the median says little."""

BEHIND = 0.9
"""Share of the frames asked for, below which the feeder itself did not keep up."""


@dataclass(frozen=True)
class Path:
    """What one turn of the frame path gave.

    Attributes:
        full: messages of the part that went as fast as it goes; empty where cameras set the pace.
        paced: messages of the part at the cameras' pace.
        arrived: frames of that part.
        dropped: of those.
        seconds: length of that part.
        size_bytes: of all messages.
        cameras: their ids.
        late_ms: how late the feeder from memory was, frame by frame.
    """

    full: tuple[Heard, ...]
    paced: tuple[Heard, ...]
    arrived: int
    dropped: int
    seconds: float
    size_bytes: int
    cameras: tuple[str, ...]
    late_ms: tuple[float, ...] = ()


@dataclass
class Record:
    """Fills turn by turn.

    Attributes:
        meter: what the turns took of the machine.
        capture_ms: each frame of the source, read and decoded alone.
        engine_ms: the bare engine, a mean for each slice.
        paths: turn by turn.
        turns: turn by turn.
    """

    meter: Meter
    capture_ms: Sequence[float] = ()
    engine_ms: list[float] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def add(self, before_ms: Sequence[float], path: Path, after_ms: Sequence[float]) -> None:
        """One turn, with the bare engine on both sides of it."""
        self.engine_ms += [*before_ms, *after_ms]
        self.paths.append(path)
        engine_ms = (_mean(before_ms) + _mean(after_ms)) / 2
        gaps_s = np.diff([one.at_s for one in path.full])
        frame_ms = float(gaps_s.mean()) * 1e3 if len(gaps_s) else None
        latency_ms = median(one.latency_ms for one in path.paced) if path.paced else None
        self.turns.append(Turn(_round(engine_ms), _maybe(frame_ms), _maybe(latency_ms)))

    def figures(self, host: Host, subject: Subject, setup: Setup) -> Figures:
        """What it comes to."""
        frames_ms = [turn.frame_ms for turn in self.turns if turn.frame_ms is not None]
        ratios = [turn.frame_ms / turn.engine_ms for turn in self.turns if turn.frame_ms is not None]
        frame_ms = median(frames_ms) if frames_ms else None
        paced = [one for path in self.paths for one in path.paced]
        frames, use = self._frames(paced), self.meter.use()
        passed_s = sum(path.seconds for path in self.paths)
        paced_fps = len(paced) / passed_s if passed_s else None
        return Figures(
            version=VERSION,
            taken_at=datetime.now(timezone.utc),
            host=host,
            subject=subject,
            setup=setup,
            engine_ms=Spread.of(self.engine_ms),
            frame_ms=frame_ms,
            frames_per_s=round(1e3 / frame_ms, 2) if frame_ms else _maybe(paced_fps),
            ratio=_ratio(ratios) if ratios else None,
            stages=self._stages(paced),
            latency_ms=Spread.of([one.latency_ms for one in paced]),
            frames=frames,
            messages=Messages(self._count, sum(path.size_bytes for path in self.paths)),
            use=use,
            turns=tuple(self.turns),
            remarks=(*_remarks(host, setup, frames, passed_s), *_doubts(ratios, use)),
        )

    @property
    def _count(self) -> int:
        return sum(len(path.full) + len(path.paced) for path in self.paths)

    def _stages(self, paced: Sequence[Heard]) -> Stages:
        """Of the part as fast as it goes, where there is one: the same that the ratio is of."""
        full = [one for path in self.paths for one in path.full]
        measured = full or paced
        batches = list({id(one.times): one.times for one in measured}.values())
        return Stages(
            capture=Spread.of(self.capture_ms),
            waiting=Spread.of([one.waiting_ms for one in paced]),
            prepare=Spread.of([one.prepare_ms for one in batches]),
            inference=Spread.of([one.inference_ms for one in batches]),
            decode=Spread.of([one.decode_ms for one in batches]),
            publish=Spread.of([one.publish_ms for one in measured]),
        )

    def _frames(self, paced: Sequence[Heard]) -> Frames:
        passed_s = sum(path.seconds for path in self.paths)
        counts = Counter(one.camera for one in paced)
        counted = [counts[camera] for camera in {camera: None for path in self.paths for camera in path.cameras}]
        late = [one for path in self.paths for one in path.late_ms]
        return Frames(
            arrived=sum(path.arrived for path in self.paths),
            inferred=len(paced),
            dropped=sum(path.dropped for path in self.paths),
            slowest_fps=_round(min(counted) / passed_s) if counted and passed_s else None,
            fastest_fps=_round(max(counted) / passed_s) if counted and passed_s else None,
            late_ms=Spread.of(late) if late else None,
        )


def _remarks(host: Host, setup: Setup, frames: Frames, passed_s: float) -> tuple[str, ...]:
    told = []
    if host.load_1min is not None and host.load_1min > BUSY * host.cpus:
        told.append(f"the machine had other work before (load {host.load_1min} on {host.cpus} processors)")
    if setup.cameras is not None and setup.fps is not None:
        wanted = setup.cameras * setup.fps * passed_s
        if frames.arrived < BEHIND * wanted:
            told.append(f"the feeder gave {frames.arrived} of {wanted:.0f} frames: this machine cannot feed so many")
    if setup.full_from_memory:
        told.append("as fast as it goes frames came from memory: the source's decoder is slower than this engine")
    gpu = host.gpu
    if gpu is not None and gpu.clock_locked is False:
        told.append("the GPU's clock may move; jetson_clocks holds it")
    return tuple(told)


def _doubts(ratios: Sequence[float], use: Use) -> Iterator[str]:
    """What the run itself met."""
    if ratios and max(ratios) > UNSTEADY * min(ratios):
        yield f"the ratio moved from {min(ratios):.2f} to {max(ratios):.2f} between turns: other work came and went"
    if use.gpu is not None and use.gpu.throttled:
        yield f"the GPU was slowed down: {', '.join(use.gpu.throttled)}"


def _ratio(ratios: Sequence[float]) -> Ratio:
    return Ratio(round(median(ratios), 4), round(min(ratios), 4), round(max(ratios), 4))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _round(value: float) -> float:
    return round(value, 4)


def _maybe(value: float | None) -> float | None:
    return None if value is None else _round(value)
