"""The chest marker's motion as one scalar over time: projection, smoothing, features of its history, cycles.

Times are seconds of the run's clock, the scalar `s` is in metres along the chest's main direction of travel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HISTORY_S = 0.7  # what one feature vector looks back over
HISTORY_DEGREE = 4
GRID_HZ = 60.0
SMOOTHING_S = 0.1  # half width of the two-sided fit that training uses as truth for value and rate
LONGEST_GAP_S = 0.12
BREATH_LEVEL = 0.3  # of a breath's usual height: above it a breath has begun
REST_LEVEL = 0.15  # below it the next may begin


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """How a chest position becomes a scalar [m]: `s = weights @ (position - origin)`; `sigma` [m] of one sample."""

    origin: Array  # (3,) [m]
    weights: Array  # (3,)
    sigma: float
    direction: Array  # (3,) unit vector, in which the chest moves

    def apply(self, positions: Array) -> Array:
        """Return the scalar [m], shape (...), of positions [m], shape (..., 3)."""
        return (positions - self.origin) @ self.weights


def fit_projection(positions: Array, covariance: Array) -> Projection:
    """Find the direction in which the chest moves most against its noise, and the best unbiased scalar along it.

    Positions [m], shape (n, 3); covariance [m2], shape (3, 3), of one. The direction is the first principal one after
    whitening; the weights are those of generalised least squares (Aitken 1936).
    """
    origin = np.median(positions, axis=0)
    inverse = np.linalg.inv(covariance)
    whitening = np.linalg.cholesky(inverse)
    principal = np.linalg.svd((positions - origin) @ whitening, full_matrices=False)[2][0]
    travel = np.linalg.solve(whitening.T, principal)
    travel /= np.linalg.norm(travel)
    information = float(travel @ inverse @ travel)
    return Projection(origin, inverse @ travel / information, information**-0.5, travel)


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The scalar on a regular grid: times [s], values [m], and whether a sample was near, each of shape (n,)."""

    times: Array
    values: Array
    known: NDArray[np.bool_]


def resample(times: Array, values: Array) -> Grid:
    """Interpolate samples [s], [m], shape (n,), to the grid's rate; what lies in a gap is marked unknown."""
    grid = np.arange(times[0], times[-1], 1 / GRID_HZ)
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    return Grid(grid, np.interp(grid, times, values), times[right] - times[right - 1] < LONGEST_GAP_S)


def history_features(times: Array, values: Array) -> Array | None:
    """Return Legendre coefficients [m], shape (HISTORY_DEGREE + 1,), of the last HISTORY_S seconds of samples [s], [m].

    None where the history is too short or has a gap. They keep the whole recent course in few, little-noisy numbers.
    """
    now = times[-1]
    first = int(np.searchsorted(times, now - HISTORY_S - 0.5 / GRID_HZ))
    t, v = times[first:], values[first:]
    if len(t) < 20 or t[0] > now - HISTORY_S + LONGEST_GAP_S or np.diff(t).max() > LONGEST_GAP_S:
        return None
    basis = np.polynomial.legendre.legvander(1 + 2 * (t - now) / HISTORY_S, HISTORY_DEGREE)
    return np.asarray(np.linalg.lstsq(basis, v, rcond=None)[0], dtype=np.float64)


def grid_features(grid: Grid) -> tuple[Array, Array]:
    """Return the times [s], shape (m,), and history features [m], shape (m, HISTORY_DEGREE + 1), of a whole grid."""
    count = int(HISTORY_S * GRID_HZ) + 1
    basis = np.polynomial.legendre.legvander(1 + 2 * np.arange(1 - count, 1) / GRID_HZ / HISTORY_S, HISTORY_DEGREE)
    windows = np.lib.stride_tricks.sliding_window_view(grid.values, count)
    known = np.lib.stride_tricks.sliding_window_view(grid.known, count).all(axis=1)
    return grid.times[count - 1 :][known], (windows @ np.linalg.pinv(basis).T)[known]


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """Value [m] and rate [m/s] by a local parabola over both sides, at times [s]; each of shape (n,)."""

    times: Array
    value: Array
    rate: Array

    def covers(self, times: Array) -> NDArray[np.bool_]:
        """Return which times [s], shape (n,), lie within, shape (n,)."""
        return (times > self.times[0]) & (times < self.times[-1])

    def at(self, times: Array) -> Array:
        """Return (value, rate), shape (n, 2), interpolated at times [s], shape (n,)."""
        return np.stack([np.interp(times, self.times, self.value), np.interp(times, self.times, self.rate)], axis=1)


def smooth(grid: Grid) -> Smoothed:
    """Fit a parabola around each time of the grid (Savitzky & Golay 1964)."""
    half = round(SMOOTHING_S * GRID_HZ)
    fit = np.linalg.pinv(np.vander(np.arange(-half, half + 1) / GRID_HZ, 3, increasing=True))
    windows = np.lib.stride_tricks.sliding_window_view(grid.values, 2 * half + 1)
    return Smoothed(grid.times[half:-half], windows @ fit[0], windows @ fit[1])


def resting_value(values: Array) -> float:
    """Return where the scalar rests [m]: the mean near the half-sample mode (Robertson & Cryer 1974)."""
    ordered = np.sort(values)
    while len(ordered) > 3:
        half = (len(ordered) + 1) // 2
        widths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
        first = int(np.argmin(widths))
        ordered = ordered[first : first + half]
    near = np.abs(values - ordered.mean()) < 0.03 * np.ptp(values)
    return float(values[near].mean())


def breath_starts(times: Array, inspiration: Array) -> Array:
    """Return the times [s] at which breaths begin: upward crossings of BREATH_LEVEL after a fall below REST_LEVEL.

    `inspiration`, shape (n,), is 0 at rest and 1 at a breath's usual height.
    """
    starts: list[float] = []
    armed = False
    for t, level in zip(times.tolist(), inspiration.tolist(), strict=True):
        if armed and level > BREATH_LEVEL:
            starts.append(t)
            armed = False
        armed = armed or level < REST_LEVEL
    return np.array(starts)


def rhythm(periods: Array) -> tuple[float, float]:
    """Return the mean of periods [s], shape (n,), and the relative spread in which the next one is to be expected.

    The spread is drawn towards 8 %, as four breaths known beforehand would, and holds the mean's own error.
    """
    mean, count = float(periods.mean()), len(periods)
    squares = 4 * 0.08**2 + float(np.sum((periods / mean - 1) ** 2))
    return mean, float(np.sqrt(squares / (4 + count - 1) * (1 + 1 / count)))
