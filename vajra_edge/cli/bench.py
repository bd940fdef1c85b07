"""``bench``: the whole frame path against the bare engine, measured in one run with the same plan and threads.

Turns alternate: the bare engine without a pause and with nothing else running, then the real frame path (capture,
letterbox, inference, decode, encode) as fast as it goes and at the camera's own pace. Messages are encoded as the
publisher does and go nowhere, so that no broker is needed. With ``--compare`` two plans take their turns side by side.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from vajra_edge.benchmark import files, host, run
from vajra_edge.benchmark.compare import LEAST_TURNS, Comparison, compare
from vajra_edge.benchmark.contender import Contender
from vajra_edge.benchmark.figures import Figures, Setup
from vajra_edge.benchmark.gauges import GpuGauge, NoGauge, gauge_of
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.scenes import MemoryScene, Scene, SourceScene, Taken, taken_alone
from vajra_edge.capture.url import is_live
from vajra_edge.cli import bench_plans, bench_table
from vajra_edge.config.address import shown
from vajra_edge.config.settings import CameraSettings, Settings, load, merged
from vajra_edge.demo.settings import overrides
from vajra_edge.errors import UsageError, VajraError
from vajra_edge.privileges import become_service_user

FPS = 30.0
MOST_CAMERAS, MOST_FPS = 64, 1000.0


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        seconds: how long to measure each plan.
        config: settings file; None: the demo's settings.
        source: in the place of the first camera's.
        weights: in the place of the settings'.
        threads: likewise.
        batch: likewise.
        cameras: fed from memory; None: the source as it is.
        fps: of each of them.

    Raises:
        UsageError: a value cannot be.
    """

    seconds: float = 30.0
    config: Path | None = None
    source: str | None = None
    weights: Path | None = None
    threads: int | None = None
    batch: int | None = None
    cameras: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.cameras is None:
            raise UsageError("--fps is of cameras fed from memory", remedy="add --cameras, or leave --fps out")
        if self.cameras is not None and not 1 <= self.cameras <= MOST_CAMERAS:
            raise UsageError(f"--cameras {self.cameras} cannot be", remedy=f"give 1 to {MOST_CAMERAS}")
        if self.fps is not None and not 0.0 < self.fps <= MOST_FPS:
            raise UsageError(f"--fps {self.fps:g} cannot be", remedy=f"give above 0 and up to {MOST_FPS:g}")
        if not math.isfinite(self.seconds):
            raise UsageError(f"--seconds {self.seconds} cannot be", remedy="give a number of seconds")


def bench(asked: Asked, *, as_json: bool) -> int:
    """Print the figures of one plan."""
    with ExitStack() as stack:
        settings = _settings(asked, stack)
        with _telling("preparing the plan", as_json):
            contender = stack.enter_context(bench_plans.of_settings(settings))
        (figures,) = _figures([contender], settings, asked, as_json=as_json)
    if as_json:
        print(files.written(figures).decode())  # noqa: T201
    else:
        bench_table.show(figures, Console())
    return 0


def compared(a: str, b: str, asked: Asked, *, anyway: bool, as_json: bool) -> int:
    """Print which of two plans is faster, of files of figures or in turns; 0 whatever the verdict.

    Args:
        a: what was there before: figures (.json), or what ``bench_plans.named`` takes.
        b: what is tried, likewise.
        asked: for plans.
        anyway: compare figures of different machines and setups, which are named.
        as_json: print JSON.

    Raises:
        VajraError: they cannot be compared.
    """
    known = [Path(name).suffix.lower() == ".json" for name in (a, b)]
    if any(known) and not all(known):
        raise UsageError(f"{a} and {b} are not of one kind", remedy="name two files of figures, or two plans")
    if all(known):
        told = compare(files.read(Path(a)), files.read(Path(b)), by_turns=False)
        if not anyway:
            _require_alike(told.differences)
    else:
        told = _in_turns(a, b, asked, anyway=anyway, as_json=as_json)
    if as_json:
        print(orjson.dumps(asdict(told), option=orjson.OPT_UTC_Z).decode())  # noqa: T201
    else:
        bench_table.show_comparison(told, (a, b), Console())
    return 0


def _require_alike(differences: Sequence[str]) -> None:
    if differences:
        raise VajraError(
            f"figures of different machines or setups tell nothing of the plans: {'; '.join(differences)}",
            remedy="measure both alike, or add --anyway to see them side by side",
        )


