"""Requests over MQTT to a whole daemon: each verb, who is let in, and what the history says of who asked."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest
import tiny
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from station import Station
from waiting import wait_for

from vajra_edge.bundles.shelf import Shelf
from vajra_edge.daemon import picture_requests, state_machine
from vajra_edge.mqtt.schema import ResponseMessage, SnapshotComment
from vajra_edge.plans.audit_log import AuditEntry, AuditLog

ANSWERS = "app/7/answers"
TOOLS = ("minisign", "jq", "mosquitto_pub")


def now(ago_s: float = 0.0) -> str:
    return (datetime.now(timezone.utc) - timedelta(seconds=ago_s)).isoformat()


class Asker:
    """Somebody with the broker's password, by MQTT 5."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, ResponseMessage, bytes | None]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = self._take
        granted: list[Any] = []
        self.client.on_subscribe = lambda *arguments: granted.append(arguments)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe([("vajra/test/response/#", 1), (ANSWERS, 1)])
        wait_for(lambda: granted)

    def _take(self, _client: Any, _user: Any, message: Any) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        self.heard.append((message.topic, ResponseMessage.model_validate_json(message.payload), correlation))

    def send(self, verb: str, payload: bytes, **how: Any) -> None:
        self.client.publish(f"vajra/test/request/{verb}", payload, 1, **how).wait_for_publish(30)

    def ask(self, verb: str, **fields: Any) -> str:
        """Returns the transaction."""
        told = {"transaction": str(uuid.uuid4()), "at": now(), **fields}
        self.send(verb, orjson.dumps({name: value for name, value in told.items() if value is not None}))
        return str(told["transaction"])

    def answers(self, transaction: str | None) -> list[ResponseMessage]:
        return [message for _, message, _ in list(self.heard) if message.transaction == transaction]

    def last(self, transaction: str | None) -> ResponseMessage:
        """The last word, once it was said."""

        def found() -> ResponseMessage | None:
            return next((one for one in self.answers(transaction) if one.status != "accepted"), None)

        return wait_for(found)

    def do(self, verb: str, **fields: Any) -> ResponseMessage:
        return self.last(self.ask(verb, **fields))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def right_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vajra_edge.clock.is_synchronised", lambda: True)


@pytest.fixture
def asker(broker: int) -> Iterator[Asker]:
    made = Asker(broker)
    yield made
    made.close()


@pytest.fixture
def serving(rebooted: Station, asker: Asker, right_clock: None) -> Callable[..., str]:
    """Starts the daemon with these settings of ``[mqtt]``; returns what serves, once requests are heard."""

    def start(**mqtt: Any) -> str:
        rebooted.write(mqtt={"commands": True, **mqtt})
        rebooted.start()
        fingerprint = rebooted.serving()
        asker_hears(asker)
        return fingerprint

    return start


def asker_hears(asker: Asker) -> None:
    """Nothing else says that the daemon is subscribed."""

    def answered() -> bool:
        asker.send("status", b'{"transaction": "are you there"}')
        return bool(asker.answers("are you there"))

    wait_for(answered, step_s=0.5)


def entries(station: Station) -> list[AuditEntry]:
    told = AuditLog(station.state_dir).read()
    assert not told.doubts
    return list(told.entries)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_status_is_told_to_whoever_asks(serving, asker: Asker, protocol: str):
    serving(protocol=protocol)
    answer = asker.do("status", at=None)
    assert (answer.status, answer.content["status"]["phase"]) == ("ok", "serving")
    assert answer.content["status"]["broker"]["protocol"] == protocol


def test_an_answer_comes_where_an_mqtt_5_caller_wants_it(serving, asker: Asker):
    serving()
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic, properties.CorrelationData = ANSWERS, b"c7"
    asker.send("status", b'{"transaction": "mine"}', properties=properties)
    asker.last("mine")
    assert [(path, data) for path, one, data in asker.heard if one.transaction == "mine"] == [(ANSWERS, b"c7")]


