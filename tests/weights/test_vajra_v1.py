"""The rebuilt networks are upstream's: keys, shapes and numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from checkpoints import NAMES, random_network

from vajra_edge.errors import WeightsError
from vajra_edge.geometry.letterbox import placement
from vajra_edge.heads.detect import best_class
from vajra_edge.weights import checkpoint
from vajra_edge.weights.checkpoint import Checkpoint, load

SIZES = ("nano", "small", "medium", "large", "xlarge")
PARAMETERS = {  # size: train form, deploy form without the dead branches that upstream leaves behind
    "nano": (3_784_096, 3_698_912),
    "small": (11_576_032, 11_396_352),
    "medium": (20_290_560, 20_047_168),
    "large": (24_627_200, 24_166_080),
    "xlarge": (72_698_240, 69_773_440),
}


def made(tensors: Any, size: str, class_count: int) -> Checkpoint:
    return Checkpoint(tensors, tuple(f"class{i}" for i in range(class_count)), 32, "detect", size, "0" * 64)


def golden(fill_rule: ModuleType, shared_data: Path, torch: Any, size: str) -> Any:
    from vajra_edge.weights.vajra_v1 import build

    manifest = json.loads((shared_data / "golden" / f"manifest_{size}.json").read_text())
    filled = {key: torch.from_numpy(np.asarray(fill_rule.fill(key, tuple(shape), size))) for key, shape, _ in manifest}
    return build(made(filled, size, 80))


@pytest.mark.parametrize("size", ["nano", "small", "large"])
def test_outputs_equal_upstreams(torch: Any, fill_rule: ModuleType, shared_data: Path, size: str) -> None:
    from vajra_edge.weights.fusion import fuse

    network = golden(fill_rule, shared_data, torch, size)
    reference = np.load(shared_data / "golden" / f"golden_{size}.npz")
    images = torch.from_numpy(fill_rule.golden_input())
    output = network(images).numpy()
    assert output.shape == tuple(reference["shape"])
    is_box = (reference["index"] // output.shape[2]) % output.shape[1] < 4
    difference = np.abs(output.ravel()[reference["index"]] - reference["value"])
    assert difference[is_box].max() < 3e-3
    assert difference[~is_box].max() < 1e-5
    fuse(network)
    fused = network(images).numpy()
    assert np.abs(fused - output)[:, :4].max() / np.abs(output[:, :4]).max() < 1e-4
    assert np.abs(fused - output)[:, 4:].max() / np.abs(output[:, 4:]).max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_keys_shapes_and_order_are_upstreams(torch: Any, shared_data: Path, size: str) -> None:
    from vajra_edge.weights.vajra_v1 import VajraV1

    manifest = json.loads((shared_data / "golden" / f"manifest_{size}.json").read_text())
    with torch.device("meta"):
        own = VajraV1(size, 80).state_dict()
    assert [[key, list(value.shape)] for key, value in own.items()] == [[key, shape] for key, shape, _ in manifest]
    shapes = {key: tuple(shape) for key, shape, _ in manifest}
    assert checkpoint.of(shapes, "x.pt") == checkpoint.Identity(size, 80)


@pytest.mark.parametrize("class_count", [1, 80])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_and_class_count_is_recognised_and_fused(torch: Any, size: str, class_count: int) -> None:
    from vajra_edge.weights.fusion import fuse
    from vajra_edge.weights.vajra_v1 import VajraV1, build

    with torch.device("meta"):
        network = VajraV1(size, class_count)
    state_dict = network.state_dict()
    found = checkpoint.of({key: tuple(value.shape) for key, value in state_dict.items()}, "x.pt")
    assert found == checkpoint.Identity(size, class_count)
    rebuilt = build(made(state_dict, size, class_count))
    before = sum(value.numel() for value in rebuilt.parameters())
    fuse(rebuilt)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in rebuilt.modules())
    if class_count == 80:
        assert (before, sum(value.numel() for value in rebuilt.parameters())) == PARAMETERS[size]


@pytest.mark.parametrize("photo", ["bus", "vtest700"])
def test_trained_weights_see_what_upstream_sees(torch: Any, shared_data: Path, photo: str) -> None:
    from vajra_edge.weights.fusion import fuse
    from vajra_edge.weights.vajra_v1 import build

    network = build(load(shared_data / "models" / "vajra-v1-nano-det-cctv.pt"))
    fuse(network)
    stored = np.load(shared_data / "golden" / f"trained_nano_{photo}.npz")
    image = stored["image_rgb"].transpose(2, 0, 1)[None].astype(np.float32) / 255
    output = network(torch.from_numpy(image)).numpy()
    assert np.abs(output[:, :4] - stored["boxes"]).max() < 1e-2
    assert np.abs(output[:, 4:] - stored["scores_f16"].astype(np.float32)).max() < 5e-4
    height, width = (int(side) for side in stored["orig_hw"])
    for confidence in (0.25, 0.05):
        expected = stored[f"dets_conf{round(confidence * 100):03d}"]
        found = best_class(output[0], confidence, 0.7, 300)
        xyxy = placement((width, height), (640, 640)).to_image(found.xyxy, (width, height))
        assert len(found.xyxy) == len(expected)
        order = np.argsort(-found.confidence)
        assert np.array_equal(found.class_id[order], expected[:, 5].astype(int))
        assert np.abs(xyxy[order] - expected[:, :4]).max(initial=0) < 0.1
        assert np.abs(found.confidence[order] - expected[:, 4]).max(initial=0) < 5e-4
    assert len(stored["dets_conf025"]) == {"bus": 0, "vtest700": 10}[photo]


def test_deploy_form_gives_the_same_boxes_and_scores(torch: Any) -> None:
    from vajra_edge.weights.fusion import fuse

    network = random_network(class_count=1)
    images = torch.rand((2, 3, 96, 160), generator=torch.Generator().manual_seed(0))
    before = network(images)
    assert before.shape == (2, 5, 12 * 20 + 6 * 10 + 3 * 5)
    assert before[:, 4:].std() > 1e-3
    fuse(network)
    after = network(images)
    assert (after - before).abs().max() / before.abs().max() < 1e-4
    assert (after - before)[:, 4:].abs().max() < 1e-5


def test_boxes_are_centres_and_sizes_in_pixels(torch: Any) -> None:
    """With equal bins every distance is the mean of 0..15, so each box is 15 cells wide around its cell's centre."""
    network = random_network()
    for branch in network.head.branch_det:
        branch[2].weight.zero_()
        branch[2].bias.zero_()
    boxes = network(torch.zeros(1, 3, 64, 96))[0, :4].T
    assert boxes[0].tolist() == pytest.approx([4, 4, 120, 120])
    assert boxes[1].tolist() == pytest.approx([12, 4, 120, 120])
    assert boxes[8 * 12].tolist() == pytest.approx([8, 8, 240, 240])
    assert boxes[-1].tolist() == pytest.approx([80, 48, 480, 480])


def test_tensors_that_do_not_fit_are_named(torch: Any) -> None:
    from vajra_edge.weights.vajra_v1 import build

    sound = made(random_network().state_dict(), "nano", len(NAMES))
    key = "model.0.stem2.conv.weight"
    without = {name: value for name, value in sound.tensors.items() if name != key}
    for tensors, says in (
        (without, f"1 missing .first {key}"),
        ({**sound.tensors, "model.0.extra": torch.zeros(1)}, "1 unknown .first model.0.extra"),
        (
            {**sound.tensors, key: torch.zeros(2, 3)},
            rf"1 of another shape .first {key}: \(2, 3\), not \(32, 16, 3, 3\)",
        ),
    ):
        with pytest.raises(WeightsError, match=says):
            build(dataclasses.replace(sound, tensors=tensors))
