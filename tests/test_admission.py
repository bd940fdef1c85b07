from __future__ import annotations

from vajra_edge.admission import CALLERS_KEPT, Admission, AdmissionLimits, RequestPace, Verdict

LIMITS = AdmissionLimits(
    caller=RequestPace(2.0, 4.0), all_callers=RequestPace(5.0, 10.0), refusals=RequestPace(1.0, 3.0), open=6
)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def verdicts(admission, caller, count, verb="status", *, answered=True):
    told = []
    for _ in range(count):
        told.append(admission.ask(caller, verb))
        if answered and told[-1] is Verdict.TAKEN:
            admission.done(verb)
    return [told.count(verdict) for verdict in Verdict]


def test_a_flood_is_taken_at_its_pace_answered_busy_at_another_and_counted_beyond():
    clock = Clock()
    admission = Admission(LIMITS, clock)
    assert verdicts(admission, "a", 1000) == [4, 3, 993]
    assert admission.refused == 996
    for clock.now_s in (1.0, 2.0, 3.0):
        assert verdicts(admission, "a", 1000) == [2, 1, 997]
    clock.now_s = 1000.0
    assert verdicts(admission, "a", 10) == [4, 3, 3]


def test_one_caller_leaves_room_for_others_and_all_together_have_an_end():
    admission = Admission(LIMITS, Clock())
    assert verdicts(admission, "wild", 1000)[0] == 4
    assert verdicts(admission, "quiet", 3)[0] == 3
    assert sum(verdicts(admission, f"caller {number}", 4)[0] for number in range(10)) == 3


def test_answers_that_are_owed_have_an_end_of_their_own_for_each_verb():
    clock = Clock()
    admission = Admission(LIMITS, clock)
    for number in range(20):
        clock.now_s += 10.0
        verdict = admission.ask(f"caller {number}", "rebuild")
        assert verdict is (Verdict.TAKEN if number < LIMITS.open else Verdict.BUSY)
    assert admission.ask("another", "status") is Verdict.TAKEN
    admission.done("rebuild")
    clock.now_s += 10.0
    assert admission.ask("another", "rebuild") is Verdict.TAKEN


def test_callers_without_number_are_not_all_remembered():
    admission = Admission(LIMITS, Clock())
    for number in range(10 * CALLERS_KEPT):
        admission.ask(f"caller {number}", "status")
    assert len(admission._callers) == CALLERS_KEPT


def test_a_clock_that_stands_or_goes_back_gives_nothing_away():
    clock = Clock()
    admission = Admission(LIMITS, clock)
    verdicts(admission, "a", 10)
    clock.now_s = -50.0
    assert verdicts(admission, "a", 10)[0] == 0
