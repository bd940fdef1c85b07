from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location("house", Path(__file__).with_name("house.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path):
    files = {
        "__init__.py": "",
        "roof.py": "from pkg import floor\nfrom pkg.floor.beam import Beam\n",
        "floor/__init__.py": '"""Words.\n\nMore words.\n"""\n',
        "floor/beam.py": "class Beam:\n    pass\n\n\ndef late():\n    from pkg.floor.nail import Nail\n",
        "floor/nail.py": "# why\nimport pkg.floor.beam\n\nclass Nail(pkg.floor.beam.Beam):\n    pass\n",
    }
    for name, text in files.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "pkg"


def test_imports_of_names_modules_and_folders_are_told_apart(house, package):
    graph = house.edges(package, house.read(package))
    assert graph["roof"] == {"floor", "floor.beam"}
    assert graph["floor.nail"] == {"floor.beam"}


def test_a_cycle_through_a_function_is_a_cycle(house, package):
    assert house.cycles(house.edges(package, house.read(package))) == [["floor.beam", "floor.nail"]]


def test_docstrings_comments_and_blank_lines_are_no_code(house, package):
    modules = house.read(package)
    assert modules["floor"].lines_of_code == 0
    assert modules["floor.nail"].lines_of_code == 3
