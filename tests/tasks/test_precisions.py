"""What FP16 and INT8 cost a real network in mAP50-95, as somebody at a desk sees it: export, then val."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vajra_edge import Vajra
from vajra_edge.tasks.arguments import ExportArguments


@pytest.fixture(scope="module")
def halves(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two data.yaml files that share no photo: one to calibrate with, one to be scored on."""
    folder = tmp_path_factory.mktemp("halves")
    names = yaml.safe_load((shared_data / "coco128.yaml").read_text())["names"]
    photos = sorted((shared_data / "images" / "coco128").resolve().glob("*.jpg"))
    made = []
    for number, part in enumerate((photos[::2], photos[1::2])):
        (folder / f"{number}.txt").write_text("\n".join(map(str, part)))
        content = {"path": str(folder), "train": f"{number}.txt", "val": f"{number}.txt", "names": names}
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(content))
        made.append(folder / f"{number}.yaml")
    return made[0], made[1]


@pytest.fixture(scope="module")
def weights(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOX-nano: its 30 depthwise convolutions make it the hard case of INT8."""
    copy = tmp_path_factory.mktemp("weights") / "yolox.onnx"
    copy.write_bytes((shared_data / "models" / "yolox_nano_v8layout.onnx").read_bytes())
    return copy


def points(network: Path, data: Path) -> float:
    return 100 * Vajra(str(network)).val(data=data).map50_95


def test_fp16_costs_nothing_and_int8_a_point_or_two_on_photos_it_was_not_calibrated_on(
    weights: Path, halves: tuple[Path, Path]
) -> None:
    """64 photos give mAP50-95 a noise of about a point; tests/bench/int8_accuracy.py measures with more care."""
    calibration, scored = halves
    before = points(weights, scored)
    network = Vajra(str(weights))
    half = network.export(format="onnx", half=True, img_size=416)
    assert abs(points(half, scored) - before) < 0.5
    found = network.exported(ExportArguments(format="onnx", int8=True, img_size=416, data=str(calibration)))
    assert found.to_json()["rejected"] == []
    assert found.report.plan.int8.share > 0.6
    assert before - points(found.path, scored) < 2.5
