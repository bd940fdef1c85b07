"""Files as other tools and other times write them: taken in, with the same boxes, or one line with what mends it."""

from __future__ import annotations

import io
import zipfile

import families
import numpy as np
import onnx
import pytest
import yolo
from families import BOXES, NAMES, SIDE, edited, wrapped
from onnx import TensorProto, helper
from onnx.external_data_helper import convert_model_to_external_data

from vajra_edge.errors import GraphError
from vajra_edge.graph import intake, probe, signature, topology
from vajra_edge.graph.signature import Layout
from vajra_edge.heads import Limits, head_of


def boxes(content: bytes) -> np.ndarray:
    """What a network finds after it was taken in, in the order of scores."""
    content = intake.take_in(content)
    known = signature.read(content)
    (output,) = probe.look(content, known.input_name, known.batch, (SIDE, SIDE)).values()
    return head_of(known).decode(known, output[0], Limits(0.25)).xyxy


def test_a_network_of_ours_comes_back_as_it_is():
    content = yolo.network()
    assert intake.take_in(content) is content


def test_weights_among_the_inputs_are_no_inputs():
    def old(network: onnx.ModelProto) -> None:
        network.ir_version = 3
        for tensor in network.graph.initializer:
            network.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))

    made = topology.parse(intake.take_in(edited(yolo.network(), old)))
    assert made.ir_version >= 4
    assert [value.name for value in made.graph.input] == ["images"]
    onnx.checker.check_model(made, full_check=True)


def test_nodes_out_of_order_are_put_in_order():
    def turn(network: onnx.ModelProto) -> None:
        nodes = list(network.graph.node)[::-1]
        del network.graph.node[:]
        network.graph.node.extend(nodes)

    onnx.checker.check_model(topology.parse(intake.take_in(edited(yolo.network(), turn))), full_check=True)


def test_an_ir_version_of_tomorrow_is_lowered_to_one_that_runtimes_read():
    made = intake.take_in(edited(yolo.network(), lambda network: setattr(network, "ir_version", 13)))
    assert topology.parse(made).ir_version == 10


@pytest.mark.parametrize("open_size", [-1, 0])
def test_a_batch_of_minus_one_or_zero_is_open(open_size):
    def change(network: onnx.ModelProto) -> None:
        for value in (network.graph.input[0], network.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = open_size

    found = signature.read(intake.take_in(edited(yolo.network(batch=None), change)))
    assert (found.dynamic_batch, found.batch) == (True, 1)


@pytest.mark.parametrize("family", ["YOLOv8", "YOLOv5", "RT-DETR", "end to end"])
def test_half_inputs_and_outputs_become_floats(family):
    content = wrapped(families.FAMILIES[family](), kind=TensorProto.FLOAT16)
    made = topology.parse(intake.take_in(content))
    kinds = {value.type.tensor_type.elem_type for value in (*made.graph.input, *made.graph.output)}
    assert kinds == {TensorProto.FLOAT}
    np.testing.assert_allclose(boxes(content), BOXES, atol=0.1)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8])
def test_an_input_of_bytes_or_with_its_channels_last_is_fed_as_it_wants(kind, channels_last):
    def mean_out(network: onnx.ModelProto) -> None:
        network.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 1, 1, 1]))

    content = edited(wrapped(families.yolov8(), kind=kind, channels_last=channels_last, stride="32"), mean_out)
    made = intake.take_in(content)
    assert topology.shape_of(topology.parse(made).graph.input[0]) == (1, 3, SIDE, SIDE)
    mean = probe.look(made, "images", 1, (SIDE, SIDE))["mean"].item()
    expected = probe.picture((SIDE, SIDE)).mean() * (255 if kind == TensorProto.UINT8 else 1)
    assert mean == pytest.approx(expected, rel=1e-2)
    np.testing.assert_allclose(
        boxes(wrapped(families.yolov5(), kind=kind, channels_last=channels_last)), BOXES, atol=1e-2
    )


