from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import tiny
from desk import CLIP_FPS, CLIP_FRAMES, IMAGES, SIDE_PX, desk, frames_of
from near import assert_near

import vajra_edge
from vajra_edge import Vajra
from vajra_edge.backends.onnx_file import precision_of
from vajra_edge.errors import VajraError
from vajra_edge.plans.spec import Precision
from vajra_edge.tasks import load
from vajra_edge.tasks.arguments import ExportArguments
from vajra_edge.tasks.val import BEST_CLASS_NOTE


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")


@pytest.fixture
def weights(tmp_path):
    return desk(tmp_path / "files")


@pytest.fixture
def open_batch(tmp_path):
    return desk(tmp_path / "files", batch=None)


def test_the_package_gives_vajra_without_loading_it_before():
    code = "import sys, vajra_edge; assert 'cv2' not in sys.modules; vajra_edge.Vajra; assert 'cv2' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(vajra_edge.__file__).parents[1])


def test_predict_finds_what_is_in_an_array_with_boxes_in_its_pixels(weights):
    scene = tiny.scene(SIDE_PX)
    (found,) = Vajra(weights).predict(cv2.resize(scene.image, (512, 512), interpolation=cv2.INTER_NEAREST))
    order = np.lexsort(found.xyxy.T[:2])
    expected = np.lexsort(scene.xyxy.T[:2])
    np.testing.assert_allclose(found.xyxy[order], 2 * scene.xyxy[expected], atol=0.01)
    np.testing.assert_array_equal(found.class_id[order], scene.class_id[expected])
    np.testing.assert_allclose(found.xyxyn, found.xyxy / 512, atol=1e-6)
    assert found.path == "image0"
    assert found.names == {0: "person", 1: "car"}
    assert set(found.speed) == {"preprocess", "inference", "postprocess"}


