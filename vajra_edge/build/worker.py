"""Worker: a request to a verified plan in the store, in the build child or in a process that an operator started.

``python -m vajra_edge.build.worker`` reads one JSON request on stdin and writes the lines of ``protocol``: progress as
often as it likes, then done or failed. SIGTERM cancels at the next report of progress.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import logging
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from datetime import datetime, timezone

from vajra_edge.backends.base import Backend, select
from vajra_edge.build import protocol as build_protocol
from vajra_edge.build.attempt import Graph
from vajra_edge.build.outcome import Cancelled, Proved, Unproved
from vajra_edge.build.precision_fallback import prove
from vajra_edge.build.progress import Stages
from vajra_edge.build.request import BuildRequest, images_of, weights_digest
from vajra_edge.clock import is_synchronised
from vajra_edge.errors import (
    BackendUnavailable,
    BuildCancelled,
    BuildError,
    CalibrationError,
    DatasetError,
    GraphError,
    InferenceError,
    OutOfMemory,
    StoreError,
    VajraError,
    WeightsError,
)
from vajra_edge.plans import pin
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.manifest import Manifest, Plan
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.plans.store import EngineStore
from vajra_edge.progress import Progress, Report
from vajra_edge.wording import Setting, say, several

MAX_ONNX_BYTES = 1 << 30
"""Read no further: ``graph.topology`` refuses more."""


def size_bytes(request: BuildRequest) -> int:
    """Length of the weights file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return request.weights_path.stat().st_size
    except OSError as error:
        raise _unreadable(request, error) from error


def onnx_of(request: BuildRequest) -> bytes:
    """The network of the weights file as FP32 ONNX.

    Raises:
        WeightsError: the file is absent, damaged, or of another kind.
        GraphError: it cannot be exported as asked for.
        BuildError: it is not the file that was asked for, for it changed meanwhile; not permanent.
    """
    path = request.weights_path
    if path.suffix.lower() == ".onnx":
        content = _read(request)
        if hashlib.sha256(content).hexdigest() != request.weights_sha256:
            raise _changed(request)
        return content
    if path.suffix.lower() in (".pt", ".pth"):
        return _exported(request)
    raise WeightsError(
        f"weights {path} are neither .pt nor .onnx",
        remedy="give one of these; engines built elsewhere are never loaded",
        path=path,
    )


def _read(request: BuildRequest) -> bytes:
    try:
        with request.weights_path.open("rb") as file:
            content = file.read(MAX_ONNX_BYTES + 1)
    except OSError as error:
        raise _unreadable(request, error) from error
    if len(content) > MAX_ONNX_BYTES:
        raise WeightsError(f"weights {request.weights_path} are larger than 1 GiB", remedy="export a smaller network")
    return content


def _exported(request: BuildRequest) -> bytes:
    from vajra_edge.graph import export

    spec = request.spec
    try:
        return export.from_checkpoint(
            request.weights_path,
            resolution_hw=spec.resolution_hw,
            batch=spec.batch or 1,
            dynamic=spec.dynamic,
            opset=spec.opset,
            expected_sha256=request.weights_sha256,
            python=request.weights_python,
        )
    except WeightsError as error:
        if weights_digest(request.weights_path) != request.weights_sha256:
            raise _changed(request) from error
        raise


def _changed(request: BuildRequest) -> BuildError:
    error = BuildError(
        f"weights {request.weights_path} changed while they were read",
        remedy="the build starts again with the new file",
    )
    error.permanent = False
    return error


def _unreadable(request: BuildRequest, error: OSError) -> WeightsError:
    path = request.weights_path
    return WeightsError(f"weights {path} cannot be read: {error.strerror}", remedy="copy the file again", path=path)


LOCK_WAIT_S = 3600.0
"""Another build, started by hand, may take this long."""

NO_MEMORY = say(
    "the build ran out of memory; free memory, or lower ", several(Setting.BATCH, Setting.IMG_SIZE, last="or")
)

PLAN_PER_WEIGHTS = 2
"""A plan is about as large as FP32 weights, and a .pt file stores them in FP16."""


def run(request: BuildRequest, report: Report) -> Plan:
    """Build what is asked for, unless the store has it.

    Args:
        request: every ``auto`` decided.
        report: takes progress; raises ``BuildCancelled`` to stop.

    Raises:
        VajraError: weights, graph, backend, accuracy check or store stand in the way; nothing is left half done.
    """
    backend = select(request.backend, threads=request.threads, state_dir=request.state_dir).backend
    if (error := backend.check(request.spec)) is not None:
        raise error
    fingerprint = Fingerprint.of(request, backend.identity(request.spec))
    store = EngineStore(request.state_dir, request.max_bytes)
    with store.lock("build", wait_s=LOCK_WAIT_S, waiting=lambda who: report(_waiting(who))):
        started_s = time.monotonic()  # another build's time is not this one's
        plan = None if request.force else store.get(fingerprint.digest)
        if plan is not None and not (request.missed and plan.manifest.precision is not request.spec.precision):
            return plan
        stages = Stages(report)
        above = None if plan is None else plan.manifest.precision
        plan_bytes, manifest = _made(request, fingerprint, backend, store, stages, started_s, above)
        with stages("store", f"storing {len(plan_bytes) / 1e6:.1f} MB"):
            return store.commit(plan_bytes, replace(manifest, build_s=time.monotonic() - started_s))


