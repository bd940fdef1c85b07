"""What tests of the installer share: a Debian of its own, the wheels of its lock, and a root with the program in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import installed_roots as roots
import pytest


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian 12 without the product; to be laid under an overlay, and not to be changed."""
    made = tmp_path_factory.mktemp("debian") / "root"
    roots.make_debian(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What its interpreter needs, with the extra ``bundles``."""
    made = tmp_path_factory.mktemp("wheels")
    release = f"{sys.version_info.major}{sys.version_info.minor}"
    for name in ("", "-bundles"):
        roots.wheels_of(f"{roots.ARCHITECTURE}-cp{release}{name}.lock", made)
    return made


@pytest.fixture(scope="module")
def pattern(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which the program is installed, to be copied."""
    root = tmp_path_factory.mktemp("pattern") / "root"
    ended = roots.install(root, wheels)
    assert ended.returncode == 0, ended.stderr
    return root
