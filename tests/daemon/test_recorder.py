from __future__ import annotations

from dataclasses import replace

import pytest

from vajra_edge.daemon import events
from vajra_edge.daemon.adoption import verdict
from vajra_edge.daemon.death import Death, End
from vajra_edge.daemon.events import Job
from vajra_edge.daemon.recorder import TOLD, MachineStep, Recorder, entries_of
from vajra_edge.daemon.state_machine import Phase, State, Step
from vajra_edge.plans.audit_log import AuditEntry, AuditLog, Happened

BUILD, LATE = Job(3, "a" * 64), Job(2, "b" * 64)
BUILDING = State(building=BUILD, wanted=BUILD.fingerprint)


def told(event: events.Event, *actions: events.Action, before: State = BUILDING, **after: object) -> list[AuditEntry]:
    return list(entries_of(MachineStep(event, before, replace(before, **after), actions), {3: 1.5}, {"frames": 120.0}))


@pytest.mark.parametrize(
    ("event", "happened", "reason"),
    [
        (events.BuildDone(BUILD), Happened.BUILT, ""),
        (events.BuildFailed(BUILD, "no memory", permanent=False, now_s=0.0), Happened.FAILED, "no memory"),
        (events.BuildFailed(BUILD, "no such layer", permanent=True, now_s=0.0), Happened.REFUSED, "no such layer"),
    ],
)
def test_the_end_of_a_build_is_told_with_its_time_and_late_news_are_not(event, happened, reason):
    assert told(event) == [AuditEntry(happened, BUILD.fingerprint, reason, duration_s=1.5)]
    assert told(replace(event, job=LATE)) == []


def test_what_the_machine_decides_of_a_plan_is_told_with_the_figures_of_both():
    reject, strike = events.Reject("c" * 64, "it found nothing"), events.Strike("d" * 64, "it crashed")
    (rolled,) = told(events.Tick(1.0), reject)
    assert (rolled.happened, rolled.asked_by, rolled.figures) == (Happened.ROLLED_BACK, "probation", {"frames": 120.0})
    assert [one.happened for one in told(events.Tick(1.0), strike)] == [Happened.STRUCK]
    good = events.MarkGood("c" * 64)
    assert told(events.Tick(1.0), good) == []  # of every start
    on_probation = State(serving=Job(1, "c" * 64), probation_until_s=1.0)
    assert [one.happened for one in told(events.Tick(1.0), good, before=on_probation)] == [Happened.KEPT]
    gone_back_to = events.MarkGood("b" * 64)
    assert told(events.Loaded(Job(2, "b" * 64), 1.0), gone_back_to, before=on_probation) == []


def test_what_is_not_known_is_told_once_a_reason():
    assert [one.reason for one in told(events.Tick(1.0), unknown="no weights")] == ["no weights"]
    assert told(events.Tick(1.0), before=State(unknown="no weights")) == []


def test_the_newest_entries_are_told_with_those_of_the_last_process(tmp_path):
    for number in range(TOLD):
        AuditLog(tmp_path).append(AuditEntry(Happened.BUILT, reason=str(number)))
    recorder = Recorder(AuditLog(tmp_path), lambda _, task: task())
    recorder.start(Death(End.POWER, "the machine went down"))
    recorder.because("the weights file")
    recorder.advanced(MachineStep(events.BuildDone(BUILD), BUILDING, State(), ()), {})
    newest = recorder.newest()
    assert [one.number for one in newest] == list(range(3, TOLD + 3))
    assert [(one.happened, one.asked_by) for one in newest[-2:]] == [("crash", "start"), ("built", "the weights file")]


def test_what_follows_a_rollback_was_asked_for_by_probation(tmp_path):
    recorder = Recorder(AuditLog(tmp_path), lambda _, task: task())
    recorder.because("the weights file")
    recorder.advanced(MachineStep(events.Unfit("slow"), SERVED, SERVED, (events.Reject("w", "slow"),)), {})
    recorder.note(AuditEntry(Happened.SWAPPED, "o"))
    assert [(one.happened, one.asked_by) for one in recorder.newest()] == [
        ("rolled back", "probation"),
        ("swapped", "probation"),
    ]


SERVED = State(phase=Phase.SERVING, wanted="w", serving=Job(1, "w"))
OTHER = State(phase=Phase.SERVING, wanted="w", serving=Job(1, "o"))


@pytest.mark.parametrize(
    ("state", "rejected", "expected"),
    [
        (SERVED, "", "serving"),
        (replace(SERVED, probation_until_s=5.0), "", None),
        (replace(OTHER, step=Step.BUILD, building=Job(2, "w")), "", None),
        (replace(OTHER, step=Step.LOAD, loading=Job(2, "w")), "", None),
        (replace(OTHER, reason="no such layer"), "", "refused"),
        (replace(OTHER, step=Step.WAIT, retry_at_s=9.0, reason="no memory"), "", "refused"),
        (replace(OTHER, step=Step.WAIT, retry_at_s=9.0), "it crashed 3 times", "rolled back"),
        (replace(SERVED, going_back=True, prior="o", probation_until_s=5.0), "it found nothing", None),
        (replace(OTHER, reason="it found nothing"), "it found nothing", "rolled back"),
        (replace(SERVED, wanted="x"), "", None),
        (replace(SERVED, phase=Phase.STOPPING), "", None),
    ],
)
def test_what_came_of_a_bundle_is_read_off_the_machine(state, rejected, expected):
    told = verdict(state, "w", rejected)
    assert (told[0].value if told else None) == expected
    assert told is None or told[0].value == "serving" or told[1]
