from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
import tiny

from vajra_edge.build.request import BuildRequest, images_of
from vajra_edge.errors import CalibrationError
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.quantization import calibration_set, camera_samples, collection
from vajra_edge.quantization.calibration_set import Holdout
from vajra_edge.quantization.camera_samples import Sampler
from vajra_edge.types import Frame

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.fixture
def collect(tmp_path: Path):
    """Freeze some pictures and return their files."""

    def made(seeds: range) -> list[Path]:
        images = Sampler(tmp_path / camera_samples.FOLDER, most=64)
        for seed in seeds:
            images.offer(Frame(tiny.scene(seed=seed).image, 0, NOON, seed, "gate"), 6)
        images.freeze()
        return [images.folder / one.name for one in camera_samples.listed(images.folder)]

    return made


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    spec = EngineSpec(precision=Precision.INT8)
    return BuildRequest(tmp_path / "net.onnx", "0" * 64, "onnxruntime", spec, tmp_path, 1 << 30)


def test_an_image_that_is_lost_after_the_build_was_asked_for_does_not_stop_it(collect, request_):
    paths = collect(range(16))
    asked = replace(request_, calibration_digest=camera_samples.frozen(paths[0].parent).digest)
    paths[5].unlink()
    assert len(images_of(asked)) == 15


def test_another_set_than_when_the_build_was_asked_for_stops_it(collect, request_):
    paths = collect(range(16))
    asked = replace(request_, calibration_digest=camera_samples.frozen(paths[0].parent).digest)
    collection.delete(paths[0].parent)
    collect(range(20, 36))
    with pytest.raises(CalibrationError, match="changed since the build was asked for"):
        images_of(asked)


@pytest.mark.parametrize("count", [2, 16])
def test_ranges_of_what_is_left_are_never_taken_for_those_of_all(collect, count: int):
    paths = collect(range(count))
    whole = camera_samples.frozen(paths[0].parent)
    paths[0].unlink()
    left = camera_samples.frozen(paths[0].parent)
    assert left.digest == whole.digest
    for part in (Holdout.of(whole).fitted, Holdout.of(left).fitted, left.some(1)):
        measured_on = tuple(entry.path for entry in part.pictures.entries)
        assert part.digest == calibration_set.of_files("the same", measured_on).digest != whole.digest
