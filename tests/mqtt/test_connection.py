from __future__ import annotations

import random

import pytest

from vajra_edge.mqtt.connection import (
    BASE_S,
    CAP_S,
    HEALTHY_S,
    Accepted,
    Connection,
    ConnectionPhase,
    ConnectionTick,
    Dial,
    Doubt,
    Fault,
    Mended,
    advance,
    delay_s,
)


def dialling(wanted: str = "auto") -> Connection:
    state, action = advance(Connection.first(wanted), ConnectionTick(0.0))
    assert state.phase is ConnectionPhase.DIALLING
    assert action is not None
    return state


def online(wanted: str = "auto", now_s: float = 0.0) -> Connection:
    return advance(dialling(wanted), Accepted(now_s))[0]


@pytest.mark.parametrize(("wanted", "protocol"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_it_dials_at_once_in_the_newest_protocol_allowed(wanted: str, protocol: str) -> None:
    assert advance(Connection.first(wanted), ConnectionTick(0.0))[1] == Dial(protocol)


def test_it_waits_after_a_fault_and_then_dials_again() -> None:
    state, action = advance(dialling(), Fault(1.0, dice=1.0))
    assert (state.phase, action) == (ConnectionPhase.WAITING, None)
    assert advance(state, ConnectionTick(1.0 + BASE_S - 0.01))[1] is None
    assert advance(state, ConnectionTick(1.0 + BASE_S))[1] == Dial("5")


@pytest.mark.parametrize("doubt", [Doubt.SILENT, Doubt.SURE])
def test_a_broker_that_does_not_know_5_is_dialled_in_3_at_once(doubt: Doubt) -> None:
    state, action = advance(dialling(), Fault(0.0, 0.5, doubt))
    assert action == Dial("3.1.1")
    assert advance(state, Accepted(1.0))[0].phase is ConnectionPhase.ONLINE


@pytest.mark.parametrize(("doubt", "next_protocol"), [(Doubt.SILENT, "5"), (Doubt.SURE, "3.1.1")])
def test_5_is_tried_again_after_silence_but_not_after_a_plain_no(doubt: Doubt, next_protocol: str) -> None:
    state, _ = advance(dialling(), Fault(0.0, 0.5, doubt))
    state, _ = advance(state, Accepted(1.0))
    state, _ = advance(state, Fault(100.0, 0.5))
    assert advance(state, ConnectionTick(200.0))[1] == Dial(next_protocol)


@pytest.mark.parametrize("wanted", ["auto", "5", "3.1.1"])
def test_a_broker_that_refuses_the_wills_quality_is_dialled_with_0_at_once_and_from_then_on(wanted: str) -> None:
    state = dialling(wanted)
    state, action = advance(state, Fault(0.0, 0.5, Doubt.WILL_QOS))
    assert action == Dial(state.protocol, will_qos=0)
    assert state.phase is ConnectionPhase.DIALLING
    state, _ = advance(advance(state, Accepted(1.0))[0], Fault(100.0, 0.5))
    assert advance(state, ConnectionTick(200.0))[1] == Dial(state.protocol, will_qos=0)


def test_a_broker_that_refuses_a_will_of_quality_0_too_is_tried_again_after_a_delay_in_the_same_protocol() -> None:
    state, _ = advance(dialling(), Fault(0.0, 0.5, Doubt.WILL_QOS))
    state, action = advance(state, Fault(1.0, 0.5, Doubt.WILL_QOS))
    assert (state.phase, state.attempts, action) == (ConnectionPhase.WAITING, 1, None)
    assert advance(state, ConnectionTick(99.0))[1] == Dial("5", will_qos=0)


def test_a_will_that_was_refused_says_nothing_of_the_protocol_and_the_other_way_round() -> None:
    state, _ = advance(dialling(), Fault(0.0, 0.5, Doubt.WILL_QOS))
    state, action = advance(state, Fault(1.0, 0.5, Doubt.SURE))
    assert action == Dial("3.1.1", will_qos=0)


def test_a_protocol_asked_for_is_kept() -> None:
    state, action = advance(dialling("5"), Fault(0.0, 0.5, Doubt.SURE))
    assert action is None
    assert advance(state, ConnectionTick(99.0))[1] == Dial("5")


def test_neither_protocol_answered_is_a_fault_with_a_delay() -> None:
    state, _ = advance(dialling(), Fault(0.0, 0.5, Doubt.SILENT))
    state, action = advance(state, Fault(3.0, 0.5, Doubt.SILENT))
    assert (state.phase, state.attempts, action) == (ConnectionPhase.WAITING, 1, None)


def test_a_broker_that_accepts_and_kicks_is_not_hammered() -> None:
    state, now_s, delays = Connection.first("auto"), 0.0, []
    for _ in range(8):
        state, _ = advance(state, ConnectionTick(now_s))
        state, _ = advance(state, Accepted(now_s))
        state, _ = advance(state, Fault(now_s + 0.1, 1.0))
        delays.append(state.retry_s - now_s - 0.1)
        now_s = state.retry_s
    assert delays == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30])


