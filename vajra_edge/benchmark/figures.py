"""Figures: everything that one bench run measured, with what it was measured on. Plain values, written as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import AwareDatetime, Field

from vajra_edge.benchmark.spread import Spread

SCHEMA = 1
"""Counts incompatible changes of ``Figures``; another field is none."""

Schema: TypeAlias = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class HostGpu:
    """The GPU of the plan, as it was before the run.

    Attributes:
        name: as its driver names it.
        driver: version of the kernel driver, or null.
        clock_mhz: of its processors, or null.
        max_clock_mhz: the highest that it is allowed now, or null.
        clock_locked: its lowest and highest allowed clock are one (``jetson_clocks``), or null.
        power_limit_w: what its driver holds it to, or null.
    """

    name: str
    driver: str | None = None
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    clock_locked: bool | None = None
    power_limit_w: float | None = None


@dataclass(frozen=True)
class Host:
    """What it ran on, before it ran. What cannot be read is null.

    Attributes:
        machine: the board's name, or null off a board.
        arch: like ``aarch64``.
        kernel: its release.
        cpu: the processor's name.
        cpus: processors that this process may use.
        governor: of its clock, or null (a virtual machine has none).
        max_cpu_mhz: the highest clock that the governor may choose, or null.
        memory_bytes: installed.
        load_1min: processes that wanted a processor in the minute before, or null.
        l4t: Jetson Linux, or null off a Jetson.
        power_mode: nvpmodel's, or null off a Jetson.
        temperature_c: of the hottest sensor, or null.
        gpu: the GPU of the plan; null: it runs on a CPU.
    """

    machine: str | None
    arch: str
    kernel: str
    cpu: str
    cpus: int
    governor: str | None
    max_cpu_mhz: float | None
    memory_bytes: int
    load_1min: float | None
    l4t: str | None
    power_mode: str | None
    temperature_c: float | None
    gpu: HostGpu | None = None


@dataclass(frozen=True)
class Subject:
    """The plan that was measured.

    Attributes:
        name: of its weights file.
        weights_sha256: of that file, or null.
        fingerprint: of the plan.
        backend: the library that runs it.
        library: its release.
        backend_reason: why that library was taken.
        precision: achieved.
        target: where it runs.
        resolution_hw: of its input, in pixels.
        batch: most images in one call.
        nms_inside: non-maximum suppression is in the network.
        path: what is computed where, and how a batch is queued.
    """

    name: str
    weights_sha256: str | None
    fingerprint: str
    backend: str
    library: str
    backend_reason: str
    precision: str
    target: str
    resolution_hw: tuple[int, int]
    batch: int
    nms_inside: bool
    path: str


@dataclass(frozen=True)
class Setup:
    """How it was measured.

    Attributes:
        source: what frames come from; of a file its name, of an address its scheme and host alone.
        first_picture: its digest, which tells two files of one name apart; null of a live camera.
        resolution_wh: of its frames, in pixels.
        cameras: fed from memory, without a decoder; null: one source, decoded as in the daemon.
        fps: frames a second of each of them; null: the source's own.
        batch_wait_ms: longest wait for other cameras' frames to fill a batch.
        confidence: lowest that is told.
        threads: CPU inference threads; null: all.
        seconds: asked for.
        turn_s: length of a turn of the frame path as fast as it goes; at the cameras' pace it is twice that.
        full_from_memory: as fast as it goes, frames came from memory: the engine outruns the source's decoder.
    """

    source: str
    first_picture: str | None
    resolution_wh: tuple[int, int]
    cameras: int | None
    fps: float | None
    batch_wait_ms: float
    confidence: float
    threads: int | None
    seconds: float
    turn_s: float
    full_from_memory: bool = False


@dataclass(frozen=True)
class Turn:
    """One turn: the bare engine before and after the frame path, so that both meet the machine in one mood.

    Attributes:
        engine_ms: mean time of a call of the bare engine.
        frame_ms: mean time between two messages, as fast as it goes; null: cameras set the pace.
        latency_p50_ms: from the arrival of a frame to its message, at the cameras' pace; null: there was none.
    """

    engine_ms: float
    frame_ms: float | None
    latency_p50_ms: float | None


@dataclass(frozen=True)
class Ratio:
    """Time of a frame by time of the bare engine.

    Attributes:
        median: over the turns.
        low: the smallest of a turn.
        high: the largest of a turn.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Stages:
    """Where the time of a frame goes, in milliseconds. Stages overlap: their sum is more than the time of a frame.

    Attributes:
        capture: read and decode one frame of the source, alone; of frames from memory and live cameras nothing.
        waiting: of a frame, in its mailbox, for its batch and behind the batch in flight, at the cameras' pace.
        prepare: of a batch, from images to the network's input.
        inference: of a batch, the call of the engine.
        decode: of a batch, from the network's output to boxes in pixels.
        publish: of a frame, its message encoded and numbered.
    """

    capture: Spread
    waiting: Spread
    prepare: Spread
    inference: Spread
    decode: Spread
    publish: Spread


