from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clip
from photos import encoded, texture

from vajra_edge.datasets.account import Account, Counted
from vajra_edge.datasets.dataset import Dataset, open_dataset
from vajra_edge.errors import DatasetError


def paint(path: Path, level: int = 0, size: tuple[int, int] = (40, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """images/val/{0,1,2}.png of which 1 has labels."""
    for number in range(3):
        paint(tmp_path / f"images/val/{number}.png", number)
    write(tmp_path / "labels/val/1.txt", "1 0.5 0.5 0.5 0.5\n")
    return tmp_path


def levels(dataset: Dataset) -> list[int]:
    return [int(picture.image[0, 0, 0]) for picture in dataset]


@pytest.mark.parametrize(
    "text",
    [
        "val: images/val\nnames: [person, car]",
        "path: .\nval: images/val\nnames: {0: person, 1: car}",
        "path: ''\nval: [images/val]\nnc: 2\nnames:\n  - person\n  - car",
        "validation: images/val/\nnames: [person, car]",
        "val: ../images/val\nnames: [person, car]",
        "path: {root}\nval: images\nnames: [person, car]\ndownload: https://example.invalid/x.zip",
    ],
)
def test_a_data_yaml_is_read_as_users_write_it(pictures, text):
    dataset = open_dataset(write(pictures / "data.yaml", text.replace("{root}", str(pictures))))
    assert dataset.class_names == ("person", "car")
    assert levels(dataset) == [0, 1, 2]
    assert dataset.labelled
    truths = [picture.truth for picture in dataset]
    assert [len(truth) for truth in truths] == [0, 1, 0]
    np.testing.assert_array_equal(truths[1].xyxy, [[20, 10, 60, 30]])


def test_a_path_is_relative_to_the_yaml_file_and_not_to_the_working_directory(pictures, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    write(pictures / "config/data.yaml", "path: ..\nval: images/val")
    assert len(open_dataset(pictures / "config/data.yaml")) == 3


def test_splits_are_told_apart_and_several_folders_joined(pictures):
    paint(pictures / "images/more/9.png", 9)
    yaml = write(pictures / "data.yaml", "train: [images/more, images/val]\nval: images/val\ntest: images/more")
    assert levels(open_dataset(yaml, "train")) == [9, 0, 1, 2]
    assert levels(open_dataset(yaml, "test")) == [9]
    assert open_dataset(yaml).class_names is None


@pytest.mark.parametrize("where", ["images/list.txt", "list.txt"])
def test_a_list_names_images_relative_to_itself_or_to_the_root(pictures, where):
    base = "" if where.startswith("images") else "images/"
    write(pictures / where, f"./{base}val/2.png\n\n{base}val/0.png\n")
    assert levels(open_dataset(write(pictures / "data.yaml", f"val: {where}"))) == [2, 0]
    assert levels(open_dataset(pictures / where)) == [2, 0]


def test_a_list_from_the_root_may_lie_elsewhere(pictures):
    write(pictures / "splits/val.txt", "images/val/1.png\n")
    assert levels(open_dataset(write(pictures / "data.yaml", "val: splits/val.txt"))) == [1]


def test_a_missing_image_of_a_list_is_named_with_its_line(pictures):
    listed = write(pictures / "list.txt", "images/val/1.png\nimages/val/8.png\n")
    with pytest.raises(DatasetError, match=r"list\.txt:2: images/val/8\.png does not exist"):
        open_dataset(listed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [a]", "no 'val'; add 'val: images/val'"),
        ("train: images/val\ntest: images/val", "no 'val'; add 'val: images/val'"),
        ("val: /content/set/images/val", "/content/set/images/val does not exist; .*write images/val, which is in"),
        ("val: labels/val/1.xml", "looks like Pascal VOC or CVAT; convert it"),
        ("val: images/none/*.png", "images/none/.* does not exist"),
        ("val:\nnames: [a]", "no 'val'"),
        ("val: {a: b}", "'val' is"),
        ("val: [1]", "'val' is"),
        ("val: images/none", "images/none does not exist"),
        ("val: labels", "no pictures in it"),
        ("val: data.yaml", "unknown kind '.yaml'"),
        ("val: images/val\nnames: 5", "'names' is neither a list nor a mapping"),
        ("val: images/val\nnames: []", "'names' is neither"),
        ("val: images/val\nnames: {1: a}", "class ids in 'names' are not 0, 1, 2"),
        ("val: images/val\nnc: 3\nnames: [a]", "nc is 3 but there are 1 names"),
        ("- a", "not a data.yaml"),
        ("", "not a data.yaml"),
        ("val: images\n  bad: [", "data.yaml:2: "),
        ("val: !!python/object/apply:os.getcwd []", "data.yaml:1: could not determine a constructor"),
        ("[" * 5000, "not a data.yaml"),
        ("val: 0001-99-99", "not a data.yaml: month must be in"),
    ],
)
def test_a_wrong_data_yaml_is_one_line_with_file_and_key(pictures, text, words):
    write(pictures / "labels/val/1.xml", "<annotation/>")
    with pytest.raises(DatasetError, match=words) as raised:
        open_dataset(write(pictures / "data.yaml", text))
    assert "\n" not in str(raised.value)
    assert "data.yaml" in str(raised.value)


def test_a_wrong_label_is_met_with_file_and_line(pictures):
    write(pictures / "labels/val/2.txt", "0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    dataset = open_dataset(write(pictures / "data.yaml", "val: images/val\nnames: [a, b]"))
    with pytest.raises(DatasetError, match=r"labels/val/2\.txt:2: class 7, known are 0 to 1"):
        list(dataset)


def test_a_folder_without_labels_has_no_truth(tmp_path):
    paint(tmp_path / "deep/er/a.jpg")
    write(tmp_path / "notes.txt", "not a picture")
    dataset = open_dataset(tmp_path)
    assert [picture.truth for picture in dataset] == [None]
    assert not dataset.labelled


def test_a_single_image_is_a_dataset_too(tmp_path):
    path = paint(tmp_path / "a.png", 5)
    [picture] = open_dataset(path)
    assert (picture.name, picture.image.shape, picture.image[0, 0, 0]) == (str(path), (40, 80, 3), 5)


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not a jpeg")
    with pytest.raises(DatasetError, match=r"a\.jpg: not an image"):
        list(open_dataset(tmp_path))


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"coco8\.yaml: No such file"):
        open_dataset(tmp_path / "coco8.yaml")
    with pytest.raises(DatasetError, match="photos does not exist"):
        open_dataset(tmp_path / "photos")


@pytest.mark.parametrize("folder", ["annotations", ".", "images"])
@pytest.mark.parametrize("direct", [True, False])
def test_a_coco_file_finds_its_images_where_users_keep_them(pictures, folder, direct):
    content = {
        "images": [{"id": 5, "file_name": "2.png"}, {"id": 6, "file_name": "0.png"}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 6, "category_id": 3, "bbox": [1, 2, 3, 4]}],
    }
    annotations = write(pictures / folder / "instances_val.json", json.dumps(content))
    yaml = write(pictures / "data.yaml", f"val: {folder}/instances_val.json\nnames: [person, car]")
    dataset = open_dataset(annotations if direct else yaml)
    assert levels(dataset) == [2, 0]
    assert dataset.class_names == (("car",) if direct else ("person", "car"))
    assert [len(picture.truth) for picture in dataset] == [0, 1]


def test_a_coco_file_without_its_images_says_where_they_belong(tmp_path):
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [], "annotations": []}
    with pytest.raises(DatasetError, match=r"its image 'a\.jpg' is not found; put the images into .*images"):
        open_dataset(write(tmp_path / "instances_val.json", json.dumps(content)))


