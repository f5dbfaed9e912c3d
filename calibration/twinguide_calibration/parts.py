"""Whether the samples of one recording, in their order, tell one answer throughout."""

from __future__ import annotations

from math import sqrt

import numpy as np

from twinguide_calibration.error import misfit_probability
from twinguide_calibration.linear import eigen, solve, squared_lengths
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints
from twinguide_calibration.weights import median, serial_inflation

MOST_REJECTED = 0.5  # the breakdown point: beyond it no majority tells which samples are right
LEAST_GROUP = 15  # samples, that may have an answer of their own
PARTS, IN_PART = (2, 3, 5), 12  # of a recording, each with so many samples at least, compared with one another
BY_CHANCE = 1e-3  # parts that differ so much so seldom: more than noise
MOST = 0.95  # of the poses lie within a motion's extent
STILL = 3e-3  # of the extent of a motion: less is none
PLACES = 40  # tried, at which a recording may fall in two
SERIAL = 2.0  # times that correlation in time widens a covariance: less hints at no second answer
SPLIT_LEFT = 0.25  # of a component's squares that two fits leave of what one leaves: noise and slow errors leave more
MANY_REJECTED = 0.2  # of the samples: to be told
ALIKE = 2.0  # times the scatter of the others: samples as close to an answer of their own


def spread_inflation(whitened: Array, jacobian: Array, inside: Bools, variance: float) -> float:
    """Return by how much a covariance is to be widened, at least 1, so that parts of a recording agree within it.

    The larger of what correlation in time costs (`serial_inflation`) and `birge_ratio`: errors that follow the pose
    come back with it, which residuals in their order do not show. One that is the same in every part, neither shows.
    `whitened` (n, m) residuals of `variance`, `jacobian` (n, m, k).
    """
    held, pulled = _sums(whitened, jacobian, inside)
    return max(serial_inflation(whitened, inside), birge_ratio(held, pulled, variance, IN_PART))


def birge_ratio(held: Array, pulled: Array, variance: float, in_part: int) -> float:
    """Return the ratio by which the answers of parts scatter more than they should; 1 where chance explains it.

    `held` (n, k, k) and `pulled` (n, k) are the samples' information and gradient at the answer of all, where their
    noise has `variance`. The largest of 2, 3 and 5 parts, each of `in_part` samples or more, counts (Birge 1932).
    """
    largest = 1.0
    for count in PARTS:
        if len(held) < count * in_part:
            break
        edges = np.linspace(0, len(held), count + 1).astype(np.int64)
        gain = _gain(np.add.reduceat(held, edges[:-1]), np.add.reduceat(pulled, edges[:-1]))
        freedom = (count - 1) * held.shape[1]
        ratio = float(gain.sum()) / freedom / max(variance, 1e-300)
        if misfit_probability(ratio, freedom) < BY_CHANCE:
            largest = max(largest, ratio)
    return largest


def in_motion(a: Array, b: Array) -> Bools:
    """Return which pairs of poses a and b, shape (n, 4, 4), come after some motion of both.

    Many of one pose look like little noise, and hide the noise of the rest.
    """
    steps: list[Array] = []
    for poses in (a, b):
        step = np.zeros(len(poses) - 1)
        for part in (poses[:, :3, :3].reshape(-1, 9), poses[:, :3, 3]):  # a chord is a turn's angle, near enough
            away = np.sort(squared_lengths(part - part[0]))
            extent = max(sqrt(float(away[int(MOST * (len(part) - 1))])), 1e-12)
            step += np.sqrt(squared_lengths(np.diff(part, axis=0))) / extent
        steps.append(step)
    way = np.concatenate([[0.0], np.cumsum(np.minimum(*steps))])
    return np.concatenate([[True], np.diff(np.floor(way / STILL)) > 0.0])


def two_groups(whitened: Array, jacobian: Array, inside: Bools) -> tuple[Ints, Ints] | None:
    """Return the rows of two groups that may each have an answer of their own, or None where nothing hints at it.

    Those that fit and those that do not, where there are 15 of either; else those before and after a place at
    which two fits in place of one leave a quarter of some component's squares. `whitened` (n, m) residuals, `jacobian`
    (n, m, k).
    """
    out, least = np.flatnonzero(~inside), LEAST_GROUP
    if len(out) >= least and inside.sum() >= least:
        return np.flatnonzero(inside), out
    if len(whitened) < 2 * least or serial_inflation(whitened, inside) < SERIAL:
        return None
    held, pulled = (np.cumsum(values, axis=0) for values in _sums(whitened, jacobian, inside))
    places = np.unique(np.linspace(least, len(whitened) - least, PLACES).astype(np.int64))
    before, pulled_before = held[places - 1], pulled[places - 1]
    gain = _gain(before, pulled_before) + _gain(held[-1] - before, pulled[-1] - pulled_before)
    best = int(gain.argmax())
    first: Ints = np.arange(places[best], dtype=np.int64)
    groups = first, np.arange(len(first), len(whitened), dtype=np.int64)
    steps = _steps(before[best], pulled_before[best]), _steps(held[-1] - before[best], pulled[-1] - pulled_before[best])
    used = whitened * inside[:, None]
    left = [used[rows] - (jacobian[rows] @ step) * inside[rows, None] for rows, step in zip(groups, steps, strict=True)]
    share = (np.concatenate(left) ** 2).sum(axis=0) / np.maximum((used**2).sum(axis=0), 1e-300)
    return groups if share.min() < SPLIT_LEFT else None


def check_majority(rejected: int, used: int, told: str, remedy: str) -> None:
    """Raise CalibrationRefused, `told` after the counts, where most of the samples used were rejected."""
    if rejected > MOST_REJECTED * used:
        raise CalibrationRefused(f"{rejected} of {used} {told}", remedy)


def same(apart: Array, covariance: Array, chance: float = BY_CHANCE) -> bool:
    """Tell whether two answers `apart` (k,) may be one, by the sum (k, k) of their covariances."""
    if not np.isfinite(covariance).all() or eigen(covariance)[0][0] <= 0.0:
        return True  # answers not known contradict nothing
    return misfit_probability(float(apart @ solve(covariance, apart)) / len(apart), float(len(apart))) > chance


def alike(one: Array, two: Array) -> bool:
    """Tell whether the lengths (m,) that an answer leaves of its own samples are as small as another's (n,)."""
    return median(two) <= ALIKE * median(one)


def rows_told(rows: Ints) -> str:
    """Return which rows a group has, in words, counted from 1."""
    return f"{len(rows)}, between rows {rows.min() + 1} and {rows.max() + 1}"


def _sums(whitened: Array, jacobian: Array, inside: Bools) -> tuple[Array, Array]:
    """Return each sample's information (n, k, k) and gradient (n, k); nothing of one outside."""
    across = (jacobian * inside[:, None, None]).swapaxes(1, 2)
    return across @ jacobian, (across @ whitened[:, :, None])[..., 0]


def _gain(held: Array, pulled: Array) -> Array:
    """Return by how much fits of their own lower the squares, shape (g,), of groups with such sums."""
    return np.einsum("gi,gi->g", pulled, _steps(held, pulled))


def _steps(held: Array, pulled: Array) -> Array:
    """Return the steps (..., k) to fits of their own; a direction that a part leaves open is not moved in."""
    k = held.shape[-1]
    ridge = 1e-9 * np.einsum("...ii->...", held) / k + 1e-12
    return solve(held + ridge[..., None, None] * np.eye(k), pulled[..., None])[..., 0]
