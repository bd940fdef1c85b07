"""README's settings table is the settings' own; its commands exist; it links to files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from vajra_edge.changes import ACTIONS
from vajra_edge.settings import CameraSettings, Settings, leaf_fields

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(field: str) -> str:
    """The table's line for a dotted field."""
    section, _, name = field.rpartition(".")
    info = Settings.model_fields[section or name]
    if section:
        owner = CameraSettings if section == "cameras" else info.annotation
        info = owner.model_fields[name]
    default = info.default
    shown = "required" if default is PydanticUndefined else "not set" if default is None else f"`{_toml(default)}`"
    return f"| `{field}` | {shown} | {info.description} | {ACTIONS[field].value} |"


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("field", leaf_fields())
def test_every_setting_stands_in_the_table(field):
    assert row(field) in README


def test_every_file_that_is_linked_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_two_commands_are_there():
    assert "bash deploy/demo.sh" in README
    assert "bash tests/run.sh" in README


@pytest.mark.parametrize(
    "verb", ["run", "demo", "rebuild", "status", "calibration", "watch", "doctor", "bench", "export", "val", "predict"]
)
def test_every_verb_is_explained(verb):
    assert f"vajra-edge {verb}" in README
