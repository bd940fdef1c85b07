"""Fixtures every test may use, and which tests only ``--all`` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"

LONG = "left to --all: "
"""Begins the reason of every test that the short run skips, which pytest's summary shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests too that take minutes (marker long)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    for item in items:
        if mark := item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason=LONG + mark.args[0]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The photos, clips and trained networks that lie beside the repository on some machines only."""
    if not SHARED_DATA.is_dir():
        pytest.skip("absent here: ../shared/data (real photos, clips and trained networks)")
    return SHARED_DATA.resolve()
