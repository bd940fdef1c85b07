"""Preparation of a build's images: by whatever prepares frames when the plan serves, as ``inference`` chooses it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vajra_edge.backends import cuda
from vajra_edge.backends.base import Backend
from vajra_edge.backends.cuda import kernel_letterbox
from vajra_edge.backends.cuda.detections import unfit
from vajra_edge.backends.cuda.kernel_letterbox import KernelLetterbox
from vajra_edge.geometry.preparation import HOST, Preparation
from vajra_edge.graph.signature import Signature
from vajra_edge.plans import caches
from vajra_edge.plans.spec import EngineSpec

log = logging.getLogger(__name__)


@contextmanager
def production(backend: Backend, spec: EngineSpec, signature: Signature, state_dir: Path) -> Iterator[Preparation]:
    """What prepares frames of a plan in service, for the length of a block.

    Its memory is one input and the largest image that comes, on the GPU and pinned on the host.

    Args:
        backend: builds and runs the plan.
        spec: of the plan.
        signature: of its graph.
        state_dir: compiled kernels are kept below it.
    """
    gpu = backend.computes_on_gpu(spec)
    if gpu is None or unfit(signature) is not None:
        yield HOST
        return
    try:
        kernel = KernelLetterbox(signature.resolution_hw, gpu, state_dir / caches.KERNELS.path)
    except (cuda.CudaUnavailable, cuda.CudaRefused) as error:
        log.warning("frames are prepared on the CPU: %s", error)
        yield Preparation(told=f"images prepared on the CPU: {error.message}")
        return
    with kernel:
        yield Preparation(kernel, kernel_letterbox.way(), f"images prepared on gpu:{gpu}")