def test_a_rebuild_is_accepted_and_then_says_what_came_of_it_and_the_history_who_asked(
    rebooted: Station, serving, asker: Asker
):
    old = serving()
    preview = asker.do("rebuild", dry_run=True)
    assert (preview.status, preview.content["needed"]) == ("ok", False)
    transaction = asker.ask("rebuild", force=True)
    last = asker.last(transaction)
    accepted, _ = asker.answers(transaction)
    assert (accepted.status, accepted.content["fingerprint"]) == ("accepted", old)
    assert (last.status, last.content["built"], last.content["serving"]) == ("ok", True, old)
    rebooted.stop()
    (built,) = [one for one in entries(rebooted) if one.happened.value == "built" and "MQTT" in one.asked_by]
    assert built.asked_by == f"MQTT, transaction {transaction}"


def test_a_reload_takes_the_new_settings_and_says_what_is_wrong_with_bad_ones(rebooted: Station, serving, asker: Asker):
    serving()
    rebooted.write(service={"settle_s": 3000.0})  # so that nothing but the request brings what follows
    assert asker.do("reload").status == "ok"
    rebooted.write(detect={"confidence": 0.9})
    assert asker.do("reload").content["status"]["phase"] == "serving"
    assert rebooted.supervisor._known.settings.detect.confidence == 0.9
    rebooted.write(detect={"confidence": 7.0})
    refused = asker.do("reload")
    assert (refused.status, "confidence" in refused.error) == ("error", True)
    assert rebooted.supervisor._known.settings.detect.confidence == 0.9


def test_a_setting_is_changed_and_undone_and_the_status_says_who_asked(rebooted: Station, serving, asker: Asker):
    serving()
    transaction = asker.ask("set", setting="cameras.gate.confidence", value=0.4)
    answer = asker.last(transaction)
    assert (answer.status, answer.content["settings"]) == ("ok", {"cameras.gate.confidence": 0.4})
    (told,) = rebooted.status()["settings"]["overrides"]
    assert told["by"] == f"MQTT, transaction {transaction}"
    refused = asker.do("set", setting="cameras.gate.confidence", value=7.0)
    assert (refused.status, refused.error[:29]) == ("error", "cameras.gate.confidence = 7.0")
    assert "no setting that can be changed" in asker.do("set", setting="mqtt.host", value="x").error
    assert "takes a value" in asker.do("set", setting="cameras.gate.confidence").error
    asker.ask("set", transaction=transaction, setting="cameras.gate.enabled", value=False)  # a replay
    wait_for(lambda: len(asker.answers(transaction)) == 2)
    assert "was used before" in asker.answers(transaction)[1].error
    assert "older than this device's clock" in asker.do("set", at=now(3600.0), setting="x", value=1).error
    assert rebooted.status()["settings"]["overrides"] == [told]
    assert asker.do("unset", setting="cameras.gate").content["overrides"] == {}
    assert rebooted.status()["settings"]["overrides"] == []


def test_all_cameras_of_a_house_may_be_turned_off_at_once(rebooted: Station, serving, asker: Asker):
    serving()
    asked = [asker.ask("set", setting="detect.confidence", value=number / 100) for number in range(16)]
    assert {asker.last(transaction).status for transaction in asked} == {"ok"}
    (told,) = rebooted.status()["settings"]["overrides"]
    assert told["value"] == 0.15


def test_a_rollback_goes_to_the_plan_before_and_the_history_says_who_asked(rebooted: Station, serving, asker: Asker):
    old = serving()
    nothing = asker.do("rollback")
    assert (nothing.status, bool(nothing.error)) == ("error", True)
    rebooted.write_weights(tiny.network(gain=30.0))
    rebooted.until(lambda s: s["engine"]["serving"]["fingerprint"] != old and not s["engine"]["loading"])
    transaction = asker.ask("rollback")
    last = asker.last(transaction)
    assert (last.status, last.content["serving"]) == ("ok", old)
    assert [one.status for one in asker.answers(transaction)] == ["accepted", "ok"]
    rebooted.stop()
    (back,) = [one for one in entries(rebooted) if one.happened.value == "rolled back"]
    assert back.asked_by == f"MQTT, transaction {transaction}"


