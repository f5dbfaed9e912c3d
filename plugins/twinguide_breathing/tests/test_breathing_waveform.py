import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinguide_breathing import waveform

RATE = 1 / waveform.GRID_HZ


def test_projection_finds_the_direction_of_travel_and_weighs_the_noisy_axis_less():
    rng = np.random.default_rng(0)
    travel = np.array([0.0, -0.6, 0.8])
    sigma = np.array([5e-5, 5e-5, 5e-4])
    level = np.sin(np.linspace(0, 60, 3000)) ** 6 * 0.01
    points = level[:, None] * travel + rng.normal(size=(3000, 3)) * sigma
    projection = waveform.fit_projection(points, np.diag(sigma**2))
    s = projection.apply(points)
    gain = s @ (level - level.mean()) / (level @ (level - level.mean()))
    error = s - gain * level
    # Generalised least squares reaches 1 / sqrt(u' S^-1 u) = 0.083 mm; the plain projection would give 0.40 mm.
    assert projection.sigma == pytest.approx(8.3e-5, rel=0.02)
    assert error.std() == pytest.approx(8.3e-5, rel=0.05)


@given(st.lists(st.floats(-5e-3, 5e-3), min_size=5, max_size=5))
def test_history_features_reproduce_any_course_that_is_a_polynomial(coefficients):
    now = 3.0
    times = np.arange(now - 1.0, now + 1e-9, RATE)
    values = np.polynomial.legendre.legval(1 + 2 * (times - now) / waveform.HISTORY_S, coefficients)
    found = waveform.history_features(times, values)
    assert found is not None
    np.testing.assert_allclose(found, coefficients, atol=1e-12)  # a least-squares fit of its own model is exact


def test_history_with_a_gap_gives_no_features():
    times = np.arange(0.0, 2.0, RATE)
    gap = (times < 1.6) | (times > 1.8)
    assert waveform.history_features(times, np.sin(times)) is not None
    assert waveform.history_features(times[gap], np.sin(times[gap])) is None


def test_history_that_is_too_short_gives_no_features():
    times = np.arange(0.0, 0.4, RATE)
    assert waveform.history_features(times, np.sin(times)) is None


def test_features_of_the_grid_and_of_the_last_samples_agree():
    times = np.arange(0.0, 3.0, RATE)
    values = 0.01 * np.sin(0.8 * times) ** 6
    grid = waveform.resample(times, values)
    grid_times, features = waveform.grid_features(grid)
    last = int(np.searchsorted(grid.times, grid_times[60]))
    one = waveform.history_features(grid.times[: last + 1], grid.values[: last + 1])
    np.testing.assert_allclose(features[60], one, atol=1e-12)


def test_smoothing_keeps_a_parabola_and_its_rate():
    times = np.arange(0.0, 2.0, RATE)
    smoothed = waveform.smooth(waveform.resample(times, 0.003 * times**2 - 0.001 * times))
    np.testing.assert_allclose(smoothed.value, 0.003 * smoothed.times**2 - 0.001 * smoothed.times, atol=1e-12)
    np.testing.assert_allclose(smoothed.rate, 0.006 * smoothed.times - 0.001, atol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_resting_value_is_where_the_chest_dwells_whichever_way_it_moves(sign):
    times = np.arange(0.0, 24.0, RATE)
    values = sign * 0.009 * np.sin(np.pi * times / 4) ** 6 + 0.1
    values += np.random.default_rng(1).normal(0, 3e-5, len(times))
    # Half of a breath is spent below 10 % of its height; a tenth of a millimetre is 1 % of it.
    assert waveform.resting_value(values) == pytest.approx(0.1, abs=1e-4)


def test_each_breath_begins_once():
    times = np.arange(0.0, 20.0, RATE)
    level = np.sin(np.pi * times / 4) ** 6 + np.random.default_rng(2).normal(0, 0.02, len(times))
    starts = waveform.breath_starts(times, level)
    crossing = 4 / np.pi * np.arcsin(0.3 ** (1 / 6))  # where sin^6 passes 0.3
    np.testing.assert_allclose(starts, crossing + 4 * np.arange(5), atol=0.05)  # noise over slope: some 20 ms
