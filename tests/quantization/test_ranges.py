from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from typing import Any

import pytest
import yolo

from vajra_edge.errors import CalibrationError, StoreError
from vajra_edge.quantization.ranges import Range, RangeCache, Ranges, key_of, structure_of

RANGES = Ranges(
    {"a": Range(-1.0, 2.5, 2.0, (0.5, 0.25)), "b": Range(0.0, 1.0, 1.0)}, "percentile", "k" * 64, "s" * 64, "d" * 64, 12
)


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    """The digest that such a file would have, had it been written so."""
    body = {name: value for name, value in fields.items() if name != "sha256"}
    return body | {"sha256": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}


def test_a_file_reads_back_as_it_was() -> None:
    assert Ranges.from_json(json.loads(json.dumps(RANGES.to_json()))) == RANGES


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 0},
        {"tensors": {"a": [1, 2]}},
        {"tensors": {"a": [0, float("nan"), 1, []]}},
        {"tensors": {"a": [0, 1, -1, []]}},
        {"tensors": None},
        {"images": "many"},
    ],
)
def test_damaged_files_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="range"):
        Ranges.from_json(signed(RANGES.to_json() | damage))


def test_a_file_with_one_limit_changed_is_refused() -> None:
    fields = RANGES.to_json()
    fields["tensors"]["a"][2] *= 0.01
    with pytest.raises(CalibrationError, match="not what was written"):
        Ranges.from_json(fields)


def test_limits_are_no_wider_than_what_int8_holds() -> None:
    assert RANGES.limits() == {"a": (-1.0, 2.0), "b": (0.0, 1.0)}
    assert RANGES.means() == {"a": (0.5, 0.25)}


def test_the_key_changes_with_weights_images_and_algorithm() -> None:
    keys = {
        key_of(yolo.network(seed=seed), (64, 64), images, algorithm)
        for seed in (0, 1)
        for images in ("x", "y")
        for algorithm in ("minmax", "entropy")
    }
    assert len(keys) == 8
    assert key_of(yolo.network(), (64, 64), "x", "minmax") in keys


def test_the_structure_is_that_of_retrained_weights_too() -> None:
    assert structure_of(yolo.network(seed=0), (64, 64)) == structure_of(yolo.network(seed=1), (64, 64))
    draft = yolo.Draft()
    draft.node("Relu", "output0", "images")
    assert structure_of(draft.finish("output0", [3, 64, 64]), (64, 64)) != structure_of(yolo.network(), (64, 64))


def test_only_the_exact_key_is_found(tmp_path) -> None:
    cache = RangeCache(tmp_path / "ranges")
    assert cache.get(RANGES.key) is None
    cache.put(RANGES)
    assert cache.get(RANGES.key) == RANGES
    assert cache.get("z" * 64) is None


def test_a_file_under_a_wrong_name_is_not_used(tmp_path) -> None:
    cache = RangeCache(tmp_path)
    cache.put(RANGES)
    (tmp_path / f"{RANGES.key}.json").rename(tmp_path / "other.json")
    assert cache.get("other") is None


def test_a_file_cut_short_is_not_used(tmp_path) -> None:
    cache = RangeCache(tmp_path)
    cache.put(RANGES)
    path = tmp_path / f"{RANGES.key}.json"
    path.write_bytes(path.read_bytes()[:40])
    assert cache.get(RANGES.key) is None


def test_for_reuse_the_newest_of_the_same_network_images_and_algorithm_is_found(tmp_path) -> None:
    cache = RangeCache(tmp_path)
    for at, (key, algorithm) in enumerate((("1" * 64, "percentile"), ("2" * 64, "percentile"), ("3" * 64, "minmax"))):
        cache.put(replace(RANGES, algorithm=algorithm, key=key))
        os.utime(tmp_path / f"{key}.json", (at, at))
    found = cache.similar(RANGES.structure, RANGES.set_digest, "percentile")
    assert found is not None
    assert found.key == "2" * 64
    assert cache.similar("t" * 64, RANGES.set_digest, "percentile") is None
    assert cache.similar(RANGES.structure, "e" * 64, "percentile") is None


def test_what_is_dropped_is_measured_again(tmp_path) -> None:
    cache = RangeCache(tmp_path)
    cache.put(RANGES)
    cache.drop(RANGES.key)
    cache.drop(RANGES.key)
    assert cache.get(RANGES.key) is None


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        RangeCache(tmp_path / "file" / "ranges").put(RANGES)


def test_ranges_of_another_input_size_are_not_used_for_a_graph_with_open_sizes() -> None:
    plain = yolo.network()
    assert key_of(plain, (320, 320), "x", "minmax") != key_of(plain, (640, 640), "x", "minmax")
    assert structure_of(plain, (320, 320)) != structure_of(plain, (640, 640))
