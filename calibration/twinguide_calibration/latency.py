"""Time between streams of one motion: by how much one lags another, and a stream's poses at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import hypot, inf, sqrt

import numpy as np

from twinguide_calibration.poses import check_poses, check_stamps
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats, compose, difference, exponential, inverse
from twinguide_calibration.weights import serial_inflation

PROFILE = 8  # steps to either side of the least misfit
PAIRS = 2000
LEAST_TURN = np.radians(3.0)  # of a pair of poses, below which its angle is mostly noise
LEAST_CARRIED = 0.9  # of a point's motion by its body's poses, whose twelve numbers follow much by chance
LEAST_EXPLAINED = 0.5  # of b's motion: two streams of one motion share nearly all, of two motions next to nothing
SIGMAS_APART = 4.0  # standard errors of a difference that chance does not make
RIPPLE = 0.1  # of a frame: by as much interpolation between samples moves a profile's minimum
AS_WELL = 4.0  # times the squares that the best lag leaves: another that leaves less fits as well
GAP = 5.0  # median intervals: across a longer gap nothing is interpolated


@dataclass(frozen=True, slots=True, eq=False)
class LagFit:
    """Stream b shows at t what stream a showed at `t - lag_s`; `sigma_s` [s] is its standard deviation.

    `explained` is the share of b's variance (of poses: of the variance of the turned angles) that the lagged a
    explains; `residual` is in b's unit.
    """

    lag_s: float
    sigma_s: float
    residual: float
    explained: float
    notes: tuple[str, ...]


def profile_minimum(lags: Array, misfit: Array, freedom: float, near: int | None = None) -> tuple[float, float]:
    """Return where a profile of squared misfit is least, and its sigma, in the unit of `lags`, (m,), equally spaced.

    Of several minima the one about row `near`, where that is given. The least place and the curvature of a quartic over
    8 steps to either side: so wide, it evens out the ripple that interpolation between samples puts on a profile. Sigma
    as of the profile likelihood, where `freedom` terms make up the misfit (Seber & Wild 1989, section 5.2).
    """
    best = int(np.clip(np.argmin(misfit) if near is None else near, 1, len(lags) - 2))
    around = slice(max(best - PROFILE, 0), best + PROFILE + 1)
    reach = PROFILE * float(lags[1] - lags[0])
    quartic = np.polynomial.Polynomial.fit((lags[around] - lags[best]) / reach, misfit[around], 4)
    places = np.linspace(-2.0 / PROFILE, 2.0 / PROFILE, 401)
    place = float(places[int(np.argmin(quartic(places)))])
    curvature = max(float(quartic.deriv(2)(place)) / (2.0 * reach**2), 1e-12)
    least = max(float(quartic(place)), float(misfit[best]))
    return float(lags[best]) + place * reach, float(np.sqrt(least / freedom / curvature))


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
    lags = np.arange(-lag_max_s, lag_max_s + step_s / 2, step_s)

    def losses(lag: float) -> Array:
        return _left_over(times_a, values_a, times_b - lag, values_b).ravel() ** 2

    half = np.repeat(times_b > times_b.mean(), values_b.shape[1]).astype(np.int64)
    profiles = _profiles(lags, losses, half)
    best = int(np.argmin(profiles[0]))
    explained = 1.0 - float(profiles[0, best]) / max(float(values_b.var(axis=0).mean()), 1e-300)
    if explained < LEAST_EXPLAINED:
        raise CalibrationRefused(
            f"no lag within {lag_max_s:g} s explains the motion (best {explained:.0%} of it)",
            "Move the body to and fro, quickly and irregularly, in view of both.",
        )
    _refuse_border(best, len(lags), lag_max_s)
    left = _left_over(times_a, values_a, times_b - lags[best], values_b)
    free = max(left.size - (values_a.shape[1] + 1) * values_b.shape[1] - 1, 1)
    residual = sqrt(float(profiles[0, best]) * left.size / free)
    free /= serial_inflation(left, np.ones(len(left), dtype=np.bool_))
    fits = [
        LagFit(lag, sigma, residual, explained, (*notes_a, *notes_b))
        for lag, sigma in _minima(lags, profiles[0], losses, free)
    ]
    return _steady(_only(fits), lags, profiles, free, _frame_s(times_a, times_b))


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


def _refuse_border(best: int, count: int, lag_max_s: float) -> None:
    if best in (0, count - 1):
        raise CalibrationRefused(
            f"the lag is {lag_max_s:g} s or more, where the search ends",
            "Look farther (--lag-max-ms), or bring both streams onto one clock first.",
        )


def _stream(times: Array, values: Array, what: str) -> tuple[Array, Array, tuple[str, ...]]:
    values = as_floats(values)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != len(times):
        raise CalibrationRefused(f"{what}: wanted a row of values a stamp; got {values.shape} and {len(times)} stamps")
    stamps = check_stamps(np.where(np.isfinite(values).all(axis=1), as_floats(times), np.nan), what)
    return as_floats(times)[stamps.kept], values[stamps.kept], stamps.notes


def affine_map(times_a: Array, values_a: Array, at: Array, values_b: Array) -> Array:
    """Return the map (1 + k, j), constant first, that takes a's values (n, k) at times (m,) nearest to b's (m, j)."""
    return as_floats(np.linalg.lstsq(_terms(times_a, values_a, at), values_b, rcond=None)[0])


def _terms(times_a: Array, values_a: Array, at: Array) -> Array:
    moved = [as_floats(np.interp(at, times_a, values_a[:, j])) for j in range(values_a.shape[1])]
    return np.stack([np.ones(len(at)), *moved], axis=1)


def _left_over(times_a: Array, values_a: Array, at: Array, values_b: Array) -> Array:
    """Return what an affine map of a at times leaves of b, shape (m, j)."""
    return values_b - _terms(times_a, values_a, at) @ affine_map(times_a, values_a, at, values_b)


def interpolate_poses(times: Array, poses: Array, at: Array) -> tuple[Array, Bools]:
    """Return poses, shape (m, 4, 4), at times [s], shape (m,), and which of them lie within the stream, not in a gap.

    `times` [s], shape (n,), strictly rising, `poses` (n, 4, 4); turning and moving are each interpolated evenly.
    """
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    interval = times[after] - times[after - 1]
    share = (at - times[after - 1]) / interval
    known = (share >= 0.0) & (share <= 1.0) & (interval <= GAP * float(np.median(np.diff(times))))
    delta = difference(poses[after], poses[after - 1]) * np.clip(share, 0.0, 1.0)[:, None]
    first = poses[after - 1]
    shift = (first[:, :3, :3] @ delta[:, 3:, None])[..., 0]
    return compose(first[:, :3, :3] @ exponential(delta[:, :3]), first[:, :3, 3] + shift), known


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
    return _only(pose_lags(times_a, poses_a, times_b, poses_b, lag_max_s=lag_max_s, step_s=step_s))


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
    lags = np.arange(-lag_max_s, lag_max_s + step_s / 2, step_s)

    def losses(lag: float) -> Array:
        return _incongruence(times_a, poses_a, times_b - lag, first, second, angles)

    later = times_b > times_b.mean()
    profiles = _profiles(lags, losses, np.where(later[first] == later[second], later[first], 2))
    best = int(np.argmin(profiles[0]))
    explained = 1.0 - float(profiles[0, best]) / max(float(angles.var()), 1e-300)
    if explained < LEAST_EXPLAINED:
        raise CalibrationRefused(
            f"no lag within {lag_max_s:g} s makes the two turn alike (best {max(explained, 0.0):.0%} of it)",
            "Are both fixed to one body? Turn it irregularly in view of both.",
        )
    _refuse_border(best, len(lags), lag_max_s)
    free, residual = float(len(times_b)), sqrt(float(profiles[0, best]))
    fits = [
        LagFit(lag, sigma, residual, explained, (*notes_a, *notes_b))
        for lag, sigma in _minima(lags, profiles[0], losses, free)
    ]
    return [_steady(fits[0], lags, profiles, free, _frame_s(times_a, times_b)), *fits[1:]]


def _profiles(lags: Array, losses: Callable[[float], Array], half: Ints) -> Array:
    """Return the mean loss at each lag, shape (3, m): of all samples, of the first half's (0), of the second's (1).

    `losses(lag)` (p,) is NaN where a sample is not known at that lag; `half` (p,) is 2 where it spans both.
    """
    parts = (half >= 0, half == 0, half == 1)
    found = (losses(lag) for lag in lags.tolist())
    return np.array([[_known_mean(left[part]) for part in parts] for left in found]).T


def _known_mean(losses: Array) -> float:
    known = losses[np.isfinite(losses)]
    return float(known.mean()) if len(known) else inf


def _minima(lags: Array, misfit: Array, losses: Callable[[float], Array], free: float) -> Sequence[tuple[float, float]]:
    """Return the lag of least misfit (m,) with its sigma, and those of other minima that fit as well, best first."""
    rows = np.flatnonzero((misfit[1:-1] < misfit[:-2]) & (misfit[1:-1] <= misfit[2:])) + 1
    slope, bend = misfit[rows + 1] - misfit[rows - 1], misfit[rows + 1] - 2.0 * misfit[rows] + misfit[rows - 1]
    places = lags[rows] - 0.5 * slope / bend * float(lags[1] - lags[0])  # of parabolas, also near the border
    left = [losses(lag) for lag in places.tolist()]
    order = sorted(range(len(left)), key=lambda row: _known_mean(left[row]))
    best = order[0]

    def as_well(row: int) -> bool:
        far = abs(places[row] - places[best]) > PROFILE * float(lags[1] - lags[0])
        return far and _known_mean(left[row]) < AS_WELL * _known_mean(left[best])

    kept = [best, *(row for row in order if as_well(row))]
    return [profile_minimum(lags, misfit, free, int(rows[row])) for row in kept]


def _only(fits: Sequence[LagFit]) -> LagFit:
    if len(fits) > 1:
        raise repeated(fits[1].lag_s - fits[0].lag_s)
    return fits[0]


def repeated(apart_s: float) -> CalibrationRefused:
    """Return the refusal of a motion that is alike after a time [s], so that lags so far apart explain it as well."""
    return CalibrationRefused(
        f"the motion repeats every {abs(apart_s):.2g} s: lags so far apart explain it as well", "Move irregularly."
    )


def _steady(fit: LagFit, lags: Array, profiles: Array, free: float, frame_s: float) -> LagFit:
    """Refuse a lag that changes by more than a frame from one half of a recording to the other; tell a smaller one."""
    near = np.abs(lags - fit.lag_s) <= 2.0 * PROFILE * float(lags[1] - lags[0])
    halves = [
        profile_minimum(lags[near], half[near], free / 2.0)
        for half in profiles[1:]
        if np.isfinite(half).all() and half[near].max() > AS_WELL * half[near].min()  # not where nothing moved
    ]
    if len(halves) < 2:
        return fit
    (one, sigma_one), (two, sigma_two) = halves
    if abs(two - one) <= SIGMAS_APART * hypot(sigma_one, sigma_two) + RIPPLE * frame_s:
        return fit
    told = f"the lag changes from {1e3 * one:.1f} ms in the first half to {1e3 * two:.1f} ms in the second"
    if abs(two - one) > frame_s:
        raise CalibrationRefused(
            told,
            "A clock runs wrong or was set: use the part before or after. Or the motion was even: move irregularly.",
        )
    return replace(fit, sigma_s=hypot(fit.sigma_s, (two - one) / 2.0), notes=(*fit.notes, told))


def _frame_s(*times: Array) -> float:
    """Return the longest interval [s] between the stamps of streams."""
    return max(float(np.median(np.diff(stamps))) for stamps in times)


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


def twists(times: Array, poses: Array, at: Array, half_s: float) -> Array:
    """Return how fast a stream moves, shape (m, 6) [rad/s, m/s], told in its source, by differences over +-half_s."""
    before, _ = interpolate_poses(times, poses, np.clip(at - half_s, times[0], times[-1]))
    after, _ = interpolate_poses(times, poses, np.clip(at + half_s, times[0], times[-1]))
    return difference(inverse(before) @ after, np.broadcast_to(np.eye(4), after.shape)) / (2.0 * half_s)