def coco_of(folder: Path, *images: dict[str, object], **more: object) -> Dataset:
    """A COCO file with an object in each image."""
    entries = [
        {"id": k, "image_id": one["id"], "category_id": 1, "bbox": [2, 3, 10, 8]} for k, one in enumerate(images)
    ]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "car"}], **more}
    return open_dataset(write(folder / "a.json", json.dumps(content)))


def reasons(counted: tuple[Counted, ...]) -> dict[str, int]:
    return {one.reason: one.count for one in counted}


def test_images_of_a_coco_file_that_are_not_there_are_counted_where_labels_are_asked_for(pictures):
    dataset = coco_of(pictures / "images/val", {"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "z.png"})
    account = Account()
    assert len(dataset.with_labels(account)) == 1
    assert reasons(account.left_out()) == {"picture_missing": 1}
    assert account.left_out()[0].first == ("z.png",)


@pytest.mark.parametrize("name", ["/data/upload/7/0.png", "C:\\pictures\\0.png", "train\\0.png", "val/0.png"])
def test_images_of_a_coco_file_are_found_by_name_under_folders_of_another_machine(pictures, name):
    dataset = coco_of(pictures / "images/val", {"id": 1, "file_name": name}, {"id": 2, "file_name": "1.png"})
    assert levels(dataset) == [0, 1]


def test_two_names_that_would_be_one_file_are_refused(pictures):
    with pytest.raises(DatasetError, match=r"both left/0\.png and right/0\.png would be"):
        coco_of(pictures / "images/val", *({"id": k, "file_name": f"{k}/0.png"} for k in ("left", "right")))


@pytest.mark.parametrize(
    "stated", [{}, {"width": 80, "height": 40}, {"width": "80", "height": 40.0}, {"width": 0, "height": 0}]
)
def test_a_stated_size_that_is_right_or_none_changes_nothing(pictures, stated):
    (picture,) = coco_of(pictures / "images/val", {"id": 1, "file_name": "0.png", **stated})
    np.testing.assert_array_equal(picture.truth.xyxy, [[2, 3, 12, 11]])


def test_pictures_of_another_size_than_was_labelled_are_refused_with_the_first_three_names(pictures):
    for number in range(3, 9):
        paint(pictures / f"images/val/{number}.png", number, (20, 40))
    images = [{"id": k, "file_name": f"{k}.png", "width": 80, "height": 40} for k in range(9)]
    dataset = coco_of(pictures / "images/val", *images)
    expected = (
        r"3\.png \(80 x 40 in the labels, 40 x 20 in the file\), 4\.png \(.*\), 5\.png \([^,]*, 40 x 20 in the file\);"
    )
    with pytest.raises(DatasetError, match=expected):
        list(dataset)
    with pytest.raises(DatasetError, match=r"a\.json: .*8\.png \(80 x 40"):
        list(coco_of(pictures / "images/val", images[8]))


def test_a_picture_without_objects_fits_whatever_is_stated(pictures):
    image = {"id": 1, "file_name": "0.png", "width": 8, "height": 4}
    assert len(next(iter(coco_of(pictures / "images/val", image, annotations=[]))).truth) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_that_were_drawn_lying_are_turned_with_the_photo(tmp_path, kind, orientation):
    lying = np.zeros((40, 80, 3), np.uint8)
    lying[8:24, 16:40] = 255
    (tmp_path / "a.jpg").write_bytes(encoded(lying, kind, orientation))
    image = {"id": 1, "file_name": "a.jpg", "width": 80, "height": 40}
    dataset = coco_of(
        tmp_path, image, annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 8, 24, 16]}]
    )
    account = Account()
    (picture,) = dataset.with_labels(account).pictures(account)
    rows, columns = np.nonzero(picture.image[:, :, 0] > 128)
    np.testing.assert_allclose(
        picture.truth.xyxy, [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], atol=1
    )
    assert reasons(account.read_as()) == {"turned_with_exif": 1}