def _waiting(who: str) -> Progress:
    return Progress("load", None, who, waiting=True)


def _made(
    request: BuildRequest,
    fingerprint: Fingerprint,
    backend: Backend,
    store: EngineStore,
    stages: Stages,
    started_s: float,
    above: Precision | None,
) -> tuple[bytes, Manifest]:
    """From the weights to a plan that passed its accuracy check; nothing is stored yet."""
    with stages("load", f"reading {request.weights_path.name}"):
        store.prune(keep=(fingerprint.digest, *request.keep, *pin.kept(request.state_dir)))
        store.require_space(PLAN_PER_WEIGHTS * size_bytes(request))
        onnx_bytes = onnx_of(request)
        images = images_of(request) if request.spec.precision is Precision.INT8 else None
    with stages("simplify", "preparing the graph"):
        spec = replace(request.spec, simplify=request.spec.simplify and not backend.simplifies(request.spec))
        graph = _assembled(request, onnx_bytes, spec)
    match prove(request, backend, graph, stages, images, began_s=started_s, above=above):
        case Proved() as proved:
            return proved.passed.built.plan, _manifest(request, fingerprint, backend, proved, stages)
        case Unproved(error):
            raise error
        case Cancelled(reason):
            raise BuildCancelled(reason)


def _manifest(
    request: BuildRequest, fingerprint: Fingerprint, backend: Backend, proved: Proved, stages: Stages
) -> Manifest:
    passed, synchronised = proved.passed, is_synchronised()
    return Manifest(
        fingerprint=fingerprint,
        backend=backend.name,
        signature=passed.signature,
        wanted=request.spec,
        precision=passed.built.precision,
        target=passed.built.target,
        verify=passed.verdict,
        report=proved.report(stages),
        weights_name=request.weights_path.name,
        build_s=0.0,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        clock_synchronised=synchronised,
    )


def _assembled(request: BuildRequest, onnx_bytes: bytes, spec: EngineSpec) -> Graph:
    """What a backend builds from.

    Raises:
        GraphError: the weights make no such graph.
    """
    from vajra_edge.graph.assemble import assemble

    try:
        return Graph(*assemble(onnx_bytes, spec, class_names=request.class_names, stride=request.stride))
    except GraphError as error:
        raise GraphError(say(f"weights {request.weights_path}: ", error.message), remedy=error.remedy) from error


class _Protocol:
    """The child's end of the pipe. SIGTERM sets a flag that the next report notices."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._cancelled = threading.Event()
        self._writing = threading.Lock()

    def cancel(self, *_: object) -> None:
        self._cancelled.set()

    def report(self, progress: Progress) -> None:
        if self._cancelled.is_set():
            raise BuildCancelled("the build was cancelled")
        self.send(progress)

    def send(self, line: build_protocol.Line) -> None:
        with self._writing:
            build_protocol.send(self._descriptor, line)


def main(arguments: list[str] | None = None) -> int:
    """The build child: one request on stdin, the lines of ``wire`` on stdout, everything else on stderr."""
    parser = argparse.ArgumentParser(prog="vajra_edge.build.worker")
    parser.add_argument("--parent", type=int, help="die with this process")
    parent = parser.parse_args(arguments).parent
    if parent is not None:
        build_protocol.die_with(parent)
    protocol = _Protocol(build_protocol.claim_stdout())
    signal.signal(signal.SIGTERM, protocol.cancel)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGABRT})  # a daemon may have them blocked
    faulthandler.enable()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="build: %(message)s")
    line = _answer(sys.stdin.buffer.read(), protocol.report)
    protocol.send(line)
    return 0 if isinstance(line, build_protocol.Done) else 1


def _answer(request_json: bytes, report: Report) -> build_protocol.Line:
    """Build, and turn whatever stops it into one line: the top of this process."""
    try:
        request = BuildRequest.from_json(json.loads(request_json))
        build_protocol.give_way(request.address_space_bytes)
        plan = run(request, report)
    except VajraError as error:
        images = isinstance(error, CalibrationError | DatasetError)
        return _failed(str(error), permanent=_permanent(error), images=images)
    except MemoryError:
        return _failed(str(NO_MEMORY), permanent=False)
    except Exception as error:  # noqa: BLE001  the top of a process: a bug becomes one line, its traceback goes to the journal
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        return _failed(
            f"the build failed with {type(error).__name__}: {text}; the journal has the traceback", permanent=False
        )
    return build_protocol.Done(plan.fingerprint, build_protocol.peak_rss_bytes())


def _failed(message: str, *, permanent: bool, images: bool = False) -> build_protocol.Failed:
    return build_protocol.Failed(message, permanent, build_protocol.peak_rss_bytes(), images)


def _permanent(error: VajraError) -> bool:
    """Whether trying again cannot help: a full disk or a driver that is not up yet passes, a wrong graph does not."""
    passing = (StoreError, BackendUnavailable, InferenceError, BuildCancelled, OutOfMemory)
    return error.permanent if isinstance(error, BuildError) else not isinstance(error, passing)


if __name__ == "__main__":
    sys.exit(main())
