"""INT8 in whole builds: calibration, choice of layers, ONNX Runtime's plan, the gate on held-out images, the ladder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import tiny

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.tensorrt import library
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.build import attempt, protocol, worker
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import (
    BuildCancelled,
    BuildError,
    CalibrationError,
    DatasetError,
    OutOfMemory,
    VajraError,
    VerifyError,
)
from vajra_edge.plans import caches
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.plans.store import EngineStore
from vajra_edge.progress import Progress
from vajra_edge.quantization import camera_samples, ptq
from vajra_edge.quantization.calibration_set import FEWEST, MOST, Holdout
from vajra_edge.quantization.observer import observe
from vajra_edge.quantization.ranges import Range, Ranges

Make = Callable[..., BuildRequest]


def quiet(_: Progress) -> None:
    pass


def draw(folder: Path, count: int, objects: int = 8) -> Path:
    folder.mkdir(parents=True)
    for seed in range(count):
        cv2.imwrite(str(folder / f"{seed:02}.png"), tiny.scene(objects=objects, seed=seed).image)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("calibration") / "images", 24)


def asking(request: BuildRequest, images: Path, **calibration: Any) -> BuildRequest:
    """The request with these images, as the daemon makes it."""
    wanted = CalibrationSettings(data=images, **calibration)
    made = camera_samples.wanted_set(wanted, request.state_dir, request.spec.batch)
    return replace(request, calibration=wanted, calibration_digest=made.digest)


@pytest.fixture
def wanted(tmp_path: Path, pictures: Path) -> BuildRequest:
    weights = tmp_path / "tiny.onnx"
    weights.write_bytes(tiny.network(channels=16))
    spec = EngineSpec(nms=NmsSpec(max_det=20, top_k=30), precision=Precision.INT8)
    digest = weights_digest(weights)
    request = BuildRequest(weights, digest, "onnxruntime", spec, tmp_path / "state", 1 << 30, threads=1)
    return asking(request, pictures)


def built(request: BuildRequest) -> Manifest:
    return worker.run(request, quiet).manifest


def range_file(request: BuildRequest) -> Path:
    (path,) = (request.state_dir / caches.RANGES.path).glob("*.json")
    return path


def test_int8_on_a_cpu_is_calibrated_quantized_judged_on_held_out_images_and_runs(wanted: BuildRequest):
    stages: list[str] = []
    plan = worker.run(wanted, lambda progress: stages.append(progress.stage))
    manifest = plan.manifest
    assert list(dict.fromkeys(stages)) == ["load", "simplify", "calibrate", "build", "verify", "store"]
    assert (manifest.precision, manifest.lowered, manifest.report.refused) == (Precision.INT8, False, ())
    int8 = manifest.report.plan.int8
    assert int8.ranges.images == 24 - FEWEST
    assert int8.ranges.source == "measured"
    assert int8.share > 0.5
    assert int8.curve
    verdict = manifest.verify.figures
    assert verdict.judged
    assert verdict.source.endswith("images (held out of calibration)")
    assert (verdict.frames, verdict.reference_boxes) == (FEWEST, 8 * FEWEST)
    runner = onnxruntime.OnnxRuntime(threads=1).load(plan.read(), manifest.signature, manifest.wanted)
    scene = tiny.scene(seed=77)
    assert (runner.infer(tiny.blob(scene.image))[0, :, 4] > 0.25).sum() == len(scene.xyxy)


def sabotage(request: BuildRequest, factor: float, *, signed: bool = True) -> None:
    """Shrink the range of one layer's input in the range file that the next build finds."""
    path = range_file(request)
    content = json.loads(path.read_bytes())
    shrink(content["tensors"], factor)
    if signed:
        body = {name: value for name, value in content.items() if name != "sha256"}
        content["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content))


def shrink(tensors: dict[str, Any], factor: float) -> None:
    name = next(name for name in tensors if name.startswith("mean"))
    low, high, amax, mean = tensors[name]
    tensors[name] = [low, high, amax * factor, mean]


def once_more(request: BuildRequest) -> BuildRequest:
    """Another plan for which the same ranges hold."""
    return replace(request, spec=replace(request.spec, optimization_level=2))


def test_a_range_file_that_is_not_what_was_written_is_measured_again(wanted: BuildRequest):
    built(wanted)
    sabotage(wanted, 0.01, signed=False)
    manifest = built(once_more(wanted))
    assert manifest.report.plan.int8.ranges.source == "measured"
    assert (manifest.precision, manifest.report.refused) == (Precision.INT8, ())


def test_a_range_file_with_one_layer_a_hundredth_is_caught_and_measured_again(wanted: BuildRequest):
    built(wanted)
    sabotage(wanted, 0.01)
    manifest = built(once_more(wanted))
    (rejected,) = manifest.report.refused
    assert (rejected.precision, rejected.plan.int8.ranges.source) == ("int8", "cache")
    assert "int8 drifts from FP32 by" in rejected.reason
    assert manifest.report.plan.int8.ranges.source == "measured"
    assert manifest.precision is Precision.INT8


@pytest.fixture
def sabotaged(wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """Whoever measures, the range of one layer comes out a hundredth of what it is."""

    def falsely(*asked: Any) -> Ranges:
        found = observe(*asked)
        plain = {name: (one.low, one.high, one.amax, one.mean) for name, one in found.tensors.items()}
        shrink(plain, 0.01)
        return replace(found, tensors={name: Range(*row) for name, row in plain.items()})

    monkeypatch.setattr(onnxruntime.OnnxRuntime, "observer", lambda self, spec: falsely)
    return wanted


def test_a_measurement_that_is_wrong_for_one_layer_is_caught_and_the_ladder_takes_over(sabotaged: BuildRequest):
    manifest = built(sabotaged)
    assert (manifest.wanted.precision, manifest.precision, manifest.lowered) == (Precision.INT8, Precision.FP32, True)
    (rejected,) = manifest.report.refused
    assert rejected.precision == "int8"
    assert "int8 drifts from FP32 by" in rejected.reason
    assert rejected.plan.int8.curve
    assert manifest.verify.figures.judged
    assert manifest.verify.figures.recall == 1.0
    assert not list((sabotaged.state_dir / caches.RANGES.path).iterdir()), "what ruined a plan is not kept"


def test_what_the_choice_of_layers_lets_pass_the_gate_catches(sabotaged: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ptq, "_require_faithful", lambda point, told: None)
    manifest = built(sabotaged)
    (rejected,) = manifest.report.refused
    assert "does not agree with its FP32 reference: recall" in rejected.reason
    assert rejected.verify.figures.recall < 0.9
    assert rejected.verify.figures.reference_boxes == 8 * FEWEST
    assert manifest.precision is Precision.FP32


def test_what_was_lowered_is_what_was_wanted_and_is_not_built_again(sabotaged: BuildRequest):
    worker.run(sabotaged, quiet)
    stages: list[str] = []
    again = worker.run(sabotaged, lambda progress: stages.append(progress.stage))
    assert (stages, again.manifest.precision) == ([], Precision.FP32)


def test_a_precision_that_must_not_give_way_fails(sabotaged: BuildRequest):
    with pytest.raises(VerifyError, match="int8 drifts from FP32"):
        worker.run(replace(sabotaged, spec=replace(sabotaged.spec, allow_lower_precision=False)), quiet)


def test_fp16_is_tried_before_fp32_where_the_backend_has_it(sabotaged: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnxruntime.OnnxRuntime, "check", lambda self, spec: None)
    manifest = built(sabotaged)
    assert manifest.precision is Precision.FP16
    assert manifest.verify.figures.recall == 1.0


def refusing(monkeypatch: pytest.MonkeyPatch, **answers: VajraError) -> list[str]:
    """Let ONNX Runtime refuse precisions, as TensorRT does of some networks; what it was asked for comes back."""
    asked: list[str] = []
    real = onnxruntime.OnnxRuntime.build

    def build(self: Any, graph: bytes, signature: Any, spec: EngineSpec, report: Any, **options: Any) -> Any:
        asked.append(spec.precision.value)
        if (error := answers.get(spec.precision.value)) is not None:
            raise error
        return real(self, graph, signature, spec, report, **options)

    monkeypatch.setattr(onnxruntime.OnnxRuntime, "build", build)
    return asked


def test_int8_that_the_library_refuses_ends_no_build_and_is_not_tried_again(
    wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    asked = refusing(monkeypatch, int8=BuildError("no tactic for node mean2", layer="no such layer"))
    manifest = built(wanted)
    assert (manifest.precision, manifest.lowered, manifest.report.rung) == (Precision.FP32, True, "fp32")
    (rejected,) = manifest.report.refused
    assert (rejected.precision, rejected.rung) == ("int8", "int8 by Q/DQ")
    assert rejected.reason == "no tactic for node mean2"
    store = EngineStore(wanted.state_dir, 1 << 30)
    shutil.rmtree(store.root / "engines")
    assert "skipped: refused on 20" in built(wanted).report.refused[0].reason
    assert asked == ["int8", "fp32", "fp32"]
    built(replace(wanted, force=True))
    assert asked[3:] == ["int8", "fp32"]


def test_layers_are_chosen_once_however_many_int8_builds_there_are(
    wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    chosen: list[object] = []
    real, errors = ptq.layer_search.choose, [BuildError("no tactic", layers=["mean2"])]
    monkeypatch.setattr(ptq.layer_search, "choose", lambda *asked: chosen.append(asked) or real(*asked))
    build_ = onnxruntime.OnnxRuntime.build

    def refuse_once(*asked: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return build_(*asked, **options)

    monkeypatch.setattr(onnxruntime.OnnxRuntime, "build", refuse_once)
    manifest = built(wanted)
    assert (manifest.precision, len(chosen)) == (Precision.INT8, 1)
    assert manifest.report.rung == "int8 by Q/DQ with 1 refused layer in fp16"
    int8 = manifest.report.plan.int8
    assert int8.high["mean2"] == attempt.REFUSED
    assert int8.chosen
    assert int8.curve


def test_a_cancel_within_int8_stores_nothing_and_remembers_nothing(
    wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    asked = refusing(monkeypatch, int8=BuildCancelled("asked to"))
    with pytest.raises(BuildCancelled):
        built(wanted)
    assert asked == ["int8"]
    assert not list((wanted.state_dir / caches.REFUSALS.path).iterdir())


def test_want_of_memory_at_every_precision_may_pass(wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    refusing(monkeypatch, int8=OutOfMemory("too little"), fp32=OutOfMemory("too little"))
    with pytest.raises(OutOfMemory) as raised:
        built(wanted)
    assert not worker._permanent(raised.value)


def test_a_precision_that_was_missed_takes_the_place_of_the_lower_plan_once_it_can_be_built(
    wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as short:
        refusing(short, int8=OutOfMemory("too little"))
        lower = built(wanted)
        assert lower.precision is Precision.FP32
        with pytest.raises(OutOfMemory):
            built(replace(wanted, missed=True))
        assert built(wanted) == lower, "it is untouched"
    better = built(replace(wanted, missed=True))
    assert better.precision is Precision.INT8
    assert better.fingerprint == lower.fingerprint
    assert built(replace(wanted, missed=True)) == better, "nothing is above it"


def test_the_build_child_of_a_library_that_refuses_int8_gives_a_plan(wanted: BuildRequest):
    script = Path(__file__).with_name("refusing_build.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(wanted.to_json()).encode(), capture_output=True, check=False, env=environment,
    )  # fmt: skip
    lines = [protocol.decode(line) for line in done.stdout.splitlines()]
    assert isinstance(lines[-1], protocol.Done), done.stderr.decode()
    plan = EngineStore(wanted.state_dir, 1 << 30).get(lines[-1].fingerprint)
    assert plan is not None
    assert plan.manifest.precision is Precision.FP32
    assert plan.manifest.report.refused[0].reason == "no tactic for node mean2"
    percents = [line.percent for line in lines if isinstance(line, Progress) and line.stage == "build" and line.percent]
    assert percents == sorted(percents)


def other_weights(request: BuildRequest) -> BuildRequest:
    request.weights_path.write_bytes(tiny.network(gain=30.0, channels=16))
    return replace(request, weights_sha256=weights_digest(request.weights_path))


def other_images(request: BuildRequest) -> BuildRequest:
    folder = request.state_dir.parent / "others"
    shutil.copytree(request.calibration.data, folder)
    (folder / "00.png").unlink()
    return asking(request, folder)


def other_algorithm(request: BuildRequest) -> BuildRequest:
    return asking(request, request.calibration.data, algorithm="percentile")


@pytest.mark.parametrize("other", [other_weights, other_images, other_algorithm])
def test_ranges_are_reused_for_exactly_what_they_were_measured_on(
    wanted: BuildRequest, other: Callable[[BuildRequest], BuildRequest]
):
    assert built(wanted).report.plan.int8.ranges.source == "measured"
    assert built(once_more(wanted)).report.plan.int8.ranges.source == "cache"
    assert built(replace(wanted, force=True)).report.plan.int8.ranges.source == "measured"
    sabotage(wanted, 0.01)
    manifest = built(other(wanted))
    assert manifest.report.plan.int8.ranges.source == "measured"
    assert manifest.precision is Precision.INT8


def test_ranges_of_earlier_weights_are_reused_when_asked_for_and_the_manifest_says_so(wanted: BuildRequest):
    built(wanted)
    calibration = wanted.calibration.model_copy(update={"reuse": True})
    manifest = built(other_weights(replace(wanted, calibration=calibration)))
    assert manifest.report.plan.int8.ranges.source.startswith("reused")


def test_ranges_of_other_images_are_not_reused_even_when_asked_for(wanted: BuildRequest):
    built(wanted)
    asked = other_images(wanted)
    calibration = asked.calibration.model_copy(update={"reuse": True})
    manifest = built(replace(asked, calibration=calibration))
    assert manifest.report.plan.int8.ranges.source == "measured"


def test_int8_that_cannot_be_judged_is_not_promoted(wanted: BuildRequest, tmp_path: Path):
    manifest = built(asking(wanted, draw(tmp_path / "empty street", 12, objects=1)))
    assert manifest.precision is Precision.FP32
    (rejected,) = manifest.report.refused
    assert "not judged, fewer than 20 boxes: 4 boxes on 4 frames" in rejected.reason
    assert "int8 is not used until it can be judged" in rejected.reason


def test_a_source_that_fails_on_its_seventh_image_fails_the_build_and_says_so(wanted: BuildRequest, tmp_path: Path):
    folder = draw(tmp_path / "bad", 24)
    (folder / "06.png").write_bytes(b"no picture")
    with pytest.raises(CalibrationError, match=r"calibration image 6 of 20: .*06.png: not an image") as raised:
        worker.run(asking(wanted, folder), quiet)
    assert worker._permanent(raised.value)
    assert EngineStore(wanted.state_dir, 1).plans() == ()
    assert not (wanted.state_dir / caches.RANGES.path).exists()


def test_an_image_of_the_gate_that_cannot_be_read_fails_the_build_too(wanted: BuildRequest, tmp_path: Path):
    folder = draw(tmp_path / "bad", 24)
    (folder / "00.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"00.png: not an image"):
        worker.run(asking(wanted, folder), quiet)
    assert EngineStore(wanted.state_dir, 1).plans() == ()


def test_images_that_changed_since_they_were_asked_for_are_not_used(wanted: BuildRequest):
    with pytest.raises(CalibrationError, match="changed since the build was asked for"):
        worker.run(replace(wanted, calibration_digest="0" * 64), quiet)


def test_int8_without_images_is_refused_with_the_remedy(wanted: BuildRequest):
    with pytest.raises(CalibrationError, match=r"no calibration images; .*\[calibration\] data"):
        worker.run(replace(wanted, calibration=CalibrationSettings()), quiet)


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (8, 4), (24, 4), (80, 10), (2000, MOST)])
def test_the_gate_gets_one_image_in_eight_and_none_that_ranges_come_from(tmp_path: Path, count: int, held: int):
    paths = tuple(tmp_path / f"{number}.png" for number in range(count))
    split = Holdout.of(camera_samples.calibration_set.of_files("here", paths))
    fitted = [entry.path for entry in split.fitted.pictures.entries]
    judged = [entry.path for entry in split.judged.pictures.entries] if split.judged else []
    assert (len(judged), set(fitted) | set(judged)) == (held, set(paths))
    assert len(fitted) + len(judged) == count
    assert fitted == [path for path in paths if path in fitted]


@pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in library.MODULES), reason="absent here: TensorRT-RTX"
)
@pytest.mark.parametrize("precision", Precision)
def test_tensorrt_gets_each_precision_as_it_wants_it(wanted: BuildRequest, precision: Precision):
    """The real builder; what it built for a GPU that is not here has no verdict and a reason."""
    spec = replace(wanted.spec, target=Target("gpu", 0), precision=precision)
    if TensorRT().cannot_run(spec) is None:
        pytest.skip("absent here: a machine without a GPU")
    manifest = built(replace(wanted, backend="tensorrt", spec=spec))
    assert (manifest.precision, manifest.backend, manifest.report.refused) == (precision, "tensorrt", ())
    assert (manifest.report.plan.int8 is not None) == (precision is Precision.INT8)
    assert (manifest.verify.figures.judged, manifest.verify.figures.recall) == (False, None)
    assert "not judged, the plan cannot run here" in manifest.verify.figures.reason
