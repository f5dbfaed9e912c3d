"""The frame ledger against figures known beforehand."""

import gc

import numpy as np
import pytest

from twinguide.ledger import Ledger, latency_cost_mm, missed_between, spread

PERIOD = 11_111_111


def filled(frames: int, capacity: int = 1000) -> Ledger:
    ledger = Ledger(["wait", "draw"], capacity)
    for frame in range(frames):
        ledger.note("draw", (frame + 1) * 1_000_000)
        ledger.end_frame(frame * PERIOD, PERIOD)
    return ledger


def test_percentiles_are_those_of_the_times_written():
    stages = filled(100).stage_ms()
    assert stages["draw"] == pytest.approx({"p50": 50.5, "p99": 99.01, "max": 100.0})
    assert stages["wait"] == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_a_full_ring_keeps_the_newest_frames_only():
    ledger = filled(250, capacity=101)  # one row is always the open frame's
    assert ledger.frames == 250
    assert ledger.stage_ms()["draw"] == pytest.approx(spread(np.arange(151.0, 251.0)))
    assert ledger.newest_us() == {"wait": 0, "draw": 250_000}


def test_skipped_display_periods_are_missed_frames_and_jitter_is_not():
    ledger = Ledger(["draw"])
    for t in (0.0, 1.2, 1.9, 3.0, 6.0, 7.1):  # one step of three periods: two frames missed
        ledger.end_frame(round(t * PERIOD), PERIOD)
    assert ledger.missed == 2
    assert missed_between(PERIOD, 0, PERIOD) == 0


def test_an_empty_ledger_gives_no_figures():
    ledger = Ledger(["draw"])
    assert ledger.stage_ms() == {"draw": {}}


def test_the_price_of_latency_is_speed_times_age():
    assert latency_cost_mm(40_000_000, 0.010) == pytest.approx(0.4)  # 10 mm/s for 40 ms


def test_writing_frames_leaves_nothing_for_the_collector():
    ledger = filled(10)
    gc.collect()
    before = len(gc.get_objects())
    for frame in range(500):
        ledger.note("wait", 5)
        ledger.end_frame(frame * PERIOD, PERIOD)
    assert len(gc.get_objects()) - before < 5  # the test's own few