def test_what_is_not_of_now_or_was_asked_before_is_refused_and_does_nothing(rebooted: Station, serving, asker: Asker):
    serving()
    jobs = rebooted.supervisor._s.jobs
    old = asker.do("rebuild", force=True, at=now(3600.0))
    assert "is 3600 s older than this device's clock" in old.error
    assert old.content["clock_synchronised"] is True
    assert "newer than this device's clock" in asker.do("rebuild", force=True, at=now(-3600.0)).error
    assert "does not say when it was asked" in asker.do("rebuild", force=True, at=None).error
    assert "has no transaction" in refusal(asker, "rebuild", {"at": now(), "force": True})
    transaction = asker.ask("rebuild", dry_run=True)
    assert asker.last(transaction).status == "ok"
    asker.ask("rebuild", transaction=transaction, force=True)
    wait_for(lambda: len(asker.answers(transaction)) == 2)
    assert f"{transaction!r} was used before" in asker.answers(transaction)[1].error
    assert rebooted.status()["requests_refused"] == 5
    assert rebooted.supervisor._s.jobs == jobs


def refusal(asker: Asker, verb: str, fields: dict[str, Any]) -> str:
    """Of a request that has no transaction."""
    count = len(asker.answers(None))
    asker.send(verb, orjson.dumps(fields))
    return str(wait_for(lambda: asker.answers(None)[count:])[0].error)


def test_a_device_whose_clock_is_not_right_takes_requests_by_its_challenge(
    rebooted: Station, serving, asker: Asker, monkeypatch: pytest.MonkeyPatch
):
    serving()
    monkeypatch.setattr("vajra_edge.clock.is_synchronised", lambda: False)
    refused = asker.do("rebuild", dry_run=True)
    assert "is not known to be right" in refused.error
    challenge = refused.content["challenge"]
    answer = asker.do("rebuild", dry_run=True, at=None, challenge=challenge)
    assert (answer.status, answer.content["needed"]) == ("ok", False)
    assert "does not stand" in asker.do("rebuild", dry_run=True, at=None, challenge="0" * 32).error


def test_nothing_is_heard_unless_the_settings_say_so(rebooted: Station, asker: Asker, right_clock: None):
    rebooted.start()
    rebooted.serving()
    wait_for(lambda: rebooted.status()["broker"]["connected"])
    asker.ask("rebuild", force=True)
    asker.ask("status")
    rebooted.write(mqtt={"commands": True})
    rebooted.until(lambda _: rebooted.supervisor._known.settings.mqtt.commands)
    asker_hears(asker)
    assert {message.transaction for _, message, _ in asker.heard} == {"are you there"}


def test_an_install_is_taken_where_home_assistant_is_there_and_does_nothing_to_what_serves(
    rebooted: Station, serving, asker: Asker
):
    old = serving(home_assistant="device")
    jobs = rebooted.supervisor._s.jobs
    for count in (1, 2):  # however often it comes
        asker.send("install", b"install")
        answer = wait_for(lambda count=count: asker.answers(None)[count - 1 :])[0]
        assert (answer.status, answer.content["serving"], answer.content["started"]) == ("ok", old, False)
    asker.send("install", b'{"force": true}')
    assert "is another word; send install" in wait_for(lambda: asker.answers(None)[2:])[0].error
    rebooted.write(mqtt={"signed_commands": True})
    rebooted.until(lambda _: rebooted.supervisor._known.settings.mqtt.signed_commands)
    count = len(asker.answers(None))
    asker.send("install", b"install")
    wait_for(lambda: [one for one in asker.answers(None)[count:] if "is not signed" in one.error])
    assert rebooted.supervisor._s.jobs == jobs


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_an_install_that_the_broker_stored_is_not_obeyed_at_a_start(serving, asker: Asker, protocol: str):
    asker.send("install", b"install", retain=True)
    try:
        serving(home_assistant="device", protocol=protocol)
        assert asker.do("status", at=None).status == "ok"
        assert asker.answers(None) == []
    finally:
        asker.send("install", b"", retain=True)