def test_predict_takes_folders_patterns_lists_and_a_video_in_one(weights):
    folder = weights.parent
    network = Vajra(weights)
    assert [one.path for one in network.predict(folder / "images")] == sorted(map(str, folder.glob("images/*.png")))
    assert len(network.predict(str(folder / "images" / "*.png"))) == IMAGES
    assert (
        len(network.predict([folder / "clip.mp4", tiny.scene(SIDE_PX).image, folder / "images"]))
        == CLIP_FRAMES + 1 + IMAGES
    )
    frames = network.predict(folder / "clip.mp4")
    assert [one.frame for one in frames] == list(range(CLIP_FRAMES))
    assert [len(one) for one in frames] == [0, 3] * (CLIP_FRAMES // 2)


def test_batches_change_nothing_but_the_number_of_calls(open_batch, monkeypatch):
    calls = []
    real = load.OnnxRuntime.load

    def counting(self, *arguments):
        runner = real(self, *arguments)
        infer = runner.infer
        runner.infer = lambda batch: calls.append(len(batch)) or infer(batch)
        return runner

    monkeypatch.setattr(load.OnnxRuntime, "load", counting)
    alone = Vajra(open_batch).predict(open_batch.parent / "images")
    assert calls == [1] * IMAGES
    calls.clear()
    together = Vajra(open_batch).predict(open_batch.parent / "images", batch=4)
    assert calls == [4, 4, 4]
    for one, other in zip(alone, together, strict=True):
        assert_near(one.xyxy, other.xyxy)


def test_class_filter_comes_before_the_cap(weights):
    network, image = Vajra(weights), tiny.scene(SIDE_PX).image
    assert {int(k) for k in network.predict(image, classes=[1], max_det=2)[0].class_id} == {1}
    assert len(network.predict(image, classes=[1], max_det=2)[0]) == 2
    assert len(network.predict(image, classes="person")[0]) == 3
    assert len(network.predict(image, classes=("0", "car"))[0]) == 6
    with pytest.raises(VajraError, match=r"classes: 'cra' .* did you mean car\?"):
        network.predict(image, classes="cra")


def test_confidence_is_a_bound(weights):
    (found,) = Vajra(weights).predict(tiny.scene(SIDE_PX).image, conf=0.0)
    assert len(found) > 6
    bound = float(found.confidence[2])
    (fewer,) = Vajra(weights).predict(tiny.scene(SIDE_PX).image, conf=bound)
    assert (fewer.confidence >= bound).all()
    assert len(fewer) < len(found)


def test_a_stream_gives_results_as_they_come_and_may_be_nested(weights):
    network = Vajra(weights)
    stream = network.predict(weights.parent / "clip.mp4", stream=True)
    counts = [len(one) + len(network.predict(one.image)[0]) for one in itertools.islice(stream, 4)]
    assert counts == [0, 6, 0, 6]
    stream.close()
    network.close()
    network.close()


def test_a_camera_without_stream_is_refused_and_an_absent_one_says_why(weights):
    with pytest.raises(VajraError, match="stream=True"):
        Vajra(weights).predict(99)
    with pytest.raises(VajraError, match="video99"):
        next(Vajra(weights).predict(99, stream=True))


def test_save_writes_images_and_a_video_with_the_boxes_in_them(weights):
    network, folder = Vajra(weights), weights.parent
    found = network.predict([folder / "images" / "0.png", folder / "clip.mp4", tiny.scene(SIDE_PX).image], save=True)
    assert {one.saved.name for one in found} == {"0.png", "clip.mp4", "image2.jpg"}
    assert {one.saved.parent.name for one in found} == {"predict"}
    assert (cv2.imread(str(found[0].saved)) != found[0].image).any()
    frames = frames_of(found[1].saved)
    assert len(frames) == CLIP_FRAMES
    video = cv2.VideoCapture(str(found[1].saved))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(CLIP_FPS)
    video.release()
    difference = [np.abs(frame.astype(int) - one.image).mean() for frame, one in zip(frames, found[1:-1], strict=True)]
    assert min(difference[1::2]) > 2 * max(difference[::2])
    again = network.predict(folder / "images", save=True)
    assert {one.saved.parent.name for one in again} == {"predict2"}


def test_val_scores_a_network_that_is_right_as_right(weights):
    report = Vajra(weights).val(weights.parent / "data.yaml")
    assert report.map50_95 == pytest.approx(1.0)
    assert report.map50 == pytest.approx(1.0)
    assert report.scores.images == IMAGES
    assert [one.name for one in report.per_class] == ["person", "car"]
    assert all(value > 0 for value in report.speed_ms.values())
    assert report.notes == ()


def test_val_in_half_and_in_batches_says_the_same(open_batch):
    report = Vajra(open_batch).val(open_batch.parent / "data.yaml", half=True, batch=4, device="cpu")
    assert report.map50_95 == pytest.approx(1.0)


def test_export_writes_each_precision_beside_the_weights_and_leaves_them(tmp_path):
    weights = desk(tmp_path / "files", channels=16)
    before = weights.read_bytes()
    paths = [Vajra(weights).export(format="onnx", img_size=SIDE_PX, half=half) for half in (False, True)]
    paths.append(
        Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True, data=str(weights.parent / "data.yaml"))
    )
    assert [path.rpartition("/")[2] for path in paths] == ["tiny.fp32.onnx", "tiny.fp16.onnx", "tiny.int8.onnx"]
    assert weights.read_bytes() == before
    inside = [precision_of(Path(path).read_bytes()) for path in paths]
    assert inside == [Precision.FP32, Precision.FP16, Precision.INT8]
    for path in paths:
        assert Vajra(path).val(weights.parent / "data.yaml").map50 == pytest.approx(1.0)
        assert len(Vajra(path).predict(weights.parent / "images")) == IMAGES


def test_int8_of_a_network_that_gains_nothing_is_told_as_what_it_is(weights, caplog):
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True, data=str(weights.parent / "data.yaml"))
    assert path.endswith("tiny.fp32.onnx")
    assert "no layer of this network gains from int8: it stays fp32" in caplog.text


