from __future__ import annotations

import pytest

from vajra_edge.cli.arguments import Option, items, plain, sides
from vajra_edge.errors import UsageError

OPTIONS = {
    "model": Option("--model"),
    "img_size": Option("--img_size"),
    "device": Option("--device"),
    "half": Option("--half", "--no-half", flag=True),
    "json": Option("--json", flag=True),
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["model=x.pt"], ["--model=x.pt"]),
        (["--model", "x.pt"], ["--model=x.pt"]),
        (["--model=x.pt"], ["--model=x.pt"]),
        (["model=a=b.pt"], ["--model=a=b.pt"]),
        (["img_size=320,256"], ["--img_size=320,256"]),
        (["--img-size", "320"], ["--img_size=320"]),
        (["half=True"], ["--half"]),
        (["half=1"], ["--half"]),
        (["half=false"], ["--no-half"]),
        (["--half"], ["--half"]),
        (["--half", "False", "--json"], ["--no-half", "--json"]),
        (["--half=True"], ["--half"]),
        (["--no-half"], ["--no-half"]),
        (["HALF=true"], ["--half"]),
        (["device=None"], []),
        (["device=0"], ["--device=0"]),
        (["--half", "model=x.pt"], ["--half", "--model=x.pt"]),
        (["json=False"], []),
        (["-h"], ["--help"]),
    ],
)
def test_words_and_options_mean_the_same(typed, meant):
    assert plain(typed, OPTIONS) == meant


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["imgsz=320"], "imgsz is not an argument of this command; did you mean img_size?"),
        (["--modle", "x"], "did you mean model?"),
        (["half=maybe"], "half=maybe is neither true nor false; write half=True or half=False"),
        (["x.pt"], "'x.pt' is neither key=value nor --key value"),
        (["--no-model"], "no_model is not an argument"),
        (["zzz=1"], "known are device, half, img_size, json, model"),
    ],
)
def test_what_is_not_understood_is_one_line_with_the_nearest(typed, told):
    with pytest.raises(UsageError) as caught:
        plain(typed, OPTIONS)
    assert told in str(caught.value)
    assert caught.value.exit_code == 2


def test_sizes_are_height_and_width():
    assert sides("640") == 640
    assert sides("320,256") == (320, 256)
    assert sides("[320, 256]") == (320, 256)
    with pytest.raises(UsageError, match="img_size=320x256 is not a size"):
        sides("320x256")


def test_lists_are_read_as_typed():
    assert items("0,2") == ["0", "2"]
    assert items("['person', 'traffic light']") == ["person", "traffic light"]
