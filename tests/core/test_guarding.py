import signal
import time
from itertools import repeat

import pytest

from twinguide.guarding import BreakOff, Guarded


@pytest.fixture
def no_alarm():
    """Set aside the alarm that a test's time limit is."""
    handler, timer = signal.signal(signal.SIGALRM, signal.SIG_DFL), signal.setitimer(signal.ITIMER_REAL, 0.0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def test_a_part_that_raises_is_withdrawn_with_the_reason_told_once_and_not_called_again():
    calls, told = [], []

    def assess(twin):
        calls.append(twin)
        raise ZeroDivisionError("no depth")

    guarded = Guarded("depth", assess, 1.0, tell=told.append)
    assert guarded(None) == []
    assert guarded(None) == []
    assert len(calls) == 1
    assert told == [guarded.withdrawn] == ["ZeroDivisionError: no depth"]
    assert not guarded.fault  # of being slow, nobody need hear any more


def test_a_generator_that_raises_half_way_gives_nothing_of_its_frame():
    def assess(twin):
        yield 1
        raise ValueError("late")

    guarded = Guarded("x", assess, 1.0)
    assert guarded(None) == []
    assert "late" in guarded.withdrawn


def test_a_part_that_keeps_taking_too_long_is_named_and_goes_on():
    guarded = Guarded("slow", lambda twin: [sum(range(1000))], 0.0)  # whatever it takes is too long
    guarded(None)
    assert not guarded.fault  # once is no habit
    for _ in range(20):
        assert guarded(None) == [499500]
    assert guarded.fault == "slow takes longer than its 0 ms"


def test_a_part_without_a_budget_is_never_too_slow():
    guarded = Guarded("free", lambda twin: [sum(range(1000))], float("inf"))
    for _ in range(50):
        guarded(None)
    assert not guarded.fault


def test_what_cannot_be_drawn_withdraws_its_part():
    guarded = Guarded("ring", lambda twin: ["good", "bad"], 1.0, lambda said: "not finite" if said == "bad" else "")
    assert guarded(None) == []
    assert guarded.withdrawn == "not finite"


@pytest.mark.parametrize("swallowed", [0, 1, 5])
def test_a_part_that_hangs_in_the_frame_is_broken_off_and_withdrawn(swallowed, no_alarm):
    def hang(twin):
        for _ in range(swallowed):
            with pytest.raises(TimeoutError):
                time.sleep(60)
        if swallowed < 5:
            time.sleep(60)
        return []

    break_off = BreakOff(0.05)
    guarded = Guarded("hang", hang, 1.0, break_off=break_off)
    assert guarded(None) == []
    assert guarded.withdrawn.endswith("no answer within 0.05 s")
    break_off.close()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_hangs_is_broken_off_soon_after_its_time_is_up(no_alarm):
    break_off, left = BreakOff(20.0), []
    for _ in range(2):
        with break_off:
            left.append(signal.getitimer(signal.ITIMER_REAL)[0])
    break_off.close()
    assert all(20.0 < one <= 22.0 for one in left)  # never before the call's time is up


def test_an_alarm_that_others_had_set_is_set_again(no_alarm):
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    break_off = BreakOff(60.0)
    Guarded("quick", lambda twin: [], 1.0, break_off=break_off)(None)
    break_off.close()
    time.sleep(0.5)
    assert rung == [True]


def test_an_alarm_is_taken_back_where_nothing_is_called_any_more(no_alarm):
    guarded = Guarded("quick", lambda twin: [], 1.0, break_off=BreakOff(0.4))
    assert guarded(None) == []
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0.0
    time.sleep(0.9)  # the alarm comes after 0.44 s
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert guarded(None) == []
    assert not guarded.withdrawn
    time.sleep(0.9)  # the alarm that this call has set


def test_a_part_that_would_end_the_program_is_withdrawn():
    guarded = Guarded("exit", lambda twin: exit(3), 1.0)
    assert guarded(None) == []
    assert guarded.withdrawn == "SystemExit: 3"


def test_a_part_that_says_too_much_is_withdrawn():
    guarded = Guarded("flood", lambda twin: repeat("mark"), 1.0)  # without an end
    assert guarded(None) == []
    assert guarded.withdrawn == "wanted at most 256 marks or findings in a frame, got more"
