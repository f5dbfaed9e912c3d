"""A stream's values, poses and speeds between its samples."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from twinguide_calibration.rigid import Array, Bools, Ints, difference, inverse, perturb

GAP = 5.0  # median intervals: across a longer gap nothing is known
EVEN = 0.5, 2.0  # median intervals: where those about an instant lie within, a polynomial leaves noise as it is
MOSTLY = 0.9  # of the intervals
BEFORE = 2  # rows before the one just before an instant, and as many after


def interpolate_values(times: Array, values: Array, at: Array) -> Array:
    """Return values, shape (m, k), of a stream (n, k) at times, shape (m,), as `interpolate_poses`; its ends beyond."""
    rows, weights, _ = _stencil(times, at)
    return np.einsum("mc,mck->mk", weights, values[rows])


def interpolate_poses(times: Array, poses: Array, at: Array) -> tuple[Array, Bools]:
    """Return poses, shape (m, 4, 4), at times [s], shape (m,), and which of them lie within the stream, not in a gap.

    `times` [s], shape (n,), strictly rising, `poses` (n, 4, 4). A quintic through six samples, told as motions from the
    one before; near the ends and where stamps are uneven a cubic through four, or a line through two. Between samples
    dt apart of a motion with angular frequency w they are off by up to 5 (w dt)^6 / 1024, 3 (w dt)^4 / 128 and
    (w dt)^2 / 8 of its amplitude.
    """
    rows, weights, known = _stencil(times, at)
    first = poses[rows[:, BEFORE]]
    return perturb(first, np.einsum("mc,mck->mk", weights, difference(poses[rows], first[:, None]))), known


def twists(times: Array, poses: Array, at: Array, half_s: float) -> Array:
    """Return how fast a stream moves, shape (m, 6) [rad/s, m/s], told in its source, by differences over +-half_s."""
    before, _ = interpolate_poses(times, poses, np.clip(at - half_s, times[0], times[-1]))
    after, _ = interpolate_poses(times, poses, np.clip(at + half_s, times[0], times[-1]))
    return difference(inverse(before) @ after, np.broadcast_to(np.eye(4), after.shape)) / (2.0 * half_s)


def halved(times: Array) -> tuple[Ints, float]:
    """Return every other row of a stream, and by how much more than between all rows is wrong between these, less one.

    The error grows by two to the power of its order (Richardson 1911): the sixth where stamps (n,) are even, else the
    second.
    """
    intervals = np.diff(times)
    even = np.mean(np.abs(intervals / np.median(intervals) - 1.0) < 1.0 - EVEN[0])
    rows: Ints = np.unique(np.append(np.arange(0, len(times), 2), len(times) - 1)).astype(np.int64)
    return rows, 63.0 if even > MOSTLY else 3.0


def _stencil(times: Array, at: Array) -> tuple[Ints, Array, Bools]:
    """Return the six rows about each time, shape (m, 6), their weights, and which times the stream knows, shape (m,).

    The weights are Lagrange's of as many of them as are evenly apart; a time lies between the third row and the fourth.
    """
    before = np.clip(np.searchsorted(times, at), 1, len(times) - 1) - 1
    rows = np.clip(before + np.arange(-BEFORE, BEFORE + 2)[:, None], 0, len(times) - 1)  # (6, m): quick by columns
    stamps, usual = times[rows], float(np.median(np.diff(times)))
    intervals = np.diff(stamps, axis=0)
    share = (at - stamps[BEFORE]) / intervals[BEFORE]
    known = (share >= 0.0) & (share <= 1.0) & (intervals[BEFORE] <= GAP * usual)
    share = np.clip(share, 0.0, 1.0)
    weights = np.zeros(rows.shape)
    weights[BEFORE], weights[BEFORE + 1] = 1.0 - share, share
    nodes, now = stamps - stamps[BEFORE], share * intervals[BEFORE]
    regular = (intervals > EVEN[0] * usual) & (intervals < EVEN[1] * usual)
    left = np.ones(len(at), dtype=np.bool_)
    for first in range(BEFORE):
        last = len(rows) - first
        even = left & regular[first : last - 1].all(axis=0)
        weights[first:last, even] = _lagrange(nodes[first:last, even], now[even])
        left &= ~even
    return rows.T, weights.T, known


def _lagrange(nodes: Array, at: Array) -> Array:
    """Return the weights (c, m) of values at nodes (c, m) in the polynomial through them, at places (m,)."""
    gone, out = at - nodes, np.ones(nodes.shape)
    for own, other in permutations(range(len(nodes)), 2):
        out[own] *= gone[other] / (nodes[own] - nodes[other])
    return out
