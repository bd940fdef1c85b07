from __future__ import annotations

import pytest

from vajra_edge.plans import pin
from vajra_edge.plans.pin import NAME, Pin, digest_of
from vajra_edge.plans.signing import make_key, seal


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


def test_without_the_device_s_key_nothing_is_believed(tmp_path):
    """Not even what somebody signed with no key at all."""
    (tmp_path / NAME).write_bytes(seal("pin", {"fingerprint": "a" * 64, "instead_of": "x"}, b""))
    assert pin.read(tmp_path) is None


def test_what_is_pinned_is_named_to_whoever_makes_room(tmp_path):
    assert pin.kept(tmp_path) == ()
    pin.write(tmp_path, Pin("a" * 64, "x"))
    assert pin.kept(tmp_path) == ("a" * 64,)


def test_one_file_of_this_device_does_not_stand_for_another(tmp_path):
    key = make_key(tmp_path / "store.key", tmp_path)
    sealed = seal("charges", {"fingerprint": "a" * 64, "instead_of": "x"}, key)
    (tmp_path / NAME).write_bytes(sealed.replace(b'"charges"', b'"pin"'))
    assert pin.read(tmp_path) is None


def test_other_weights_and_other_settings_are_another_wish():
    wish = digest_of("a", {"precision": "int8"})
    assert wish == digest_of("a", {"precision": "int8"})
    assert len({wish, digest_of("b", {"precision": "int8"}), digest_of("a", {"precision": "fp16"})}) == 3