@pytest.mark.parametrize("opset", [9, 10, 11])
@pytest.mark.parametrize("family", ["YOLOv5", "RT-DETR", "YOLOX"])
def test_an_old_opset_is_raised(family, opset):
    np.testing.assert_allclose(boxes(wrapped(families.FAMILIES[family](), opset=opset)), BOXES, atol=1e-2)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"orig_target_sizes": [1, 2]}, "RT-DETR or D-FINE"),
        ({"scale_factor": [1, 2]}, "PaddleDetection"),
        ({"x": [1]}, "more"),
    ],
)
def test_a_second_input_is_named(inputs, words):
    with pytest.raises(GraphError, match=words):
        intake.take_in(wrapped(families.yolov8(), inputs=inputs))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_for_grey_or_four_channels_is_refused(channels):
    def change(network: onnx.ModelProto) -> None:
        network.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels

    with pytest.raises(GraphError, match="for colour images"):
        intake.take_in(edited(wrapped(families.yolov8()), change))


def test_an_operator_of_another_runtime_is_named():
    def change(network: onnx.ModelProto) -> None:
        network.graph.node.append(helper.make_node("EfficientNMS_TRT", ["output0"], ["num"], domain="TRT"))

    with pytest.raises(GraphError, match="operator EfficientNMS_TRT of 'TRT', which only its own runtime has"):
        intake.take_in(edited(wrapped(families.yolov8()), change))


def _zip(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr(name, b"x")
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page; download it again"),
        (_zip("net/data.pkl"), "a PyTorch checkpoint; name it .pt"),
        (_zip("net.onnx"), "a zip file; unpack it"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x20\0\0\0ORTM", "ONNX Runtime's own format"),
        (b"ftrt\0\0", "a TensorRT engine; name it .engine"),
        (b'\x40\0\0\0\0\0\0\0{"w":', "safetensors"),
        (b"<?xml version='1.0'?><net>", "XML"),
        (b"\x89HDF\r\n", "Keras"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_way_out(content, words):
    with pytest.raises(GraphError, match=words):
        intake.take_in(content)


@pytest.fixture
def beside(tmp_path):
    """A network whose weights lie in a file beside it."""
    network = onnx.load_from_string(yolo.network())
    convert_model_to_external_data(network, location="weights/net.data", size_threshold=0)
    (tmp_path / "weights").mkdir()
    onnx.save(network, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_weights_in_a_file_beside_are_brought_in(beside):
    made = topology.parse(intake.read_file(beside))
    expected = onnx.load_from_string(yolo.network())
    images = yolo.images(1)
    np.testing.assert_array_equal(
        yolo.run(made.SerializeToString(), images), yolo.run(expected.SerializeToString(), images)
    )


def test_weights_that_are_not_beside_are_refused_with_the_command_that_mends_it(beside):
    (beside.parent / "weights" / "net.data").unlink()
    with pytest.raises(GraphError, match=r"net.data', which cannot be read: .*onnx.save\(onnx.load\('net.onnx'\)"):
        intake.read_file(beside)
    with pytest.raises(GraphError, match="lies in another file; write one file with all weights inside: python -c"):
        intake.take_in(beside.read_bytes())


def test_weights_that_are_cut_short_are_refused(beside):
    data = beside.parent / "weights" / "net.data"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(GraphError, match="is cut short"):
        intake.read_file(beside)


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../secret", "weights/../../secret", "C:\\\\x", "", "..\\\\secret"]
)
def test_no_path_leads_out_of_the_folder(beside, location):
    (beside.parent.parent / "secret").write_bytes(b"x" * 100_000)

    def change(network: onnx.ModelProto) -> None:
        for tensor in network.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value

    network = onnx.load(beside, load_external_data=False)
    change(network)
    beside.write_bytes(network.SerializeToString())
    with pytest.raises(GraphError, match="outside its folder"):
        intake.read_file(beside)


@pytest.mark.parametrize("linked", ["weights", "weights/net.data"])
def test_no_link_is_followed(beside, linked):
    there = beside.parent.parent / f"{beside.parent.name}-elsewhere"
    (beside.parent / linked).rename(there)
    (beside.parent / linked).symlink_to(there)
    with pytest.raises(GraphError, match="which is a link; copy the files themselves"):
        intake.read_file(beside)


def test_names_of_the_user_come_first_and_must_be_as_many():
    content = wrapped(families.yolov5())
    assert signature.read(intake.take_in(content, class_names=("a", "b", "c"))).class_names == ("a", "b", "c")
    with pytest.raises(GraphError, match="it has 3 classes"):
        intake.take_in(content, class_names=NAMES[:1])


def test_the_stride_follows_from_the_anchors():
    found = signature.read(intake.take_in(wrapped(families.yolov5())))
    assert (found.stride, found.layout, found.resolution_hw) == (32, Layout.RAW, (SIDE, SIDE))
