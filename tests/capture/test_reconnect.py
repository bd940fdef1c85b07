"""The camera machine: its table, row by row, then random walks with invariants."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from vajra_edge.capture.reconnect import (
    CameraPhase,
    CameraState,
    CameraTick,
    ChildDied,
    ChildHung,
    ChildOverFull,
    ChildStuck,
    Close,
    Ended,
    Event,
    GotFrame,
    Kill,
    LoginChanged,
    Open,
    Opened,
    Policy,
    ReportState,
    SourceFailed,
    Start,
    Step,
    StoodStill,
    StopCamera,
    advance,
)
from vajra_edge.config.settings import CameraSettings

POLICY = Policy(stall_s=10.0, freeze_s=30.0, healthy_s=60.0, backoff_max_s=16.0, first_delay_s=1.0)
OPENING = CameraState(CameraPhase.OPENING)
OPENED = CameraState(
    CameraPhase.OPENING, attempts=2, opened_s=100.0, last_frame_s=100.0, changed_s=100.0, reason="gone"
)
STREAMING = CameraState(
    CameraPhase.STREAMING, attempts=2, opened_s=100.0, last_frame_s=105.0, digest=7, changed_s=104.0
)
BACKOFF = CameraState(CameraPhase.BACKOFF, attempts=3, retry_at_s=50.0, reason="gone")


def run(state: CameraState, *events: Event, policy: Policy = POLICY) -> Step:
    actions: tuple[object, ...] = ()
    for event in events:
        state, actions = advance(state, event, policy)
    return state, actions  # type: ignore[return-value]


def test_start_opens() -> None:
    assert advance(CameraState(), Start(), POLICY) == (OPENING, (Open(), ReportState(CameraPhase.OPENING, "", 0, None)))


def test_an_ended_source_may_be_started_again() -> None:
    state, actions = advance(CameraState(CameraPhase.ENDED), Start(), POLICY)
    assert state.phase is CameraPhase.OPENING
    assert actions[0] == Open()


def test_an_open_source_streams_only_with_its_first_frame() -> None:
    state, actions = advance(replace(OPENING, attempts=2, reason="gone"), Opened(100.0), POLICY)
    assert (state, actions) == (OPENED, ())
    state, actions = advance(state, GotFrame(101.0, 0.5, 7), POLICY)
    assert state.phase is CameraPhase.STREAMING
    assert actions == (ReportState(CameraPhase.STREAMING, "", 2, None),)


def test_frames_while_streaming_say_nothing() -> None:
    state, actions = advance(STREAMING, GotFrame(106.0, 0.5, 8), POLICY)
    assert actions == ()
    assert (state.last_frame_s, state.digest, state.changed_s) == (106.0, 8, 106.0)


@pytest.mark.parametrize("state", [OPENING, OPENED, STREAMING])
def test_a_failure_closes_and_waits(state: CameraState) -> None:
    lost, actions = advance(state, SourceFailed(200.0, 1.0, "no route"), POLICY)
    delay_s = min(16.0, 2.0**state.attempts)
    assert lost == CameraState(CameraPhase.BACKOFF, state.attempts + 1, retry_at_s=200.0 + delay_s, reason="no route")
    assert actions == (Close(), ReportState(CameraPhase.BACKOFF, "no route", state.attempts + 1, delay_s))


@pytest.mark.parametrize("state", [OPENING, OPENED, STREAMING])
@pytest.mark.parametrize(
    ("event", "release", "reason"),
    [
        (ChildDied(200.0, 1.0, "the decoder crashed (SIGSEGV)"), Close(), "the decoder crashed (SIGSEGV)"),
        (ChildHung(200.0, 1.0, 15.2), Kill(), "did not answer within 15 s and was ended"),
        (
            ChildOverFull(200.0, 1.0, 1_500_000_000, 1_073_741_824),
            Kill(),
            "the decoder took 1500 MB of memory, allowed are 1074 MB",
        ),
    ],
)
def test_the_end_of_a_process_is_a_loss_like_another(
    state: CameraState, event: ChildDied | ChildHung | ChildOverFull, release: Close | Kill, reason: str
) -> None:
    lost, actions = advance(state, event, POLICY)
    assert (lost.phase, lost.reason, lost.attempts) == (CameraPhase.BACKOFF, reason, state.attempts + 1)
    assert actions[0] == release


def test_no_second_process_is_started_while_one_cannot_be_ended() -> None:
    lost, _ = advance(OPENED, ChildHung(200.0, 1.0, 15.0), POLICY)
    told, actions = advance(lost, ChildStuck(202.0, 0.5, 77), POLICY)
    assert told.reason == (
        "did not answer within 15 s and was ended; "
        "its process 77 cannot be ended, and no other is started before it is gone"
    )
    assert told.retry_at_s == lost.retry_at_s
    assert actions == (ReportState(CameraPhase.BACKOFF, told.reason, told.attempts, 2.0),)
    assert advance(told, ChildStuck(203.0, 0.5, 77), POLICY) == (told, ())
    opening, _ = advance(told, CameraTick(204.0, 0.5), POLICY)
    waiting, actions = advance(opening, ChildStuck(204.0, 1.0, 77), POLICY)
    assert waiting.phase is CameraPhase.BACKOFF
    assert waiting.reason == "its process 77 cannot be ended, and no other is started before it is gone"
    assert (waiting.attempts, waiting.retry_at_s) == (4, 212.0), "it waits longer each time"


@pytest.mark.parametrize(("attempts", "span_s"), [(0, 1.0), (1, 2.0), (3, 8.0), (4, 16.0), (5, 16.0), (100_000, 16.0)])
def test_the_delay_doubles_up_to_its_cap_with_the_dice_in_its_upper_half(attempts: int, span_s: float) -> None:
    for dice in (0.0, 0.5, 1.0):
        state, _ = advance(replace(OPENING, attempts=attempts), SourceFailed(0.0, dice, ""), POLICY)
        assert state.retry_at_s == pytest.approx(span_s * (0.5 + 0.5 * dice))


REFUSED = SourceFailed(200.0, 1.0, "refuses user and password (401)", login_refused=True)


def test_a_login_that_was_refused_twice_is_not_given_again_for_ten_minutes() -> None:
    once, _ = advance(OPENING, REFUSED, POLICY)
    assert (once.retry_at_s, once.reason) == (201.0, "refuses user and password (401)"), "a camera that boots may err"
    opening, _ = advance(once, CameraTick(201.0, 0.5), POLICY)
    twice, actions = advance(opening, REFUSED, POLICY)
    assert twice.retry_at_s == 200.0 + 600.0 + 2.0
    assert twice.reason == (
        "refuses user and password (401); it may lock this user out, so it is asked again after 10 min, "
        "or once user and password change here"
    )
    assert actions == (Close(), ReportState(CameraPhase.BACKOFF, twice.reason, 2, 602.0))
    assert advance(twice, CameraTick(801.9, 0.5), POLICY) == (twice, ())


def test_other_losses_between_two_refusals_neither_wait_for_the_lock_nor_forget_it() -> None:
    state, _ = run(OPENING, REFUSED, CameraTick(300.0, 0.5), SourceFailed(300.0, 1.0, "no route"))
    assert state.retry_at_s == 302.0
    state, _ = run(state, CameraTick(400.0, 0.5), ChildDied(400.0, 1.0, "crashed"))
    assert state.retry_at_s == 404.0
    state, _ = run(state, CameraTick(500.0, 0.5), replace(REFUSED, now_s=500.0))
    assert state.retry_at_s == 500.0 + 600.0 + 8.0


def test_a_login_that_was_taken_makes_the_next_refusal_the_first() -> None:
    state, _ = run(OPENING, REFUSED, CameraTick(300.0, 0.5), Opened(300.0), GotFrame(301.0, 0.5, 1))
    state, _ = advance(state, replace(REFUSED, now_s=400.0), POLICY)
    assert state.retry_at_s == 402.0


def test_a_changed_login_is_tried_soon_and_counts_its_own_refusals() -> None:
    locked, _ = run(replace(OPENING, attempts=7), REFUSED, CameraTick(300.0, 0.5), REFUSED)
    changed, actions = advance(locked, LoginChanged(300.0, 1.0), POLICY)
    assert (changed.phase, changed.retry_at_s, changed.refused_logins) == (CameraPhase.BACKOFF, 301.0, 0)
    assert actions == (ReportState(CameraPhase.BACKOFF, "user and password were changed here", 9, 1.0),)
    state, _ = run(changed, CameraTick(301.0, 0.5), replace(REFUSED, now_s=301.0))
    assert state.retry_at_s == 301.0 + 16.0


def test_backoff_ends_when_the_delay_has_passed_and_not_before() -> None:
    assert advance(BACKOFF, CameraTick(49.999, 0.5), POLICY) == (BACKOFF, ())
    state, actions = advance(BACKOFF, CameraTick(50.0, 0.5), POLICY)
    assert state == CameraState(CameraPhase.OPENING, attempts=3, reason="gone")
    assert actions == (Open(), ReportState(CameraPhase.OPENING, "gone", 3, None))


@pytest.mark.parametrize(("state", "last_s"), [(OPENED, 100.0), (STREAMING, 105.0)])
def test_no_frame_for_longer_than_stall_s_is_a_loss(state: CameraState, last_s: float) -> None:
    assert advance(state, CameraTick(last_s + 10.0, 0.5), POLICY) == (state, ())
    lost, actions = advance(state, CameraTick(last_s + 10.1, 0.5), POLICY)
    assert lost.phase is CameraPhase.BACKOFF
    assert lost.reason == "no new frame for 10.1 s"
    assert actions[0] == Close()


@pytest.mark.parametrize(("state", "last_s"), [(OPENED, 100.0), (STREAMING, 105.0)])
def test_time_in_which_nobody_could_listen_is_no_silence(state: CameraState, last_s: float) -> None:
    excused, actions = run(state, StoodStill(16.0), CameraTick(last_s + 26.0, 0.5))
    assert (excused.phase, actions) == (state.phase, ())
    assert advance(excused, CameraTick(last_s + 26.1, 0.5), POLICY)[0].reason == "no new frame for 10.1 s"


def test_time_in_which_nobody_could_look_does_not_count_as_the_same_picture() -> None:
    excused, _ = run(STREAMING, StoodStill(20.0), GotFrame(154.0, 0.5, 7))
    assert excused.phase is CameraPhase.STREAMING
    assert advance(excused, GotFrame(154.1, 0.5, 7), POLICY)[0].reason == "the same picture for 30.1 s"


def test_a_slow_opening_is_not_a_stall() -> None:
    assert advance(OPENING, CameraTick(1e6, 0.5), POLICY) == (OPENING, ())


def test_a_source_without_stall_time_may_be_silent_for_ever() -> None:
    assert advance(STREAMING, CameraTick(1e6, 0.5), replace(POLICY, stall_s=None)) == (STREAMING, ())


def test_the_same_picture_for_longer_than_freeze_s_is_a_loss() -> None:
    state, _ = advance(STREAMING, GotFrame(134.0, 0.5, 7), POLICY)
    assert state.phase is CameraPhase.STREAMING
    assert state.changed_s == 104.0
    lost, actions = advance(state, GotFrame(134.1, 0.5, 7), POLICY)
    assert lost.reason == "the same picture for 30.1 s"
    assert actions[0] == Close()


def test_another_picture_begins_the_freeze_time_anew() -> None:
    state, _ = run(STREAMING, GotFrame(134.0, 0.5, 8), GotFrame(163.0, 0.5, 8))
    assert state.phase is CameraPhase.STREAMING


def test_a_picture_from_before_the_loss_does_not_count_as_frozen() -> None:
    state, _ = run(
        STREAMING, SourceFailed(110.0, 0.5, "gone"), CameraTick(200.0, 0.5), Opened(201.0), GotFrame(202.0, 0.5, 7)
    )
    assert state.changed_s == 202.0


def test_frames_without_a_digest_never_freeze() -> None:
    state, _ = run(replace(STREAMING, digest=None), GotFrame(1000.0, 0.5), GotFrame(2000.0, 0.5))
    assert state.phase is CameraPhase.STREAMING


def test_the_same_picture_may_stay_where_freezes_are_not_looked_for() -> None:
    state, _ = advance(STREAMING, GotFrame(1e6, 0.5, 7), replace(POLICY, freeze_s=None))
    assert state.phase is CameraPhase.STREAMING


def test_attempts_are_forgotten_after_a_healthy_period_and_not_on_connecting() -> None:
    state, _ = run(STREAMING, GotFrame(159.9, 0.5, 8))
    assert state.attempts == 2
    state, _ = advance(state, GotFrame(160.0, 0.5, 9), POLICY)
    assert state.attempts == 0
    lost, _ = advance(state, SourceFailed(161.0, 1.0, "gone"), POLICY)
    assert (lost.attempts, lost.retry_at_s) == (1, 162.0)


def test_a_camera_that_flaps_waits_longer_each_time() -> None:
    state, now_s, delays_s = OPENING, 0.0, []
    for _ in range(6):
        state, actions = run(state, Opened(now_s), GotFrame(now_s, 0.0, 1), SourceFailed(now_s + 5.0, 1.0, "gone"))
        delays_s.append(actions[-1].retry_in_s)  # type: ignore[union-attr]
        now_s = state.retry_at_s or 0.0
        state, _ = advance(state, CameraTick(now_s, 0.5), POLICY)
    assert delays_s == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]


@pytest.mark.parametrize("state", [OPENED, STREAMING])
def test_the_end_of_a_finite_source(state: CameraState) -> None:
    assert advance(state, Ended(), POLICY) == (
        CameraState(CameraPhase.ENDED),
        (Close(), ReportState(CameraPhase.ENDED, "", 0, None)),
    )


@pytest.mark.parametrize("state", [OPENING, OPENED, STREAMING])
def test_stop_closes_what_is_open(state: CameraState) -> None:
    assert advance(state, StopCamera(), POLICY) == (
        CameraState(),
        (Close(), ReportState(CameraPhase.CLOSED, "", 0, None)),
    )


@pytest.mark.parametrize("state", [BACKOFF, CameraState(CameraPhase.ENDED)])
def test_stop_without_anything_open_only_tells(state: CameraState) -> None:
    assert advance(state, StopCamera(), POLICY) == (CameraState(), (ReportState(CameraPhase.CLOSED, "", 0, None),))


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (CameraState(), StopCamera()),
        (CameraState(), CameraTick(1e6, 0.5)),
        (CameraState(), SourceFailed(0.0, 0.5, "late")),
        (CameraState(CameraPhase.ENDED), SourceFailed(0.0, 0.5, "late")),
        (BACKOFF, SourceFailed(0.0, 0.5, "late")),
        (BACKOFF, GotFrame(0.0, 0.5, 1)),
        (BACKOFF, Ended()),
        (BACKOFF, Opened(0.0)),
        (BACKOFF, Start()),
        (OPENING, GotFrame(0.0, 0.5, 1)),
        (OPENING, Ended()),
        (OPENING, Start()),
        (BACKOFF, ChildDied(0.0, 0.5, "late")),
        (CameraState(), ChildStuck(0.0, 0.5, 77)),
        (STREAMING, ChildStuck(0.0, 0.5, 77)),
        (OPENED, Opened(300.0)),
        (STREAMING, Opened(300.0)),
        (STREAMING, Start()),
        (CameraState(), StoodStill(16.0)),
        (OPENING, StoodStill(16.0)),
        (BACKOFF, StoodStill(16.0)),
        (BACKOFF, LoginChanged(0.0, 0.5)),
        (replace(OPENING, refused_logins=2), LoginChanged(0.0, 0.5)),
        (STREAMING, LoginChanged(0.0, 0.5)),
        (CameraState(), LoginChanged(0.0, 0.5)),
    ],
)
def test_late_news_changes_nothing(state: CameraState, event: Event) -> None:
    assert advance(state, event, POLICY) == (state, ())


def test_a_file_neither_stalls_nor_freezes() -> None:
    camera = CameraSettings(id="gate", source="clip.avi", stall_s=3.0, freeze_s=4.0, healthy_s=5.0, backoff_max_s=6.0)
    assert Policy.of(camera, live=True) == Policy(3.0, 4.0, 5.0, 6.0)
    assert Policy.of(camera, live=False) == Policy(None, None, 5.0, 6.0)


def any_event(dice: random.Random, now_s: float) -> Event:
    roll = dice.random()
    return dice.choices(
        [
            Start(),
            Opened(now_s),
            GotFrame(now_s, roll, dice.randrange(3)),
            SourceFailed(now_s, roll, "gone"),
            CameraTick(now_s, roll),
            Ended(),
            StopCamera(),
            ChildDied(now_s, roll, "crashed"),
            ChildHung(now_s, roll, 15.0),
            ChildOverFull(now_s, roll, 2, 1),
            ChildStuck(now_s, roll, 77),
            StoodStill(roll),
            SourceFailed(now_s, roll, "refused", login_refused=True),
            LoginChanged(now_s, roll),
        ],
        [2, 6, 20, 4, 10, 0.3, 0.3, 1, 1, 1, 1, 2, 2, 1],
    )[0]


@pytest.mark.parametrize("seed", range(300))
def test_random_walks_keep_the_invariants(seed: int) -> None:
    dice, state, now_s, held = random.Random(seed), CameraState(), 0.0, False
    for _ in range(400):
        now_s += dice.choice([0.01, 0.1, 1.0, 12.0])
        before, event = state, any_event(dice, now_s)
        state, actions = advance(state, event, POLICY)
        for action in actions:
            assert not (isinstance(action, Open) and held), "two sources open"
            assert not (isinstance(action, Close | Kill) and not held), "closed what is not open"
            held = isinstance(action, Open) or (held and not isinstance(action, Close | Kill))
        assert held == (state.phase in (CameraPhase.OPENING, CameraPhase.STREAMING)), "leaked or missing source"
        reports = [action for action in actions if isinstance(action, ReportState)]
        if isinstance(event, ChildStuck | LoginChanged) and before.phase is CameraPhase.BACKOFF:
            assert state.phase is CameraPhase.BACKOFF
            continue
        assert [report.phase for report in reports] == ([state.phase] if state.phase is not before.phase else [])
        assert (state.retry_at_s is not None) == (state.phase is CameraPhase.BACKOFF)
        if state.phase is CameraPhase.BACKOFF and before.phase is not CameraPhase.BACKOFF:
            locked_s = POLICY.login_wait_s if state.refused_logins > max(before.refused_logins, 1) else 0.0
            assert 0.5 <= (state.retry_at_s or 0.0) - now_s - locked_s <= POLICY.backoff_max_s + 1e-6
            assert state.reason
            assert state.attempts == before.attempts + 1
        if state.attempts < before.attempts:
            healthy = isinstance(event, GotFrame) and now_s - (before.opened_s or now_s) >= POLICY.healthy_s
            assert healthy or isinstance(event, (StopCamera, Ended))
        if state.phase is CameraPhase.STREAMING:
            assert state.opened_s is not None
            assert not state.reason


@pytest.mark.parametrize("seed", range(100))
def test_from_anywhere_a_sound_camera_streams_again(seed: int) -> None:
    dice, state, now_s = random.Random(seed), CameraState(), 0.0
    for _ in range(seed):
        now_s += dice.random()
        state, _ = advance(state, any_event(dice, now_s), POLICY)
    for _ in range(2):  # the first round may find a stall or a freeze that was due
        now_s += POLICY.backoff_max_s + POLICY.login_wait_s
        state, _ = run(state, Start(), CameraTick(now_s, 0.5), Opened(now_s), GotFrame(now_s, 0.5, 99))
        if state.phase is CameraPhase.STREAMING:
            break
    assert state.phase is CameraPhase.STREAMING


@pytest.mark.parametrize("seed", range(100))
def test_stop_works_from_anywhere_and_nothing_follows(seed: int) -> None:
    dice, state, now_s = random.Random(seed), CameraState(), 0.0
    for _ in range(seed):
        now_s += dice.random()
        state, _ = advance(state, any_event(dice, now_s), POLICY)
    state, _ = advance(state, StopCamera(), POLICY)
    for _ in range(50):
        event = any_event(dice, now_s)
        if not isinstance(event, Start):
            state, actions = advance(state, event, POLICY)
            assert (state, actions) == (CameraState(), ())
