"""deploy/schemas/generate.py, which is no part of the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "schemas"


def generator() -> ModuleType:
    """The module."""
    spec = importlib.util.spec_from_file_location("generate_of_the_schemas", FOLDER / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
