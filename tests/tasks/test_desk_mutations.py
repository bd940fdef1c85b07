"""Mutations of a right dataset: what means the same scores the same, and anything else is a figure or one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fixed import SIDE_PX, network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vajra_edge import Vajra
from vajra_edge.errors import VajraError

NAMES = ("traffic light", "stop sign")
BOXES = ((0, 16, 16, 19.2, 19.2), (1, 48, 48, 19.2, 19.2))
YAML = "path: .\nval: images\nnames: [traffic light, stop sign]\nnc: 2\n"
LABELS = "0 0.25 0.25 0.3 0.3\n1 0.75 0.75 0.3 0.3\n"
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": SIDE_PX, "height": SIDE_PX}],
    "annotations": [
        {"id": at, "image_id": 1, "category_id": label + 1, "bbox": [cx - w / 2, cy - h / 2, w, h], "iscrowd": 0}
        for at, (label, cx, cy, w, h) in enumerate(BOXES)
    ],
    "categories": [{"id": at + 1, "name": name, "supercategory": "signs"} for at, name in enumerate(NAMES)],
}
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutations")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def net(desk: Path):
    with Vajra(network(desk / "n.onnx", NAMES, [(label, 0.9, *box) for label, *box in BOXES])) as made:
        yield made


def write(desk: Path, yaml: bytes, labels: bytes) -> Path:
    (desk / "data.yaml").write_bytes(yaml)
    (desk / "labels" / "a.txt").write_bytes(labels)
    return desk / "data.yaml"


def write_coco(desk: Path, content: bytes) -> Path:
    path = desk / "images" / "a.json"
    path.write_bytes(content)
    return path


def coded(text: str, form: tuple[str, str, bool]) -> bytes:
    coding, ending, more = form
    return ((text.rstrip("\n") if more else text).replace("\n", ending)).encode(coding)


FORM = st.tuples(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
SPELLED = st.sampled_from(
    [
        "[traffic light, stop sign]",
        "['Traffic Light', \"STOP_SIGN\"]",
        "{0: traffic light, 1: stop sign}",
        "{'1': stop sign, '0': traffic_light}",
        "\n  - traffic light\n  - stop  sign",
        "[ traffic-light, 'stop sign ' ]",
    ]
)
LINE = st.sampled_from(
    [
        "{0} {1} {2} {3} {4}",
        "{0}.0\t{1}\t{2}\t{3}\t{4}  ",
        "\n  {0} {1:f} {2:e} {3} {4} 0.5",
        "{0} {1} {2} {3} {4} 0.5 8",
    ]
)


@FEW
@given(form=FORM, names=SPELLED, line=LINE, turned=st.booleans(), twice=st.booleans())
def test_yolo_text_that_means_the_same_scores_one(desk, net, form, names, line, turned, twice):
    rows = [line.format(label, *(side / SIDE_PX for side in box)) for label, *box in BOXES]
    rows = (rows[::-1] if turned else rows) * (1 + twice)
    data = write(desk, coded(f"val: images\nnames: {names}\n", form), coded("\n".join(rows) + "\n", form))
    assert net.val(data).map50_95 == pytest.approx(1.0)


NUMBER_AS = st.sampled_from([lambda x: x, str, float, lambda x: str(float(x))])


@FEW
@given(
    number=NUMBER_AS,
    name=st.sampled_from([lambda text: text, str.upper, lambda text: text.replace(" ", "_")]),
    path=st.sampled_from(["a.png", "./a.png", "images\\a.png", "/data/upload/1/a.png"]),
    turned=st.booleans(),
    dropped=st.sets(st.sampled_from(["iscrowd", "area", "id", "width", "supercategory"])),
    group=st.booleans(),
)
def test_coco_json_that_means_the_same_scores_one(desk, net, number, name, path, turned, dropped, group):
    def entry(made: dict) -> dict:
        kept = {
            key: value for key, value in made.items() if key not in dropped or (key == "id" and "image_id" not in made)
        }
        for key in {"id", "image_id", "category_id", "width", "height"} & set(kept):
            kept[key] = number(kept[key])
        if "bbox" in kept:
            kept["bbox"] = [number(side) for side in kept["bbox"]]
        return kept | {"name": name(kept["name"])} if "name" in kept else kept

    content = {key: [entry(one) for one in (entries[::-1] if turned else entries)] for key, entries in COCO.items()}
    content["images"][0]["file_name"] = path
    if group:
        content["categories"].append({"id": 0, "name": "signs", "supercategory": "none"})
        for category in content["categories"][:-1]:
            category["supercategory"] = "signs"
    assert net.val(write_coco(desk, json.dumps(content).encode())).map50_95 == pytest.approx(1.0)


MUTATION = st.tuples(
    st.floats(0, 1),
    st.integers(0, 12),
    st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b"-", b"0", b"]", b"'", b": "])),
)


def mutated(content: bytes, mutations: list[tuple[float, int, bytes]]) -> bytes:
    """Some bytes deleted here, others put in there."""
    for place, deleted, inserted in mutations:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + deleted :]
    return content


def figure_or_line(call) -> None:
    try:
        report = call()
    except VajraError as error:
        assert "\n" not in str(error)  # noqa: PT017  either is right
        assert error.remedy  # noqa: PT017
    else:
        assert 0 <= report.map50_95 <= 1


@FEW
@given(first=st.lists(MUTATION, max_size=3), second=st.lists(MUTATION, max_size=3))
def test_any_yolo_dataset_is_a_figure_or_one_line(desk, net, first, second):
    data = write(desk, mutated(YAML.encode(), first), mutated(LABELS.encode(), second))
    figure_or_line(lambda: net.val(data))


@FEW
@given(mutations=st.lists(MUTATION, min_size=1, max_size=3))
def test_any_coco_json_is_a_figure_or_one_line(desk, net, mutations):
    data = write_coco(desk, mutated(json.dumps(COCO).encode(), mutations))
    figure_or_line(lambda: net.val(data))
