"""Keys and signatures, against the tool that the format comes from and against another implementation."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytest.importorskip("cryptography", reason="absent here: cryptography")

from signed import make_key, secret_text

from vajra_edge.bundles import minisign
from vajra_edge.bundles.minisign import PublicKey, parse_public, parse_secret, parse_signature, sign, verify
from vajra_edge.errors import BundleError


def is_taken(signature: bytes, public: PublicKey) -> bool:
    """As a keyring does that trusts this key alone."""
    try:
        told = parse_signature(signature)
        if told.key_id == public.key_id:
            verify(b"weights", told, public)
    except BundleError:
        return False
    return told.key_id == public.key_id


def no_password() -> str:
    raise AssertionError("nobody is asked")


def test_what_is_signed_verifies_and_nothing_else_does():
    key, other = make_key(), make_key()
    told = parse_signature(sign(b"weights", key, "serial 3"))
    assert (told.key_id, told.comment) == (key.public.key_id, "serial 3")
    verify(b"weights", told, key.public)
    for content, public in ((b"weightz", key.public), (b"weights", other.public), (b"", key.public)):
        with pytest.raises(BundleError, match="is not that of key"):
            verify(content, told, public)


def test_a_signature_has_one_spelling_so_that_no_bit_of_it_can_be_another():
    key = make_key()
    content = sign(b"weights", key, "serial 3")
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            assert not is_taken(bytes(flipped), key.public)


def test_keys_come_back_as_they_were_written():
    key = make_key()
    assert parse_secret(secret_text(key), no_password) == key
    assert parse_public(key.public.text()) == key.public
    assert parse_public(key.public.text().splitlines()[1]) == key.public


@pytest.mark.parametrize("text", ["", "x", "RWQ", "untrusted comment: a\nb\nc", "\0" * 100, "é", "A" * 4096])
def test_what_is_no_key_is_refused_in_one_line(text):
    for parse in (parse_public, lambda text: parse_secret(text, no_password)):
        with pytest.raises(BundleError) as refused:
            parse(text)
        assert "\n" not in str(refused.value)


@pytest.mark.skipif(shutil.which("minisign") is None, reason="absent here: minisign")
def test_minisign_takes_our_signatures_and_keys_and_we_take_its(tmp_path):
    def run(*arguments: object) -> str:
        told = subprocess.run(["minisign", *map(str, arguments)], capture_output=True, text=True, check=True)
        return told.stdout

    (tmp_path / "m").write_bytes(b"weights")
    ours = make_key()
    (tmp_path / "ours.pub").write_text(ours.public.text())
    (tmp_path / "ours.key").write_text(secret_text(ours))
    (tmp_path / "m.minisig").write_bytes(sign(b"weights", ours, "serial 3"))
    assert "Trusted comment: serial 3" in run("-Vm", tmp_path / "m", "-p", tmp_path / "ours.pub")
    run("-G", "-W", "-p", tmp_path / "its.pub", "-s", tmp_path / "its.key")
    its = parse_secret((tmp_path / "its.key").read_text(), no_password)
    assert parse_public((tmp_path / "its.pub").read_text()) == its.public
    run("-Sm", tmp_path / "m", "-s", tmp_path / "its.key", "-t", "by the tool")
    signed = (tmp_path / "m.minisig").read_text().splitlines(keepends=True)
    told = parse_signature("".join([f"{minisign.UNTRUSTED}\n", *signed[1:]]).encode())
    verify(b"weights", told, its.public)
    assert told.comment == "by the tool"


def test_py_minisign_takes_our_signatures_and_we_decrypt_its_keys(tmp_path):
    theirs = pytest.importorskip("minisign", reason="absent here: py-minisign")
    ours = make_key()
    public = theirs.PublicKey.from_base64(ours.public.text().splitlines()[1])
    public.verify(b"weights", theirs.Signature.from_bytes(sign(b"weights", ours, "serial 3")))
    del tmp_path
