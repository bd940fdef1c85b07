"""Manifests that version 0.1.0 wrote, of real builds, with a key of zeros: they are read, and written as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.report import BuildReport
from vajra_edge.plans.signing import KEY_BYTES, open_signed, sign

KEY = bytes(KEY_BYTES)
STORED = Path(__file__).parent / "manifests"


@pytest.mark.parametrize("name", ["lowered", "dla"])
def test_a_stored_manifest_is_written_again_byte_for_byte(name: str):
    path = STORED / f"{name}.json"
    assert sign(open_signed(path, KEY), KEY) == path.read_bytes()


def test_a_manifest_whose_layers_were_chosen_by_an_earlier_attempt_keeps_all_it_says():
    path = STORED / "again.json"
    assert json.loads(sign(open_signed(path, KEY), KEY)) == json.loads(path.read_bytes())


@pytest.mark.parametrize("name", ["lowered", "dla", "again"])
def test_fields_of_a_newer_version_are_passed_over(name: str):
    plain = json.loads((STORED / f"{name}.json").read_bytes())["manifest"]
    assert Manifest.from_json(_with_news(plain)).to_json() == Manifest.from_json(plain).to_json()


def _with_news(plain: Any) -> Any:
    """Every object with a field more, but for those whose keys are names: of layers, reasons, stages."""
    if isinstance(plain, list):
        return [_with_news(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    named = {"high", "left_on_gpu", "stages"}
    told = {key: value if key in named else _with_news(value) for key, value in plain.items()}
    return {**told, "of tomorrow": {"figure": 1}}


def test_a_manifest_without_a_report_is_read():
    plain = json.loads((STORED / "dla.json").read_bytes())["manifest"]
    bare = Manifest.from_json({**plain, "verify": {}, "notes": {}})
    assert (bare.verify, bare.latency_ms, bare.report) == (None, None, BuildReport())


@pytest.mark.parametrize("missing", ["verify", "notes", "wanted", "build_s"])
def test_a_manifest_without_one_of_its_fields_is_damaged(missing: str):
    plain = json.loads((STORED / "dla.json").read_bytes())["manifest"]
    del plain[missing]
    with pytest.raises(KeyError):
        Manifest.from_json(plain)
