from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vajra_edge.errors import ForeignPlan, InferenceError, UnsupportedSpec
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference import open_detector as module
from vajra_edge.inference.open_detector import Loadable, open_detector, open_runner
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target

SIGNATURE = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, ("cat",))
SPEC = EngineSpec(target=Target("cpu"), precision=Precision.FP32)


class Library:
    """A backend that loads anything, remembers what it was given, and is its own runner."""

    def __init__(self):
        self.threads = self.loaded = self.reason = None
        self.calls = self.closed = 0
        self.fails = False
        self.signature = SIGNATURE

    def identity(self, spec):
        return {"library": f"ours for {spec.target}"}

    def cannot_run(self, spec):
        return self.reason

    def computes_on_gpu(self, spec):
        return None

    def load(self, content, signature, spec):
        self.loaded = content, signature, spec
        return self

    def infer(self, batch):
        self.calls += 1
        if self.fails:
            raise InferenceError("refused")
        return np.zeros((len(batch), 5, 4), np.float32)

    def close(self):
        self.closed += 1


@pytest.fixture
def library(monkeypatch):
    made = Library()

    def select(name, *, threads):
        assert name == "ours"
        made.threads = threads
        return SimpleNamespace(backend=made)

    monkeypatch.setattr(module, "select", select)
    return made


def network(read=lambda: b"network"):
    return Loadable("net.onnx", "ours", read, SIGNATURE, SPEC)


def stored(moved=()):
    """A plan of the store that was wanted on a DLA core and came out on the CPU, and what its library was asked."""
    asked = []
    fingerprint = SimpleNamespace(foreign_to=lambda identity: asked.append(identity) or moved)
    wanted = EngineSpec(target=Target("dla", 0), precision=Precision.INT8)
    manifest = SimpleNamespace(
        fingerprint=fingerprint,
        backend="ours",
        signature=SIGNATURE,
        wanted=wanted,
        precision=Precision.FP32,
        target=Target("cpu"),
    )
    return SimpleNamespace(fingerprint="ab" * 32, manifest=manifest, read=lambda: b"plan"), asked


def test_a_detector_is_warm_and_has_what_it_was_opened_with(library):
    detector = open_detector(network(), threads=3, nms=NmsSpec(iou=0.5))
    assert library.loaded == (b"network", SIGNATURE, SPEC)
    assert library.threads == 3
    assert library.calls == module.WARM_UP
    assert (detector.runner, detector.in_flight) == (library, 0)
    detector.close()
    assert library.closed == 1


def test_what_fails_on_its_first_frame_is_closed_and_told(library):
    library.fails = True
    with pytest.raises(InferenceError, match="refused"):
        open_detector(network())
    assert library.closed == 1


def test_a_stored_plan_runs_as_what_it_is_and_not_as_what_was_wanted(library):
    plan, asked = stored()
    open_runner(Loadable.of(plan))
    content, signature, spec = library.loaded
    assert (content, signature, spec.precision, str(spec.target)) == (b"plan", SIGNATURE, Precision.FP32, "cpu")
    assert asked == [{"library": "ours for dla:0"}]


def test_a_stored_plan_of_another_machine_is_not_even_read(library):
    plan, _ = stored(moved=("TensorRT 10.3.0 -> 10.16.2",))
    with pytest.raises(ForeignPlan, match=r"plan abababababab is not for this machine: TensorRT 10\.3\.0 -> 10\.16\.2"):
        open_runner(Loadable.of(plan))
    assert library.loaded is None


def test_what_this_machine_cannot_run_is_not_even_read(library):
    library.reason = "no GPU is seen"
    with pytest.raises(UnsupportedSpec, match=r"net\.onnx cannot run here: no GPU is seen"):
        open_runner(network(lambda: pytest.fail("it was read")))
    assert library.loaded is None
