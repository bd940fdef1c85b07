"""Open: whatever a library can load to something that runs, in one way for the daemon, the tasks and bench."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from vajra_edge.backends import cuda
from vajra_edge.backends.base import Backend, Runner, select
from vajra_edge.backends.cuda.detections import unfit
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.errors import ForeignPlan, UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.inference.cuda_detector import CudaDetector
from vajra_edge.inference.detector import ON_HOST, Detector, HostDetector
from vajra_edge.plans.manifest import Manifest, Plan
from vajra_edge.plans.spec import EngineSpec, NmsSpec
from vajra_edge.types import Frame

WARM_UP = 3
"""Frames inferred before a detector is given out: libraries allocate and choose kernels on the first ones."""

_BLANK_HW = (720, 1280)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loadable:
    """A stored plan, an engine file, or a network as it is.

    Attributes:
        name: for people, as the subject of a sentence.
        backend: the library's, see ``backends.base.BACKENDS``.
        read: gives what the library loads; called once, and only if nothing speaks against loading it.
        signature: what its tensors mean, at the size at which it is to run.
        spec: the precision and the target that it has.
        manifest: of a stored plan, which must be of this machine; None of anything else.
    """

    name: str
    backend: str
    read: Callable[[], bytes]
    signature: Signature
    spec: EngineSpec
    manifest: Manifest | None = None

    @classmethod
    def of(cls, plan: Plan, signature: Signature | None = None) -> Loadable:
        """A stored plan, at its own size if ``signature`` is None."""
        manifest = plan.manifest
        spec = replace(manifest.wanted, precision=manifest.precision, target=manifest.target)
        name = f"plan {plan.fingerprint[:12]}"
        return cls(name, manifest.backend, plan.read, signature or manifest.signature, spec, manifest)


def open_runner(loadable: Loadable, *, threads: int | None = None) -> Runner:
    """The bare engine.

    Args:
        loadable: what to open.
        threads: CPU inference threads; None: all.

    Returns:
        Whoever opened it closes it.

    Raises:
        ForeignPlan: a stored plan of another library release, or of another device.
        PlanError: it is damaged, or its library refuses it.
        UnsupportedSpec: this machine cannot run it.
        BackendUnavailable: the library is absent.
    """
    return _loaded(loadable, _backend(loadable, threads))


def open_detector(
    loadable: Loadable, *, threads: int | None = None, nms: NmsSpec | None = None, kernels: Path | None = None
) -> Detector:
    """A warm detector: on the GPU from the frame to its objects where that can be, else with the host around it.

    Args:
        loadable: what to open.
        threads: CPU inference threads; None: all.
        nms: for an output without it; None: the defaults.
        kernels: folder in which compiled code is kept; None: it is compiled anew.

    Returns:
        Whoever opened it closes it, and the runner with it.

    Raises:
        EngineError: see ``open_runner``; or it fails on its first frames.
    """
    detector = _on_gpu(loadable, threads, nms or NmsSpec(), kernels)
    try:
        _warm_up(detector)
    except BaseException:
        detector.close()
        raise
    return detector


def _on_gpu(loadable: Loadable, threads: int | None, nms: NmsSpec, cache: Path | None) -> Detector:
    backend = _backend(loadable, threads)
    gpu = backend.computes_on_gpu(loadable.spec)
    if gpu is None:
        return HostDetector(_loaded(loadable, backend), nms)
    if (reason := unfit(loadable.signature)) is None:
        try:
            kernels = Kernels(gpu, cache)
        except (cuda.CudaUnavailable, cuda.CudaRefused) as error:
            reason = str(error)
            log.warning("frames are prepared and read on the CPU: %s", error)
        else:
            return _with(kernels, loadable, backend, nms)
    return HostDetector(_loaded(loadable, backend), nms, f"{ON_HOST}: {reason}")


def _with(kernels: Kernels, loadable: Loadable, backend: Backend, nms: NmsSpec) -> CudaDetector:
    try:
        runner = backend.load_on_gpu(loadable.read(), loadable.signature, loadable.spec)
    except BaseException:
        with suppress(cuda.CudaRefused, cuda.CudaUnavailable):  # what failed first is what counts
            kernels.close()
        raise
    return CudaDetector(runner, kernels, nms)


def _backend(loadable: Loadable, threads: int | None) -> Backend:
    backend = select(loadable.backend, threads=threads).backend
    _require_own(loadable, backend)
    if (reason := backend.cannot_run(loadable.spec)) is not None:
        raise UnsupportedSpec(f"{loadable.name} cannot run here: {reason}")
    return backend


def _loaded(loadable: Loadable, backend: Backend) -> Runner:
    return backend.load(loadable.read(), loadable.signature, loadable.spec)


def _require_own(loadable: Loadable, backend: Backend) -> None:
    if (manifest := loadable.manifest) is None:
        return
    if moved := manifest.fingerprint.foreign_to(backend.identity(manifest.wanted)):
        told = "; ".join(moved)
        raise ForeignPlan(f"{loadable.name} is not for this machine: {told}", remedy="it has to be built anew")


def _warm_up(detector: Detector) -> None:
    image = np.full((*_BLANK_HW, 3), 114, np.uint8)
    frame = Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), 0, "warm-up")
    detector.warm_up(frame, WARM_UP)
