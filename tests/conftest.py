"""Fixtures every test may use, and which tests only ``--all`` runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is no failure: an example may take as long as it likes, and draws may be slow. What CI draws is the
# same each time, so that a change is judged by what it changes; elsewhere each run draws others.
settings.register_profile(
    "any processor",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("any processor")

SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"

LONG = "left to --all: "
"""Begins the reason of every test that the short run skips, which pytest's summary shows."""


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """``run`` blocks SIGABRT in the thread that calls it, and what a later test starts would inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
