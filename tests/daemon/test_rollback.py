"""Going back to the plan before, by hand and by probation, in a whole daemon; and what the history says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny
from station import Station

from vajra_edge.errors import ControlError
from vajra_edge.mqtt.schema import HistoryMessage
from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened


def entries(station: Station) -> list[AuditEntry]:
    told = AuditLog(station.state_dir).read()
    assert not told.doubts
    return list(told.entries)


def served(station: Station, fingerprint: str) -> None:
    station.until(lambda status: status["engine"]["serving"]["fingerprint"] == fingerprint)


def two_plans(station: Station) -> tuple[str, str]:
    """The daemon with an older plan and the one that it serves on probation since."""
    station.start()
    old = station.serving()
    station.listen("camera/gate/detections").close()
    station.write_weights(tiny.network(gain=30.0))
    new = station.until(
        lambda status: status["engine"]["serving"]["fingerprint"] != old and not status["engine"]["loading"]
    )["engine"]["serving"]["fingerprint"]
    return old, new


def test_a_rollback_by_hand_stays_over_a_restart_and_ends_with_other_weights(rebooted):
    old, new = two_plans(rebooted)
    (*_, answer) = rebooted.ask(verb="rebuild", rollback=True)
    assert (answer["fingerprint"], answer["serving"]) == (old, old)
    assert rebooted.status()["engine"]["wanted"] == old
    with pytest.raises(ControlError, match="gone back to already"):
        rebooted.ask(verb="rebuild", rollback=True)
    with pytest.raises(ControlError, match="it was gone back to"):
        rebooted.ask(verb="rebuild")
    rebooted.stop()
    rebooted.start()
    assert rebooted.serving() == old
    assert rebooted.status()["engine"]["wanted"] == old
    rebooted.write_weights(tiny.network(gain=40.0))
    third = rebooted.until(lambda status: status["engine"]["wanted"] not in (old, new))["engine"]["wanted"]
    served(rebooted, third)
    rebooted.stop()
    told = [(one.happened, one.fingerprint) for one in entries(rebooted)]
    assert (Happened.ROLLED_BACK, new) in told
    assert Happened.KEPT not in dict(told[: told.index((Happened.ROLLED_BACK, new)) + 3]), "no probation was passed"
    assert told.index((Happened.BUILT, new)) < told.index((Happened.SWAPPED, new))
    assert told.index((Happened.SWAPPED, new)) < told.index((Happened.ROLLED_BACK, new))
    assert told[-1] == (Happened.SWAPPED, third)


def test_a_start_is_not_the_settings_files_doing_and_a_change_of_it_is(rebooted):
    rebooted.start()
    old = rebooted.serving()
    rebooted.write(engine={"max_det": 7})
    new = rebooted.until(lambda status: status["engine"]["wanted"] not in (None, old))["engine"]["wanted"]
    served(rebooted, new)
    rebooted.stop()
    causes = {one.fingerprint: one.asked_by for one in entries(rebooted) if one.happened is Happened.SWAPPED}
    assert causes == {old: "start", new: "the settings file"}


def test_whoever_insists_leaves_what_was_gone_back_to(rebooted):
    old, new = two_plans(rebooted)
    rebooted.ask(verb="rebuild", rollback=True)
    served(rebooted, old)
    rebooted.ask(verb="rebuild", force=True)
    served(rebooted, new)


def test_without_a_plan_before_a_rollback_is_refused_in_one_line_and_nothing_changes(rebooted):
    rebooted.start()
    fingerprint = rebooted.serving()
    with pytest.raises(ControlError, match="no other plan served well on this device"):
        rebooted.ask(verb="rebuild", rollback=True)
    assert rebooted.serving() == fingerprint
    assert not (rebooted.state_dir / "rollback.json").exists()


def test_a_damaged_plan_before_is_refused_in_one_line_and_what_serves_stays(rebooted):
    old, new = two_plans(rebooted)
    (rebooted.state_dir / "engines" / old / "plan").write_bytes(b"torn")
    with pytest.raises(ControlError, match=r"cannot serve: its plan has 4 bytes") as refused:
        rebooted.ask(verb="rebuild", rollback=True)
    assert "\n" not in str(refused.value)
    assert rebooted.serving() == new


def test_the_history_is_on_the_broker_retained_and_each_entry_comes_by(rebooted):
    ears = rebooted.listen("history")
    old, new = two_plans(rebooted)
    swapped = ("swapped", new[:12], "the weights file")

    def tells_the_swap(_path: str, content: dict[str, Any]) -> bool:
        return swapped in [(one["happened"], one["fingerprint"], one["asked_by"]) for one in content["entries"]]

    heard = ears.until(tells_the_swap)
    message = HistoryMessage.model_validate_json(json.dumps(heard))
    assert [one.number for one in message.entries] == sorted(one.number for one in message.entries)
    late = rebooted.listen("history")
    late.until(tells_the_swap)
    ears.close()
    late.close()
    assert old != new
