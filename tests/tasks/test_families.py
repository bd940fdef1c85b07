"""Every family in predict, val, the daemon's build and in-graph NMS: its boxes are found, or it is refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import families
import numpy as np
import onnx
import pytest
from families import BOXES, FAMILIES, NAMES, SCORES, SELF_CHOSEN, SIDE, wrapped

from vajra_edge import Vajra
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.build.worker import run
from vajra_edge.errors import GraphError, VajraError
from vajra_edge.graph import intake, signature
from vajra_edge.graph.families import recognise
from vajra_edge.graph.signature import Layout
from vajra_edge.inference.open_detector import Loadable, open_detector
from vajra_edge.plans.spec import EngineSpec, Target
from vajra_edge.types import Detections, Frame

EVERY = sorted(FAMILIES)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A picture of the input's size with the labels that every family finds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "1.png"), picture())
    lines = []
    for label, (x1, y1, x2, y2) in enumerate(BOXES / SIDE):
        lines.append(f"{label} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n")
    (tmp_path / "labels" / "1.txt").write_text("".join(lines))
    (tmp_path / "data.yaml").write_text(f"path: .\nval: images\nnames: {list(NAMES)}\n")
    return tmp_path


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(content)
    return path


def require_boxes(found) -> None:
    assert found.class_id.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.confidence, SCORES, atol=2e-3)
    np.testing.assert_allclose(found.xyxy, BOXES, atol=2e-2)


@pytest.mark.parametrize("family", EVERY)
def test_predict_finds_its_boxes(place, family):
    require_boxes(Vajra(written(place, wrapped(FAMILIES[family]()))).predict(picture())[0])


@pytest.mark.parametrize("family", EVERY)
def test_val_scores_its_boxes(place, family):
    pytest.importorskip("pycocotools", reason="absent here: pycocotools")
    made = Vajra(written(place, wrapped(FAMILIES[family]()))).val(place / "data.yaml")
    assert (made.map50, made.map50_95) == (pytest.approx(1), pytest.approx(1))
    assert any("chooses its objects itself" in note for note in made.notes) == (family in SELF_CHOSEN)


def detected(place: Path, spec: EngineSpec, content: bytes, **names: object) -> Detections:
    """What the plan of the daemon's own build finds."""
    path = written(place, content)
    request = BuildRequest(path, weights_digest(path), "onnxruntime", spec, place / "state", 1 << 30, **names)
    plan = run(request, lambda _: None)
    detector = open_detector(Loadable.of(plan), threads=1)
    try:
        return detector.detect(Frame(picture(), 0, "2026-01-01T00:00:00Z", 0, "gate"))
    finally:
        detector.close()


@pytest.mark.parametrize("nms", [True, False])
@pytest.mark.parametrize("family", EVERY)
def test_the_daemons_plan_finds_its_boxes_with_nms_inside_and_outside(place, family, nms):
    inside = {} if nms else {"nms": None}
    require_boxes(detected(place, EngineSpec(target=Target("cpu"), **inside), wrapped(FAMILIES[family]())))


@pytest.mark.parametrize("family", EVERY)
def test_export_with_nms_inside_finds_its_boxes_and_writes_what_the_file_is(place, family):
    path = Vajra(written(place, wrapped(FAMILIES[family]()))).export(format="onnx", nms=True)
    require_boxes(Vajra(path).predict(picture())[0])
    made = signature.read(Path(path).read_bytes())
    assert (made.layout, made.end_to_end) == (Layout.DETECTIONS, family in SELF_CHOSEN)


@pytest.mark.parametrize("family", EVERY)
def test_names_are_given_where_the_file_has_none(place, family):
    path = written(place, wrapped(FAMILIES[family](), names=None))
    with pytest.raises(VajraError, match="pass names"):
        Vajra(path).predict(picture())
    network = Vajra(path)
    require_boxes(network.predict(picture(), names=list(NAMES))[0])
    assert network.predict(picture(), names={0: "a", 1: "b", 2: "c"})[0].names[2] == "c"
    require_boxes(network.predict(picture(), names=place / "data.yaml")[0])
    require_boxes(detected(place, EngineSpec(target=Target("cpu")), path.read_bytes(), class_names=NAMES))


def test_the_daemon_names_its_own_setting_for_the_names(place):
    with pytest.raises(GraphError, match=r"has 3 classes and no names of them; set \[weights\] class_names"):
        detected(place, EngineSpec(target=Target("cpu")), wrapped(families.yolov5(), names=None))


@pytest.mark.parametrize("family", sorted(SELF_CHOSEN))
def test_a_network_that_chooses_itself_takes_no_iou_and_no_more_boxes_than_it_has(place, family):
    network = Vajra(written(place, wrapped(FAMILIES[family]())))
    with pytest.raises(VajraError, match="end to end: no NMS comes after it; leave iou out"):
        network.predict(picture(), iou=0.5)
    with pytest.raises(VajraError, match="tells at most 30"):
        network.predict(picture(), max_det=31)
    assert len(network.predict(picture(), max_det=2)[0]) == 2


