from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper

from vajra_edge.backends import onnxruntime
from vajra_edge.build import accuracy_check, reference_frames
from vajra_edge.build.accuracy_check import BOUNDS
from vajra_edge.build.reference_frames import Frames
from vajra_edge.errors import VerifyError
from vajra_edge.graph import assemble, signature
from vajra_edge.graph.passes import nms
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision
from vajra_edge.progress import Progress

FP32 = BOUNDS[Precision.FP32]


def quiet(_: Progress) -> None:
    pass


def scenes(objects: int = 8, count: int = 4) -> Frames:
    images = tuple(tiny.scene(objects=objects, seed=seed).image for seed in range(count))
    return Frames(images, "scenes", real=True)


def runner(onnx_bytes: bytes) -> onnxruntime.OnnxRunner:
    return onnxruntime.reference(onnx_bytes, signature.read(onnx_bytes), threads=1)


def changed(name: str, factor: float) -> bytes:
    """The tiny network with one of its constants scaled."""
    network = onnx.load_from_string(tiny.network())
    constant = next(tensor for tensor in network.graph.initializer if tensor.name == name)
    constant.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(constant) * factor).astype(np.float32), name))
    return network.SerializeToString()


def test_a_plan_that_agrees_passes_with_its_figures():
    report = accuracy_check.verify(runner(tiny.network()), runner(tiny.network()), scenes(), FP32, quiet)
    made = report.figures
    assert (made.passed, made.judged, made.reference_boxes, made.recall, made.precision) == (True, True, 24, 1.0, 1.0)
    assert made.reason == "agrees with its FP32 reference: 24 of 24 boxes on 3 frames of scenes"
    assert 0 < made.latency_p50_ms <= made.latency_p99_ms
    assert report.bounds == FP32


def test_the_comparison_ends_once_enough_boxes_were_seen():
    frames = scenes(count=10)
    made = accuracy_check.verify(
        runner(tiny.network()), runner(tiny.network()), frames, replace(FP32, enough_boxes=20), quiet
    ).figures
    assert (made.frames, made.reference_boxes) == (3, 24)


def test_a_few_frames_are_compared_however_many_boxes_the_first_shows():
    frames = scenes(objects=40)
    made = accuracy_check.verify(runner(tiny.network()), runner(tiny.network()), frames, FP32, quiet).figures
    assert (made.frames, made.reference_boxes) == (accuracy_check.LEAST_FRAMES, 40 * accuracy_check.LEAST_FRAMES)


class Slow(onnxruntime.OnnxRunner):
    """Its first call takes 300 ms of its own clock, any other 20."""

    calls, now_s = 0, 0.0

    def infer(self, batch):
        self.calls += 1
        self.now_s += 0.3 if self.calls == 1 else 0.02
        return super().infer(batch)

    def perf_counter(self):
        return self.now_s


def test_latency_is_that_of_the_comparisons_own_calls_without_the_first(monkeypatch):
    slow = Slow(runner(tiny.network())._session, signature.read(tiny.network()))
    monkeypatch.setattr(accuracy_check, "time", slow)
    made = accuracy_check.verify(slow, runner(tiny.network()), scenes(), FP32, quiet).figures
    assert (made.latency_p50_ms, made.latency_p99_ms) == (20.0, 20.0)
    assert accuracy_check.LEAST_CALLS < slow.calls <= accuracy_check.LATENCY_CALLS + 1


def test_a_plan_with_nms_is_compared_by_its_rows():
    with_nms = nms.add_nms(tiny.network(), NmsSpec(max_det=20, top_k=30))
    made = accuracy_check.verify(runner(with_nms), runner(with_nms), scenes(), FP32, quiet).figures
    assert (made.judged, made.reference_boxes) == (True, 24)


@pytest.mark.parametrize(
    ("constant", "factor", "figure"),
    [
        ("colour", 0.01, "recall"),
        ("boxes", 0.5, "recall"),
        ("boxes", 1.01, "mean_iou"),
        ("threshold", 1.6, "score_drift"),
    ],
    ids=["no detection left", "boxes elsewhere", "boxes a little off", "scores lower"],
)
def test_a_sabotaged_plan_fails_with_the_figure_that_shows_it(constant: str, factor: float, figure: str):
    with pytest.raises(VerifyError, match=figure) as raised:
        accuracy_check.verify(runner(changed(constant, factor)), runner(tiny.network()), scenes(), FP32, quiet)
    figures = raised.value.values["report"].figures
    assert figures.passed is False
    assert getattr(figures, figure) is not None or figure == "recall"
    assert "\n" not in str(raised.value)


def test_invented_boxes_fail_too():
    """Every cell scores high on one side: recall is whole, precision is not."""
    with pytest.raises(VerifyError, match="precision"):
        accuracy_check.verify(runner(changed("threshold", 0.01)), runner(tiny.network()), scenes(), FP32, quiet)


def test_too_few_boxes_are_not_judged_and_that_is_said():
    made = accuracy_check.verify(
        runner(changed("colour", 0.01)), runner(tiny.network()), scenes(objects=4), FP32, quiet
    ).figures
    assert (made.passed, made.judged) == (True, False)
    assert "not judged, fewer than 20 boxes: 16 boxes on 4 frames" in made.reason


def test_noise_is_never_judged():
    frames = replace(scenes(), real=False)
    made = accuracy_check.verify(runner(tiny.network()), runner(tiny.network()), frames, FP32, quiet).figures
    assert (made.passed, made.judged) == (True, False)
    assert "no real frames" in made.reason


@pytest.mark.parametrize(("whose", "broken"), [("the plan", 0), ("the network itself", 1)])
def test_an_output_that_is_not_finite_fails_on_any_frame(whose: str, broken: int):
    runners = [runner(tiny.network(nan=side == broken)) for side in (0, 1)]
    with pytest.raises(VerifyError, match=f"{whose} gives values that are not finite"):
        accuracy_check.verify(*runners, replace(scenes(), real=False), FP32, quiet)


def test_a_plan_that_cannot_run_here_has_no_verdict_and_a_reason():
    made = accuracy_check.not_run("no GPU is seen", FP32).figures
    assert (made.judged, made.latency_p50_ms) == (False, None)
    assert "no GPU is seen" in made.reason


def test_the_trained_nano_is_judged_on_the_demos_clip(shared_data: Path):
    onnx_bytes = (shared_data / "models" / "vajra-v1-nano-det-cctv.onnx").read_bytes()
    graph = assemble.simplify(nms.add_nms(onnx_bytes, NmsSpec()))
    found = signature.read(graph)
    backend = onnxruntime.OnnxRuntime()
    plan = backend.build(graph, found, EngineSpec(), quiet).plan
    frames = reference_frames.frames_of(None)
    made = accuracy_check.verify(
        backend.load(plan, found, EngineSpec()), onnxruntime.reference(graph, found), frames, FP32, quiet
    ).figures
    assert made.judged
    assert (made.recall, made.precision) == (1.0, 1.0)
    assert made.mean_iou > 0.999
