from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinguide.clock import SECOND
from twinguide.hosting.schedule import Member, Schedule


def recorded(members, wakes, times, published=None):
    """Advance a schedule through `times` [ns]; return (t_ns, round, names) of each batch."""
    schedule, steps = Schedule(members, wakes), []

    def step(batch, t_ns, round_):
        steps.append((t_ns, round_, tuple(m.name for m in batch)))
        return [(m.name, tag) for m in batch for tag in (published or {}).get(m.name, ())]

    for t_ns in times:
        schedule.advance(t_ns, step)
    return steps


def test_parts_step_at_their_exact_instants_in_the_order_of_their_class():
    steps = recorded([Member("b", 1, 2.0), Member("a", 0, 4.0), Member("c", 1, 2.0)], {}, [SECOND // 2])
    assert [(t, names) for t, _, names in steps] == [
        (0, ("a",)), (0, ("b", "c")), (SECOND // 4, ("a",)), (SECOND // 2, ("a",)), (SECOND // 2, ("b", "c")),
    ]  # fmt: skip


def test_rounds_grow_with_each_batch():
    rounds = [r for _, r, _ in recorded([Member("a", 0, 7.0), Member("b", 1, 5.0)], {}, range(0, SECOND, SECOND // 9))]
    assert rounds == sorted(set(rounds))


@given(st.floats(0.5, 1000.0), st.lists(st.integers(1, 10**8), min_size=1, max_size=50))
def test_the_steps_do_not_depend_on_how_time_is_cut(rate_hz, pieces):
    times, now = [], 0
    for piece in pieces:
        now += piece
        times.append(now)
    fine = [(t, n) for t, _, n in recorded([Member("a", 0, rate_hz)], {}, times)]
    coarse = [(t, n) for t, _, n in recorded([Member("a", 0, rate_hz)], {}, [now])]
    assert fine == coarse


def test_a_later_order_is_woken_at_the_same_instant_and_an_earlier_one_at_the_next():
    members = [Member("early", 0, 0.0), Member("source", 1, 10.0), Member("late", 2, 0.0)]
    wakes = {("source", "t"): ("early", "late")}
    steps = recorded(members, wakes, [0, SECOND // 10], {"source": ["t"]})
    assert [(t, n) for t, _, n in steps] == [
        (0, ("source",)), (0, ("late",)), (0, ("early",)),
        (SECOND // 10, ("source",)), (SECOND // 10, ("late",)), (SECOND // 10, ("early",)),
    ]  # fmt: skip


def test_two_parts_that_wake_each_other_do_not_hold_time_still():
    members = [Member("a", 0, 1.0), Member("b", 0, 0.0)]
    wakes = {("a", "t"): ("b",), ("b", "t"): ("a",)}
    steps = recorded(members, wakes, [0, 1, 2, 3], {"a": ["t"], "b": ["t"]})
    assert len(steps) <= 8


def test_a_part_that_comes_back_does_not_make_up_for_what_it_missed():
    member = Member("a", 0, 10.0, alive=False)
    schedule, steps = Schedule([member], {}), []
    schedule.advance(SECOND, lambda batch, t, r: steps.append(t) or [])
    schedule.revive("a", SECOND)
    schedule.advance(SECOND + SECOND // 5, lambda batch, t, r: steps.append(t) or [])
    assert steps == [SECOND + SECOND // 10, SECOND + SECOND // 5]
