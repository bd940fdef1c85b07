from __future__ import annotations

import pytest

from vajra_edge.plans import pin
from vajra_edge.plans.pin import NAME, Pin, digest_of


def test_a_pin_comes_back_and_goes(tmp_path):
    assert pin.read(tmp_path) is None
    pin.delete(tmp_path)
    told = Pin("a" * 64, digest_of("b" * 64, {"precision": "int8"}))
    pin.write(tmp_path, told)
    assert pin.read(tmp_path) == told
    pin.delete(tmp_path)
    assert pin.read(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pin": 3}', b"[" * 100_000, b"\xff"])
def test_one_that_is_damaged_counts_for_nothing(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert pin.read(tmp_path) is None


def test_one_that_this_device_did_not_write_counts_for_nothing(tmp_path):
    pin.write(tmp_path, Pin("a" * 64, "x"))
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b"a" * 64, b"b" * 64))
    assert pin.read(tmp_path) is None


def test_other_weights_and_other_settings_are_another_wish():
    wish = digest_of("a", {"precision": "int8"})
    assert wish == digest_of("a", {"precision": "int8"})
    assert len({wish, digest_of("b", {"precision": "int8"}), digest_of("a", {"precision": "fp16"})}) == 3