def test_a_healthy_connection_resets_the_delay() -> None:
    state = online(now_s=0.0)
    for _ in range(5):
        state, _ = advance(state, Fault(1.0, 1.0))
        state = advance(advance(state, ConnectionTick(state.retry_s))[0], Accepted(1.0))[0]
    state, _ = advance(state, Fault(1.0 + HEALTHY_S, 1.0))
    assert state.attempts == 1


def test_delays_stay_between_half_and_the_whole_of_a_bounded_step() -> None:
    dice = random.Random(0)
    for attempts in range(1, 200):
        wait_s = delay_s(attempts, dice.random())
        assert 0.5 * BASE_S <= wait_s <= CAP_S


@pytest.mark.parametrize("seed", range(10))
def test_random_walks_always_come_back(seed: int) -> None:
    dice = random.Random(seed)
    state, now_s = Connection.first("auto"), 0.0
    for _ in range(3_000):
        now_s += dice.random()
        event = dice.choice(
            [ConnectionTick(now_s), Accepted(now_s), Fault(now_s, dice.random(), dice.choice([*Doubt]))],
        )
        before = state
        state, action = advance(state, event)
        if action is not None:
            assert state.phase is ConnectionPhase.DIALLING
        if state.phase is ConnectionPhase.WAITING:
            assert state.retry_s <= now_s + CAP_S
        if before.phase is ConnectionPhase.WAITING and not isinstance(event, ConnectionTick):
            assert state == before
    if state.phase is ConnectionPhase.WAITING:
        assert advance(state, ConnectionTick(now_s + CAP_S))[1] is not None


def test_who_was_put_out_by_a_rival_comes_back_ever_later_however_long_it_held() -> None:
    state, now_s = online(), 0.0
    for times in range(1, 9):
        now_s += HEALTHY_S + 1.0
        state, _ = advance(state, Fault(now_s, 1.0, rival=True))
        assert state.retry_s - now_s == delay_s(times, 1.0)
        now_s = state.retry_s
        state, _ = advance(state, ConnectionTick(now_s))
        state, _ = advance(state, Accepted(now_s))


def test_once_the_cause_of_the_breaks_is_gone_it_comes_back_soon() -> None:
    state, now_s = online(), 0.0
    for _ in range(8):
        state, _ = advance(state, Fault(now_s, 1.0))
        now_s = state.retry_s
        state, _ = advance(state, ConnectionTick(now_s))
        state, _ = advance(state, Accepted(now_s))
    assert advance(state, Mended(now_s, 1.0)) == (state, None)
    state, _ = advance(state, Fault(now_s, 1.0))
    assert state.retry_s == now_s + CAP_S
    state, _ = advance(state, Mended(now_s, 1.0))
    assert (state.retry_s, state.attempts) == (now_s + BASE_S, 0)
