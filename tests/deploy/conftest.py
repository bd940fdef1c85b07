from __future__ import annotations

from collections.abc import Iterator

import pytest
from sample_broker import SampleBroker, absent


@pytest.fixture
def sample_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleBroker]:
    if lacking := absent():
        pytest.skip(f"absent here: {lacking}")
    broker = SampleBroker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.close()