def test_boxes_that_leave_the_lying_photo_were_drawn_upright(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(np.zeros((40, 80, 3), np.uint8), orientation=6))
    image = {"id": 1, "file_name": "a.jpg", "width": 80, "height": 40}
    dataset = coco_of(
        tmp_path, image, annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 50, 20, 20]}]
    )
    account = Account()
    (picture,) = dataset.with_labels(account).pictures(account)
    np.testing.assert_array_equal(picture.truth.xyxy, [[5, 50, 25, 70]])
    assert reasons(account.read_as()) == {"upright_despite_size": 1}


@pytest.mark.parametrize(("orientation", "more"), [(1, {}), (3, {}), (6, {"info": {"contributor": "Label Studio"}})])
def test_exchanged_sides_that_exif_does_not_explain_are_refused(tmp_path, orientation, more):
    (tmp_path / "a.jpg").write_bytes(encoded(np.zeros((40, 80, 3), np.uint8), orientation=orientation))
    stated = {"width": 80, "height": 40} if orientation == 6 else {"width": 40, "height": 80}
    with pytest.raises(
        DatasetError, match=r"a\.jpg \(.* in the file: exchanged, as by a program that passes over EXIF\)"
    ):
        list(coco_of(tmp_path, {"id": 1, "file_name": "a.jpg", **stated}, **more))


