"""Pivot calibration: the tip of a tool that was swung about a fixed point, and how well it is known.

`R_i tip + t_i = pivot` for all poses, solved together for both (algebraic two-step and sphere fits are worse or equal).
The residual told in tool axes tells the noise of turning (across the shaft, growing with its length) from that of
moving; with it the rotations themselves are adjusted (Gauss-Helmert), which removes the pull towards a short tool that
noise in the rotations has on plain least squares. Weights are Tukey's; slow errors seen in the residuals widen the
covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import asin, ceil, degrees, hypot, pi, radians, sin, sqrt

import numpy as np

from twinguide_calibration.error import misfit_probability, p95_radius
from twinguide_calibration.linear import invert, squared_lengths
from twinguide_calibration.parts import MANY_REJECTED, alike, check_majority, rows_told, same, two_groups
from twinguide_calibration.pivot_fit import SHORT_M, SWING, State, iterate, jacobian_of, normal, start_of
from twinguide_calibration.poses import check_poses
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints
from twinguide_calibration.weights import (
    estimate_variance,
    median,
    serial_inflation,
)

LEAST_POSES = 6
SPREAD_LEAST = 1e-4  # [rad] of the turning: less tells no tip
SIDES, SIDE_RAD = 8, radians(10.0)  # where a swing should have been: coverage, as a person reads it
SIGMAS_95 = 1.6449  # of one slow error, to one side
STRAYS = 0.1  # of the marker's own motion: residuals of a tip that slips are smaller
ONE_PLACE_M = 0.05  # a tracker's slow error changes over its volume, and hardly within so much


@dataclass(frozen=True, slots=True, eq=False)
class PivotFit:
    """A tool's tip and the point it was held on.

    `covariance` (6, 6) is over (tip in tool, pivot in tracker) [m2], `freedom` the degrees of freedom behind its size.
    `tip_p95` [m] holds 95 % of the tip's random error; `systematic_p95` [m] is what a slow error of the tracker of the
    stated size can do to it at this swing. `inflation` is by how much correlated residuals widened the covariance.
    """

    tip: Array  # (3,) [m] in tool
    pivot: Array  # (3,) [m] in tracker
    covariance: Array  # (6, 6)
    residuals: Array  # (n,) [m]; NaN where a pose was missing
    rejected: Ints  # rows that do not fit
    sigma: float  # [m] per axis, of the residuals
    sigma_turning: float  # [rad] per axis, as far as the residuals tell it from moving
    tip_p95: float
    systematic_p95: float
    swing_rad: float  # 95 % of the samples lie within it of the middle
    sides: int  # of `SIDES` about the middle, to which the tool was swung by at least `SIDE_RAD`
    freedom: float
    inflation: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PivotConsistency:
    """Pivots of one tool: the common tip [m], its error, and whether they agree.

    `covariance` (3, 3) with its `freedom`, `tip_p95` and `systematic_p95` are the common tip's, as `PivotFit` tells
    them. `distances` (k,) [m] are from it; `probability` is how often sound ones scatter so much.
    """

    tip: Array
    covariance: Array
    freedom: float
    tip_p95: float
    systematic_p95: float
    distances: Array
    probability: float
    consistent: bool


def calibrate_pivot(poses: Array, *, p95_max: float = 1.0e-3, systematic: float = 0.05e-3) -> PivotFit:
    """Return the tip of a tool from poses `tracker_from_tool`, shape (n, 4, 4), swung about a point.

    `p95_max` [m] is the error beyond which the tip is refused; `systematic` [m] the tracker's error that changes slowly
    over its volume and so does not average. Raises CalibrationRefused for fewer than 6 usable poses, a swing too small
    for the tip to be known, and data that no single tip and pivot explain.
    """
    checked = check_poses(poses, "tool poses", LEAST_POSES)
    rotation, translation = checked.matrices[:, :3, :3], checked.matrices[:, :3, 3]
    _told_spread(rotation, "the tool hardly turned")
    state = iterate(rotation, translation)
    fit = _result(state, rotation, translation, checked.kept, len(poses), systematic, checked.notes)
    fit = _one_tip(fit, state, rotation, translation, checked.kept, p95_max)
    _gate(fit, p95_max, float(np.sqrt(translation.var(axis=0).mean())))
    used = int(np.isfinite(fit.residuals).sum())
    told = f"{len(fit.rejected)} of {used} poses lie beyond the noise of the others: see the picture for when"
    return replace(fit, notes=(*fit.notes, told)) if len(fit.rejected) > MANY_REJECTED * used else fit


def _one_tip(fit: PivotFit, state: State, rotation: Array, translation: Array, rows: Ints, p95_max: float) -> PivotFit:
    """Refuse a recording in which the tip changed; tell where only the point did on which it was held."""
    inside = np.isin(rows, fit.rejected, invert=True)
    groups = two_groups(state.error @ state.whitening, jacobian_of(state), inside)
    if groups is None or min(_smallest_spread(rotation[group]) for group in groups) < SPREAD_LEAST:
        return fit
    first, second = (rows[group] for group in groups)
    turned, moved = rotation[groups[1]], translation[groups[1]]
    tip, pivot = start_of(turned, moved)
    if not alike(fit.residuals[first], np.sqrt(squared_lengths(turned @ tip + moved - pivot))):
        return fit  # wild poses, each in its own way
    try:
        one, two = (
            _result(iterate(turned, moved), turned, moved, rows[group], len(fit.residuals), 0.0, ())
            for group, turned, moved in ((group, rotation[group], translation[group]) for group in groups)
        )
    except CalibrationRefused:  # one of them tells no tip
        return fit
    if one.tip_p95 > p95_max:
        return fit
    told = f"of {len(rows)} poses {rows_told(second)}, agree on another"
    moved = two.tip - one.tip
    if not same(moved, one.covariance[:3, :3] + two.covariance[:3, :3]):
        raise CalibrationRefused(
            f"{told} tip, {1e3 * sqrt(float(moved @ moved)):.2g} mm away",
            "The tip bent, the marker moved on the tool, or two recordings are in one: use the part before or after.",
        )
    told = f"{told} point, {1e3 * median(fit.residuals[second]):.2g} mm off, with the same tip"
    if fit.tip_p95 > p95_max:
        raise CalibrationRefused(told, "The tip slipped: hold it firmly, each point in a recording of its own.")
    return replace(fit, notes=(*fit.notes, f"{told}: it slipped"))


def _result(
    state: State, rotation: Array, translation: Array, kept: Ints, n: int, systematic: float, notes: tuple[str, ...]
) -> PivotFit:
    inside = state.kind.within(state.squares, state.scale)
    smallest = _told_spread(rotation[inside], "the tool hardly turned in the poses that agree")
    inflation = serial_inflation(state.error, inside)
    variance = estimate_variance(state.squares[inside], state.kind, state.scale, 6)
    covariance = invert(normal(state, inside.astype(np.float64))[0]) * variance * inflation
    freedom = max(1.5 * float(inside.sum()) / inflation - 6.0, 1.0)  # two scales share the residuals
    residuals = np.full(n, np.nan)
    residuals[kept] = np.sqrt(squared_lengths(rotation @ state.tip + translation - state.pivot))
    length = max(sqrt(float(state.tip @ state.tip)), SHORT_M)
    along, across = state.scales
    turning = sqrt(max(across**2 - along**2, 0.0)) / length
    sigma = sqrt((along**2 + 2.0 * across**2) / 3.0)
    if inflation > 2.0:
        notes = (*notes, f"residuals are correlated in time: the covariance was widened {inflation:.1f} times")
    swing_rad, sides = _swing(rotation[inside], state.tip)
    return PivotFit(
        tip=state.tip,
        pivot=state.pivot,
        covariance=covariance,
        residuals=residuals,
        rejected=kept[~inside],
        sigma=sigma,
        sigma_turning=turning,
        tip_p95=float(p95_radius(covariance[:3, :3], freedom)),
        systematic_p95=SIGMAS_95 * systematic / smallest,
        swing_rad=swing_rad,
        sides=sides,
        freedom=freedom,
        inflation=inflation,
        notes=notes,
    )


def _told_spread(rotation: Array, told: str) -> float:
    """Return the smallest spread [rad] of turning; refuse one that tells no tip."""
    smallest = _smallest_spread(rotation) if len(rotation) >= LEAST_POSES else 0.0
    if smallest < SPREAD_LEAST:
        raise CalibrationRefused(f"{told} (spread {degrees(smallest):.2g} deg)", SWING)
    return smallest


def _smallest_spread(rotation: Array) -> float:
    """Return the root of the smallest eigenvalue of `I - mean(R)' mean(R)`: the spread [rad] in the worst direction."""
    mean = rotation.mean(axis=0)
    return sqrt(max(float(np.linalg.eigvalsh(np.eye(3) - mean.T @ mean)[0]), 0.0))


def _swing(rotation: Array, tip: Array) -> tuple[float, int]:
    """Return the angle [rad] from the middle within which 95 % of the shaft's directions lie, and the sides reached.

    A tip without a shaft tells of no sides: all count where the tool turned at all.
    """
    if float(tip @ tip) < SHORT_M**2:
        return 2.0 * _smallest_spread(rotation), SIDES
    direction = rotation @ (tip / sqrt(float(tip @ tip)))
    middle = direction.sum(axis=0)
    middle = middle / max(sqrt(float(middle @ middle)), 1e-12)
    away = np.arccos(np.clip(direction @ middle, -1.0, 1.0))
    across = np.linalg.svd(middle[None])[2][1:]
    around = np.arctan2(direction @ across[1], direction @ across[0])
    side = np.floor((around + pi) * SIDES / (2.0 * pi)).astype(np.int64) % SIDES
    return float(np.quantile(away, 0.95)), len(np.unique(side[away >= SIDE_RAD]))


def _gate(fit: PivotFit, p95_max: float, moved: float) -> None:
    """Refuse a tip that is not known; `moved` [m] per axis is how far the marker's places scatter."""
    used = int(np.isfinite(fit.residuals).sum())
    check_majority(
        len(fit.rejected),
        used,
        "poses fit no single tip and pivot",
        "The tip slid, or the marker is loose: hold the tip in a divot and swing again.",
    )
    known = hypot(fit.tip_p95, fit.systematic_p95)
    if known <= p95_max:
        return
    steady = hypot(fit.tip_p95 / sqrt(fit.inflation), fit.systematic_p95) <= p95_max
    needed = asin(min(sin(min(fit.swing_rad, pi / 2)) * known / p95_max, 1.0))
    wanted = max(ceil(degrees(needed) / 5.0) * 5.0, 20.0)
    if fit.sigma > STRAYS * moved and fit.swing_rad >= radians(20.0):  # a smaller swing hardly moves the marker
        remedy = (
            "They turn about no point: was the tip held in a divot, and are places and rotations those of one body, in "
            "one order and the same axes?"
        )
    elif steady:
        remedy = (
            f"It is widened {fit.inflation:.0f} times by errors that follow one another: the tip slips. Hold it firmly."
        )
    elif wanted <= 60.0 and fit.swing_rad < radians(wanted):
        remedy = f"Swing to {wanted:.0f} deg or more to all sides."
    elif fit.swing_rad < radians(20.0):
        remedy = "Hold the tip firmly in a divot, and swing to 20 deg or more to all sides."
    else:
        remedy = "Hold the tip firmly in a divot, near the tracker, and record longer."
    raise CalibrationRefused(
        f"cone of {degrees(fit.swing_rad):.0f} deg from the middle, residual {fit.sigma * 1e3:.2g} mm: the tip is "
        f"known to {known * 1e3:.2g} mm (95 %), wanted {p95_max * 1e3:.2g} mm",
        remedy,
    )


