from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vajra_edge.config.settings import leaf_fields
from vajra_edge.errors import GraphError, UnsupportedSpec, VajraError, told_to
from vajra_edge.wording import Argument, Audience, Command, Setting, Text, said, say, several

PACKAGE = Path(__file__).resolve().parents[1] / "vajra_edge"

HALF = say("a DLA core computes in FP16 and INT8 only; ", Setting.PRECISION.to("fp16"))


@pytest.mark.parametrize(
    ("text", "daemon", "command_line", "python"),
    [
        (say(Setting.PRECISION.to("fp16")), "set [engine] precision = fp16", "pass half=True", "pass half=True"),
        (say(Setting.PRECISION.to("int8")), "set [engine] precision = int8", "pass int8=True", "pass int8=True"),
        (
            say(Setting.PRECISION.to("fp32")),
            "set [engine] precision = fp32",
            "pass neither half nor int8",
            "pass neither half nor int8",
        ),
        (
            say(Setting.BACKEND.to("tensorrt") | Setting.TARGET.to("cpu")),
            "set [engine] backend = tensorrt, or target = cpu",
            "pass format=engine, or device=cpu",
            'pass format="engine", or device="cpu"',
        ),
        (
            say(Setting.CLASS_NAMES.given()),
            "set [weights] class_names",
            "pass names",
            "pass names",
        ),
        (
            say("lower ", Setting.WORKSPACE_GIB, ", or leave it unset"),
            "lower [engine] workspace_gib, or leave it unset",
            "lower workspace, or leave it unset",
            "lower workspace, or leave it unset",
        ),
        (
            say("lower ", several(Setting.BATCH, Setting.IMG_SIZE, last="or")),
            "lower [engine] batch or img_size",
            "lower batch or img_size",
            "lower batch or img_size",
        ),
        (
            say(Setting.SIMPLIFY.to(False)),
            "set [engine] simplify = false",
            "pass simplify=False",
            "pass simplify=False",
        ),
        (say(Setting.IMG_SIZE.left_out()), "unset [engine] img_size", *["pass the img_size it has"] * 2),
        (
            say("raise ", Setting.FRACTION, ", or ", Setting.BATCH.to(4)),
            "raise [calibration] fraction, or set [engine] batch = 4",
            "raise fraction, or pass batch=4",
            "raise fraction, or pass batch=4",
        ),
        (
            say("it has ", Argument.IMG_SIZE.of((320, 256))),
            "it has img_size=320,256",
            "it has img_size=320,256",
            "it has img_size=(320, 256)",
        ),
        (
            say(Command.REBUILD_FORCE, " tries it again"),
            "vajra-edge rebuild --force tries it again",
            *["another export tries it again"] * 2,
        ),
        (say("'", Command.DOCTOR, "' tells"), *["'vajra-edge doctor' tells"] * 3),
        (say("check ", several(Setting.MQTT_HOST, Setting.MQTT_PORT)), *["check [mqtt] host and port"] * 3),
        (say(Setting.DEVICE_ID.given()), *["set device_id"] * 3),
        ("copy the file again", *["copy the file again"] * 3),
    ],
)
def test_each_reader_is_told_in_words_of_his_own(text: Text, daemon: str, command_line: str, python: str):
    assert said(text, Audience.DAEMON) == daemon
    assert said(text, Audience.COMMAND_LINE) == command_line
    assert said(text, Audience.PYTHON) == python


@pytest.mark.parametrize(
    ("audience", "words"),
    [
        (Audience.DAEMON, "no; set [engine] precision = fp16"),
        (Audience.COMMAND_LINE, "no; pass half=True"),
        (Audience.PYTHON, "no; pass half=True"),
    ],
)
def test_an_error_is_told_to_whoever_asked(audience: Audience, words: str):
    with pytest.raises(UnsupportedSpec) as caught, told_to(audience):
        raise UnsupportedSpec("no", remedy=say(Setting.PRECISION.to("fp16")))
    assert str(caught.value) == words


def test_of_two_audiences_the_outer_one_reads():
    with pytest.raises(VajraError) as caught, told_to(Audience.COMMAND_LINE), told_to(Audience.PYTHON):
        raise VajraError("no", remedy=say("pass ", Argument.FORMAT.of("onnx")))
    assert str(caught.value) == "no; pass format=onnx"


def test_an_error_carries_what_it_is_about_even_through_another_error():
    inner = UnsupportedSpec("no", remedy=say(Setting.BACKEND.to("onnxruntime") | Setting.TARGET.to("cpu")))
    outer = GraphError(say("weights x.onnx: ", inner.text), remedy=say("lower ", Argument.BATCH))
    assert outer.about == (Setting.BACKEND, Setting.TARGET, Argument.BATCH)
    assert str(outer) == "weights x.onnx: no; set [engine] backend = onnxruntime, or target = cpu; lower batch"


def test_an_error_that_names_nothing_is_about_nothing():
    assert VajraError("the disk is full", remedy="free space").about == ()


def test_every_setting_that_is_named_is_one():
    assert {setting.value for setting in Setting} <= set(leaf_fields())


def test_every_setting_and_argument_is_named_somewhere():
    """A name that no message uses is dead."""
    used = {
        node.attr
        for path in PACKAGE.rglob("*.py")
        if path.name != "wording.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"Setting", "Argument", "Command"}
    }
    inside = {"HALF", "INT8", "FORMAT", "DEVICE", "SIMPLIFY", "QUANTIZATION", "WORKSPACE"}
    assert {one.name for kind in (Setting, Argument, Command) for one in kind} - inside <= used


def test_no_message_writes_a_setting_out():
    """Text inside ``raise`` and ``remedy=`` names settings as values, so that each reader gets his own words."""
    sections = ("[engine]", "[weights]", "[calibration]", "[mqtt]", "[store]", "[service]", "engine.")
    wrong = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Raise) or (isinstance(call, ast.keyword) and call.arg == "remedy")
        for node in ast.walk(call)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(section in node.value for section in sections)
    }
    assert wrong == set()
