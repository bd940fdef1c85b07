"""What an hour's soak must notice: ``soak.py``'s account of made-up messages and samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from faults.soak import Ledger, Sample, findings, growth, slope_an_hour

MEMORY = Sample(0.0, 1, 120.0, 80.0, 60.0, 24, 16, 3, 90.0, 21, 0.5)


def message(seq: int, camera: str = "gate", epoch: str = "e", age_ms: float = 10.0) -> dict[str, Any]:
    told = {"key": f"test/{epoch}/{camera}/{seq}", "epoch": epoch, "camera": camera, "seq": seq}
    return {**told, "taken_at": f"2026-11-28T10:{seq // 60:02}:{seq % 60:02}Z", "frame_age_ms": age_ms}


def gap(first: int, last: int) -> dict[str, Any]:
    told = message(first)
    return {"key": told["key"], "epoch": "e", "camera": "gate", "gap": {"from": first, "to": last, "why": "bytes"}}


def heard(*messages: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    ledger.hear([orjson.dumps(one) for one in messages])
    return ledger


def samples(**grown: float) -> list[Sample]:
    """Ten minutes, in which these grow by so much from each sample to the next."""
    values = [{name: getattr(MEMORY, name) + step * count for name, step in grown.items()} for count in range(60)]
    return [replace(MEMORY, at_s=10.0 * count, **each) for count, each in enumerate(values)]


def found(ledger: Ledger, published: int, ended: list[int] | None = None, **grown: float) -> list[str]:
    return findings(ledger, published, growth(samples(**grown)), [], ended or [0])


def test_nothing_is_found_where_all_came_once_and_nothing_grew():
    assert found(heard(*map(message, range(300))), 300) == []


@pytest.mark.parametrize(
    ("messages", "published", "what"),
    [
        ([message(0), message(2)], 3, ["1 of 3 lost", "1 neither received nor announced"]),
        ([message(0), gap(1, 1), message(2)], 3, ["1 of 3 lost"]),
        ([message(0), message(2), message(1)], 3, ["1 out of order"]),
        ([message(0), message(1), message(1)], 2, ["1 of 2 twice"]),
        ([message(0), message(0, epoch="f"), message(1)], 2, ["1 of 2 twice, under another key"]),
    ],
)
def test_what_is_lost_twice_or_out_of_order_is_found(messages, published, what):
    assert found(heard(*messages), published) == what


def test_a_camera_counts_by_itself():
    assert found(heard(message(0), message(0, "yard"), message(1), message(1, "yard")), 4) == []


@pytest.mark.parametrize(
    ("grown", "what"),
    [
        ({"own_mib": 0.1}, ["own_mib grows"]),
        ({"children_own_mib": 0.1}, ["children_own_mib grows"]),
        ({"descriptors": 1}, ["descriptors grow"]),
        ({"threads": 1}, ["threads grow"]),
        ({"children": 1, "children_descriptors": 4}, ["children grow", "children_descriptors grow"]),
        ({"pss_mib": 1.0}, []),
    ],
)
def test_what_grows_is_found(grown, what):
    assert found(heard(*map(message, range(300))), 300, **grown) == what


def test_a_minute_of_more_memory_does_not_bend_the_slope():
    values = [50.0] * 60
    values[30:36] = [90.0] * 6
    assert slope_an_hour([10.0 * count for count in range(60)], values) == 0.0
    assert slope_an_hour([0.0, 1800.0, 3600.0], [1.0, 2.0, 3.0]) == pytest.approx(2.0)


def test_frames_that_become_later_are_found_and_the_load_beside_them_is_said():
    later = heard(*(message(seq, age_ms=10.0 if seq < 150 else 50.0) for seq in range(300)))
    assert found(later, 300, load=0.1) == ["frames are later; the least load was 0.5, then 4.5"]


def test_a_death_is_found():
    assert found(heard(message(0)), 1, ended=[-11, 0]) == ["the daemon ended with [-11, 0]"]