def compare_pivots(fits: Sequence[PivotFit]) -> PivotConsistency:
    """Return whether pivots of one tool, taken in several divots, tell the same tip, and their common tip.

    Each fit counts with its covariance and what a slow error of the tracker may have done to it, which is one error in
    divots near one another. One alone agrees with itself.
    """
    tips = np.array([fit.tip for fit in fits])
    own = np.array([fit.covariance[:3, :3] for fit in fits])
    slow = np.array([fit.systematic_p95 / SIGMAS_95 for fit in fits])
    pivots = np.array([fit.pivot for fit in fits])
    shared = np.outer(slow, slow) * (((pivots[:, None] - pivots) ** 2).sum(axis=2) < ONE_PLACE_M**2)
    information = invert(own + np.eye(3) * np.square(slow)[:, None, None])
    share = invert(information.sum(axis=0)) @ information  # (k, 3, 3): of each fit in the common tip
    tip = np.einsum("kij,kj->i", share, tips)
    covariance = (share @ own @ share.transpose(0, 2, 1)).sum(axis=0)
    common = np.einsum("iab,ij,jcb->ac", share, shared, share)
    apart = tips - tip
    freedom = 3 * (len(fits) - 1)
    chi2 = float(np.einsum("ki,kij,kj->", apart, information, apart))
    probability = misfit_probability(chi2 / freedom, freedom) if freedom else 1.0
    behind = sum(fit.freedom for fit in fits)
    systematic = SIGMAS_95 * sqrt(float(np.trace(common)) / 3.0)
    return PivotConsistency(
        tip,
        covariance,
        behind,
        float(p95_radius(covariance, behind)),
        systematic,
        np.sqrt(squared_lengths(apart)),
        probability,
        probability > 0.01,
    )
