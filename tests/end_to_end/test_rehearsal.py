import pytest


@pytest.fixture(scope="module")
def rehearsed(watch_module):
    run = watch_module("seconds=22.0", scenario="liver_rehearsal")
    run.for_seconds(21.5)
    return run


def test_the_same_loop_rehearses_without_a_patient(rehearsed):
    assert {shown.step for shown in rehearsed.frames} == {"guide"}
    assert {s.state for s in rehearsed.frames[-1].structures.values()} == {"valid"}


def test_each_pull_of_the_trigger_begins_or_ends_an_attempt(rehearsed):
    attempts = rehearsed.loop.rehearsal.attempts
    assert [a.number for a in attempts] == [1, 2, 3]
    assert all(4.0 < a.seconds < 6.5 for a in attempts)


def test_an_attempt_is_measured_against_the_plan(rehearsed):
    for attempt in rehearsed.loop.rehearsal.attempts:
        assert 0.0 < attempt.tip_error_mm < 20.0  # a trainee misses by 5 mm per axis and less
        assert attempt.path_mm > 50.0
        assert attempt.angle_deg < 1.0
        assert set(attempt.closest) >= {"ribs", "portal_vein"}


def test_the_trainee_gets_better(rehearsed):
    errors = [a.tip_error_mm for a in rehearsed.loop.rehearsal.attempts]
    assert errors[-1] < errors[0]


def test_an_attempt_pulses_the_controller(rehearsed):
    assert [pulse[1] for pulse in rehearsed.loop.headset.pulses] == ["right"] * 3
