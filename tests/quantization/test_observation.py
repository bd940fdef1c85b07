from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import yolo
from near import assert_near
from numpy.typing import NDArray
from onnx import helper

from vajra_edge.errors import BuildCancelled, CalibrationError
from vajra_edge.graph import signature
from vajra_edge.graph.passes.instrument import measurable
from vajra_edge.graph.topology import load
from vajra_edge.progress import Progress
from vajra_edge.quantization.observer import observe
from vajra_edge.quantization.ranges import key_of


class Pictures:
    """A calibration set of random pictures."""

    digest = "d"

    def __init__(self, count: int, promised: int | None = None) -> None:
        self.pictures = yolo.images(count)
        self.promised = promised or count
        self.passes = 0

    def __len__(self) -> int:
        return self.promised

    def inputs(self, input_hw: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
        assert input_hw == (yolo.SIDE, yolo.SIDE)
        self.passes += 1
        return iter(self.pictures[:, None])


def every_value(onnx_bytes: bytes, pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    model, names = load(onnx_bytes), measurable(onnx_bytes)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(None, {"images": picture[None]}) for picture in pictures]
    return {name: np.stack(values) for name, values in zip(names, zip(*runs, strict=True), strict=True)}


def quiet(_: Progress) -> None:
    """Takes progress and does nothing."""


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures(3)


def test_minmax_is_the_smallest_and_largest_of_every_tensor(pictures: Pictures) -> None:
    plain = yolo.network()
    ranges = observe(plain, signature.read(plain), pictures, "minmax", quiet)
    for name, values in every_value(plain, pictures.pictures).items():
        found = ranges.tensors[name]
        assert_near((found.low, found.high), (values.min(), values.max()))
        assert_near(found.amax, np.abs(values).max())
    assert (ranges.images, ranges.algorithm, ranges.key) == (3, "minmax", key_of(plain, (64, 64), "d", "minmax"))


def test_channel_means_are_those_of_what_convolutions_read(pictures: Pictures) -> None:
    plain = yolo.network()
    ranges = observe(plain, signature.read(plain), pictures, "minmax", quiet)
    values = every_value(plain, pictures.pictures)["joined"]
    assert_near(ranges.tensors["joined"].mean, values.mean(axis=(0, 1, 3, 4)))
    assert ranges.tensors["product"].mean == ()


def test_percentile_takes_a_second_pass_and_clips_a_little() -> None:
    plain, pictures = yolo.network(), Pictures(4)
    ranges = observe(plain, signature.read(plain), pictures, "percentile", quiet)
    assert pictures.passes == 2
    values = np.abs(every_value(plain, pictures.pictures)["stem_silu"])
    found = ranges.tensors["stem_silu"].amax
    assert 0.5 * values.max() < found
    assert np.mean(values > found) < 2e-4


@pytest.mark.parametrize("algorithm", ["entropy", "mse"])
def test_other_algorithms_stay_within_the_range(algorithm: str) -> None:
    plain = yolo.network()
    ranges = observe(plain, signature.read(plain), Pictures(2), algorithm, quiet)
    assert ranges.algorithm == algorithm
    for found in ranges.tensors.values():
        assert found.amax <= max(-found.low, found.high) * (1 + 1e-5)


MEASURES = """
from vajra_edge.demo.settings import WEIGHTS
from vajra_edge.build import protocol as child
from vajra_edge.quantization import observer as observation
from vajra_edge.graph import signature
import numpy as np

class Pictures:
    digest = "d"
    def __len__(self): return 2
    def inputs(self, input_hw): return (np.full((1, 3, *input_hw), value, np.float32) for value in (0.2, 0.8))

plain = WEIGHTS.read_bytes()
observation.observe(plain, signature.read(plain), Pictures(), "minmax", lambda step: None, threads=1)
print(child.peak_rss_bytes())
"""


def test_measuring_a_real_network_holds_a_few_of_its_tensors_at_a_time() -> None:
    """All of them at once are 800 MB of the demo's network at 640."""
    printed = subprocess.run([sys.executable, "-c", MEASURES], capture_output=True, check=True, text=True)
    assert int(printed.stdout) < 450e6


@pytest.mark.parametrize("batch", [None, 2])
def test_dynamic_and_static_batches_give_the_same_ranges(batch: int | None) -> None:
    one, other = yolo.network(), yolo.network(batch=batch)
    model = load(other)
    helper.set_model_props(model, {"names": "['person', 'car']", "stride": "8", "batch": str(batch or 2)})
    other = model.SerializeToString()
    first, second = (
        observe(graph, signature.read(graph), Pictures(2), "minmax", quiet).tensors["neck"] for graph in (one, other)
    )
    assert_near((first.low, first.high), (second.low, second.high))


def test_progress_counts_images() -> None:
    plain, seen = yolo.network(), []
    observe(plain, signature.read(plain), Pictures(2), "minmax", seen.append)
    assert [(step.stage, step.percent) for step in seen] == [("calibrate", 50.0), ("calibrate", 100.0)]


def test_a_report_that_raises_stops_it() -> None:
    def stop(_: Progress) -> None:
        raise BuildCancelled("asked")

    plain, pictures = yolo.network(), Pictures(5)
    with pytest.raises(BuildCancelled):
        observe(plain, signature.read(plain), pictures, "minmax", stop)


def test_a_set_that_ends_early_is_an_error() -> None:
    plain = yolo.network()
    with pytest.raises(CalibrationError, match="ended after 3 of 7 images"):
        observe(plain, signature.read(plain), Pictures(3, promised=7), "minmax", quiet)


def test_a_network_that_is_not_finite_names_the_tensor() -> None:
    draft = yolo.Draft()
    nothing = draft.constant("nothing", np.zeros((1,), np.float32))
    draft.node("Div", "broken", "images", nothing)
    draft.conv("output0", "broken", 3, 6)
    plain = draft.finish("output0", [6, 64, 64])
    known = signature.read(yolo.network())
    with pytest.raises(CalibrationError, match="tensor broken is not finite"):
        observe(plain, known, Pictures(1), "minmax", quiet)
