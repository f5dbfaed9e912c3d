"""A stream's values, poses and speeds between its samples."""

from __future__ import annotations

import numpy as np

from twinguide_calibration.rigid import Array, Bools, Ints, difference, inverse, perturb

GAP = 5.0  # median intervals: across a longer gap nothing is known
EVEN = 0.5, 2.0  # median intervals: where the three about an instant lie within, a cubic leaves noise as it is


def interpolate_values(times: Array, values: Array, at: Array) -> Array:
    """Return values, shape (m, k), of a stream (n, k) at times, shape (m,), as `interpolate_poses`; its ends beyond."""
    rows, weights, _ = _stencil(times, at)
    return np.einsum("mc,mck->mk", weights, values[rows])


def interpolate_poses(times: Array, poses: Array, at: Array) -> tuple[Array, Bools]:
    """Return poses, shape (m, 4, 4), at times [s], shape (m,), and which of them lie within the stream, not in a gap.

    `times` [s], shape (n,), strictly rising, `poses` (n, 4, 4). A cubic through four samples, told as motions from the
    one before; a line through two at the ends and where stamps are uneven. Between samples dt apart of a motion with
    angular frequency w a line is off by up to (w dt)^2 / 8 of its amplitude, the cubic by 3 (w dt)^4 / 128.
    """
    rows, weights, known = _stencil(times, at)
    first = poses[rows[:, 1]]
    return perturb(first, np.einsum("mc,mck->mk", weights, difference(poses[rows], first[:, None]))), known


def twists(times: Array, poses: Array, at: Array, half_s: float) -> Array:
    """Return how fast a stream moves, shape (m, 6) [rad/s, m/s], told in its source, by differences over +-half_s."""
    before, _ = interpolate_poses(times, poses, np.clip(at - half_s, times[0], times[-1]))
    after, _ = interpolate_poses(times, poses, np.clip(at + half_s, times[0], times[-1]))
    return difference(inverse(before) @ after, np.broadcast_to(np.eye(4), after.shape)) / (2.0 * half_s)


def _stencil(times: Array, at: Array) -> tuple[Ints, Array, Bools]:
    """Return the four rows about each time, shape (m, 4), their weights, and which times the stream knows, shape (m,).

    The weights are Lagrange's of a cubic; a time lies between the second row and the third.
    """
    before = np.clip(np.searchsorted(times, at), 1, len(times) - 1) - 1
    rows = np.clip(before[:, None] + np.arange(-1, 3), 0, len(times) - 1)
    stamps, usual = times[rows], float(np.median(np.diff(times)))
    intervals = np.diff(stamps, axis=1)
    share = (at - stamps[:, 1]) / intervals[:, 1]
    known = (share >= 0.0) & (share <= 1.0) & (intervals[:, 1] <= GAP * usual)
    share = np.clip(share, 0.0, 1.0)
    weights = np.stack([np.zeros(len(at)), 1.0 - share, share, np.zeros(len(at))], axis=1)
    even = ((intervals > EVEN[0] * usual) & (intervals < EVEN[1] * usual)).all(axis=1)
    inner = stamps[even] - stamps[even, 1:2]
    now = share[even] * inner[:, 2]
    for row in range(4):
        others = np.delete(inner, row, axis=1)
        weights[even, row] = np.prod((now[:, None] - others) / (inner[:, row, None] - others), axis=1)
    return rows, weights, known
