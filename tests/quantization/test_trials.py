from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yolo

from vajra_edge.errors import CalibrationError
from vajra_edge.graph import signature
from vajra_edge.graph.passes.instrument import Mixtures, measurable
from vajra_edge.graph.passes.qdq import place, quantize
from vajra_edge.graph.passes.qoperator import to_qlinear
from vajra_edge.graph.topology import Wiring, key, load
from vajra_edge.progress import Progress
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.layer_search import CONFIRM_IMAGES, COST_IMAGES, Drift, Trials


class Bench:
    """The small network with a range of 4 everywhere, and where its trials are reported."""

    def __init__(self, plain: bytes, pictures: Path, fused: bool = False, most_images: int = 1000) -> None:
        wiring, tensors = Wiring(load(plain)), measurable(plain)
        placed = place(wiring)
        known = placed.layers.union(placed.shortcuts)
        self.units = [key(node) for node in wiring.nodes if key(node) in known]
        quantized = quantize(plain, placed, dict.fromkeys(tensors, 4.0))
        if fused:
            quantized = to_qlinear(quantized, dict.fromkeys(tensors, (-4.0, 4.0)))
        mixtures = Mixtures(plain, quantized, self.units, "output0")
        self.said: list[Progress] = []
        self.trials = Trials(mixtures, "output0", signature.read(plain), 1, self.said.append, most_images)
        self.trials.pick(CalibrationSet.collect(pictures))

    def costs(self, units: list[str]) -> dict[str, Drift]:
        return {unit: self.trials.run(frozenset({unit}), COST_IMAGES) for unit in units}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for at, picture in enumerate(yolo.images(10)):
        cv2.imwrite(str(made / f"{at:02}.png"), (picture.transpose(1, 2, 0)[:, :, ::-1] * 255).astype(np.uint8))
    return made


def test_without_int8_nothing_drifts(pictures: Path) -> None:
    found = Bench(yolo.network(), pictures).trials.run(frozenset(), CONFIRM_IMAGES)
    assert found.total == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_what_is_known_of_earlier_layers_changes_no_cost(pictures: Path, fused: bool, batch: int) -> None:
    """In graph order most trials start inside the network; in the opposite order each starts at the images."""
    plain = yolo.network(batch=batch)
    forward, backward = Bench(plain, pictures, fused), Bench(plain, pictures, fused)
    found, expected = forward.costs(forward.units), backward.costs(backward.units[::-1])
    assert max(one.total for one in found.values()) > 0.001
    for unit in forward.units:
        assert found[unit].total == pytest.approx(expected[unit].total, rel=1e-3, abs=1e-5), unit


def test_each_trial_says_how_many_of_the_inferences_are_done(pictures: Path) -> None:
    bench = Bench(yolo.network(), pictures, most_images=20)
    for count in (1, 1, 8):
        bench.trials.run(frozenset(bench.units), count)
    assert [(step.stage, step.percent) for step in bench.said] == [
        ("calibrate", 0),
        ("calibrate", 5),
        ("calibrate", 10),
    ]
    assert bench.said[-1].message == "choosing layers: trial 3"


def test_a_network_that_is_not_finite_is_refused(pictures: Path) -> None:
    model = load(yolo.network())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith(".bias"))
    bias.raw_data = np.full(bias.dims[0], np.nan, np.float32).tobytes()
    with pytest.raises(CalibrationError, match="not finite"):
        Bench(model.SerializeToString(), pictures)