@dataclass(frozen=True)
class Frames:
    """What became of the frames that came at the cameras' pace. The rest waited still when a turn ended.

    Attributes:
        arrived: at the daemon's side of the cameras.
        inferred: of those, with a message.
        dropped: of those, displaced by a newer one of the same camera before anybody took them.
        slowest_fps: messages a second of the camera that had fewest; null: there were none.
        fastest_fps: likewise of the one that had most.
        late_ms: how far behind its time the feeder from memory was; null where cameras feed.
    """

    arrived: int
    inferred: int
    dropped: int
    slowest_fps: float | None
    fastest_fps: float | None
    late_ms: Spread | None = None


@dataclass(frozen=True)
class Messages:
    """What the broker would have had.

    Attributes:
        count: messages.
        bytes: of their payloads together.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class GpuUse:
    """The GPU while the frame path ran; each is null where nothing can be read.

    Attributes:
        load_percent: share of time in which it worked.
        clock_mhz: of its processors, median.
        lowest_clock_mhz: the lowest that was seen.
        memory_used_bytes: by everybody, most seen; of most integrated GPUs null: it is the machine's memory.
        power_w: median.
        temperature_c: highest seen.
        throttled: the reasons that its driver gave for a lower clock than it could have.
    """

    load_percent: Spread | None = None
    clock_mhz: float | None = None
    lowest_clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Use:
    """What the frame path took of the machine, the bare engine's turns not counted.

    Attributes:
        cpu_cores: processor time of this process by time that passed, at the cameras' pace.
        full_cpu_cores: the same as fast as it goes; null: cameras set the pace.
        capture_cpu_cores: likewise of the camera's own process, at its pace; null: there is none.
        rss_bytes: resident memory of this process at the end.
        peak_rss_bytes: the most it had, with loading.
        gpu: null: the plan runs on a CPU.
    """

    cpu_cores: float | None
    full_cpu_cores: float | None
    capture_cpu_cores: float | None
    rss_bytes: int | None
    peak_rss_bytes: int | None
    gpu: GpuUse | None = None


@dataclass(frozen=True)
class Figures:
    """One run.

    Attributes:
        version: of vajra-edge.
        taken_at: when it ended.
        host: what it ran on.
        subject: the plan.
        setup: how it was measured.
        engine_ms: a call of the bare engine, with nothing else running; means of 50 ms, or of a call that takes longer.
        frame_ms: time of a frame as fast as it goes, median over turns; null: cameras set the pace.
        frames_per_s: messages a second, as fast as it goes; where cameras set the pace, at that.
        ratio: null where cameras set the pace.
        stages: where the time goes.
        latency_ms: from the arrival of a frame to its message encoded, at the cameras' pace.
        frames: what became of them.
        messages: what was encoded.
        use: of processors, memory and GPU.
        turns: one by one.
        remarks: what whoever quotes the figures has to know.
        schema: see ``SCHEMA``.
    """

    version: str
    taken_at: AwareDatetime
    host: Host
    subject: Subject
    setup: Setup
    engine_ms: Spread
    frame_ms: float | None
    frames_per_s: float | None
    ratio: Ratio | None
    stages: Stages
    latency_ms: Spread
    frames: Frames
    messages: Messages
    use: Use
    turns: tuple[Turn, ...]
    remarks: tuple[str, ...] = ()
    schema: Schema = SCHEMA
