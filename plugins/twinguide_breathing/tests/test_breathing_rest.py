import numpy as np
import pytest

from twinguide_breathing.rest import RestWatch
from twinguide_breathing.synthetic import Patient, simulate

TRAVEL = np.array([0.0, -0.9, 0.3]) / np.linalg.norm([0.0, -0.9, 0.3])
ACROSS = np.array([0.6, 0.8 * 0.3, 0.8 * 0.9]) / np.linalg.norm([0.6, 0.8 * 0.3, 0.8 * 0.9])


def watched(seconds, shift=lambda t: 0.0, seed=4, patient=None, hidden=None):
    """Return a watch after so many seconds of breathing, the chest displaced by `shift(t)` [m], and all it told."""
    motion = simulate(patient or Patient(), seed, test_s=seconds - 25.0)
    watch, told = RestWatch(TRAVEL, 4.0), []
    for t, position in zip(motion.times.tolist(), motion.chest, strict=True):
        if hidden is None or not hidden(t):
            before = watch.creep
            watch.add(t, position + shift(t))
            told += [] if watch.creep is before or watch.creep is None else [(t, watch.creep)]
    return watch, told


def test_regular_breathing_creeps_by_less_than_a_tenth_of_a_millimetre():
    watch, told = watched(240.0)
    assert len(told) > 20
    assert max(creep.size for _, creep in told) < 1e-4
    np.testing.assert_array_equal(watch.covariance(), 0.0)


def test_a_creep_across_the_travel_is_measured_and_widens_the_region():
    watch, told = watched(120.0, lambda t: 3e-3 * np.clip((t - 40.0) / 60.0, 0.0, 1.0) * ACROSS)
    np.testing.assert_allclose(watch.creep.shift, 3e-3 * ACROSS, atol=1e-4)
    sizes = [creep.size for _, creep in told]
    assert sizes == sorted(sizes)
    covariance = watch.covariance()
    assert ACROSS @ covariance @ ACROSS == pytest.approx(3e-3**2, rel=0.1)
    assert TRAVEL @ covariance @ TRAVEL == pytest.approx(0.5 * 3e-3**2, rel=0.1)  # not seen, so taken for as large


@pytest.mark.parametrize("every", [2, 3])
def test_a_slower_tracker_tells_a_creep_too(every):
    slow = {"hidden": lambda t: round(t * 60.0) % every}
    watch, _ = watched(120.0, lambda t: 3e-3 * np.clip((t - 40.0) / 60.0, 0.0, 1.0) * ACROSS, **slow)
    np.testing.assert_allclose(watch.creep.shift, 3e-3 * ACROSS, atol=1e-4)


def test_along_the_travel_a_creep_cannot_be_told_from_another_way_of_breathing():
    watch, _ = watched(120.0, lambda t: 3e-3 * np.clip((t - 40.0) / 60.0, 0.0, 1.0) * TRAVEL)
    assert watch.creep.size < 1e-4


def test_breaths_of_other_depth_and_length_do_not_creep():
    deep = Patient(period_spread=0.25, amplitude_spread=0.25)
    _, told = watched(240.0, patient=deep)
    assert max(creep.size for _, creep in told) < 2e-4


def test_before_the_base_and_a_later_block_are_known_nothing_is_told():
    watch, told = watched(26.0)
    assert (watch.creep, told) == (None, [])
    np.testing.assert_array_equal(watch.covariance(), 0.0)


def test_a_block_in_which_the_marker_was_hidden_is_left_out():
    _, whole = watched(120.0)
    _, told = watched(120.0, hidden=lambda t: 60.0 < t < 64.0)
    assert len(whole) - 2 <= len(told) < len(whole)
