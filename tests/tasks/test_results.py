from __future__ import annotations

import cv2
import numpy as np
import pytest

from vajra_edge.errors import VajraError
from vajra_edge.tasks.results import Results
from vajra_edge.types import Detections


@pytest.fixture
def found() -> Results:
    boxes = np.array([[10, 20, 60, 80], [0, 0, 200, 10]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.3], np.float32), np.array([1, 0], np.int32))
    return Results(np.full((100, 200, 3), 90, np.uint8), "a.jpg", None, detections, {0: "person", 1: "car"})


def test_boxes_come_in_pixels_and_shares_as_corners_and_centres(found):
    np.testing.assert_allclose(found.xyxyn[0], [0.05, 0.2, 0.3, 0.8])
    np.testing.assert_allclose(found.xywh[0], [35, 50, 50, 60])
    np.testing.assert_allclose(found.xywhn[0], [0.175, 0.5, 0.25, 0.6])
    assert found.xyxyn.dtype == np.float32
    assert len(found) == 2


def test_plot_draws_boxes_on_a_copy(found):
    plotted = found.plot()
    assert (found.image == 90).all()
    assert (plotted[50, 10] != 90).any()
    assert (plotted[50, 35] == 90).all()
    assert plotted.shape == found.image.shape


def test_plot_of_an_image_smaller_than_its_label_does_not_fail():
    one = Detections(np.array([[0, 0, 4, 4]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    made = Results(np.zeros((5, 5, 3), np.uint8), "tiny", None, one, {0: "a very long class name"})
    assert made.plot().shape == (5, 5, 3)


def test_save_writes_what_plot_shows(found, tmp_path):
    path = found.save(tmp_path / "out.png")
    np.testing.assert_array_equal(cv2.imread(str(path)), found.plot())
    for wrong in (tmp_path / "out.xyz", tmp_path / "no" / "such" / "folder.png"):
        with pytest.raises(VajraError):
            found.save(wrong)


def test_supervision_gets_the_same_boxes(found):
    pytest.importorskip("supervision", reason="absent here: supervision")
    theirs = found.to_supervision()
    np.testing.assert_array_equal(theirs.xyxy, found.xyxy)
    assert list(theirs.data["class_name"]) == ["car", "person"]
    nothing = Results(found.image, "b", None, Detections.empty(), found.names)
    assert len(nothing.to_supervision()) == 0