def test_int8_without_data_says_loudly_that_the_demo_clip_stands_in(tmp_path, caplog):
    weights = desk(tmp_path / "files", channels=16)
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True)
    assert path.endswith("tiny.fp16.onnx")  # the network finds too little on the clip for a verdict on INT8
    assert "int8 is not used until it can be judged" in caplog.text
    assert "CALIBRATED ON FRAMES OF THE DEMO CLIP" in caplog.text
    with pytest.raises(VajraError, match=r"none\.yaml"):
        Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True, data="none.yaml")


def test_nms_inside_is_told_by_val_and_fixes_iou_and_max_det(weights):
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, nms=True)
    network, image = Vajra(path), tiny.scene(SIDE_PX).image
    np.testing.assert_allclose(network.predict(image)[0].xyxy, Vajra(weights).predict(image)[0].xyxy, atol=0.01)
    assert len(network.predict(image, iou=0.7, max_det=300)[0]) == 6
    with pytest.raises(VajraError, match=r"iou=0\.5 is asked for, and iou=0\.7 is baked"):
        network.predict(image, iou=0.5)
    with pytest.raises(VajraError, match=r"max_det=5 .* max_det=300"):
        network.predict(image, max_det=5)
    with pytest.raises(VajraError, match="baked"):
        network.val(weights.parent / "data.yaml", iou=0.6)
    assert network.val(weights.parent / "data.yaml").notes == (BEST_CLASS_NOTE,)


@pytest.fixture
def open_size(tmp_path):
    return desk(tmp_path / "files", batch=None, open_size=True)


@pytest.mark.parametrize("nms", [False, True])
def test_a_dynamic_export_takes_sizes_up_to_twice_its_own_in_batches_up_to_its_own(open_size, nms):
    path = Vajra(open_size).export(format="onnx", img_size=SIDE_PX, dynamic=True, batch=3, nms=nms)
    network = Vajra(path)
    for side_px, asked, batch in ((SIDE_PX, None, 1), (2 * SIDE_PX, 2 * SIDE_PX, 3), (SIDE_PX // 2, SIDE_PX // 2, 2)):
        scenes = [tiny.scene(side_px, seed=seed) for seed in range(4)]
        results = network.predict([scene.image for scene in scenes], img_size=asked, batch=batch)
        for found, scene in zip(results, scenes, strict=True):
            order, expected = np.lexsort(found.xyxy.T[:2]), np.lexsort(scene.xyxy.T[:2])
            np.testing.assert_allclose(found.xyxy[order], scene.xyxy[expected], atol=0.01)
            np.testing.assert_array_equal(found.class_id[order], scene.class_id[expected])
    assert network.val(open_size.parent / "data.yaml", img_size=(SIDE_PX, 2 * SIDE_PX)).scores.images == IMAGES
    with pytest.raises(VajraError, match=r"takes up to .*512, 512\), .*544, 544\) .* max_img_size=\(544, 544\)"):
        network.predict(open_size.parent / "images", img_size=544)


def test_the_largest_size_of_a_dynamic_export_is_ones_own_to_choose(open_size):
    path = Vajra(open_size).export(format="onnx", img_size=(128, 256), dynamic=True, max_img_size=320)
    fields = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (fields["img_size"], fields["max_img_size"]) == ("[128, 256]", "[320, 320]")
    assert len(Vajra(path).predict(open_size.parent / "images", img_size=320)) == IMAGES
    with pytest.raises(VajraError, match=r"takes up to img_size=\(320, 320\)"):
        Vajra(path).predict(open_size.parent / "images", img_size=352)


def test_the_side_of_a_dynamic_export_is_capped_and_a_fixed_one_has_no_largest():
    assert ExportArguments(img_size=5000, dynamic=True).largest_hw((5024, 320), 32) == (8192, 640)
    assert ExportArguments(img_size=640).largest_hw((640, 640), 32) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "tflite"}, "format 'tflite' is not known; use engine or onnx"),
        ({"img_size": 320}, "img_size=(320, 320) is asked for; pass img_size=(256, 256)"),
        ({"img_size": 256, "batch": 2}, "batch=2 is asked for; pass batch=1"),
        ({"img_size": 256, "dynamic": True}, "fixed to dynamic=False"),
        ({"img_size": (256, 256, 3)}, "is not a size"),
        ({"device": "tpu"}, "device 'tpu' is not known; use 0"),
        ({"img_size": 256, "device": "dla:0"}, "pass half=True, or int8=True"),
        ({"format": "engine", "device": "cpu"}, 'format="onnx"'),
        ({"fraction": 0.0}, "fraction 0.0"),
        ({"workspace": -1.0}, "workspace -1.0"),
        ({"batch": 0}, "batch 0"),
        ({"max_img_size": 512}, "max_img_size is for dynamic sizes; pass dynamic=True"),
        ({"img_size": 640, "max_img_size": 320, "dynamic": True}, "max_img_size 320 is smaller than img_size 640"),
        ({"max_img_size": 9000, "dynamic": True}, "max_img_size 9000 is not a size"),
        ({"quantization": "kl"}, "quantization 'kl' is not known; use one of auto, qdq, calibrator"),
        ({"quantization": "qdq"}, 'quantization="qdq" is a route to INT8; pass int8=True too'),
        (
            {"img_size": 256, "int8": True, "quantization": "calibrator"},
            'only TensorRT has a calibrator of its own; pass quantization="qdq", or format="engine"',
        ),
    ],
)
def test_what_export_cannot_do_is_said_in_the_words_of_its_arguments(weights, arguments, words):
    with pytest.raises(VajraError) as caught:
        Vajra(weights).export(**{"format": "onnx", **arguments})
    assert words in str(caught.value)
    assert "[engine]" not in str(caught.value)
    assert list(weights.parent.glob("*.engine")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 2}, "batch 2 is above the 1 that tiny.onnx takes"),
        ({"img_size": 320}, "img_size=(256, 256), img_size=(320, 320) is asked for"),
        ({"device": 0}, "CUDA"),
        ({"device": "dla:1"}, "cannot use dla:1"),
        ({"conf": 2}, "conf 2 is not a threshold"),
        ({"max_det": 0}, "max_det 0"),
    ],
)
def test_what_predict_cannot_do_is_said_in_the_words_of_its_arguments(weights, arguments, words):
    with pytest.raises(VajraError) as caught:
        Vajra(weights).predict(weights.parent / "images", **arguments)
    assert words in str(caught.value)
    assert "[engine]" not in str(caught.value)


