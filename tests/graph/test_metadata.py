from __future__ import annotations

import json

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.errors import GraphError
from vajra_edge.graph import metadata


@pytest.mark.parametrize(
    "text",
    [
        "{0: 'person', 1: 'car'}",
        '{"0": "person", "1": "car"}',
        '["person", "car"]',
        "('person', 'car')",
        "{1: 'car', 0: 'person'}",
    ],
)
def test_names_are_read_as_every_exporter_writes_them(text):
    assert metadata.class_names_of({"names": text}) == ("person", "car")


@pytest.mark.parametrize(
    "text",
    [
        "{0: 'person', 2: 'car'}",
        "[1.5, 2]",
        "[True]",
        "5",
        "{'person': 0}",
        "person, car",
        "__import__('os').getcwd()",
        "{0: 'a' * 9}",
        "[" * 2000,
        "{0: " * 5 + "1" + "}" * 5,
        "-" * 200_000,
        "['" + "a" * 300 + "']",
        json.dumps(["a"] * 10_001),
        "['" + "a" * 300_000 + "']",
        "b'person'",
        "[NaN]",
    ],
)
def test_names_that_are_not_names_are_one_line_and_run_nothing(text):
    with pytest.raises(GraphError) as raised:
        metadata.class_names_of({"names": text})
    assert "names" in str(raised.value)
    assert len(str(raised.value)) < 250
    assert "\n" not in str(raised.value)


def test_absent_entries_are_none():
    assert metadata.class_names_of({}) is None
    assert metadata.resolution_hw_of({}) is None
    assert metadata.positive_int_of({}, "stride") is None


@given(names=st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_names_survive_json_and_python_literals(names):
    by_id = dict(enumerate(names))
    for text in (json.dumps(names), json.dumps(by_id), repr(names), repr(by_id)):
        if metadata._bracket_depth(text) <= metadata.MAX_DEPTH:
            assert metadata.class_names_of({"names": text}) == tuple(names)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"img_size": "[640, 480]"}, (640, 480)),
        ({"imgsz": "[416, 416]"}, (416, 416)),
        ({"imgsz": "640"}, (640, 640)),
        ({"imgsz": "(320,)"}, (320, 320)),
        ({"img_size": "320", "imgsz": "640"}, (320, 320)),
    ],
)
def test_sizes_are_read_under_both_names(fields, size):
    assert metadata.resolution_hw_of(fields) == size


@pytest.mark.parametrize("text", ["[]", "[1, 2, 3]", "-640", "0", "[640, 'x']", "True", "640.5", "null"])
def test_a_size_that_is_none_names_the_setting_that_supplies_it(text):
    with pytest.raises(GraphError, match=r"\[engine\] img_size"):
        metadata.resolution_hw_of({"imgsz": text})


def test_a_whole_number_may_be_written_as_a_float():
    assert metadata.positive_int_of({"stride": "32.0"}, "stride") == 32


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "true", "[32]", "inf", "1e999"])
def test_a_count_that_is_none_is_refused(text):
    with pytest.raises(GraphError, match=r"metadata 'stride' is .*; export the network again"):
        metadata.positive_int_of({"stride": text}, "stride")


def test_put_replaces_and_keeps_other_entries():
    network = onnx.ModelProto()
    onnx.helper.set_model_props(network, {"author": "me", "stride": "16"})
    metadata.put(network, {"stride": 32, "names": ["a"], "task": "detect"})
    assert metadata.fields_of(network) == {"author": "me", "stride": "32", "names": '["a"]', "task": "detect"}


@pytest.mark.parametrize(
    "text", ["{0: np.str_('a'), 1: np.str_('np.int64(7)')}", "{np.int64(0): 'a', np.int64(1): 'np.int64(7)'}"]
)
def test_names_as_numpy_2_writes_them_are_read_as_values(text):
    assert metadata.class_names_of({"names": text}) == ("a", "np.int64(7)")


def test_names_that_are_numbers_are_texts():
    assert metadata.class_names_of({"names": "{0: 7, 1: 8}"}) == ("7", "8")
    assert metadata.class_names_of({"names": "[0, 1]"}) == ("0", "1")


@pytest.mark.parametrize("text", ["None", "{}", "[]", "", " null "])
def test_an_exporter_without_names_writes_nothing(text):
    assert metadata.class_names_of({"names": text}) is None


def test_half_characters_in_names_are_shown_escaped_for_no_message_takes_them():
    assert metadata.class_names_of({"names": r"['caf\udce9', 'caf\xe9']"}) == ("caf\\udce9", "café")
