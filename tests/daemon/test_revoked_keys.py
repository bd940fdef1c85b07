"""A key that is revoked while the daemon runs: what serves goes on, what it signed is not taken, the status tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from signed import Signer
from station import Station

from vajra_edge.bundles.shelf import Adopted, AdoptionOutcome, Shelf
from vajra_edge.errors import ControlError
from vajra_edge.plans.audit_log import AuditLog, Happened


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "signer")


@pytest.fixture
def adopted(rebooted: Station, signer: Signer) -> Station:
    """A daemon that has not been started; the bundle in force holds the weights of the plan that is in its store."""
    rebooted.settings["weights"]["keys"] = str(signer.keys)
    shelf = Shelf(rebooted.state_dir)
    with signer.make(tiny.network(), 1).open("rb") as file:
        told = shelf.unpack(file, signer.keyring())
    shelf.try_out(told.digest)
    shelf.settle(AdoptionOutcome(told.digest, Adopted.SERVING, serial=1))
    return rebooted


def test_the_status_says_that_the_key_of_what_serves_was_revoked_until_that_is_mended(adopted, signer):
    adopted.start()
    serving = adopted.serving()
    assert adopted.status()["reason"] == ""
    signer.revoke("fleet")
    status = adopted.until(lambda status: "was revoked" in status["reason"])
    assert status["phase"] == "serving"
    assert status["engine"]["serving"]["fingerprint"] == serving
    assert "what served well goes on; sign it anew and adopt that" in status["reason"]
    with pytest.raises(ControlError, match="was revoked"):
        adopted.ask(verb="rebuild", force=True)
    (signer.keys / "fleet.revoked").rename(signer.keys / "fleet.pub")
    assert adopted.until(lambda status: status["reason"] == "")["engine"]["serving"]["fingerprint"] == serving
    adopted.stop()
    refused = [one for one in AuditLog(adopted.state_dir).read().entries if one.happened is Happened.REFUSED]
    assert refused
    assert all("was revoked" in one.reason for one in refused)
    assert {one.asked_by for one in refused} == {"the trusted keys"}


def test_a_key_whose_file_is_gone_is_trusted_no_more_and_what_served_well_serves_after_a_restart_too(adopted, signer):
    adopted.start()
    serving = adopted.serving()
    signer.trust("next")
    (signer.keys / "fleet.pub").unlink()
    adopted.until(lambda status: "is not trusted here" in status["reason"])
    adopted.stop()
    adopted.start()
    assert adopted.serving() == serving
    assert "is not trusted here" in adopted.status()["reason"]


def test_a_file_that_is_no_key_is_told_and_stops_nothing(adopted, signer):
    adopted.start()
    serving = adopted.serving()
    (signer.keys / "torn.pub").write_text("untrusted comment: half a")
    assert adopted.until(lambda status: "torn.pub" in status["reason"])["engine"]["serving"]["fingerprint"] == serving
