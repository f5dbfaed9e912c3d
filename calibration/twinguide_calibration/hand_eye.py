"""Hand-eye and robot-world calibration, `A_i X = Z B_i`, with covariance, outliers and the offset between the clocks.

The closed form (Park & Martin 1994) over pairs of poses that turned by the same angle (screw congruence, Chen 1991)
starts a robust Gauss-Newton iteration on the group. Its residual `(Z B_i)^-1 A_i X` is told at B's source, where noise
of B is alike for all samples, and noise of A's turning comes with the lever of X: four numbers (turning, its share in
A, moving along the lever and across it) whiten it, estimated from the residuals where no covariances are given.
"""

from __future__ import annotations

from dataclasses import replace
from math import degrees, hypot, sqrt

import numpy as np

from twinguide_calibration.hand_eye_fit import TURN_MORE, Final, Problem, iterate, refine
from twinguide_calibration.hand_eye_result import HandEyeFit, gated, lengths_of, result_of, widened
from twinguide_calibration.hand_eye_start import SCALE_FLOOR, length_ratio, park
from twinguide_calibration.interpolation import halved, interpolate_poses
from twinguide_calibration.lag_profile import SIGMAS_APART, repeated
from twinguide_calibration.latency import checked_stream, pose_lags
from twinguide_calibration.linear import solve, squared_lengths
from twinguide_calibration.parts import alike, in_motion, rows_told, same, two_groups
from twinguide_calibration.poses import check_poses
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats, difference, inverse, mean_transform
from twinguide_calibration.similarity import is_other
from twinguide_calibration.weights import serial_inflation

LEAST_POSES = 5
TAIL_WIDTHS = 3.0  # of the biweight: rejected pairs within are the noise's tail where there are many
TAIL_MOST = 0.1  # of the pairs
DISAGREE = 0.05  # two answers from the same pairs are so far apart so seldom, were they from pairs of their own
NEGLIGIBLE = 0.01  # of a covariance: more is told
MANY_STILL = 0.25  # of the pairs, of one pose: more hide the rest


def solve_hand_eye(
    a: Array, b: Array, *, covariance_a: Array | None = None, covariance_b: Array | None = None, p95_max: float = 0.01
) -> HandEyeFit:
    """Return X and Z of `A_i X = Z B_i` from poses a and b, shape (n, 4, 4), paired by row.

    `covariance_a`, `covariance_b`, shape (6, 6) or (n, 6, 6), perturbation on the right, are those of the poses; give
    both or none. Raises CalibrationRefused for fewer than 5 usable pairs, turning about one axis, streams that show no
    common rigid body, and an X or Z known worse than `p95_max` [m].
    """
    a, b = as_floats(a), as_floats(b)
    if a.shape != b.shape:
        raise CalibrationRefused(f"wanted poses in pairs; got {len(a)} and {len(b)}", "Give stamps to pair them by.")
    checked_a, checked_b = check_poses(a, "poses a", LEAST_POSES), check_poses(b, "poses b", LEAST_POSES)
    kept, in_a, in_b = np.intersect1d(checked_a.kept, checked_b.kept, return_indices=True)
    if len(kept) < LEAST_POSES:
        raise CalibrationRefused(f"{len(kept)} usable pairs; wanted at least {LEAST_POSES}", "Record more poses.")
    problem = Problem(
        checked_a.matrices[in_a], checked_b.matrices[in_b], _rows(covariance_a, kept), _rows(covariance_b, kept)
    )
    notes = tuple(dict.fromkeys((*checked_a.notes, *checked_b.notes)))
    return _solve(problem, kept, len(a), (0.0,), p95_max, notes)


def _rows(covariance: Array | None, kept: Ints) -> Array | None:
    if covariance is None:
        return None
    covariance = as_floats(covariance)
    return np.broadcast_to(covariance, (len(kept), 6, 6)) if covariance.ndim == 2 else covariance[kept]


def solve_hand_eye_timed(
    times_a: Array,
    a: Array,
    times_b: Array,
    b: Array,
    *,
    offset_max_s: float = 0.3,
    p95_max: float = 0.01,
) -> HandEyeFit:
    """Return X, Z and the offset between the clocks, `t_a = t_b + offset_s`, from two streams of poses.

    `times_a`, `times_b` [s], shapes (n,) and (m,); `a` (n, 4, 4) is interpolated at b's times, so it should be the
    faster stream. The offset starts where the turned angles agree best and is then refined with X and Z by the
    residual. Residuals and `rejected` are told in rows of b. Raises as `solve_hand_eye` and `pose_lag`.
    """
    length = len(b)
    times_a, a, _, notes_a = checked_stream(times_a, as_floats(a), "poses a")
    times_b, b, rows_b, notes_b = checked_stream(times_b, as_floats(b), "poses b")
    lags = pose_lags(times_a, a, times_b, b, lag_max_s=offset_max_s)
    offsets = tuple(-lag.lag_s for lag in lags)
    moved, known = interpolate_poses(times_a, a, times_b + offsets[0])
    for offset in offsets[1:]:
        known &= interpolate_poses(times_a, a, times_b + offset)[1]
    if known.sum() < LEAST_POSES:
        raise CalibrationRefused(f"the streams share {known.sum()} instants", "Record both at the same time.")
    problem = Problem(moved[known], b[known], None, None, times_a, a, times_b[known])
    notes = tuple(dict.fromkeys((*notes_a, *notes_b, *lags[0].notes)))
    return _solve(problem, rows_b[known], length, offsets, p95_max, notes)


