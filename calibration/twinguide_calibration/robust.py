"""Point registration with wrong correspondences: up to nine in ten, found without a start.

Right pairs keep their mutual distances, so they form a clique in the graph of pairs of pairs whose distances agree
(Yang, Shi & Carlone 2021); the densest one starts a graduated non-convex truncated least squares (Yang et al. 2020),
which decides every pair by its residual. How many would agree by chance decides whether the answer is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log

import numpy as np
from scipy.special import chdtri  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.linear import squared_lengths
from twinguide_calibration.points import RigidFit, align_points, register_points
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats

MOST_PAIRS = 2000  # the graph is quadratic
SEEDS = 20  # pairs from which a clique is grown
GNC_STEPS, GNC_FACTOR = 30, 1.4
CHANCE = 0.01  # expected number of sets of chance pairs that agree as well
SETTLE = 5


@dataclass(frozen=True, slots=True, eq=False)
class RobustFit:
    """A rigid fit of the pairs that agree: `inliers` (n,), the others `rejected`.

    `chance` is the expected number of sets of wrong pairs that would agree as well (Moisan & Stival 2004): far below 1.
    `fit` is of the inliers alone; its residuals are theirs.
    """

    fit: RigidFit
    inliers: Bools
    rejected: Ints
    residuals: Array  # (n,) [m], of all pairs
    chance: float


def register_robust(source: Array, target: Array, sigma_m: float) -> RobustFit:
    """Return the rigid transform of the largest set of pairs that agree.

    `source`, `target` [m], shape (n, 3), paired by row, many pairs wrong; `sigma_m` [m] is the noise of a right pair,
    per axis. Raises CalibrationRefused where the agreeing pairs could agree by chance, and as `register_points`.
    """
    source, target = as_floats(source), as_floats(target)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise CalibrationRefused(f"wanted paired points of shape (n, 3); got {source.shape} and {target.shape}")
    if not 3 <= len(source) <= MOST_PAIRS:
        raise CalibrationRefused(f"wanted 3 to {MOST_PAIRS} pairs; got {len(source)}")
    if not (np.isfinite(source).all() and np.isfinite(target).all() and sigma_m > 0.0):
        raise CalibrationRefused("wanted finite points and a positive sigma")
    clique = _largest_clique(source, target, sigma_m)
    if clique.sum() < 3:
        raise CalibrationRefused("no three pairs keep their distances", "Check units, frames and the pairing.")
    limit = float(chdtri(3, 0.001)) * sigma_m**2
    inside = _graduated(source, target, clique, limit)
    chance = _chance(source, target, inside, limit)
    if chance > CHANCE:
        raise CalibrationRefused(
            f"{inside.sum()} of {len(source)} pairs agree, as many as wrong ones do by chance ({chance:.2g} such sets)",
            "Add right pairs, or describe them better.",
        )
    fit = register_points(source[inside], target[inside])
    residuals = np.sqrt(squared_lengths(target - fit.apply(source)))
    return RobustFit(fit, inside, np.flatnonzero(~inside), residuals, chance)


def _largest_clique(source: Array, target: Array, sigma: float) -> Bools:
    """Return the members of the largest set, grown greedily, whose mutual distances all agree."""
    apart = np.abs(_distances(source) - _distances(target))
    agree = apart < 3.5 * np.sqrt(2.0) * sigma  # along the line between two points the difference has variance 2
    np.fill_diagonal(agree, False)
    links = agree.astype(np.float32)
    support = (links * (links @ links)).sum(axis=1)  # triangles: right pairs close them, wrong ones seldom
    best: Bools = np.zeros(len(source), dtype=np.bool_)
    for seed in np.argsort(-support)[:SEEDS]:
        members = np.zeros(len(source), dtype=np.bool_)
        members[seed] = True
        left = agree[seed].copy()
        while left.any():
            inner = links[:, left].sum(axis=1)
            chosen = int(np.argmax(np.where(left, inner, -1.0)))
            members[chosen] = True
            left &= agree[chosen]
        if members.sum() > best.sum():
            best = members
        if 2 * best.sum() > len(source):
            break
    return best


def _distances(points: Array) -> Array:
    square = squared_lengths(points)
    return np.sqrt(np.maximum(square[:, None] + square[None] - 2.0 * points @ points.T, 0.0))


def _graduated(source: Array, target: Array, clique: Bools, limit: float) -> Bools:
    """Return which pairs truncated least squares keeps, from a clique's fit (Yang et al. 2020, eq. 14)."""
    rotation, translation = align_points(source[clique], target[clique])
    squares = squared_lengths(target - source @ rotation.T - translation)
    near = squares < 9.0 * limit
    grade = limit / max(2.0 * float(squares[near].max(initial=0.0)) - limit, limit)
    for _ in range(GNC_STEPS):
        low, high = grade / (grade + 1.0) * limit, (grade + 1.0) / grade * limit
        weight = np.sqrt(limit * grade * (grade + 1.0) / np.maximum(squares, 1e-300)) - grade
        weights = np.where(squares <= low, 1.0, np.where(squares >= high, 0.0, np.clip(weight, 0.0, 1.0)))
        rotation, translation = align_points(source, target, weights + 1e-12)
        squares = squared_lengths(target - source @ rotation.T - translation)
        grade *= GNC_FACTOR
        if grade > 1e3:
            break
    inside = squares < limit
    for _ in range(SETTLE):
        if inside.sum() < 3:
            return clique
        rotation, translation = align_points(source[inside], target[inside])
        renewed = squared_lengths(target - source @ rotation.T - translation) < limit
        if (renewed == inside).all():
            break
        inside = renewed
    return inside


def _chance(source: Array, target: Array, inside: Bools, limit: float) -> float:
    """Return the expected number of sets of wrong pairs as large as this that agree (Moisan & Stival 2004).

    Three pairs make a pose; each further one falls within the limit of it with the share of the target's volume.
    """
    n, k = len(source), int(inside.sum())
    spread = np.sqrt(np.maximum(target.var(axis=0), limit))
    volume = float(as_floats(np.sqrt(12.0) * spread).prod())
    ball = min(4.0 / 3.0 * np.pi * limit**1.5 / volume, 1.0)
    choose = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + lgamma(k + 1) - lgamma(4) - lgamma(k - 2)
    exponent = log(max(n - 3, 1)) + choose + (k - 3) * log(ball)
    return float(np.exp(min(exponent, 700.0)))