def test_an_install_is_not_heard_without_home_assistant(rebooted: Station, serving, asker: Asker):
    serving()
    asker.send("install", b"install")
    assert asker.do("status", at=None).status == "ok"
    assert asker.answers(None) == []


@pytest.fixture
def signer(tmp_path: Path) -> Any:
    return pytest.importorskip("signed", reason="absent here: cryptography").Signer(tmp_path / "signer")


def signed(key: Any, verb: str, device: str = "test", **fields: Any) -> tuple[str, bytes]:
    """Transaction and payload."""
    from vajra_edge.bundles import minisign

    told = {"device": device, "verb": verb, "transaction": str(uuid.uuid4()), "at": now(), **fields}
    text = orjson.dumps(told).decode()
    signature = minisign.sign(text.encode(), key, "a request").decode()
    return str(told["transaction"]), orjson.dumps({"request": text, "signature": signature})


def test_where_signatures_are_asked_for_only_what_a_trusted_key_signed_is_taken(
    rebooted: Station, serving, asker: Asker, signer
):
    rebooted.settings["weights"]["keys"] = str(signer.keys)
    serving()
    rebooted.write(mqtt={"signed_commands": True})
    rebooted.until(lambda _: rebooted.supervisor._known.settings.mqtt.signed_commands)
    for verb in ("reload", "status", "rollback"):
        told = asker.do(verb).error
        assert f"request {verb} is not signed; sign it with a key of {signer.keys}" in told
    transaction, payload = signed(signer.key, "reload")
    asker.send("reload", payload)
    assert asker.last(transaction).status == "ok"
    asker.send("reload", payload)
    wait_for(lambda: len(asker.answers(transaction)) == 2)
    assert "was used before" in asker.answers(transaction)[1].error
    count = len(asker.answers(transaction))
    asker.send("rollback", payload)
    wait_for(lambda: len(asker.answers(transaction)) > count)
    assert "is for verb 'reload', not 'rollback'" in asker.answers(transaction)[-1].error


def test_a_signature_that_is_not_right_is_refused_whether_one_is_asked_for_or_not(
    rebooted: Station, serving, asker: Asker, signer
):
    from signed import make_key

    rebooted.settings["weights"]["keys"] = str(signer.keys)
    serving()
    stranger, revoked = make_key(), signer.trust("old")
    signer.revoke("old")
    for key, words in ((stranger, "which is not trusted here"), (revoked, "which was revoked")):
        transaction, payload = signed(key, "reload")
        asker.send("reload", payload)
        assert words in asker.last(transaction).error
    transaction, payload = signed(signer.key, "reload")
    other = str(uuid.uuid4())
    asker.send("reload", payload.replace(transaction.encode(), other.encode()))
    assert "it was changed after it was signed" in asker.last(other).error
    transaction, payload = signed(signer.key, "reload", at=now(3600.0))
    asker.send("reload", payload)
    assert "older than" in asker.last(transaction).error
    transaction, payload = signed(signer.key, "reload", device="other")
    asker.send("reload", payload)
    assert "is for device 'other'" in asker.last(transaction).error
    transaction, payload = signed(signer.key, "reload")
    asker.send("reload", payload)
    assert asker.last(transaction).status == "ok"