def _solve(
    problem: Problem, rows: Ints, n: int, offsets: tuple[float, ...], p95_max: float, notes: tuple[str, ...]
) -> HandEyeFit:
    moving = in_motion(problem.a, problem.b)
    longest = np.bincount(np.cumsum(moving)).max()
    if longest > MANY_STILL * len(rows) and moving.sum() >= LEAST_POSES:
        note = f"{(~moving).sum()} of {len(rows)} pairs in which nothing moved since the one before, left out"
        problem, rows, notes = problem.take(np.flatnonzero(moving)), rows[moving], (*notes, note)
    fit, final = _of_least_residual(problem, rows, n, offsets, notes)
    fit = _between_samples(problem, _widened(problem, fit, final))
    inside = np.isin(rows, fit.rejected, invert=True)
    _refuse_scale(problem, fit, inside)
    groups = two_groups(final.whitened, final.jacobian, inside)
    if groups is not None:
        fit = _one_body(problem, fit, rows, groups, p95_max)
    return gated(fit, len(rows), p95_max)


def _widened(problem: Problem, fit: HandEyeFit, final: Final) -> HandEyeFit:
    """Return the fit, widened by how far other views of the noise, as good as the one taken, would move it.

    Wild pairs lie far outside and come seldom; many just beyond the width are its tail, and would count. And noise may
    be alike at b's target in place of its source, as a board's, seen by a camera, is: where the two answers differ
    beyond chance (Hausman 1978), neither tells the noise.
    """
    squares = squared_lengths(final.whitened)
    inside = final.kind.within(squares, final.scale)
    tail = int((final.kind.within(squares, TAIL_WIDTHS * final.scale) & ~inside).sum())
    if tail > TAIL_MOST * len(squares):
        found = iterate(problem, fit.x, fit.z, fit.offset_s, widths=TAIL_WIDTHS)
        if found is not None:
            fit = _away(fit, found[0], found[1], f"with {tail} pairs just beyond the noise of the others")
    if problem.given:
        return fit
    turned = Problem(inverse(problem.at(fit.offset_s)[0]), inverse(problem.b))
    rows = np.arange(len(squares))
    other = _alone(turned, replace(fit, x=fit.z, z=fit.x), rows, rows)
    if other is not None:
        covariance = fit.covariance[:6, :6] + other.covariance[6:, 6:]
        if not same(difference(other.z, fit.x), covariance, DISAGREE):
            fit = _away(fit, other.z, other.x, "with noise that is alike where b is measured from")
    return fit


def _half(problem: Problem) -> tuple[Problem, float] | None:
    """Return the problem with every other sample of a's stream, and its error as `halved`; None without a stream."""
    if problem.times_a is None or problem.stream_a is None:
        return None
    rows, gain = halved(problem.times_a)
    return replace(problem, times_a=problem.times_a[rows], stream_a=problem.stream_a[rows]), gain


def _between_samples(problem: Problem, fit: HandEyeFit) -> HandEyeFit:
    """Return the fit, widened by how far what is not seen between a's samples moves it: told by every other sample."""
    half = _half(problem)
    if half is None:
        return fit
    found = iterate(half[0], fit.x, fit.z, fit.offset_s)
    if found is None:
        return replace(fit, notes=(*fit.notes, "the motion is fast for a's samples: every other one tells no X and Z"))
    apart = np.concatenate([difference(found[0], fit.x), difference(found[1], fit.z)]) / half[1]
    noise = half[1] ** -2  # its own part in two fits of samples that are half the same
    if float(apart @ solve(fit.covariance, apart)) < max(NEGLIGIBLE, noise) * len(apart):
        return fit
    told = f"the motion is fast for a's samples; what lies between them moves X by {_far(apart[:6])}"
    late = hypot(fit.offset_sigma_s, (found[2] - fit.offset_s) / half[1])
    return replace(widened(fit, np.outer(apart, apart), told), offset_sigma_s=late)


def _away(fit: HandEyeFit, x: Array, z: Array, told: str) -> HandEyeFit:
    apart = np.concatenate([difference(x, fit.x), difference(z, fit.z)])
    return widened(fit, np.outer(apart, apart), f"{told}, X is {_far(apart[:6])} away")


