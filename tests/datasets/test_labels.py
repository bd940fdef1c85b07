from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vajra_edge.datasets import labels
from vajra_edge.datasets.labels import Drawn
from vajra_edge.errors import DatasetError


def written(folder: Path, content: bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("/d/images/a.jpg", "/d/labels/a.txt"),
        ("/images/train/images/a.b.png", "/images/train/labels/a.b.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
        ("/images/images", "/labels/images.txt"),
        ("/d/images/../photos/a.jpg", "/d/photos/a.txt"),
    ],
)
def test_labels_lie_where_upstream_looks_for_them(image, text):
    assert labels.yolo_path(Path(image)) == Path(text)


def test_the_folders_above_the_working_directory_count(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path / "images")
    assert labels.yolo_path(Path("val/a.png")) == tmp_path / "labels" / "val" / "a.txt"


def test_files_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        labels.read_text(tmp_path / "absent.txt", 10)
    with pytest.raises(DatasetError, match="11 bytes, the limit is 10"):
        labels.read_text(written(tmp_path, b"a" * 11), 10)
    with pytest.raises(DatasetError, match="not UTF-8"):
        labels.read_text(written(tmp_path, b"\xff\xfe"), 10)
    with pytest.raises(DatasetError, match="not UTF-8"):
        labels.read_text(written(tmp_path, "caf\xe9".encode("latin-1")), 10)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_editors_and_shells_save_it(tmp_path, coding):
    assert labels.read_text(written(tmp_path, "ä 1\r\n2\n".encode(coding)), 99) == "ä 1\n2\n"


UPRIGHT = {
    5: lambda raw: raw.transpose(1, 0),
    6: lambda raw: np.rot90(raw, -1),
    7: lambda raw: np.rot90(raw.transpose(1, 0), 2),
    8: lambda raw: np.rot90(raw, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_boxes_turn_as_the_picture_does(orientation):
    lying = np.zeros((20, 30), np.uint8)
    lying[3:9, 11:25] = 1
    drawn = Drawn.of([(4, (11, 3, 25, 9), False)], is_share=False, stated_wh=(30, 20))
    turned = drawn.turned(orientation)
    rows, columns = np.nonzero(UPRIGHT[orientation](lying))
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(turned.xyxy, [around])
    assert (turned.stated_wh, turned.class_id[0]) == ((20, 30), 4)
