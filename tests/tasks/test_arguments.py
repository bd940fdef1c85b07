"""Arguments as people write them, and wrong kinds in one line with the argument's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from desk import SIDE_PX

from vajra_edge import Vajra
from vajra_edge.__main__ import main
from vajra_edge.errors import ArgumentError, VajraError
from vajra_edge.graph import signature
from vajra_edge.plans.spec import Target
from vajra_edge.tasks.arguments import BATCH, IMG_SIZE, ExportArguments, sides_of, target_of
from vajra_edge.tasks.class_names import names_of
from vajra_edge.tasks.load import RunArguments


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny.network(SIDE_PX))
    return path


@pytest.mark.parametrize(
    "size", [256, [256, 256], (256, 256), "256", "256,256", "[256, 256]", np.int64(256), np.array([256, 256]), [256]]
)
def test_a_size_is_written_in_many_ways(size):
    assert sides_of(size) == (256, 256)
    assert RunArguments(size) == RunArguments(256)
    assert ExportArguments(img_size=size).img_size == (256, 256)


@pytest.mark.parametrize(
    ("device", "target"),
    [
        *[(one, Target("gpu", 0)) for one in (0, "0", [0], (0,), ["0"], "cuda:0", "[0]", np.int64(0))],
        *[("cpu", Target("cpu")), ("CPU", Target("cpu")), ("dla:1", Target("dla", 1)), (None, None), ("", None)],
    ],
)
def test_a_device_is_written_in_many_ways(device, target):
    assert target_of(device) == target


def test_numbers_and_switches_of_numpy_are_numbers_and_switches():
    made = ExportArguments(
        half=np.bool_(True), nms=1, batch=np.int64(2), fraction=np.float32(0.5), workspace=np.int32(4)
    )
    assert (made.half, made.nms, made.batch, made.fraction, made.workspace) == (True, True, 2, 0.5, 4.0)
    assert ExportArguments(format="ONNX").format == "onnx"


def test_none_leaves_every_default():
    names = ("format", "img_size", "half", "int8", "dynamic", "simplify", "nms", "batch", "data", "fraction")
    assert ExportArguments(**dict.fromkeys(names)) == ExportArguments()


WRONG = [
    *[({name: "False"}, f"{name} 'False' is neither True nor False") for name in ("half", "int8", "nms", "simplify")],
    ({"dynamic": 2}, "dynamic 2 is neither True nor False"),
    ({"workspace": "4"}, "workspace '4' is not a size in GiB"),
    ({"workspace": True}, "workspace True is not a size in GiB"),
    ({"fraction": "0.5"}, "fraction '0.5' is not a share"),
    ({"batch": "4"}, "batch '4' is not a number of images"),
    ({"batch": 2.5}, "batch 2.5 is not a number of images"),
    ({"data": 7}, "data 7 is not a path"),
    ({"format": 3}, "format 3 is not known"),
    ({"img_size": 640.5}, "img_size 640.5 is not a size"),
    ({"img_size": True}, "img_size True is not a size"),
    ({"img_size": {"h": 640}}, "is not a size"),
    ({"device": 0.0}, "device 0.0 is not known"),
    ({"device": {"gpu": 0}}, "is not known"),
    ({"quantization": 8}, "quantization 8 is not known"),
    ({"names": 3}, "names 3 is no list of names"),
    ({"names": [1.5]}, "is no list of names"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_a_wrong_kind_is_ours_and_a_type_error(weights, arguments, words):
    with pytest.raises(ArgumentError) as raised:
        Vajra(weights).export(**{"format": "onnx", **arguments})
    assert isinstance(raised.value, TypeError)
    assert words in str(raised.value)
    assert raised.value.remedy
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"conf": "0.5"}, {"iou": True}, {"max_det": 3.5}, {"half": "False"}, {"stream": "no"}, {"save": "yes"}),
        *({"img_size": object()}, {"batch": "2"}, {"device": object()}, {"names": {1: 2.5}}),
    ],
)
def test_predict_names_the_argument_too(weights, arguments):
    with pytest.raises((ArgumentError, VajraError), match=next(iter(arguments))):
        Vajra(weights).predict(tiny.scene().image, **arguments)


@pytest.mark.parametrize("named", [7, None, ["a.pt"], b"a.pt"])
def test_weights_are_a_path(named):
    with pytest.raises(ArgumentError, match=r"model .* is not a path"):
        Vajra(named)


def test_what_is_not_given_gives_way_to_the_file(weights):
    made = Vajra(weights).export(format="onnx")
    assert signature.read(Path(made).read_bytes()).resolution_hw == (SIDE_PX, SIDE_PX)
    weights.write_bytes(tiny.network(SIDE_PX, batch=3))
    assert signature.read(Path(Vajra(weights).export(format="onnx")).read_bytes()).batch == 3
    assert (IMG_SIZE, BATCH) == (640, 1)
    with pytest.raises(VajraError, match="batch=1 is asked for"):
        Vajra(weights).export(format="onnx", batch=1)


def test_a_suffix_in_capitals_is_a_suffix(weights):
    upper = weights.rename(weights.with_name("TINY.ONNX"))
    assert Vajra(upper).export(format="onnx").endswith("TINY.fp32.onnx")
    assert len(Vajra(upper).predict(tiny.scene(SIDE_PX).image)) == 1


def test_names_are_written_in_many_ways(tmp_path):
    (tmp_path / "data.yaml").write_text("val: images\nnames: {0: a, 1: b c}\n")
    (tmp_path / "coco.names").write_text("a\nb c\n")
    expected = ("a", "b c")
    given = [list(expected), expected, dict(enumerate(expected)), "a, b c", "['a', 'b c']", np.array(expected)]
    for one in [*given, tmp_path / "data.yaml", str(tmp_path / "coco.names")]:
        assert names_of(one) == expected
    for one in ("a,,b", [], {1: "a"}, tmp_path / "absent.txt"):
        with pytest.raises(VajraError, match="names"):
            names_of(one)


@pytest.mark.parametrize("word", ["device=[0,1]", "batch=two", "fraction=half", "img_size=[1,2,3]", "workspace=much"])
def test_a_wrong_argument_is_one_line_on_the_command_line(weights, word, capsys):
    assert main(["export", f"model={weights}", "format=onnx", word]) != 0
    said = capsys.readouterr()
    assert word.split("=")[0] in said.err
    assert "Traceback" not in said.err
