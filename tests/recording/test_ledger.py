"""The frame ledger against figures known beforehand."""

import gc
from itertools import pairwise
from types import ModuleType

import pytest

from twinguide.ledger import Ledger, latency_cost_mm, missed_between, spread

PERIOD = 11_111_111


def filled(frames: int, capacity: int = 1000) -> Ledger:
    ledger = Ledger(["wait", "draw"], capacity)
    for frame in range(frames):
        ledger.note("draw", (frame + 1) * 1_000_000)
        ledger.end_frame()
    return ledger


def test_percentiles_are_those_of_the_times_written():
    wait, draw = filled(100).rows().T / 1e6
    assert spread(draw) == pytest.approx({"p50": 50.5, "p99": 99.01, "max": 100.0})
    assert spread(wait) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_a_full_ring_keeps_the_newest_frames_only():
    ledger = filled(250, capacity=101)  # one row is always the open frame's
    assert ledger.frames == 250
    assert sorted(ledger.rows()[:, 1] // 1_000_000) == list(range(151, 251))
    assert ledger.newest_us() == {"wait": 0, "draw": 250_000}


def test_skipped_display_periods_are_missed_frames_and_jitter_is_not():
    times = [round(t * PERIOD) for t in (0.0, 1.2, 1.9, 3.0, 6.0, 7.1)]  # one step of three periods: two frames missed
    assert sum(missed_between(a, b, PERIOD) for a, b in pairwise(times)) == 2
    assert missed_between(PERIOD, 0, PERIOD) == 0


def test_no_frames_give_no_figures():
    assert Ledger(["draw"]).rows().shape == (0, 1)
    assert spread([]) == {}


def test_the_price_of_latency_is_speed_times_age():
    assert latency_cost_mm(40_000_000, 0.010) == pytest.approx(0.4)  # 10 mm/s for 40 ms


def traversed(thing: object) -> int:
    """Return how many objects the collector traverses below a thing, its classes and modules aside."""
    seen: set[int] = set()
    todo = [thing]
    while todo:
        inner = [o for o in gc.get_referents(todo.pop()) if gc.is_tracked(o) and not isinstance(o, (type, ModuleType))]
        todo += [o for o in inner if id(o) not in seen]
        seen.update(map(id, inner))
    return len(seen)


def test_writing_frames_leaves_nothing_for_the_collector():
    ledger = filled(10)
    before = traversed(ledger)
    for _ in range(500):
        ledger.note("wait", 5)
        ledger.end_frame()
    assert traversed(ledger) == before
