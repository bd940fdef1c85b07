"""What goes wrong on a connection that stands is said beside it, with how often, and for a while after."""

from __future__ import annotations

from typing import Any

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.events import Down, LossCause, Subscribed, Up, kicked, lost
from vajra_edge.mqtt.messages import EngineTag, ServiceStatus, encode
from vajra_edge.mqtt.publisher import SURELY_RIVAL
from vajra_edge.mqtt.topics import Topics
from vajra_edge.mqtt.troubles import SAID_FOR_S, Trouble, Troubles

TOPICS = Topics("vajra", "dev")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_newest_of_each_kind_is_said_with_how_often_until_it_has_not_happened_for_a_while() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    troubles.happened(Trouble.REFUSED, "refused on a")
    clock.now_s = 5.0
    troubles.happened(Trouble.REFUSED, "refused on b")
    troubles.happened(Trouble.RIVAL, "taken over", for_s=60.0)
    assert troubles.told() == ("refused on b (2 times)", "taken over")
    clock.now_s = 100.0
    assert troubles.told() == ("refused on b (2 times)",)
    clock.now_s = 6.0 + SAID_FOR_S
    assert troubles.told() == ()
    troubles.happened(Trouble.REFUSED, "refused on c")
    assert troubles.told() == ("refused on c",)
    troubles.over(Trouble.REFUSED)
    troubles.over(Trouble.REFUSED)
    assert troubles.told() == ()


def at(port: int, **more: Any) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=port, keepalive_s=60).model_copy(update=more)


def test_refused_messages_are_said_while_connected(
    mosquitto: Any, daemon: Any, tmp_path: Any, until: Any, caplog: Any
) -> None:
    (tmp_path / "acl").write_text("topic read #\ntopic write vajra/dev/status\n")
    (tmp_path / "acl").chmod(0o644)
    mosquitto.start("allow_anonymous true", f"acl_file {tmp_path}/acl")
    device = daemon(at(mosquitto.port, protocol="5"))
    device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", "serving")))
    device.publisher.start()
    device.until_connected()
    for count in range(1, 30):  # each of another size
        device.send(1, tag=EngineTag("ab" * 32, "fp32", "cpu", ("person" * count, "shop")))
    until(lambda: device.counts.outbox.dropped == {"refused": 29})
    assert device.counts.connected
    (trouble,) = device.counts.troubles
    assert trouble.startswith("the broker refuses a message on vajra/dev/camera/gate/detections of ")
    assert trouble.endswith("code 0x87, not authorized; check the broker's access list (29 times)")
    assert sum("refuses a message" in record.message for record in caplog.records) == 1


def test_two_devices_with_one_id_are_named_and_do_not_storm(mosquitto: Any, daemon: Any, until: Any) -> None:
    """mosquitto ends the older connection without a word."""
    mosquitto.start()
    first, second = daemon(at(mosquitto.port, protocol="5")), daemon(at(mosquitto.port, protocol="5"))
    first.publisher.start()
    first.until_connected()
    second.publisher.start()
    until(lambda: first.counts.troubles and second.counts.troubles)
    for device in (first, second):
        assert "another client may use the same device_id" in device.counts.troubles[0]
        assert device.publisher._link._state.attempts >= 2, "each comes back later than the last time"


def test_a_broker_that_names_the_double_is_believed_at_once(daemon: Any) -> None:
    mqtt = at(1)
    device = daemon(mqtt)
    device.publisher._take(Down(kicked(mqtt, 0x8E, "Session taken over"), cause=LossCause.RIVAL))
    assert "another client has the same id: give each device its own device_id" in device.counts.troubles[0]


def test_a_refused_subscription_is_said_as_long_as_it_holds(daemon: Any) -> None:
    device = daemon(at(1, commands=True))
    device.publisher._take(Subscribed(granted=False))
    assert device.counts.troubles == ("the broker refuses the request topics; check the broker's access list",)
    device.publisher._take(Subscribed(granted=True))
    assert device.counts.troubles == ()


def test_a_few_breaks_are_the_networks_and_many_are_not(daemon: Any) -> None:
    mqtt = at(1)
    device = daemon(mqtt)
    for times in range(1, 5):
        device.publisher._take(Down(lost(mqtt, "connection broken"), cause=LossCause.HUNG_UP))
        assert bool(device.counts.troubles) is (times >= SURELY_RIVAL)


def test_a_broker_that_hangs_up_over_the_subscription_is_left_without_it_for_a_while(daemon: Any) -> None:
    mqtt = at(1, commands=True)
    device = daemon(mqtt)
    publisher = device.publisher

    def connects_and_is_hung_up_on() -> None:
        publisher._take(Up("3.1.1"))
        publisher._invite()
        publisher._take(Down(lost(mqtt, "connection broken"), cause=LossCause.HUNG_UP))

    connects_and_is_hung_up_on()
    assert publisher._invitation.stands, "once is the network"
    connects_and_is_hung_up_on()
    assert not publisher._invitation.stands
    (trouble,) = device.counts.troubles
    assert "breaks the connection when the request topics are subscribed to; no requests are taken for 60 s" in trouble
    publisher._take(Up("3.1.1"))
    publisher._invite()
    assert not publisher._invited
