"""deploy/config.example.toml names every setting with its real default, and loads as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vajra_edge.config.settings import CameraSettings, Settings, load

EXAMPLE = Path(__file__).parents[2] / "deploy" / "config.example.toml"
LINE = re.compile(r"^(?:# )?([a-z_0-9]+) = (e\.g\. )?(.*?)(?:\s{2,}.*|\s+#.*)?$")


def sections():
    """Every documented line as section, field, whether it is an example, and its TOML value."""
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if table := re.match(r"^(?:# )?\[+([a-z]+)\]+", line):
            section = table[1]
        elif match := LINE.match(line):
            yield section, match[1], bool(match[2]), match[3].strip()


def uncommented(with_examples):
    lines = []
    section = None
    for name, field, example, value in sections():
        if name != section:
            section = name
            if name:
                lines.append("[[cameras]]" if name == "cameras" else f"[{name}]")
        if not example or with_examples:
            lines.append(f"{field} = {value}")
    return "\n".join(lines)


def test_it_loads_as_it_is():
    loaded = load(EXAMPLE)
    assert loaded == load(None, {"weights": {"path": loaded.weights.path}})


def test_it_names_every_setting():
    named = {(section, field) for section, field, _, _ in sections()}
    for name, info in Settings.model_fields.items():
        section = CameraSettings if name == "cameras" else info.annotation
        fields = getattr(section, "model_fields", None)
        expected = {(name, field) for field in fields} if fields else {("", name)}
        assert expected <= named


@pytest.mark.parametrize("with_examples", [False, True])
def test_every_shown_default_is_the_default_and_every_example_is_valid(tmp_path, with_examples):
    path = tmp_path / "config.toml"
    path.write_text(uncommented(with_examples), encoding="utf-8")
    loaded = load(path)
    camera = {"id": "gate", "source": "rtsp://192.168.1.20/stream1"}
    plain = load(None, {"weights": {"path": loaded.weights.path}, "cameras": [camera]})
    assert (loaded == plain) is not with_examples
