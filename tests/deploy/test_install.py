"""Parts of deploy/install.sh by themselves; tests/system/test_sandbox.py runs all of it on a systemd."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "deploy" / "install.sh").read_text(encoding="utf-8")
FUNCTIONS = re.sub(r"^cd .*$", "", SCRIPT.split("\ncase ")[0], count=1, flags=re.MULTILINE)


def call(words: str, **environment: object) -> subprocess.CompletedProcess[str]:
    """One line of shell with the functions of install.sh at hand."""
    told = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(
        ["bash", "-c", f"{FUNCTIONS}\n{words}"], env=told, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def environment(tmp_path):
    """One with a stand-in of pip and a package of two files, as pip notes it."""
    made = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    packages = next(made.glob("lib/python3*/site-packages"))
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    (packages / "thing.py").write_text("x = 1\n")
    (packages / "thing-1.dist-info").mkdir()
    (packages / "thing-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    record = "thing.py,,6\n../../../bin/thing,,9\nthing-1.dist-info/METADATA,,\nthing-1.dist-info/RECORD,,\n"
    (packages / "thing-1.dist-info/RECORD").write_text(record)
    return made, packages


def test_an_environment_with_all_its_files_is_kept(environment):
    made, _ = environment
    assert call('whole "$made_here"', made_here=made).returncode == 0


def test_an_environment_whose_making_was_interrupted_counts_as_none(environment, tmp_path):
    made, packages = environment
    (packages / "pip/__init__.py").unlink()
    (packages / "pip").rmdir()
    assert call('whole "$made_here"', made_here=made).returncode != 0
    assert call('whole "$made_here"', made_here=tmp_path / "absent").returncode != 0


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "of no length"])
def test_an_environment_that_met_a_power_cut_counts_as_none(environment, harm):
    made, packages = environment
    harm(packages / "thing.py")
    assert call('whole "$made_here"', made_here=made).returncode != 0


def test_a_file_takes_the_place_of_a_link_and_does_not_go_through_it(tmp_path):
    target, victim, new = tmp_path / "etc/unit", tmp_path / "victim", tmp_path / "new"
    target.parent.mkdir()
    victim.write_text("mine")
    new.write_text("theirs")
    target.symlink_to(victim)
    assert call('place "$new" "$target" 0640', new=new, target=target).returncode == 0
    assert (target.is_symlink(), target.read_text(), target.stat().st_mode & 0o777) == (False, "theirs", 0o640)
    assert victim.read_text() == "mine"
    assert sorted(path.name for path in target.parent.iterdir()) == ["unit"]


@pytest.mark.skipif(os.geteuid() != 0, reason="absent here: root, who makes links of other users")
def test_a_folder_is_not_given_away_through_a_link_of_somebody_else(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.mkdir(mode=0o700)
    link.symlink_to(victim)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    ended = call('own_folder "$link" nobody 0755', link=link)
    assert ended.returncode == 1
    assert ended.stderr == f"install.sh: {link} is a link that root did not make; remove it\n"
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o700)


def test_what_is_installed_is_on_the_disk_before_it_has_its_name():
    order = ['sync -f "$made"', "rename_over(", 'put "$root/usr/local/bin/.vajra-edge.new"']
    assert sorted(order, key=SCRIPT.index) == order


def test_root_changes_nothing_below_the_folder_of_the_service():
    """What is to be made there, its owner makes: between a look and a change root could be led elsewhere."""
    touching = re.compile(r"\b(chown|chmod|install|mkdir|cp|mv|ln|touch|rm)\b.*\$state/")
    lines = [line.strip() for line in SCRIPT.splitlines() if touching.search(line)]
    assert lines == ['mkdir -p "$state/weights"']  # below DESTDIR, where no service runs
