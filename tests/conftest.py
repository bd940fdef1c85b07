"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The photos, clips and trained networks that lie beside the repository on some machines only."""
    if not SHARED_DATA.is_dir():
        pytest.skip("absent here: ../shared/data (real photos, clips and trained networks)")
    return SHARED_DATA.resolve()
