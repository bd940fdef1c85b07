"""What ``bench`` measures: a plan by settings, weights, an engine file or the fingerprint of a stored plan, loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vajra_edge.backends import cuda
from vajra_edge.backends.base import select
from vajra_edge.benchmark.contender import Contender
from vajra_edge.benchmark.figures import Subject
from vajra_edge.build.request import nms_of
from vajra_edge.cli.rebuild import ready_plan
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.deployment import filters_of
from vajra_edge.errors import PlanError, UsageError
from vajra_edge.inference.detector import Detector, Filter
from vajra_edge.inference.open_detector import Loadable, open_detector
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.plans.fingerprint import WEIGHTS
from vajra_edge.plans.manifest import Plan
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.plans.store import EngineStore
from vajra_edge.privileges import become_service_user
from vajra_edge.tasks import load as engine_files

_FINGERPRINT = re.compile("[0-9a-f]{8,64}")
_SETTINGS, _WEIGHTS, _ENGINE = ".toml", {".pt", ".onnx"}, ".engine"

Make = Callable[[Mapping[str, Any]], Settings]
"""Gives the settings of this run with others in the place of some."""


@contextmanager
def of_settings(settings: Settings) -> Iterator[Contender]:
    """The plan that these settings ask for, built if it is not there."""
    with _of_plan(ready_plan(settings), settings, select(settings.engine.backend).reason) as made:
        yield made


@contextmanager
def named(name: str, make: Make) -> Iterator[Contender]:
    """What the command line named.

    Args:
        name: a settings file, weights, an engine file, or a fingerprint, of which 8 digits suffice.
        make: the settings of this run.

    Raises:
        VajraError: it is none of these, or cannot be used.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix in {_SETTINGS, _ENGINE, *_WEIGHTS} and not path.is_file():
        raise UsageError(f"{name} does not exist", remedy="check the path")
    if suffix == _SETTINGS:
        opened = of_settings(_own(load(path)))
    elif suffix in _WEIGHTS:
        opened = of_settings(make({"weights": {"path": str(path.absolute()), "sha256": None}}))
    elif suffix == _ENGINE:
        opened = _of_engine(path, make({}))
    elif _FINGERPRINT.fullmatch(name):
        opened = _of_stored(name, make({}))
    else:
        what = "a settings file (.toml), weights (.pt, .onnx), an engine file or the fingerprint of a stored plan"
        raise UsageError(f"{name} is nothing that bench can measure", remedy=f"name {what}, or two .json of bench")
    with opened as made:
        yield made


def _own(settings: Settings) -> Settings:
    """The plan is built in the service's store, from weights that anybody may have put there: not as root."""
    become_service_user(settings.store.state_dir)
    return settings


@contextmanager
def _of_stored(fingerprint: str, settings: Settings) -> Iterator[Contender]:
    store = EngineStore(settings.store.state_dir, settings.store.max_bytes)
    matching = [name for name in store.plans() if name.startswith(fingerprint)]
    plan = store.get(matching[0]) if len(matching) == 1 else None
    if plan is None:
        raise PlanError(
            f"{len(matching)} plans of {settings.store.state_dir} have the fingerprint {fingerprint}",
            remedy="type more digits, or name the settings whose store has it with --config",
        )
    with _of_plan(plan, settings, "as its plan was built") as made:
        yield made


@contextmanager
def _of_plan(plan: Plan, settings: Settings, reason: str) -> Iterator[Contender]:
    manifest = plan.manifest
    detector = open_detector(Loadable.of(plan), threads=settings.service.threads, nms=nms_of(settings.engine))
    subject = Subject(
        name=manifest.weights_name,
        weights_sha256=manifest.fingerprint.value(WEIGHTS),
        fingerprint=plan.fingerprint,
        backend=manifest.backend,
        library=select(manifest.backend).backend.identity(manifest.wanted).get("library", ""),
        backend_reason=reason,
        precision=manifest.precision.value,
        target=str(manifest.target),
        resolution_hw=manifest.signature.resolution_hw,
        batch=manifest.signature.batch,
        nms_inside=manifest.signature.has_nms or manifest.signature.end_to_end,
        path=detector.path,
    )
    with _closing(detector, subject, settings) as made:
        yield made


@contextmanager
def _of_engine(path: Path, settings: Settings) -> Iterator[Contender]:
    found = engine_files.read(path)
    signature, threads = found.signature, settings.service.threads
    spec = EngineSpec(target=found.target, precision=found.precision or Precision.FP32, batch=signature.batch)
    loadable = Loadable(f"{path.name}, built by {found.header},", "tensorrt", lambda: found.plan, signature, spec)
    detector = open_detector(loadable, threads=threads, nms=nms_of(settings.engine))
    subject = Subject(
        name=path.name,
        weights_sha256=None,
        fingerprint=hashlib.sha256(found.plan).hexdigest(),
        backend="tensorrt",
        library=found.header,
        backend_reason="an engine file was named",
        precision="unknown" if found.precision is None else found.precision.value,
        target=str(found.target),
        resolution_hw=signature.resolution_hw,
        batch=signature.batch,
        nms_inside=signature.has_nms or signature.end_to_end,
        path=detector.path,
    )
    with _closing(detector, subject, settings) as made:
        yield made


@contextmanager
def _closing(detector: Detector, subject: Subject, settings: Settings) -> Iterator[Contender]:
    names = detector.signature.class_names
    tag = EngineTag(subject.fingerprint, subject.precision, subject.target, names)
    threads = settings.service.threads
    try:
        yield Contender(subject, detector, tag, _filter(settings, names), threads)
    finally:
        detector.close()


def _filter(settings: Settings, names: Sequence[str]) -> Filter:
    """Of the first camera; where there is none, of all that would be."""
    first = next(iter(filters_of(settings, names).values()), None)
    return first or Filter(settings.detect.confidence)


def gpu_name(subject: Subject) -> str | None:
    """CUDA's name of the GPU that a plan runs on, or beside for a DLA core; None: it runs on a CPU."""
    target = Target.parse(subject.target)
    return None if target.kind == "cpu" else cuda.describe(gpu_index(subject)).name


def gpu_index(subject: Subject) -> int:
    """CUDA's number of that GPU."""
    target = Target.parse(subject.target)
    return target.index if target.kind == "gpu" else 0
