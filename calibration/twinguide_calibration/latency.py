"""Time between streams of one motion: by how much one lags another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot, sqrt

import numpy as np

from twinguide_calibration.interpolation import interpolate_poses, interpolate_values
from twinguide_calibration.lag_profile import (
    RIPPLE,
    SIGMAS_APART,
    LagFit,
    Terms,
    changing,
    lag_fits,
    only_one,
    search_lags,
    steady,
    stream_spans,
)
from twinguide_calibration.linear import invert
from twinguide_calibration.poses import check_poses, check_stamps
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats
from twinguide_calibration.weights import serial_inflation

PAIRS = 2000
LEAST_TURN = np.radians(3.0)  # of a pair of poses, below which its angle is mostly noise
OPEN = 1e-6  # of the largest extent of what is mapped: less is not held
LEAST_REACH_S = 0.01  # of differences: no hand's motion bends in it, and noise is small beside what it moves
LEAST_CARRIED = 0.9  # of a point's motion by its body's poses, whose twelve numbers follow much by chance


def motion_lag(
    times_a: Array, values_a: Array, times_b: Array, values_b: Array, *, lag_max_s: float = 0.5, step_s: float = 0.005
) -> LagFit:
    """Return by how much b lags a, found by the residual of b over an affine map of the lagged a.

    `times` [s], shapes (n,) and (m,), on one clock; `values`, shapes (n, k) and (m, j): positions, angles or speeds of
    one motion. The scales and axes of the two need not be the same. Raises CalibrationRefused where there is too little
    motion to tell, or the best lag lies at the border of the search.
    """
    times_a, values_a, notes_a = _stream(times_a, values_a, "stream a")
    times_b, values_b, notes_b = _stream(times_b, values_b, "stream b")
    inside = _overlap(times_a, times_b, lag_max_s, 4 * (values_a.shape[1] + values_b.shape[1]))
    times_b, values_b = times_b[inside], values_b[inside]

    def losses(lag: float) -> Array:
        return _left_over(times_a, values_a, times_b - lag, values_b).ravel() ** 2

    samples = np.repeat(np.arange(len(times_b)), values_b.shape[1])
    terms = Terms(losses, (times_b > times_b.mean())[samples].astype(np.int64), samples[:, None])
    told = "explains the motion", "Move the body to and fro, quickly and irregularly, in view of both."
    found = search_lags(terms, float(values_b.var(axis=0).mean()), lag_max_s, step_s, told)
    left = _left_over(times_a, values_a, times_b - found.lags[found.best], values_b)
    free = max(left.size - (values_a.shape[1] + 1) * values_b.shape[1] - 1, 1)
    residual = sqrt(float(found.profiles[0, found.best]) * left.size / free)
    spans_s = stream_spans(times_a, times_b)
    plain = only_one(lag_fits(found, residual, free, (*notes_a, *notes_b)))
    halves = steady(plain, found, False, free, *spans_s)
    return _drifting(plain, times_a, values_a, times_b, values_b, *spans_s) or halves


def _drifting(
    fit: LagFit, times_a: Array, values_a: Array, times_b: Array, values_b: Array, frame_s: float, half_s: float
) -> LagFit | None:
    """Refuse or tell a drift between the clocks, as `changing`; count in one that so little motion would not show.

    None where there is neither. It is fitted beside the lag and the map, to the first order (Frisch & Waugh 1933): of a
    slow, short motion each half follows the map of the whole, and hides it.
    """
    at, reach_s = times_b - fit.lag_s, max(float(np.median(np.diff(times_a))), LEAST_REACH_S)
    terms = _terms(times_a, values_a, at)
    axes, sizes, _ = np.linalg.svd(terms, full_matrices=False)
    axes = axes[:, sizes > OPEN * sizes[0]]
    carried = _nearest(terms, values_b)
    later, before = (_terms(times_a, values_a, at + step_s) for step_s in (-reach_s, reach_s))
    slope = (later - before) @ carried / (2.0 * reach_s)
    slopes = [slope, slope * ((times_b - times_b.mean()) / half_s)[:, None]]
    left, *across = (part - axes @ (axes.T @ part) for part in (values_b, *slopes))
    design = np.stack([part.ravel() for part in across], axis=1)
    bread = invert(design.T @ design)
    step = bread @ (design.T @ left.ravel())
    left = left - (design @ step).reshape(left.shape)
    free = max(left.size - axes.shape[1] * left.shape[1] - 2, 1)
    variances = float((left**2).sum()) / free * np.diag(bread)
    shares = ((design @ bread).reshape(*left.shape, 2) * left[:, :, None]).sum(axis=1)  # of the samples in the step
    late, sigma = (
        sqrt(variance * serial_inflation(share[:, None], np.ones(len(share), dtype=np.bool_)))
        for variance, share in zip(variances.tolist(), shares.T, strict=True)
    )
    change = float(step[1])
    if abs(change) > SIGMAS_APART * sigma + RIPPLE * frame_s:
        return changing(fit, fit.lag_s - change / 2.0, fit.lag_s + change / 2.0, frame_s, half_s)
    if SIGMAS_APART * sigma <= frame_s:
        return None
    hidden = SIGMAS_APART * sigma / half_s
    told = f"too little motion to show clocks that drift apart by {hidden:.1%}: counted in; move faster, or longer"
    return replace(fit, sigma_s=hypot(late, change / 2.0, sigma / 2.0), notes=(*fit.notes, told))


def place_lag(
    times_a: Array, poses_a: Array, times_b: Array, places_b: Array, *, lag_max_s: float = 0.5, step_s: float = 0.005
) -> LagFit:
    """Return by how much a point's places lag the poses of the body that carries it, as `motion_lag`.

    `poses_a` (n, 4, 4), `places_b` [m], shape (m, 3), each told by its own tracker, neither calibrated: wherever the
    point is fixed, its place is linear in the pose's twelve numbers. Raises CalibrationRefused also where it is not.
    """
    times_a, poses_a, _, notes = checked_stream(times_a, poses_a, "poses a")
    fit = motion_lag(times_a, poses_a[:, :3].reshape(-1, 12), times_b, places_b, lag_max_s=lag_max_s, step_s=step_s)
    if fit.explained < LEAST_CARRIED:
        raise CalibrationRefused(
            f"the body's poses explain {fit.explained:.0%} of the point's motion (wanted {LEAST_CARRIED:.0%})",
            "Are both fixed to one body, and is neither stream inverted?",
        )
    return replace(fit, notes=(*notes, *fit.notes))


def _overlap(times_a: Array, times_b: Array, lag_max_s: float, least: int) -> Bools:
    """Return which stamps of b [s] lie within a at every lag; refuse too few, and clocks of other zeros."""
    inside = (times_b - lag_max_s >= times_a[0]) & (times_b + lag_max_s <= times_a[-1])
    apart_s = float(max(times_b[0] - times_a[-1], times_a[0] - times_b[-1]))
    if inside.sum() < least:
        raise CalibrationRefused(
            f"the streams overlap in {inside.sum()} samples after a search of {lag_max_s:g} s to either side"
            + (f": {apart_s:.3g} s lie between them" if apart_s > 0.0 else ""),
            "Do their clocks count from different zeros? Bring the stamps onto one clock first."
            if apart_s > 0.0
            else "Record longer, or search less far.",
        )
    return inside


def _stream(times: Array, values: Array, what: str) -> tuple[Array, Array, tuple[str, ...]]:
    values = as_floats(values)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != len(times):
        raise CalibrationRefused(f"{what}: wanted a row of values a stamp; got {values.shape} and {len(times)} stamps")
    stamps = check_stamps(np.where(np.isfinite(values).all(axis=1), as_floats(times), np.nan), what)
    return as_floats(times)[stamps.kept], values[stamps.kept], stamps.notes


def affine_map(times_a: Array, values_a: Array, at: Array, values_b: Array) -> Array:
    """Return the map (1 + k, j), constant first, that takes a's values (n, k) at times (m,) nearest to b's (m, j)."""
    return _nearest(_terms(times_a, values_a, at), values_b)


def _terms(times_a: Array, values_a: Array, at: Array) -> Array:
    return np.column_stack([np.ones(len(at)), interpolate_values(times_a, values_a, at)])


def _nearest(terms: Array, values_b: Array) -> Array:
    return as_floats(np.linalg.lstsq(terms, values_b, rcond=None)[0])


def _left_over(times_a: Array, values_a: Array, at: Array, values_b: Array) -> Array:
    """Return what an affine map of a at times leaves of b, shape (m, j)."""
    terms = _terms(times_a, values_a, at)
    return values_b - terms @ _nearest(terms, values_b)


def draw_pairs(n: int, count: int = PAIRS) -> tuple[Ints, Ints]:
    """Return up to `count` pairs of n rows: all, or a fixed draw, so that the same data give the same answer."""
    if n * (n - 1) // 2 <= count:
        first, second = np.triu_indices(n, 1)
        return first.astype(np.int64), second.astype(np.int64)
    rng = np.random.default_rng(n)
    first = rng.integers(0, n, count)
    return first, (first + rng.integers(1, n, count)) % n


def turning_angles(poses: Array, first: Ints, second: Ints) -> Array:
    """Return the angles [rad], shape (p,), turned between pairs of poses: the same for every body rigidly attached."""
    trace = np.einsum("pij,pij->p", poses[first, :3, :3], poses[second, :3, :3])
    return np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))


def pose_lag(
    times_a: Array, poses_a: Array, times_b: Array, poses_b: Array, *, lag_max_s: float = 0.5, step_s: float = 0.01
) -> LagFit:
    """Return by how much pose stream b lags pose stream a, two trackers' views of one rigid body.

    `times` [s], shapes (n,) and (m,), on one clock; `poses` (n, 4, 4) and (m, 4, 4). Nothing need be calibrated: the
    angle between two poses is the same for all bodies rigidly attached (screw congruence, Chen 1991), and the lag is
    where those angles agree best. Raises CalibrationRefused for too little turning, bodies that turn each in its own
    way, a best lag at the border, a motion that repeats, and a lag that changes.
    """
    return only_one(pose_lags(times_a, poses_a, times_b, poses_b, lag_max_s=lag_max_s, step_s=step_s))


def pose_lags(
    times_a: Array, poses_a: Array, times_b: Array, poses_b: Array, *, lag_max_s: float = 0.5, step_s: float = 0.01
) -> Sequence[LagFit]:
    """Return what `pose_lag` does, best first, and every other lag at which the angles of a repeated motion agree."""
    times_a, poses_a, _, notes_a = checked_stream(times_a, poses_a, "poses a")
    times_b, poses_b, _, notes_b = checked_stream(times_b, poses_b, "poses b")
    inside = _overlap(times_a, times_b, lag_max_s, 12)
    times_b, poses_b = times_b[inside], poses_b[inside]
    first, second = draw_pairs(len(times_b))
    angles = turning_angles(poses_b, first, second)
    turning = angles > LEAST_TURN
    if turning.mean() < 0.1:
        raise CalibrationRefused("the body hardly turned", "Turn it to and fro by 20 deg or more.")
    first, second, angles = first[turning], second[turning], angles[turning]

    def losses(lag: float) -> Array:
        return _incongruence(times_a, poses_a, times_b - lag, first, second, angles)

    later = times_b > times_b.mean()
    half = np.where(later[first] == later[second], later[first], 2).astype(np.int64)
    terms = Terms(losses, half, np.stack([first, second], axis=1))
    told = "makes the two turn alike", "Are both fixed to one body? Turn it irregularly in view of both."
    found = search_lags(terms, float(angles.var()), lag_max_s, step_s, told)
    residual, free = sqrt(float(found.profiles[0, found.best])), float(len(times_b))
    fits = lag_fits(found, residual, free, (*notes_a, *notes_b))
    return [steady(fits[0], found, len(fits) > 1, free, *stream_spans(times_a, times_b)), *fits[1:]]


def checked_stream(times: Array, poses: Array, what: str) -> tuple[Array, Array, Ints, tuple[str, ...]]:
    """Return the stamps [s] and poses of a stream that can be used, in order, their rows, and what was repaired."""
    checked = check_poses(poses, what, 2)
    if len(times) != len(poses):
        raise CalibrationRefused(f"{what}: {len(poses)} poses but {len(times)} stamps")
    stamps = check_stamps(as_floats(times)[checked.kept], f"stamps of {what}")
    rows = checked.kept[stamps.kept]
    return as_floats(times)[rows], checked.matrices[stamps.kept], rows, (*checked.notes, *stamps.notes)


def _incongruence(times_a: Array, poses_a: Array, at: Array, first: Ints, second: Ints, angles: Array) -> Array:
    """Return the bounded squared differences of angles [rad2], shape (p,), at a lag; NaN of pairs in a gap."""
    moved, known = interpolate_poses(times_a, poses_a, at)
    both = known[first] & known[second]
    out = np.full(len(angles), np.nan)
    squares = (turning_angles(moved, first[both], second[both]) - angles[both]) ** 2
    out[both] = np.minimum(squares, 9.0 * np.median(squares)) if len(squares) else squares
    return out