@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"absent here, or one of them: {', '.join(TOOLS)}")
def test_a_request_can_be_signed_and_sent_from_a_shell(
    rebooted: Station, serving, asker: Asker, signer, tmp_path: Path
):
    rebooted.settings["weights"]["keys"] = str(signer.keys)
    subprocess.run(["minisign", "-G", "-W", "-p", signer.keys / "m.pub", "-s", "m.key"], cwd=tmp_path, check=True)
    serving(signed_commands=True)
    script = r"""
    printf '{"device":"test","verb":"reload","transaction":"%s","at":"%s"}' from-a-shell "$(date -u +%FT%TZ)" > request
    minisign -S -s m.key -m request > /dev/null
    jq -cn --rawfile request request --rawfile signature request.minisig '{$request, $signature}' |
      mosquitto_pub -p "$PORT" -q 1 -t vajra/test/request/reload -s
    """
    # date tells whole seconds: one of before the start would be refused
    wait_for(lambda: time.monotonic() - rebooted.supervisor._known.started_s > 2.0)
    environ = {"PORT": str(rebooted.port), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environ, check=True)
    assert asker.last("from-a-shell").status == "ok"


@pytest.fixture
def spooling(rebooted: Station, signer, serving, monkeypatch: pytest.MonkeyPatch) -> Station:
    """A daemon that serves, trusts a key, and has a short probation."""
    monkeypatch.setattr(state_machine, "PROBATION_S", 2.0)
    rebooted.settings["weights"]["keys"] = str(signer.keys)
    serving()
    return rebooted


def spool(station: Station, path: Path, name: str) -> None:
    folder = station.state_dir / "spool"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / name)


def test_a_bundle_of_the_spool_is_adopted_and_the_history_says_who_asked(spooling: Station, signer, asker: Asker):
    old = spooling.serving()
    spool(spooling, signer.make(tiny.network(gain=30.0), 3), "net-3.bundle")
    transaction, payload = signed(signer.key, "adopt", bundle="net-3.bundle")
    asker.send("adopt", payload)
    last = asker.last(transaction)
    assert (last.status, last.content["outcome"], last.content["serial"]) == ("ok", "serving", 3)
    accepted, _ = asker.answers(transaction)
    assert (accepted.status, accepted.content["outcome"]) == ("accepted", "started")
    assert accepted.content["bundle"] == last.content["bundle"] == Shelf(spooling.state_dir).current
    assert spooling.serving() != old
    again = asker.do("adopt", bundle="net-3.bundle")
    assert (again.status, again.content["outcome"]) == ("ok", "serving")
    spool(spooling, signer.make(tiny.network(gain=40.0), 2), "net-2.bundle")
    older = asker.do("adopt", bundle="net-2.bundle")
    assert (older.status, older.content["outcome"]) == ("error", "refused")
    assert "its serial 2 is not above 3" in older.error
    spooling.stop()
    (adopted,) = [one for one in entries(spooling) if one.happened.value == "adopted"]
    assert adopted.asked_by == f"MQTT, transaction {transaction}, key {signer.key.public.name}"


def test_what_lies_elsewhere_or_is_not_right_is_refused_and_changes_nothing(spooling: Station, signer, asker: Asker):
    from signed import make_key

    old, jobs = spooling.serving(), spooling.supervisor._s.jobs
    good = signer.make(tiny.network(gain=30.0), 1)
    spool(spooling, good, "good")
    (spooling.state_dir / "spool" / "link").symlink_to(good)
    spool(spooling, signer.make(tiny.network(gain=30.0), 2, key=make_key()), "stranger")
    flipped = bytearray(good.read_bytes())
    flipped[-2000] ^= 1
    (spooling.state_dir / "spool" / "flipped").write_bytes(flipped)
    for name, words in (
        ("../spool/good", "names no bundle"),
        (str(good), "names no bundle"),
        ("good\0", "names no bundle"),
        ("link", "bundle link is a link"),
        ("absent", "No such file"),
        ("stranger", "which is not trusted here"),
        ("flipped", "are not those that were signed"),
    ):
        answer = asker.do("adopt", bundle=name)
        assert (answer.status, answer.content["outcome"]) == ("error", "refused")
        assert words in answer.error
    for fields in ({}, {"bundle": 7}, {"bundle": "good", "wait": "no"}):
        assert "adopt takes bundle, the name of a file" in asker.do("adopt", **fields).error
    assert "knows no field 'url'" in asker.do("adopt", url="http://x").error
    assert (spooling.serving(), spooling.supervisor._s.jobs) == (old, jobs)
    shelf = Shelf(spooling.state_dir)
    assert (shelf.current, shelf.candidate) == (None, None)
    assert [path for path in shelf.root.glob("*") if path.is_dir()] == []
    spooling.stop()
    assert not [one for one in entries(spooling) if "MQTT" in one.asked_by], "strangers do not fill the history"


