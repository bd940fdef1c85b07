from __future__ import annotations

import time

import pytest

from vajra_edge import clock
from vajra_edge.clock import Moment


def moment(boot: str, boot_s: float, unix_s: float, *, synchronised: bool) -> Moment:
    return Moment(boot, boot_s, unix_s, synchronised)


def test_within_a_boot_its_own_clock_counts_whatever_the_wall_clock_did():
    earlier = moment("a", 10.0, 5000.0, synchronised=True)
    assert moment("a", 70.0, 100.0, synchronised=True).since_s(earlier) == 60.0
    assert moment("a", 5.0, 9000.0, synchronised=True).since_s(earlier) is None, "it was no earlier one"


def test_between_boots_wall_clocks_count_only_where_both_were_right():
    earlier = moment("a", 10.0, 5000.0, synchronised=True)
    assert moment("b", 5.0, 5600.0, synchronised=True).since_s(earlier) == 600.0
    assert moment("b", 5.0, 5600.0, synchronised=False).since_s(earlier) is None
    assert moment("b", 5.0, 4000.0, synchronised=True).since_s(earlier) is None
    assert moment("b", 5.0, 5600.0, synchronised=False).at_least_since_s(earlier) == 5.0


def test_this_moment_is_of_this_boot_and_goes_on():
    first = clock.now()
    time.sleep(0.01)
    passed_s = clock.now().since_s(first)
    assert first.boot
    assert passed_s is not None
    assert passed_s > 0.0
    assert Moment.from_json(first.to_json()).boot == first.boot


def kernel(max_error_us: int, status: int = 0x40, returned: int = 5):
    """An adjtimex(2) that answers; 0x40 is STA_UNSYNC, 5 TIME_ERROR."""

    def adjtimex(timex) -> int:
        timex.maxerror = max_error_us
        timex.rest = bytes(8) + status.to_bytes(4, "little")
        return returned

    return lambda: adjtimex


@pytest.fixture
def told(tmp_path):
    """Timesyncd's file, which says that it has the time."""
    (tmp_path / "synchronized").touch()
    return tmp_path / "synchronized"


def test_a_kernel_whose_clock_somebody_disciplines_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "_adjtimex", kernel(1_200, status=0x2001, returned=0))
    assert clock.is_synchronised(tmp_path / "absent")


def test_chrony_without_rtcsync_has_the_time_although_the_kernel_is_not_to_set_the_board_s_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "_adjtimex", kernel(9_776, status=0x40))
    assert clock.is_synchronised(tmp_path / "absent")


def test_a_clock_that_no_server_confirmed_for_hours_or_that_somebody_set_by_hand_is_not_known_to_be_right(
    told, monkeypatch
):
    """Timesyncd's file stays until the next boot."""
    monkeypatch.setattr(clock, "_adjtimex", kernel(clock.UNSYNCHRONISED_US))
    assert not clock.is_synchronised(told)


def test_where_a_sandbox_forbids_the_question_timesyncd_s_file_is_believed(told, tmp_path, monkeypatch):
    for answer in (kernel(16_000_000, returned=-1), lambda: None):
        monkeypatch.setattr(clock, "_adjtimex", answer)
        assert clock.is_synchronised(told)
        assert not clock.is_synchronised(tmp_path / "absent")


def test_this_machine_s_kernel_is_asked_for_a_bound_that_it_can_have():
    error_us = clock._max_error_us()
    assert error_us is None or 0 <= error_us <= clock.UNSYNCHRONISED_US, "None: a sandbox forbids it"


def test_a_file_is_old_only_where_both_clocks_say_so():
    at = moment("a", 7200.0, 1_800_000_000.0, synchronised=True)
    assert clock.is_older(at.unix_s - 3700.0, 3600.0, at)
    assert not clock.is_older(at.unix_s - 3500.0, 3600.0, at)
    assert clock.is_older(at.unix_s + 3700.0, 3600.0, at), "the clock was set back since"
    just_booted = moment("a", 50.0, 1_800_000_000.0, synchronised=True)
    assert not clock.is_older(20.0, 3600.0, just_booted), "written in 1970, which was half a minute ago"


def test_a_kernel_that_does_not_name_its_boot_is_no_boot(tmp_path):
    assert clock.boot_id(tmp_path / "absent") == ""


@pytest.mark.parametrize("code", [9, 10], ids=["not yet valid", "expired"])
def test_a_clock_that_nobody_vouches_for_may_be_why_a_certificate_is_out_of_date(code, monkeypatch):
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    assert clock.may_explain(code)
    monkeypatch.setattr(clock, "is_synchronised", lambda: True)
    assert not clock.may_explain(code)


@pytest.mark.parametrize("code", [18, 62, None], ids=["self-signed", "another host", "not told"])
def test_the_clock_is_no_reason_for_any_other_fault_of_a_certificate(code, monkeypatch):
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    assert not clock.may_explain(code)