def test_pictures_that_cannot_be_used_are_left_out_and_counted_by_reason(pictures):
    folder = pictures / "images/val"
    (folder / "3.jpg").write_bytes(encoded(texture())[:9000])
    (folder / "4.jpg").write_bytes(b"")
    (folder / "5.png").write_bytes(encoded(texture(), "PNG")[:9000])
    account = Account()
    dataset = open_dataset(folder)
    assert [Path(picture.name).name for picture in dataset.pictures(account)] == ["0.png", "1.png", "2.png"]
    assert reasons(account.left_out()) == {"picture_cut_short": 1, "picture_unreadable": 2}
    assert str(account.left_out()[0]) == f"pictures that are cut short: 1 ({folder / '3.jpg'})"
    with pytest.raises(DatasetError, match=r"3\.jpg: the end of the file is missing"):
        list(dataset)


def test_labels_without_a_picture_are_counted(pictures):
    write(pictures / "labels/val/gone.txt", "0 .5 .5 .1 .1")
    account = Account()
    open_dataset(pictures / "images/val").with_labels(account)
    assert [one.first for one in account.left_out()] == [(str(pictures / "labels/val/gone.txt"),)]


def test_class_ids_end_where_names_the_yaml_or_the_network_say(pictures):
    write(pictures / "labels/val/2.txt", "5 .5 .5 .1 .1")
    folder = open_dataset(pictures / "images/val")
    assert folder.with_labels(Account()).entries[2].drawn is not None
    with pytest.raises(DatasetError, match=r"2\.txt:1: class 5, known are 0 to 4"):
        folder.with_labels(Account(), 5)
    by_count = open_dataset(write(pictures / "data.yaml", "val: images/val\nnc: 3"))
    with pytest.raises(DatasetError, match="known are 0 to 2"):
        by_count.with_labels(Account(), 80)


def test_images_alone_need_no_labels_that_are_right(pictures):
    write(pictures / "labels/val/2.txt", "nonsense")
    assert len(list(open_dataset(pictures / "images/val").images())) == 3


@pytest.mark.parametrize(
    ("file", "text", "yaml", "names"),
    [
        ("labels/val/classes.txt", "car\nperson\n\n", "val: images/val", ("car", "person")),
        ("labels/classes.txt", "car\r\nperson", "val: images/val", ("car", "person")),
        ("classes.txt", "car\nperson", "val: images/val", ("car", "person")),
        ("classes.txt", "car\nperson", "val: images/val\nnc: 2", ("car", "person")),
        ("classes.txt", "car", "val: images/val\nnc: 2", None),
        ("classes.txt", "", "val: images/val", None),
        ("classes.txt", "car\nperson", "val: images/val\nnames: [a, b]", ("a", "b")),
    ],
)
def test_where_no_names_are_told_the_list_of_the_labelling_tool_tells_them(pictures, file, text, yaml, names):
    write(pictures / file, text)
    assert open_dataset(write(pictures / "data.yaml", yaml)).class_names == names


def test_a_picture_that_lists_or_folders_name_twice_counts_once(pictures):
    write(pictures / "list.txt", "images/val/0.png\nimages/val/../val/0.png\n")
    dataset = open_dataset(write(pictures / "data.yaml", "val: [images/val, list.txt]"))
    account = Account()
    assert len(dataset.with_labels(account)) == 3
    assert reasons(account.left_out()) == {"picture_twice": 2}


