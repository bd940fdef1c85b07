from __future__ import annotations

import time

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


def test_timesyncd_says_by_a_file_that_the_clock_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "_is_disciplined", lambda: False)
    assert not clock.is_synchronised(tmp_path / "synchronized")
    (tmp_path / "synchronized").touch()
    assert clock.is_synchronised(tmp_path / "synchronized")


def test_where_the_kernel_does_not_answer_the_clock_is_not_known_to_be_right(monkeypatch):
    monkeypatch.setattr(clock, "_adjtimex", lambda: lambda _: -1)
    assert not clock._is_disciplined()
    monkeypatch.setattr(clock, "_adjtimex", lambda: None)
    assert not clock._is_disciplined()


def test_a_kernel_whose_clock_somebody_disciplines_says_so(monkeypatch):
    def answer(status: int):
        def adjtimex(timex) -> int:
            timex[40:44] = status.to_bytes(4, "little")
            return 0

        return lambda: adjtimex

    monkeypatch.setattr(clock, "_adjtimex", answer(0x0001))
    assert clock._is_disciplined()
    monkeypatch.setattr(clock, "_adjtimex", answer(0x0041))
    assert not clock._is_disciplined()


def test_a_kernel_that_does_not_name_its_boot_is_no_boot(tmp_path):
    assert clock.boot_id(tmp_path / "absent") == ""