def test_a_bundle_that_cannot_be_built_is_refused_after_it_was_accepted(spooling: Station, signer, asker: Asker):
    old = spooling.serving()
    spool(spooling, signer.make(b"no network at all", 2), "bad")
    transaction = asker.ask("adopt", bundle="bad")
    last = asker.last(transaction)
    assert [one.status for one in asker.answers(transaction)] == ["accepted", "error"]
    assert (last.content["outcome"], last.content["serial"], last.error) == ("refused", 2, last.content["reason"])
    assert spooling.serving() == old
    spool(spooling, signer.make(tiny.network(gain=30.0), 3), "good")
    begun = asker.do("adopt", bundle="good", wait=False)
    assert (begun.status, begun.content["outcome"]) == ("ok", "started")


def test_a_snapshot_is_sent_and_the_answer_names_the_message_of_its_frame(rebooted: Station, serving, asker: Asker):
    pictures: list[bytes] = []
    asker.client.message_callback_add("vajra/test/camera/+/snapshot", lambda _c, _u, one: pictures.append(one.payload))
    asker.client.subscribe("vajra/test/camera/+/snapshot")
    keys = rebooted.listen("camera/gate/detections")
    serving()
    answer = asker.do("snapshot", camera="gate")
    assert answer.status == "ok"
    wait_for(lambda: pictures)
    SnapshotComment.model_validate(answer.content)
    assert orjson.dumps(answer.content["key"]) in pictures[0]
    message = keys.ever(lambda _, content: content["key"] == answer.content["key"])
    assert message["taken_at"] == answer.content["taken_at"]
    assert "there is no camera 'attic'; use one of gate" in asker.do("snapshot", camera="attic").error
    assert len(pictures) == 1, "nobody asked for another"
    keys.close()


def test_a_snapshot_of_a_lost_camera_is_an_error_that_says_so(
    rebooted: Station, serving, asker: Asker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(picture_requests, "WITHIN_S", 0.5)
    rebooted.camera("yard", source=str(rebooted.folder / "nowhere.mp4"))
    serving()
    rebooted.until(lambda status: any(camera["state"] == "lost" for camera in status["cameras"]))
    answer = asker.do("snapshot", camera="yard")
    assert answer.status == "error"
    assert "no picture of camera yard was sent" in answer.error
    assert "it is lost" in answer.error or "it is opening" in answer.error, "it is tried again and again"


def test_what_is_nested_too_deep_to_be_written_is_refused_and_ends_nothing(rebooted: Station, serving, asker: Asker):
    serving()
    deep = "[" * 1000 + "]" * 1000
    for verb, field in (("rebuild", "force"), ("rollback", "wait"), ("snapshot", "camera"), ("adopt", "bundle")):
        asker.send(verb, f'{{"transaction":"{verb}","at":"{now()}","{field}":{deep}}}'.encode())
        assert asker.last(verb).status == "error"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(rebooted.socket))
        sock.sendall(f'{{"verb":"rebuild","force":{deep}}}\n'.encode())
        assert b"force = a list is not true or false" in sock.makefile("rb").readline()
    assert asker.do("status").status == "ok"
