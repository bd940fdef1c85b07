from __future__ import annotations

from vajra_edge.mqtt.backlog import LastValues
from vajra_edge.mqtt.topics import Topic

STATUS, ENGINE = Topic("status", 1, retain=True), Topic("engine", 1, retain=True)


def test_only_the_newest_value_is_sent() -> None:
    values = LastValues()
    for percent in range(100):
        values.set(STATUS, b"%d" % percent)
    assert values.take() == (STATUS, b"99")
    assert values.take() is None


def test_a_new_connection_gets_every_value_again() -> None:
    values = LastValues()
    values.set(STATUS, b"a")
    values.set(ENGINE, b"b")
    while values.take() is not None:
        pass
    values.resend()
    assert [values.take(), values.take(), values.take()] == [(STATUS, b"a"), (ENGINE, b"b"), None]


def test_a_topic_taken_off_the_broker_is_forgotten_once_that_arrived() -> None:
    values = LastValues()
    values.set(STATUS, b"")
    values.resend()
    assert values.take() == (STATUS, b"")
    values.resend()
    assert len(values) == 1
    assert values.take() == (STATUS, b"")
    values.arrived(STATUS)
    values.resend()
    assert values.take() is None


def test_a_value_set_while_its_removal_was_under_way_is_kept() -> None:
    values = LastValues()
    values.set(STATUS, b"")
    values.take()
    values.set(STATUS, b"back")
    values.arrived(STATUS)
    assert values.take() == (STATUS, b"back")