@pytest.mark.parametrize("family", ["YOLOv5", "RT-DETR", "YOLOv8 with boxes of 0..1", "end to end"])
def test_an_open_batch_stays_open(place, family):
    network = Vajra(written(place, wrapped(FAMILIES[family](), open_batch=True)))
    for one in network.predict([picture()] * 3, batch=3):
        require_boxes(one)


def test_a_yolov5_with_one_class_is_not_taken_for_end_to_end(place):
    content = wrapped(families.table(families.GRID3, objectness=True, classes=1), names=("person",))
    found = Vajra(written(place, content)).predict(picture())[0]
    np.testing.assert_allclose(found.xyxy, BOXES[:1], atol=1e-3)


def test_an_rtdetr_with_two_classes_is_not_taken_for_end_to_end(place):
    found = Vajra(written(place, wrapped(families.rtdetr()[:, :6], names=NAMES[:2]))).predict(picture())[0]
    np.testing.assert_allclose(found.xyxy, BOXES[:2], atol=1e-2)


def test_yolox_is_fed_blue_first_in_bytes():
    made = [onnx.load_from_string(intake.take_in(wrapped(rows()))) for rows in (families.yolox, families.yolov5)]
    fed = [[node.op_type for node in network.graph.node if node.name.startswith("/input/")] for network in made]
    assert fed == [["Gather", "Mul"], []]


def test_further_outputs_of_an_old_yolov5_are_passed_over(place):
    heads = [np.zeros((3, 8, 8, 8), np.float32), np.zeros((3, 4, 4, 8), np.float32)]
    require_boxes(Vajra(written(place, wrapped(families.yolov5(), *heads))).predict(picture())[0])


def _filled(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 5, shape).astype(np.float32)


def _boxes_and(further: np.ndarray) -> np.ndarray:
    return np.concatenate([families.table(families.GRID, objectness=False), further], 1).T


REFUSED = {
    "pose": ((_boxes_and(_filled(84, 51)),), "looks like a pose network"),
    "oriented boxes": ((_boxes_and(_filled(84, 1)),), r"oriented boxes \(obb"),
    "masks alone": ((_boxes_and(_filled(84, 32)),), "looks like a segmentation network"),
    "masks": ((_boxes_and(_filled(84, 32)), _filled(32, 16, 16)), "looks like a segmentation network"),
    "end-to-end pose": (
        (np.hstack([families.end_to_end().repeat(4, 0), _filled(120, 51)]),),
        "looks like a pose network",
    ),
    "semantic segmentation": ((_filled(3, 64, 64),), "semantic segmentation, or heads of a detector"),
    "undecoded heads": ((_filled(3, 8, 8, 8), _filled(3, 4, 4, 8)), "before anything is decoded"),
    "undecoded YOLOv5": ((np.abs(np.tanh(_filled(252, 8))),), "nobody decoded them"),
    "scores without sigmoid": ((_boxes_and(np.zeros((84, 0), np.float32)) - 5,), "no sigmoids of them"),
    "YOLOX with its boxes decoded": ((families.table(families.GRID, objectness=True),), "YOLOX with its boxes decoded"),
    "more classes than names": (
        (np.hstack([families.transposed(), np.zeros((84, 4), np.float32)]).T,),
        "it has 7 classes",
    ),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_everything_else_is_refused_by_what_it_looks_like(place, what):
    outputs, words = REFUSED[what]
    path = written(place, wrapped(*outputs))
    for call in (lambda: Vajra(path).predict(picture()), lambda: Vajra(path).export(format="onnx")):
        with pytest.raises(GraphError, match=words) as raised:
            call()
        assert raised.value.remedy
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("labels", "boxes", "scores"), "RT-DETR as its authors export it"),
        (("num_dets", "det_boxes", "det_scores", "det_classes"), "EfficientNMS"),
        (("logits", "pred_boxes"), "a DETR of Hugging Face"),
    ],
)
def test_other_post_processing_is_named(place, names, words):
    outputs = [np.zeros((30, 4), np.float32) for _ in names]
    with pytest.raises(GraphError, match=words):
        Vajra(written(place, wrapped(*outputs, output_names=names))).predict(picture())


def test_a_classification_network_is_refused_by_name():
    with pytest.raises(GraphError, match="looks like a classification network"):
        recognise({"output0": np.full((1, 3), 0.3, np.float32)}, 3, (SIDE, SIDE))


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_a_task_that_the_file_names_is_believed(place, task):
    with pytest.raises(GraphError, match=f"task is '{task}'"):
        Vajra(written(place, wrapped(families.yolov8(), task=task))).predict(picture())


@pytest.mark.parametrize("family", sorted(SELF_CHOSEN))
def test_int8_of_a_network_that_chooses_itself_gives_way_by_name(place, family, caplog):
    for number in range(2, 18):
        cv2.imwrite(str(place / "images" / f"{number}.png"), picture())
    network = Vajra(written(place, wrapped(FAMILIES[family]())))
    made = Path(network.export(format="onnx", int8=True, data=place / "data.yaml"))
    assert made.name == "net.fp32.onnx", "and no layer of this one gains from fp16"
    require_boxes(Vajra(made).predict(picture())[0])
    assert "the network is end to end" in caplog.text
