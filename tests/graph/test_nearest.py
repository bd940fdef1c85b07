from __future__ import annotations

import pytest
import yolo

from vajra_edge.graph.passes import tensorrt_rules
from vajra_edge.graph.passes.qdq import place
from vajra_edge.graph.topology import Wiring, load


@pytest.fixture(scope="module")
def wiring() -> Wiring:
    return Wiring(load(yolo.network()))


def found(wiring: Wiring, *names: str) -> set[str]:
    return set(tensorrt_rules.in_int8(wiring, place(wiring), names))


def test_a_layer_in_int8_is_itself_by_key_and_by_name(wiring: Wiring):
    assert found(wiring, "stem") == {"stem"}
    node = next(node for node in wiring.nodes if node.output[0] == "neck")
    assert found(wiring, node.name or "neck") == {"neck"}


def test_a_residual_addition_counts_as_one(wiring: Wiring):
    assert found(wiring, "added") == {"added"}


def test_an_activation_stands_for_the_layers_around_it(wiring: Wiring):
    assert {"stem", "down"} <= found(wiring, "stem_silu")


def test_a_pair_stands_for_those_that_read_its_tensor(wiring: Wiring):
    assert found(wiring, "stem_silu_q") == found(wiring, "stem_silu_dq") == {"down"}


def test_what_is_out_of_int8_already_or_unknown_stands_for_nothing(wiring: Wiring):
    high = next(iter(place(wiring).high))
    assert found(wiring, high, "no such node") == set()


def test_names_lead_to_keys_where_the_graph_has_them(wiring: Wiring):
    assert tensorrt_rules.keys_of(wiring, ["stem", "no such node"]) == {"stem": "stem"}
