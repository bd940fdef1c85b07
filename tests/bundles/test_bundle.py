"""Bundles that are not as they were made: each is refused in one line, and nothing of it is left on the device."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from signed import Signer, make_key

from vajra_edge.bundles import bundle, minisign
from vajra_edge.bundles.bundle import BundleManifest
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.shelf import OUTCOME, Adopted, AdoptionOutcome, Shelf
from vajra_edge.errors import BundleError, StoreError

WEIGHTS = bytes(range(256)) * 5


@pytest.fixture
def signer(tmp_path):
    return Signer(tmp_path / "signer")


def opened(path: Path) -> io.BytesIO:
    return io.BytesIO(path.read_bytes())


def refused(signer: Signer, content: bytes, shelf: Shelf) -> str:
    """Why; and see that nothing is left of it."""
    with pytest.raises(BundleError) as error:
        shelf.unpack(io.BytesIO(content), signer.keyring())
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 400
    assert [path.name for path in shelf.root.iterdir() if path.name != "lock"] == []
    return line


def test_what_is_made_comes_back_whole(signer, tmp_path):
    path = signer.make(WEIGHTS, 7, class_names=("person", "car"), engine={"precision": "int8", "img_size": [320, 640]})
    shelf = Shelf(tmp_path)
    told = shelf.unpack(opened(path), signer.keyring())
    assert (told.manifest.serial, told.key_name) == (7, signer.key.public.name)
    installed = shelf.installed(told.digest, signer.keyring())
    assert installed.weights_path.read_bytes() == WEIGHTS
    assert installed.manifest.class_names == ("person", "car")
    assert shelf.unpack(opened(path), signer.keyring()) == told
    with tarfile.open(path) as listed:
        assert listed.getnames() == ["manifest.minisig", "manifest.json", "weights"]


def test_one_bit_flipped_anywhere_is_refused(signer, tmp_path):
    content, shelf = signer.make(WEIGHTS).read_bytes(), Shelf(tmp_path)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place * 5 % 8)
        with pytest.raises(BundleError):
            bundle.read(io.BytesIO(bytes(flipped)), signer.keyring())
    refused(signer, bytes(flipped), shelf)


def test_a_bundle_that_was_cut_off_or_goes_on_is_refused(signer, tmp_path):
    content, shelf = signer.make(WEIGHTS).read_bytes(), Shelf(tmp_path)
    for end in [*range(0, len(content), 97), len(content) - 1]:
        refused(signer, content[:end], shelf)
    for more in (b"\0", b"x" * 512, bytes(512), content):
        assert "behind it" in refused(signer, content + more, shelf)


def test_a_key_that_is_not_trusted_or_was_revoked_is_named(signer, tmp_path):
    stranger, shelf = make_key(), Shelf(tmp_path)
    line = refused(signer, signer.make(WEIGHTS, key=stranger).read_bytes(), shelf)
    assert f"key {stranger.public.name}, which is not trusted here (trusted: {signer.key.public.name})" in line
    posing = minisign.SecretKey(minisign.PublicKey(signer.key.public.key_id, stranger.public.raw), stranger.seed)
    assert "is not that of key" in refused(signer, signer.make(WEIGHTS, key=posing).read_bytes(), shelf)
    path, successor = signer.make(WEIGHTS), signer.trust("next")
    (signer.keys / "copy.pub").write_text(signer.key.public.text())
    signer.revoke("fleet")
    assert "which was revoked" in refused(signer, path.read_bytes(), shelf)
    assert shelf.unpack(opened(signer.make(WEIGHTS, key=successor)), signer.keyring())


def test_a_folder_of_keys_that_cannot_be_read_trusts_nobody(signer, tmp_path):
    (signer.keys / "broken.pub").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match=r"broken\.pub"):
        signer.keyring()
    assert not Keyring.load(tmp_path / "none").demands
    with pytest.raises(BundleError, match="no key is trusted on this device"):
        bundle.read(opened(signer.make(WEIGHTS)), Keyring.load(tmp_path / "none"))


def archived(parts: list[tuple[str, bytes, bytes]], **fields: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content, kind in parts:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            for field, value in fields.items():
                setattr(info, field, value)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("../../etc/passwd", b"x")
        made.writestr("weights", bytes(10_000_000))
    return file.getvalue()


def test_tricks_of_archives_are_refused(signer, tmp_path):
    shelf, reg = Shelf(tmp_path), tarfile.REGTYPE
    content = signer.make(WEIGHTS).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        parts = [(one.name, opened.extractfile(one).read(), reg) for one in opened.getmembers()]
    signature, manifest, weights = parts
    tricks = [
        zipped(),
        archived([*parts, weights]),
        archived([signature, signature, manifest, weights]),
        archived([manifest, signature, weights]),
        archived([("../manifest.minisig", signature[1], reg), manifest, weights]),
        archived([("/etc/passwd", signature[1], reg), manifest, weights]),
        archived([signature, manifest, ("weights", b"", tarfile.SYMTYPE)], linkname="/etc/passwd"),
        archived([signature, manifest, ("weights", b"", tarfile.LNKTYPE)], linkname="manifest.json"),
        archived([signature, manifest, ("weights", b"", tarfile.FIFOTYPE)]),
        archived([signature, manifest, ("weights", b"", tarfile.DIRTYPE)]),
        archived(parts, uname="root", uid=0, mtime=5),
        archived(parts, mode=0o4777),
        archived([("manifest.minisig", b"x" * 5000, reg), manifest, weights]),
        archived([signature, ("manifest.json", bytes(2 << 20), reg), weights]),
        archived(parts),  # whole, but padded to ten kilobytes by its maker
        b"",
        b"\x1f\x8b" + content,
        os.urandom(4096),
    ]
    for trick in tricks:
        refused(signer, trick, shelf)
    assert shelf.unpack(io.BytesIO(content), signer.keyring())


def signed_manifest(signer: Signer, text: bytes) -> bytes:
    """A bundle whose manifest is this, by a trusted key that lost its mind."""
    file = io.BytesIO()
    for name, part in (("manifest.minisig", minisign.sign(text, signer.key, "x")), ("manifest.json", text)):
        file.write(bundle._header(name, len(part)) + part + bytes(-len(part) % 512))
    file.write(bundle._header("weights", len(WEIGHTS)) + WEIGHTS + bytes(-len(WEIGHTS) % 512 + 1024))
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"[]",
        lambda text: b"{" * 100_000,
        lambda text: text.replace(b'"serial": 1', b'"serial": "1"'),
        lambda text: text.replace(b'"serial": 1', b'"serial": -1'),
        lambda text: text.replace(b'"serial": 1', b'"serial": true'),
        lambda text: text.replace(b'"serial": 1', b'"serial": 1e400'),
        lambda text: text.replace(b'"schema": 1', b'"schema": 2'),
        lambda text: text.replace(b"net.onnx", b"../../net.onnx"),
        lambda text: text.replace(b"net.onnx", b"net.sh"),
        lambda text: text.replace(b'"engine": {}', b'"engine": {"precision": "int3"}'),
        lambda text: text.replace(b'"engine": {}', b'"engine": {"python": "/bin/sh"}'),
        lambda text: text.replace(b'"engine": {}', b'"engine": []'),
        lambda text: text.replace(b'"size_bytes": 1280', b'"size_bytes": 99999999999999'),
        lambda text: text.replace(b'"class_names": null', b'"class_names": [7]'),
    ],
)
def test_a_signed_manifest_is_checked_all_the_same(signer, tmp_path, change):
    with tarfile.open(signer.make(WEIGHTS)) as opened:
        text = opened.extractfile("manifest.json").read()
    changed = change(text)
    assert changed != text
    refused(signer, signed_manifest(signer, changed), Shelf(tmp_path))


def test_a_serial_only_grows(signer, tmp_path):
    shelf = Shelf(tmp_path)
    fifth = shelf.unpack(opened(signer.make(WEIGHTS, 5)), signer.keyring())
    shelf.try_out(fifth.digest)
    shelf.settle(AdoptionOutcome(fifth.digest, Adopted.SERVING, serial=5))
    for serial in (4, 5):
        with pytest.raises(BundleError, match=f"serial {serial} is not above 5"):
            shelf.unpack(opened(signer.make(WEIGHTS + b"x", serial)), signer.keyring())
    assert shelf.unpack(opened(signer.make(WEIGHTS, 6)), signer.keyring()).manifest.serial == 6
    assert shelf.current == fifth.digest
    signer.trust("next")
    signer.revoke("fleet")  # a revoked key makes what it signed no older
    with pytest.raises(BundleError, match="serial 2 is not above 5"):
        shelf.unpack(opened(signer.make(WEIGHTS, 2, key=signer.trust("third"))), signer.keyring())


def folders(shelf: Shelf) -> set[str]:
    return {path.name for path in shelf.root.iterdir() if path.is_dir() and not path.is_symlink()}


def test_what_is_about_to_be_adopted_stays_while_another_is_settled_and_what_is_done_with_goes(signer, tmp_path):
    shelf, keyring = Shelf(tmp_path), signer.keyring()
    made = [shelf.unpack(opened(signer.make(WEIGHTS, serial)), keyring) for serial in (1, 2)]
    old, tried = (told.digest for told in made)
    for digest in (old, tried):
        shelf.try_out(digest)
        if digest == old:
            shelf.settle(AdoptionOutcome(digest, Adopted.SERVING, serial=1))
    waiting = shelf.unpack(opened(signer.make(WEIGHTS, 5)), keyring).digest
    assert folders(shelf) == {old, tried, waiting}
    shelf.settle(AdoptionOutcome(tried, Adopted.ROLLED_BACK, "it found nothing", 2))
    assert folders(shelf) == {old, waiting}
    later = shelf.unpack(opened(signer.make(WEIGHTS, 4)), keyring).digest
    shelf.try_out(later)
    shelf.settle(AdoptionOutcome(later, Adopted.SERVING, serial=4))
    assert folders(shelf) == {later, waiting}, "the one before is no way back: its plan is"
    assert shelf.installed(waiting, keyring).manifest.serial == 5
    newest = shelf.unpack(opened(signer.make(WEIGHTS, 6)), keyring).digest
    shelf.try_out(newest)
    shelf.settle(AdoptionOutcome(newest, Adopted.SERVING, serial=6))
    assert folders(shelf) == {newest}, "what is older than the one in force can be adopted no more"


def test_an_outcome_that_this_device_did_not_write_is_believed_by_no_fleet_tool(signer, tmp_path):
    shelf = Shelf(tmp_path)
    told = shelf.unpack(opened(signer.make(WEIGHTS, 1)), signer.keyring())
    outcome = AdoptionOutcome(told.digest, Adopted.ROLLED_BACK, "it found nothing", 1)
    shelf.try_out(told.digest)
    shelf.settle(outcome)
    assert shelf.outcome(told.digest) == outcome
    path = shelf.root / OUTCOME
    path.write_bytes(path.read_bytes().replace(b"rolled back", b"serving"))
    assert shelf.outcome(told.digest) is None


def test_a_full_disk_leaves_nothing_half(signer, tmp_path, monkeypatch):
    shelf = Shelf(tmp_path)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    path = signer.make(WEIGHTS)
    monkeypatch.setattr(bundle.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        shelf.unpack(opened(path), signer.keyring())
    monkeypatch.undo()
    assert [one.name for one in shelf.root.iterdir() if one.name != "lock"] == []


def test_what_is_no_file_is_no_bundle(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(BundleError, match=r"is no file|cannot be read"):
            bundle.open_file(path)


def test_a_manifest_comes_back_as_it_was_written():
    told = BundleManifest(3, "a.pt", "0" * 64, 5, ("x",), {"precision": "fp16"}, "2026-01-01T00:00:00+00:00")
    assert BundleManifest.from_bytes(told.to_bytes()) == told
