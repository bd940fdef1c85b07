"""Names from elsewhere: only a file that lies in the spool itself is ever opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vajra_edge.bundles.spool import Spool
from vajra_edge.errors import BundleError


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "state")
    made.folder.mkdir(parents=True)
    (tmp_path / "state" / "secret").write_text("secret")
    (made.folder / "net-12.bundle").write_text("bundle")
    return made


def refused(spool: Spool, name: str) -> str:
    with pytest.raises(BundleError) as caught:
        spool.open(name)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


def test_a_file_of_the_spool_is_opened_by_its_name(spool: Spool) -> None:
    with spool.open("net-12.bundle") as file:
        assert file.read() == b"bundle"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../secret", "../spool/net-12.bundle", "./net-12.bundle", "net-12.bundle/", "/etc/passwd"),
        *("a\0b", "net-12.bundle\0", "net-12.bundle\n", ".hidden", "-rf", "~root", "a b", "a\\b", "%2e%2e", "$(id)"),
        *("\u202enet", "n\u00e9t", "a" * 101, "net-12.bundle:stream", "..%2fsecret", "\uff0e\uff0e/secret"),
    ],
)
def test_what_is_no_plain_name_is_refused_before_anything_is_looked_at(spool: Spool, name: str) -> None:
    assert "names no bundle" in refused(spool, name)


def test_links_folders_pipes_and_devices_are_no_bundles(spool: Spool, tmp_path: Path) -> None:
    (spool.folder / "out").symlink_to(tmp_path / "state" / "secret")
    (spool.folder / "in").symlink_to("net-12.bundle")
    (spool.folder / "dangling").symlink_to("nowhere")
    (spool.folder / "folder").mkdir()
    os.mkfifo(spool.folder / "pipe")
    for name in ("out", "in", "dangling"):
        assert f"bundle {name} is a link" in refused(spool, name)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("folder", "pipe"):
        assert f"bundle {name} is no file" in refused(spool, name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "nothing stays open"


def test_a_spool_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "net").write_text("x")
    spool = Spool(tmp_path)
    spool.folder.symlink_to("elsewhere")
    assert "is a link" in refused(spool, "net")


def test_what_is_not_there_is_said_with_its_place(spool: Spool, tmp_path: Path) -> None:
    assert f"bundle net-13.bundle in {spool.folder} cannot be read: No such file" in refused(spool, "net-13.bundle")
    assert "cannot be read: No such file" in refused(Spool(tmp_path / "other"), "net")