def _of_least_residual(
    problem: Problem, rows: Ints, n: int, offsets: tuple[float, ...], notes: tuple[str, ...]
) -> tuple[HandEyeFit, Final]:
    """Return the fit from the offset that leaves least, several where the motion repeats.

    Such a motion turns alike at all of them, and mostly moves otherwise. Refuse X and Z that nothing tells apart.
    """
    found: list[tuple[HandEyeFit, Final]] = []
    refusal = CalibrationRefused("these pairs leave X or Z open", TURN_MORE)
    for offset in offsets:
        try:
            x, z, spread = park(problem.at(offset)[0], problem.b)
            x, z, refined, final = refine(problem, x, z, offset)
            found.append((result_of(x, z, refined, final, rows, n, spread, notes), final))
        except CalibrationRefused as error:
            refusal = error
        except np.linalg.LinAlgError:
            continue
    if not found:
        raise refusal
    left = [np.log(lengths_of(final.residual) + SCALE_FLOOR).sum(axis=1) for _, final in found]
    first, *others = sorted(range(len(left)), key=lambda row: float(left[row].mean()))
    best, final = found[first]
    for fit, _ in (found[other] for other in others if not _worse(left[other], left[first])):
        apart = abs(fit.offset_s - best.offset_s)
        moved = np.concatenate([difference(fit.x, best.x), difference(fit.z, best.z)])
        if not same(moved, fit.covariance + best.covariance):
            raise repeated(apart)
        if apart > SIGMAS_APART * (fit.offset_sigma_s + best.offset_sigma_s):
            told = f"the motion repeats: an offset {1e3 * apart:.0f} ms away fits as well, with the same X and Z"
            best = replace(best, offset_sigma_s=hypot(best.offset_sigma_s, apart), notes=(*best.notes, told))
    return best, final


def _worse(one: Array, other: Array) -> bool:
    """Tell whether losses (n,) are beyond chance larger than another answer's of the same rows in time (Vuong 1989)."""
    apart = one - other
    mean = float(apart.mean())
    widened = serial_inflation((apart - mean)[:, None], np.ones(len(apart), dtype=np.bool_))
    return mean > SIGMAS_APART * float(apart.std()) * sqrt(widened / len(apart))


def _refuse_scale(problem: Problem, fit: HandEyeFit, inside: Bools) -> None:
    def told(of: Problem) -> tuple[float, float, float]:
        return length_ratio(of.at(fit.offset_s)[0][inside], problem.b[inside], fit.z[:3, :3])

    ratio, sigma, freedom = told(problem)
    if not is_other(ratio, sigma, freedom):
        return
    half = _half(problem)
    if half is not None and abs(told(half[0])[0] - ratio) > abs(ratio - 1.0):
        raise CalibrationRefused(
            "the motion is too fast for a's samples: every other one tells other lengths",
            "Move more slowly, or record faster.",
        )
    raise CalibrationRefused(
        f"b's lengths are {1.0 / ratio:.4g} times a's (1 sigma {sigma / ratio**2:.1g})",
        "One of the streams is told in another unit, or with another size of the board's squares or markers.",
    )


def _one_body(problem: Problem, fit: HandEyeFit, rows: Ints, groups: tuple[Ints, Ints], p95_max: float) -> HandEyeFit:
    """Refuse a recording in which X changed; tell where only Z did."""
    two = _alone(problem, fit, rows, groups[1])
    one = _alone(problem, fit, rows, groups[0]) if two is not None else None
    if one is None or two is None:
        return fit
    first, second = (rows[group] for group in groups)
    left = ((f.rotation_residuals, f.translation_residuals) for f in (one, two))
    if one.x_p95 > p95_max or not all(alike(a[first], b[second]) for a, b in zip(*left, strict=True)):
        return fit  # wild pairs, each in its own way
    moved, turned = difference(two.x, one.x), difference(two.z, one.z)
    told = f"of {len(rows)} pairs of poses {rows_told(second)}, agree on another"
    if not same(moved, one.covariance[:6, :6] + two.covariance[:6, :6]):
        raise CalibrationRefused(
            f"{told} X, {_far(moved)} away",
            "The marker moved on its body, or two recordings are in one: use the part before or after.",
        )
    return replace(fit, notes=(*fit.notes, f"{told} Z, {_far(turned)} away: a tracker was moved; X is the same"))


def _far(step: Array) -> str:
    turned, moved = (sqrt(float(part @ part)) for part in (step[:3], step[3:]))
    return f"{1e3 * moved:.1f} mm and {degrees(turned):.2f} deg"


def _alone(problem: Problem, fit: HandEyeFit, rows: Ints, group: Ints) -> HandEyeFit | None:
    """Return the fit of some of the rows, from that of all; None where they tell none."""
    start = inverse(mean_transform(problem.b[group] @ inverse(fit.x) @ inverse(problem.a[group])))
    try:
        found = iterate(problem.take(group), fit.x, start, fit.offset_s)
        return None if found is None else result_of(*found, rows[group], len(fit.residuals), fit.axis_spread, ())
    except (np.linalg.LinAlgError, CalibrationRefused):  # pairs of one pose tell no X
        return None