def test_two_files_with_objects_of_one_picture_are_refused(pictures):
    content = {
        "images": [{"id": 1, "file_name": "images/val/0.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
        "categories": [{"id": 1, "name": "car"}],
    }
    for name in ("a.json", "b.json"):
        write(pictures / name, json.dumps(content))
    with pytest.raises(DatasetError, match=r"0\.png is there twice, by a\.json and b\.json; name each picture once"):
        open_dataset(write(pictures / "data.yaml", "val: [a.json, b.json]"))
    with pytest.raises(DatasetError, match=r"by a folder or list and a\.json"):
        open_dataset(write(pictures / "data.yaml", "val: [a.json, images/val]"))


def test_two_pictures_that_would_share_labels_are_refused(pictures):
    paint(pictures / "images/val/1.jpg")
    with pytest.raises(DatasetError, match=r"1\.jpg and 1\.png share the labels .*1\.txt; remove or rename"):
        list(open_dataset(pictures / "images/val"))
    paint(pictures / "images/val/0.jpg")
    (pictures / "images/val/1.jpg").unlink()
    assert len(list(open_dataset(pictures / "images/val"))) == 4


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("labels/val/a.xml", ".*/a.xml looks like Pascal VOC or CVAT: convert it"),
        ("images/val/_annotations.coco.json", "give .*_annotations.coco.json, if that is a COCO json"),
        ("notes.md", "of 0.png they would be .*labels/val/0.txt; or give a COCO json"),
    ],
)
def test_why_there_are_no_labels_is_told_with_what_lies_there(pictures, file, hint):
    (pictures / "labels/val/1.txt").unlink()
    write(pictures / file, "")
    dataset = open_dataset(pictures / "images/val")
    assert not dataset.labelled
    assert re.search(f"no labels; {hint}", str(dataset.without_labels()))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames, each brighter than the one before."""
    path = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert video.isOpened()
    for number in range(10):
        video.write(np.full((48, 64, 3), number * 20, np.uint8))
    video.release()
    return path


def test_a_video_is_one_picture_a_frame(clip):
    dataset = open_dataset(clip)
    pictures = list(dataset)
    assert [picture.name for picture in pictures] == [f"{clip}#{number}" for number in range(10)]
    np.testing.assert_allclose(levels(dataset), range(0, 200, 20), atol=3)
    assert not dataset.labelled


def test_a_sample_is_spread_evenly(clip):
    dataset = open_dataset(clip)
    np.testing.assert_allclose(levels(dataset.sample(most=4)), [0, 60, 120, 180], atol=3)
    assert [len(dataset.sample(share)) for share in (1.0, 0.5, 0.01)] == [10, 5, 1]
    assert len(dataset.sample(0.5, most=2)) == 2
    assert len(dataset.sample(most=100)) == 10


def test_a_damaged_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(DatasetError, match=r"a\.mp4: is not a video that can be decoded; copy it again"):
        open_dataset(tmp_path / "a.mp4")


@pytest.fixture
def with_clips(pictures: Path) -> Path:
    """Labelled photos, a good clip and one that is none, named by one data.yaml."""
    write_clip(pictures / "good.mkv", 6, options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    (pictures / "bad.mp4").write_bytes(b"not a video")
    write(pictures / "clips.yaml", "val: [images/val, good.mkv, bad.mp4]\nnames: [person, car]")
    return pictures


def test_a_clip_among_photos_that_cannot_be_read_is_left_out_and_counted(with_clips, caplog):
    dataset, account = open_dataset(with_clips / "clips.yaml"), Account()
    found = list(dataset.pictures(account))
    assert [picture.name.rsplit("#")[-1] for picture in found if "good.mkv#" in picture.name] == list("012345")
    list(dataset.with_labels(account).pictures(account))
    assert ("clip_unreadable", 1) in [(one.reason, one.count) for one in account.left_out()]
    assert str(with_clips / "bad.mp4") in account.left_out()[0].first
    assert any("bad.mp4: is not a video that can be decoded" in record.message for record in caplog.records)


def test_the_frames_of_a_clip_among_labelled_photos_are_no_empty_scenes_and_counted(with_clips):
    write_clip(with_clips / "images" / "val" / "beside.mp4", 3)
    dataset, account = open_dataset(with_clips / "clips.yaml"), Account()
    assert not [picture.name for picture in dataset.with_labels(account).pictures(account) if "#" in picture.name]
    told = {one.reason: one.first for one in account.left_out()}
    assert [Path(name).name for name in told["clip_without_labels"]] == ["good.mkv", "beside.mp4"]


def test_clips_in_a_list_are_one_picture_a_frame(with_clips):
    assert len(open_dataset(write(with_clips / "list.txt", "good.mkv\nbad.mp4\n"))) == 6


def test_frames_that_a_damaged_clip_lost_are_counted(tmp_path):
    path = write_clip(tmp_path / "a.avi", 30, codec="mpeg4", options={"g": "1"})
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    raw = bytearray(path.read_bytes())
    for at, size in places[10:13]:
        raw[at : at + size] = bytes(size)
    path.write_bytes(raw)
    dataset, account = open_dataset(path), Account()
    found = list(dataset.pictures(account))
    lost = {one.reason: one.count for one in account.left_out()}
    assert 20 < len(found) < len(dataset) == 30
    assert lost == {"frame_unreadable": len(dataset) - len(found)}


def test_coco128_is_read_whole(shared_data):
    dataset = open_dataset(shared_data / "coco128.yaml")
    assert (len(dataset), dataset.labelled, len(dataset.class_names)) == (128, True, 80)
    truths = [picture.truth for picture in dataset.sample(0.1)]
    assert all(truth is not None for truth in truths)


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Let the system answer with an error wherever this path or one below it is asked for."""

    def wrong(path: Path, code: int) -> None:
        def guarded(answer: Callable[..., object]) -> Callable[..., object]:
            def asked(of: object, *words: object, **named: object) -> object:
                if Path(os.fspath(of)).is_relative_to(path):  # type: ignore[call-overload]
                    raise OSError(code, os.strerror(code), str(of))
                return answer(of, *words, **named)

            return asked

        monkeypatch.setattr(Path, "stat", guarded(Path.stat))
        monkeypatch.setattr(os, "scandir", guarded(os.scandir))

    return wrong


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN])
@pytest.mark.parametrize("name", ["images", "images/val/1.png", "data.yaml"])
def test_a_place_that_the_system_refuses_is_named_with_the_reason(pictures: Path, refuse, name: str, code: int):
    write(pictures / "data.yaml", "val: images/val\nnames: [person, car]")
    refuse(pictures / name, code)
    with pytest.raises(DatasetError, match=f"{pictures / name}: {os.strerror(code)}.*; .*check"):
        open_dataset(pictures / name)


