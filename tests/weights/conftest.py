"""Fixtures of the weights' tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def torch() -> Any:
    module = pytest.importorskip("torch", reason="absent here: torch")
    module.set_num_threads(1)  # small networks: threads cost more than they give
    return module


@pytest.fixture(scope="session")
def fill_rule(shared_data: Path) -> ModuleType:
    """The rule by which the golden networks' weights were filled."""
    spec = importlib.util.spec_from_file_location("fill_rule", shared_data / "golden" / "fill_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
