"""Signed bundles in a whole daemon: adopted, refused, rolled back; what the exit code says is what serves."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
from onnx import numpy_helper
from signed import Signer
from station import Station
from waiting import wait_for

from vajra_edge.bundles.shelf import Shelf
from vajra_edge.cli import bundle as verb
from vajra_edge.daemon import state_machine
from vajra_edge.errors import ControlError
from vajra_edge.plans.audit_log import AuditLog

pytestmark = pytest.mark.long(
    "builds plans and waits out their probation, a minute each; the shelf and the machine are tried always"
)


@pytest.fixture
def signer(tmp_path):
    return Signer(tmp_path / "signer")


@pytest.fixture
def trusting(rebooted: Station, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> Station:
    """A daemon that serves a plan from before its first key came, with a short probation."""
    monkeypatch.setattr(state_machine, "PROBATION_S", 2.0)
    rebooted.settings["weights"]["keys"] = str(signer.keys)
    rebooted.write()
    return rebooted


def adopt(station: Station, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = verb.adopt(station.config, path, wait=True)
    return code, json.loads(capsys.readouterr().out)


def happened(station: Station) -> list[str]:
    told = AuditLog(station.state_dir).read()
    assert not told.doubts
    return [one.happened.value for one in told.entries]


def served(station: Station) -> str:
    return station.status()["engine"]["serving"]["fingerprint"]


def blind() -> bytes:
    """A network of the same shape that never finds anything."""
    made = onnx.load_from_string(tiny.network())
    (threshold,) = (one for one in made.graph.initializer if one.name == "threshold")
    never = numpy_helper.to_array(threshold) - 1000.0
    threshold.CopyFrom(numpy_helper.from_array(never.astype("float32"), "threshold"))
    return made.SerializeToString()


def test_with_keys_unsigned_weights_are_refused_with_the_remedy_and_what_served_well_goes_on(trusting):
    trusting.write_weights(tiny.network(gain=30.0))
    trusting.start()
    fingerprint = trusting.serving()
    status = trusting.until(lambda status: "unsigned weights are refused" in status["reason"])
    assert "vajra-edge bundle adopt" in status["reason"]
    with pytest.raises(ControlError, match="unsigned weights are refused"):
        trusting.ask(verb="rebuild")
    assert served(trusting) == fingerprint
    assert not trusting.status()["engine"]["building"]


def test_a_bundle_is_built_checked_swapped_in_and_tried_and_the_second_time_it_is_there(trusting, signer, capsys):
    trusting.start()
    old = trusting.serving()
    path = signer.make(tiny.network(gain=30.0), 3, class_names=("walker", "truck"))
    code, told = adopt(trusting, path, capsys)
    assert (code, told["outcome"], told["serial"], told["reason"]) == (0, "serving", 3, "")
    new = served(trusting)
    assert new != old
    assert not trusting.status()["engine"]["on_probation"]
    assert trusting.status()["reason"] == ""
    assert adopt(trusting, path, capsys)[0] == 0
    trusting.stop()
    assert happened(trusting)[-1] == "adopted"
    trusting.start()
    assert trusting.serving() == new
    code, told = adopt(trusting, signer.make(tiny.network(gain=40.0), 2), capsys)
    assert (code, told["outcome"]) == (10, "refused")
    assert "serial 2 is not above 3" in told["reason"]
    assert served(trusting) == new


def test_a_bundle_that_cannot_be_built_is_refused_and_nothing_changes(trusting, signer, capsys):
    trusting.start()
    old = trusting.serving()
    code, told = adopt(trusting, signer.make(tiny.network(gain=30.0), 1), capsys)
    assert code == 0
    good, before = served(trusting), Shelf(trusting.state_dir).current
    code, told = adopt(trusting, signer.make(b"no network at all", 2), capsys)
    assert (code, told["outcome"], told["serial"]) == (10, "refused", 2)
    assert told["reason"]
    assert "\n" not in told["reason"]
    assert served(trusting) == good != old
    shelf = Shelf(trusting.state_dir)
    assert (shelf.current, shelf.candidate) == (before, None)
    wait_for(lambda: trusting.status()["engine"]["wanted"] == good)


def test_a_bundle_that_finds_nothing_is_rolled_back_and_the_one_before_serves_again(
    trusting, signer, capsys, monkeypatch
):
    monkeypatch.setattr(state_machine, "PROBATION_S", 60.0)
    ears = trusting.listen("camera/gate/detections")
    trusting.start()
    old = trusting.serving()
    ears.detections(120)
    code, told = adopt(trusting, signer.make(blind(), 1), capsys)
    assert (code, told["outcome"]) == (11, "rolled back")
    assert "it found nothing in" in told["reason"]
    assert served(trusting) == old
    assert Shelf(trusting.state_dir).current is None
    trusting.stop()
    assert happened(trusting).count("rolled back") == 2  # the plan, and the bundle that asked for it
    ears.close()


def test_without_a_daemon_nothing_is_begun(trusting, signer, capsys):
    code, told = adopt(trusting, signer.make(tiny.network(gain=30.0)), capsys)
    assert (code, told["outcome"]) == (10, "refused")
    assert "no daemon answers" in told["reason"]
    assert not Shelf(trusting.state_dir).root.exists()


def test_a_daemon_that_stops_meanwhile_goes_on_with_it_when_it_is_back(trusting, signer, capsys, monkeypatch):
    monkeypatch.setattr(state_machine, "PROBATION_S", 30.0)
    trusting.start()
    old = trusting.serving()
    path, codes = signer.make(tiny.network(gain=30.0)), []
    asking = threading.Thread(target=lambda: codes.append(verb.adopt(trusting.config, path, wait=True)))
    asking.start()
    trusting.until(lambda status: status["engine"]["on_probation"])
    trusting.stop()
    monkeypatch.setattr(state_machine, "PROBATION_S", 2.0)
    trusting.start()
    asking.join(60.0)
    assert codes == [0]
    assert served(trusting) != old
    assert Shelf(trusting.state_dir).candidate is None


def test_a_key_that_is_revoked_stops_nothing_that_serves_and_refuses_what_it_signed(trusting, signer, capsys):
    trusting.start()
    trusting.serving()
    assert adopt(trusting, signer.make(tiny.network(gain=30.0), 1), capsys)[0] == 0
    serving, path = served(trusting), signer.make(tiny.network(gain=40.0), 2)
    successor = signer.trust("next")
    signer.revoke("fleet")
    code, told = adopt(trusting, path, capsys)
    assert code == 10
    assert "which was revoked" in told["reason"]
    with pytest.raises(ControlError, match="which was revoked"):
        trusting.ask(verb="rebuild")
    assert served(trusting) == serving
    assert adopt(trusting, signer.make(tiny.network(gain=40.0), 2, key=successor), capsys)[0] == 0


def test_only_root_and_the_services_user_may_adopt(trusting, monkeypatch):
    trusting.start()
    monkeypatch.setattr("vajra_edge.daemon.control.server.Peer.may_adopt", False)
    with pytest.raises(ControlError, match="given by root or the service's own user"):
        trusting.ask(verb="adopt", bundle="0" * 64)