def _in_turns(a: str, b: str, asked: Asked, *, anyway: bool, as_json: bool) -> Comparison:
    if asked.config is None and Path(a).suffix.lower() == ".toml":
        asked = replace(asked, config=Path(a))  # its first camera is what both are measured with
    with ExitStack() as stack:
        settings = _settings(asked, stack)

        def make(others: Mapping[str, Any]) -> Settings:
            return _settings(asked, stack, others)

        contenders = []
        for name in (a, b):
            with _telling(f"preparing {name}", as_json):
                contenders.append(stack.enter_context(bench_plans.named(name, make)))
        if not anyway:  # asked before anybody waits for figures
            _require_alike(_unlike(*contenders))
        first, second = _figures(contenders, settings, asked, as_json=as_json, least_turns=LEAST_TURNS)
    return compare(first, second, by_turns=True)


def _unlike(a: Contender, b: Contender) -> list[str]:
    told = {
        "threads": (a.threads, b.threads),
        "confidence": (a.filter.confidence, b.filter.confidence),
    }
    return [f"{name}: {_said(one)} and {_said(other)}" for name, (one, other) in told.items() if one != other]


def _said(value: float | None) -> str:
    return "all" if value is None else f"{value:g}"


def _settings(asked: Asked, stack: ExitStack, others: Mapping[str, Any] | None = None) -> Settings:
    given: dict[str, Any] = {}
    if asked.config is None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vajra-bench-")))
        given = overrides(folder, {})
    if asked.weights is not None:
        given = merged(given, {"weights": {"path": str(asked.weights.absolute()), "sha256": None}})
    if asked.threads is not None:
        given = merged(given, {"service": {"threads": asked.threads}})
    if asked.batch is not None:
        given = merged(given, {"engine": {"batch": asked.batch}})
    settings = load(asked.config, merged(given, others or {}))
    if asked.source is not None:
        settings = settings.model_copy(update={"cameras": (_other_source(settings, asked.source),)})
    if asked.config is not None:  # the plan is built in the service's store, from cameras that anybody may send
        become_service_user(settings.store.state_dir)
    if not settings.cameras:
        raise VajraError("no camera to measure with", remedy="name a clip with --source")
    return settings


def _other_source(settings: Settings, source: str) -> CameraSettings:
    known = settings.cameras[0].model_dump(exclude_unset=True) if settings.cameras else {"id": "bench"}
    return load(None, {"weights": settings.weights.model_dump(), "cameras": [{**known, "source": source}]}).cameras[0]


def _figures(
    contenders: Sequence[Contender],
    settings: Settings,
    asked: Asked,
    *,
    as_json: bool,
    least_turns: int = run.LEAST_TURNS,
) -> list[Figures]:
    camera = settings.cameras[0]
    gauges = [_gauge(contender) for contender in contenders]
    hosts = [
        host.look(bench_plans.gpu_name(contender.subject), gauge or NoGauge())
        for contender, gauge in zip(contenders, gauges, strict=True)
    ]
    taken = taken_alone(camera)
    scene = _scene(settings, asked, taken)
    meters = [Meter(gauge) for gauge in gauges]
    counts = [min(asked.cameras or 1, contender.subject.batch) for contender in contenders]
    whole_s = asked.seconds * len(contenders)
    try:
        with _telling(f"measuring for {whole_s:.0f} s, and {least_turns} turns of each at the least", as_json):
            records, turn_s = run.measure(contenders, scene, whole_s, meters, counts, least_turns=least_turns)
    finally:
        scene.close()
    setups = [
        Setup(
            source=_told(camera.source),
            first_picture=taken.first,
            resolution_wh=taken.resolution_wh,
            cameras=asked.cameras,
            fps=_fps(asked),
            batch_wait_ms=settings.service.batch_wait_ms,
            confidence=contender.filter.confidence,
            threads=contender.threads,
            seconds=asked.seconds,
            turn_s=round(turn_s, 3),
            full_from_memory=scene.full_from_memory,
        )
        for contender in contenders
    ]
    told = [
        record.figures(one, contender.subject, setup)
        for record, one, contender, setup in zip(records, hosts, contenders, setups, strict=True)
    ]
    for gauge in gauges:
        (gauge or NoGauge()).close()
    return told


def _gauge(contender: Contender) -> GpuGauge | None:
    name = bench_plans.gpu_name(contender.subject)
    return None if name is None else gauge_of(bench_plans.gpu_index(contender.subject), name)


def _told(source: str) -> str:
    """A file by its name alone: it may lie elsewhere on another machine."""
    return shown(source) if is_live(source) else Path(source).name


def _fps(asked: Asked) -> float | None:
    return None if asked.cameras is None else asked.fps or FPS


def _scene(settings: Settings, asked: Asked, taken: Taken) -> Scene:
    gather_s = settings.service.batch_wait_ms / 1e3
    if asked.cameras is None:
        return SourceScene(settings.cameras[0], gather_s, taken)
    return MemoryScene(taken.images, asked.cameras, _fps(asked) or FPS, gather_s)


def _telling(what: str, as_json: bool) -> Any:
    """Somebody who waits is told for what, where nobody reads by machine."""
    return Console(file=sys.stderr, quiet=as_json).status(f"{what} …")