def test_a_place_named_by_a_data_yaml_that_the_system_refuses_is_told_too(pictures: Path, refuse):
    yaml = write(pictures / "data.yaml", "val: images/val\nnames: [person, car]")
    refuse(pictures / "images", errno.ESTALE)
    with pytest.raises(DatasetError, match=rf"data.yaml: {os.strerror(errno.ESTALE)} \({pictures / 'images'}"):
        open_dataset(yaml)


def test_a_folder_inside_that_may_not_be_read_makes_the_set_no_smaller_unseen(pictures: Path, monkeypatch):
    (pictures / "images" / "more").mkdir()
    scandir = os.scandir

    def guarded(folder):
        if Path(folder).name in {"more", "lost+found"}:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DatasetError, match=rf"images: Permission denied \({pictures / 'images' / 'more'}\)"):
        open_dataset(pictures / "images")
    (pictures / "images" / "more").rename(pictures / "images" / "lost+found")
    assert len(open_dataset(pictures / "images")) == 3, "which every ext4 disk has for root alone"


@pytest.fixture
def locked(monkeypatch):
    """Let the system refuse to list folders of these names."""
    scandir = os.scandir

    def lock(code: int, *names: str) -> None:
        def guarded(folder):
            if Path(folder).name in names:
                raise OSError(code, os.strerror(code), str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", guarded)

    return lock


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_private_hidden_folders_at_the_top_of_a_disk_are_passed_over(pictures: Path, locked, code: int):
    for name in (".Trash-1000", ".Spotlight-V100", ".Trash/1000"):
        (pictures / "images" / name).mkdir(parents=True)
    before = open_dataset(pictures / "images").entries
    locked(code, ".Trash-1000", ".Spotlight-V100", "1000")
    assert open_dataset(pictures / "images").entries == before


def test_a_hidden_folder_that_can_be_read_is_in_the_set_and_one_that_fails_is_told(pictures: Path, locked):
    (pictures / "images" / "val").rename(pictures / "images" / ".val")
    assert len(open_dataset(pictures / "images")) == 3
    locked(errno.EIO, ".val")
    with pytest.raises(DatasetError, match=rf"images: {os.strerror(errno.EIO)} \("):
        open_dataset(pictures / "images")


@pytest.mark.parametrize("name", [".private", "lost+found"])
def test_a_private_folder_that_is_itself_the_source_is_told(pictures: Path, locked, name: str):
    (pictures / "images").rename(pictures / name)
    locked(errno.EACCES, name)
    with pytest.raises(DatasetError, match="Permission denied"):
        open_dataset(pictures / name)


def test_labels_that_the_system_refuses_are_told(pictures: Path, refuse):
    dataset = open_dataset(pictures / "images")
    refuse(pictures / "labels", errno.EIO)
    with pytest.raises(DatasetError, match=f"{os.strerror(errno.EIO)}"):
        list(dataset)
