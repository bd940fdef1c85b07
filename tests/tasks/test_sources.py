from __future__ import annotations

import numpy as np
import pytest
from desk import CLIP_FRAMES, IMAGES, desk

from vajra_edge.errors import VajraError
from vajra_edge.tasks.sources import feeds, groups, total_of


@pytest.fixture
def folder(tmp_path):
    return desk(tmp_path / "files").parent


def test_lengths_are_known_before_anything_is_read(folder):
    assert total_of(feeds(folder / "images")) == IMAGES
    assert total_of(feeds([folder / "clip.mp4", folder / "images" / "0.png"])) == CLIP_FRAMES + 1
    assert total_of(feeds("rtsp://127.0.0.1:1/x")) is None


def test_a_list_file_and_a_data_yaml_name_images(folder):
    (folder / "list.txt").write_text("images/1.png\nimages/0.png\n")
    paths = [shot.path for group in groups(feeds(folder / "list.txt"), 8) for shot in group]
    assert [path[-5:] for path in paths] == ["1.png", "0.png"]
    assert total_of(feeds(folder / "data.yaml")) == IMAGES


def test_groups_run_over_the_borders_of_files(folder):
    sizes = [len(group) for group in groups(feeds([folder / "images", folder / "clip.mp4"]), 8)]
    assert sizes == [8, 8, 8, 2]


def test_one_broken_image_among_many_is_left_out_and_said_and_alone_it_is_an_error(folder, caplog):
    broken = folder / "images" / "3.png"
    broken.write_bytes(b"not an image")
    assert sum(map(len, groups(feeds(folder / "images"), 4))) == IMAGES - 1
    assert "3.png cannot be decoded" in caplog.text
    with pytest.raises(VajraError, match=r"3\.png"):
        list(groups(feeds(broken), 1))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("none.jpg", "does not exist"),
        ("ftp://host/x", "ftp is not supported"),
        ([], "empty list"),
        (3.5, "a float is not a source"),
        (True, "a bool is not a source"),
        (np.zeros((4, 4), np.uint8), "BGR"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_what_is_no_source_is_refused(source, told):
    with pytest.raises(VajraError, match=told):
        feeds(source)


def test_a_folder_without_images_and_an_unknown_kind_are_refused(tmp_path):
    with pytest.raises(VajraError, match="holds no image or video"):
        feeds(tmp_path)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(VajraError, match=r"known by '\.pdf'"):
        feeds(tmp_path / "a.pdf")


def test_a_stream_that_is_not_there_fails_at_once_without_its_password():
    (feed,) = feeds("rtsp://user:secret@127.0.0.1:1/x")
    with pytest.raises(VajraError) as caught:
        next(feed.read())
    assert "secret" not in str(caught.value)
