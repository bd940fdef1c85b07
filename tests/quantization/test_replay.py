from __future__ import annotations

import numpy as np
import onnx
import pytest
import yolo
from near import assert_near
from onnx import helper

from vajra_edge.errors import CalibrationError
from vajra_edge.graph import signature
from vajra_edge.graph.topology import load
from vajra_edge.quantization.observer import Replay


def in_fours() -> bytes:
    model = load(yolo.network(batch=4))
    helper.set_model_props(model, {"names": "['person', 'car']", "stride": "8", "batch": "4"})
    content: bytes = model.SerializeToString()
    return content


def replay(onnx_bytes: bytes, *, lean: bool = False) -> Replay:
    return Replay(onnx_bytes, signature.read(onnx_bytes), threads=1, lean=lean)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_static_batch_takes_as_many_different_images_as_it_has_rows(count: int) -> None:
    images, fours = yolo.images(count), replay(in_fours())
    assert fours.rows == 4
    found = fours.run(images)["output0"]
    alone = np.concatenate([replay(yolo.network()).run(image[None])["output0"] for image in images])
    assert_near(found[:count], alone)
    np.testing.assert_array_equal(found[count:], np.repeat(found[count - 1 : count], 4 - count, axis=0))


def test_lean_changes_memory_and_nothing_else() -> None:
    image = yolo.images(1)
    quick, lean = (replay(yolo.network(), lean=lean).run(image)["output0"] for lean in (False, True))
    assert_near(quick, lean)


def test_an_image_of_another_size_is_an_error_with_the_remedy() -> None:
    with pytest.raises(CalibrationError, match="check the weights' input size"):
        replay(yolo.network()).run(np.zeros((1, 3, 8, 8), np.float32))


def test_a_graph_that_no_session_takes_is_an_error() -> None:
    model = load(yolo.network())
    model.graph.node[0].op_type = "NoSuchOperator"
    known = signature.read(yolo.network())
    with pytest.raises(CalibrationError, match="ONNX Runtime refuses the graph"):
        Replay(onnx.ModelProto.SerializeToString(model), known)
