"""Manifests that version 0.1.0 wrote, of real builds, with a key of zeros: they are read, and written as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vajra_edge.engine.signing import KEY_BYTES, open_signed, sign

KEY = bytes(KEY_BYTES)
STORED = Path(__file__).parent / "manifests"


@pytest.mark.parametrize("name", ["lowered", "dla"])
def test_a_stored_manifest_is_written_again_byte_for_byte(name: str):
    path = STORED / f"{name}.json"
    assert sign(open_signed(path, KEY), KEY) == path.read_bytes()


def test_a_manifest_whose_layers_were_chosen_by_an_earlier_attempt_keeps_all_it_says():
    path = STORED / "again.json"
    assert json.loads(sign(open_signed(path, KEY), KEY)) == json.loads(path.read_bytes())
