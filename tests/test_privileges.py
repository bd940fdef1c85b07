from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from vajra_edge import privileges
from vajra_edge.privileges import become_service_user, user_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="absent here: root")
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def folder(tmp_path):
    """A state folder whose parent is this user's."""
    made = tmp_path / "state"
    made.mkdir()
    return made


@as_root
def test_the_owner_of_the_state_folder_is_who_goes_on(folder):
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    assert user_of(folder, "no-such-user") == NOBODY


def test_where_there_is_no_state_folder_yet_it_is_the_service(folder):
    assert user_of(folder / "not-yet", "nobody") == NOBODY
    assert user_of(folder / "not-yet", "no-such-user") is None


@as_root
def test_a_state_folder_of_root_stays_roots(folder):
    entry = user_of(folder, "nobody")
    assert entry is not None
    assert entry.pw_uid == 0


@as_root
def test_a_link_that_the_service_put_into_the_way_does_not_make_it_roots(tmp_path):
    """To a folder of root's: whoever followed it as root would be led there."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "state").symlink_to("/etc")
    os.chown(own / "state", NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    assert user_of(own / "state", "nobody") == NOBODY


@as_root
def test_a_folder_of_root_that_the_service_can_replace_is_the_services(tmp_path):
    parent = tmp_path / "own"
    (parent / "state").mkdir(parents=True)
    os.chown(parent, NOBODY.pw_uid, NOBODY.pw_gid)
    assert user_of(parent / "state", "nobody") == NOBODY
    (tmp_path / "link").symlink_to("own/state")  # roots, and leads through the same folder
    assert user_of(tmp_path / "link", "nobody") == NOBODY


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises((OSError, RuntimeError)):
        user_of(tmp_path / "a")


def test_anybody_but_root_stays(monkeypatch, folder):
    monkeypatch.setattr(privileges.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(privileges.os, "setuid", lambda _: pytest.fail("it became another user"))
    become_service_user(folder / "not-yet", "nobody")


@as_root
def test_root_cannot_come_back(tmp_path):
    code = """
import os, sys
from pathlib import Path
from vajra_edge.privileges import become_service_user
become_service_user(Path(sys.argv[1]), "nobody")
assert os.getresuid() == (int(sys.argv[2]),) * 3 and 0 not in os.getresgid() and 0 not in os.getgroups()
try:
    os.setuid(0)
except PermissionError:
    print("gone on as", os.environ["HOME"])
"""
    arguments = [sys.executable, "-c", code, str(tmp_path / "not-yet"), str(NOBODY.pw_uid)]
    environment = {**os.environ, "PYTHONPATH": str(Path(privileges.__file__).parents[1])}
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert ended.stdout == f"gone on as {NOBODY.pw_dir}\n", ended.stderr