def test_a_fixed_size_has_no_larger_one(open_batch):
    with pytest.raises(VajraError, match=r"img_size=\(256, 256\): max_img_size does not apply; leave max_img_size"):
        Vajra(open_batch).export(format="onnx", img_size=256, dynamic=True, max_img_size=512)


def test_a_size_beside_the_stride_is_rounded_up_and_said(weights, caplog):
    assert len(Vajra(weights).predict(weights.parent / "images", img_size=250)) == IMAGES
    assert "250x250 (height x width) is not a multiple of the stride 32; 256x256 is used" in caplog.text


@pytest.mark.parametrize("named", ["none.onnx", "none.engine", "none.pt", "0123456789abcdef", "weights.h5"])
def test_what_is_not_there_is_one_clear_line(named, tmp_path):
    with pytest.raises(VajraError) as caught:
        Vajra(named, state_dir=tmp_path).predict("image.jpg")
    assert named in str(caught.value)


def test_results_are_json(weights):
    (found,) = Vajra(weights).predict(weights.parent / "images" / "0.png")
    document = json.loads(json.dumps(found.to_json()))
    assert document["path"].endswith("0.png")
    assert document["resolution_wh"] == [SIDE_PX, SIDE_PX]
    assert {"class_id", "class", "confidence", "xyxy", "xyxyn"} == set(document["detections"][0])
    assert len(document["detections"]) == 6


def test_an_exported_graph_keeps_what_upstream_writes(weights):
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, half=True)
    fields = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert fields["precision"] == "fp16"
    assert "'half': True" in fields["args"]
    assert "person" in fields["names"]
