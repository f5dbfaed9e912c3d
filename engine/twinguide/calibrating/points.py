"""A rigid registration from paired points: touched fiducials to those of the image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import hashed, open_points, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_points
from twinguide.calibrating.result import PointsResult, rows_of, stamp, symmetric
from twinguide.errors import CalibrationError
from twinguide_calibration import (
    CalibrationRefused,
    RigidFit,
    RobustFit,
    align_points,
    misfit_probability,
    register_points,
    register_robust,
    register_similarity,
    tre_p95,
)
from twinguide_calibration.poses import NEAR_M
from twinguide_calibration.reading import (
    By,
    NamedPoints,
    PointPairs,
    fresh_rows,
    has_pairs,
    pair_points,
    read_pairs,
    read_points,
)
from twinguide_calibration.similarity import is_other

Array = NDArray[np.float64]
FAR_APART = 6.0  # times the rms residual: distances between the same points hardly differ by more
SAME_M, MOST_TRIES = 1e-5, 5000  # of orders that keep all distances, where a layout is symmetric
MOST_NAMED = 40  # pairs, above which trying orders would take seconds
CHANCE_LEAST = 1e-4  # of residuals as large, under which the stated errors are not believed


def points(
    paths: tuple[Path, ...],
    source: str,
    target: str,
    sigma_mm: float | None,
    fre_max_mm: float,
    targets: Path | None,
    robust: bool = False,
    by: By = "name",
) -> Outcome:
    """Register one file of pairs, or two of named points (source, then target), each a file, a case or a session.

    `sigma_mm` is what one point is known to, per axis; without it, the residuals tell. `targets` names a file of points
    in the source's frame at which the error is predicted. `robust` leaves wrong pairs out, which needs `sigma_mm`. `by`
    tells how two files are paired.
    Raises CalibrationError with reason and remedy.
    """
    with refusals():
        pairs, case_hash = _pairs(paths, by)
        pairs, rows = _usable(pairs)
        wrong: tuple[int, ...] = ()
        if robust:
            pairs, wrong = _agreeing(pairs, rows, sigma_mm)
        told = read_points(targets, by) if targets else None
        given = np.eye(3) * (sigma_mm * 1e-3) ** 2 if sigma_mm else None
        if given is not None:
            pairs = replace(pairs, covariances=np.broadcast_to(given, (len(pairs.names), 3, 3)), shared=None)
        fit = _registered(pairs, fre_max_mm * 1e-3)
    _close_enough(pairs, fit, fre_max_mm * 1e-3)
    result = PointsResult(
        of=f"{target}_from_{source}",
        sources=hashed(paths),
        samples=len(pairs.names),
        rejected=wrong,
        residuals=tuple((1e3 * fit.residuals).tolist()),
        notes=shortened((*pairs.notes, *fit.notes, *_doubts(pairs, fit, fre_max_mm * 1e-3))),
        target=target,
        source=source,
        matrix=rows_of(_matrix(fit)),  # pyright: ignore[reportArgumentType]
        covariance=symmetric(fit.covariance),
        freedom=float(fit.freedom),
        fre_mm=1e3 * fit.fre_rms,
        tre_p95_mm=_errors(fit, pairs, told),
        case_hash=case_hash if source == "image" else "",
        names=pairs.names,
        **stamp(),
    )
    return Outcome(result, _table(result, fit), partial(draw_points, pairs, fit, told))


def _usable(pairs: PointPairs) -> tuple[PointPairs, NDArray[np.int64]]:
    """Return pairs, each once, and their rows; refuse a layout so small that its unit must be another."""
    for side, places in (("source", pairs.source), ("target", pairs.target)):
        across = float(np.linalg.norm(np.ptp(places, axis=0))) if len(places) else 0.0
        if 0.0 < across < NEAR_M:
            raise CalibrationRefused(
                f"wanted points that lie apart; got the {side}'s within {1e3 * across:.2g} mm of one another",
                "The unit is not the one stated: metres taken for millimetres?",
            )
    fresh = fresh_rows(np.concatenate([pairs.source, pairs.target], axis=1))
    if fresh.all():
        return pairs, np.arange(len(fresh))
    names = ", ".join(np.array(pairs.names)[~fresh].tolist())
    return _of(pairs, fresh, f"repeat another pair to the last digit, left out: {names}"), np.flatnonzero(fresh)


def _of(pairs: PointPairs, keep: NDArray[np.bool_], note: str) -> PointPairs:
    """Return some of the pairs, with a note why."""
    covariances, shared = (told if told is None else told[keep] for told in (pairs.covariances, pairs.shared))
    names = tuple(np.array(pairs.names)[keep].tolist())
    return PointPairs(names, pairs.source[keep], pairs.target[keep], covariances, (*pairs.notes, note), shared)


def _doubts(pairs: PointPairs, fit: RigidFit, fre_max_m: float) -> tuple[str, ...]:
    """Return what is odd about an accepted fit: one pair beside all others, another scale, another order as good."""
    few = len(pairs.names) <= MOST_NAMED
    told = [_culprit(pairs, fit.fre_rms, fre_max_m) if few else ""]
    if len(pairs.names) > 4:
        scaled = register_similarity(pairs.source, pairs.target)
        if is_other(scaled.scale, scaled.scale_sigma, scaled.freedom):
            told.append(f"the target is {scaled.scale:.4g} times as large as the source: a unit or a scanner's scale?")
    other = _other_order(pairs, fit.fre_rms) if few else []
    if other:
        told.append(f"the order {', '.join(pairs.names[row] for row in other)} fits as well: are the names right?")
    return tuple(note for note in told if note)


def _other_order(pairs: PointPairs, rms: float) -> list[int]:
    """Return an order of a symmetric layout's targets whose changed pairs miss by less than twice `rms`, or nothing."""
    near, far = (np.linalg.norm(side[:, None] - side, axis=2) for side in (pairs.source, pairs.target))
    allowed, count, tries = FAR_APART * max(rms, SAME_M), len(near), [[row] for row in range(len(near))]
    for _ in range(MOST_TRIES):
        if not tries:
            break
        order = tries.pop()
        k = len(order)
        if k == count:
            moved = np.array(order) != np.arange(count)
            if moved.any() and _rms(pairs.source, pairs.target[order], moved) < 2.0 * max(rms, SAME_M):
                return order
            continue
        left = [row for row in range(count) if row not in order]
        tries += [[*order, row] for row in left if (np.abs(far[row, order] - near[k, :k]) < allowed).all()]
    return []


def _registered(pairs: PointPairs, fre_max_m: float) -> RigidFit:
    """Return the fit; where it is refused for residuals that one pair explains, name that pair."""
    try:
        return register_points(pairs.source, pairs.target, pairs.covariances, pairs.shared)
    except CalibrationRefused as error:
        culprit = _culprit(pairs, _rms(pairs.source, pairs.target), fre_max_m)
        raise CalibrationRefused(error.reason, culprit or error.remedy) from error


def _agreeing(pairs: PointPairs, rows: NDArray[np.int64], sigma_mm: float | None) -> tuple[PointPairs, tuple[int, ...]]:
    """Return the pairs that agree on one pose, and which of the `rows` (n,) do not, which a note names."""
    if not sigma_mm:
        raise CalibrationRefused("wanted --sigma-mm with --robust: it tells a wrong pair from a noisy one; got none")
    fit = register_robust(pairs.source, pairs.target, sigma_mm * 1e-3)
    if not len(fit.rejected):
        return pairs, ()
    left_out = ", ".join(f"{pairs.names[row]} ({1e3 * fit.residuals[row]:.1f} mm off)" for row in fit.rejected)
    told = f"wrong pairs, left out: {left_out}{_agree_too(pairs, fit, sigma_mm)}"
    return _of(pairs, fit.inliers, told), tuple(rows[fit.rejected].tolist())


def _agree_too(pairs: PointPairs, fit: RobustFit, sigma_mm: float) -> str:
    """Return how many of the wrong pairs agree on a pose of their own, in words; refuse half as many as the right."""
    wrong = fit.rejected
    try:
        other = register_robust(pairs.source[wrong], pairs.target[wrong], sigma_mm * 1e-3)
    except CalibrationRefused:
        return ""
    if 2 * other.inliers.sum() >= fit.inliers.sum():
        one, two = (", ".join(np.array(pairs.names)[rows].tolist()) for rows in (fit.inliers, wrong[other.inliers]))
        raise CalibrationRefused(
            f"two sets of pairs agree, each on a pose of its own: {one}; and {two}",
            "Was something moved in between? Give the pairs of one of them.",
        )
    return f"; {other.inliers.sum()} of them agree on another pose: which one is right?"


def _pairs(paths: tuple[Path, ...], by: By) -> tuple[PointPairs, str]:
    """Return the pairs, and the content hash of the case whose landmarks are the source, if they are."""
    if len(paths) == 1:
        if not has_pairs(paths[0]):
            raise CalibrationRefused(
                f"wanted two files of named points, or one CSV with source_x_mm ... target_z_mm; got {paths[0].name}"
            )
        return read_pairs(paths[0]), ""
    if len(paths) != 2:
        raise CalibrationRefused(f"wanted a source and a target; got {len(paths)} files")
    (source, case_hash), (target, _) = open_points(paths[0], by), open_points(paths[1], by)
    return pair_points(source, target, by), case_hash


def _close_enough(pairs: PointPairs, fit: RigidFit, fre_max_m: float) -> None:
    """Refuse residuals beyond the limit, and those that the stated errors do not explain; name the pair to look at."""
    chance = misfit_probability(fit.misfit, 3 * len(pairs.names) - 6)
    if fit.fre_rms <= fre_max_m and chance > CHANCE_LEAST:
        return
    worst = pairs.names[int(fit.residuals.argmax())]
    if fit.fre_rms > fre_max_m:
        got = f"{1e3 * fit.fre_rms:.2f} mm rms, {1e3 * fit.residuals.max():.2f} mm at {worst}"
        wanted = f"residuals of at most {1e3 * fre_max_m:g} mm rms"
    else:
        got = f"{1e3 * fit.fre_rms:.2f} mm rms, which they explain with a chance of {chance:.1e}"
        wanted = "residuals that the stated errors of the points explain"
    usual = "Touch the points again, and check that names, frames and units of both files belong together."
    raise CalibrationError(wanted, got, "", _culprit(pairs, fit.fre_rms, fre_max_m) or usual)


def _culprit(pairs: PointPairs, rms: float, fre_max_m: float) -> str:
    """Return what would bring the residuals below the limit and to a quarter: a mirror, two names, one pair, all."""
    everyone = range(len(pairs.names)) if len(pairs.names) > 3 else ()
    best, text = min(rms / 4.0, fre_max_m), ""
    mirrored = _rms(pairs.source * [-1.0, 1.0, 1.0], pairs.target)
    if everyone and mirrored < best:
        best, text = mirrored, f"As mirror images {1e3 * mirrored:.2f} mm would be left: an axis is flipped or swapped."
    for i, j in combinations(everyone, 2):
        order = list(everyone)
        order[i], order[j] = j, i
        left = _rms(pairs.source, pairs.target[order])
        if left < best:
            best, text = (
                left,
                f"With {pairs.names[i]} and {pairs.names[j]} exchanged {1e3 * left:.2f} mm would be left.",
            )
    for i in everyone if len(pairs.names) > 4 else ():
        keep = [k for k in everyone if k != i]
        left = _rms(pairs.source[keep], pairs.target[keep])
        if left < best:
            best, text = left, f"Without {pairs.names[i]} {1e3 * left:.2f} mm would be left: touch it again."
    order = _other_order(pairs, best / 2.0) if everyone and not text and rms > fre_max_m else []
    left = _rms(pairs.source, pairs.target[order]) if order else np.inf
    if left < best:
        names = ", ".join(pairs.names[row] for row in order)
        text = f"With the target's points in the order {names} {1e3 * left:.2f} mm would be left."
    return text


def _rms(source: Array, target: Array, rows: NDArray[np.bool_] | slice = slice(None)) -> float:
    rotation, translation = align_points(source, target)
    return float(np.sqrt(((target - source @ rotation.T - translation)[rows] ** 2).sum(axis=1).mean()))


def _matrix(fit: RigidFit) -> Array:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = fit.rotation, fit.translation
    return matrix


def _errors(fit: RigidFit, pairs: PointPairs, told: NamedPoints | None) -> dict[str, float]:
    """Return the predicted 95 % error [mm] at the named targets, else at the middle of the points."""
    places = told.points if told else pairs.source.mean(axis=0)[None]
    names = told.names if told else ("middle of the points",)
    return dict(zip(names, (1e3 * tre_p95(fit, places)).tolist(), strict=True))


def _table(result: PointsResult, fit: RigidFit) -> tuple[tuple[str, str], ...]:
    place = "  ".join(f"{1e3 * value:.3f}" for value in fit.translation)
    turn = float(np.degrees(np.arccos(np.clip((np.trace(fit.rotation) - 1.0) / 2.0, -1.0, 1.0))))
    sigma = np.sqrt(np.diag(fit.covariance))
    worst = int(np.argmax(result.residuals))
    return (
        (result.of, f"{place} mm, turned by {turn:.3f} deg"),
        ("1 sigma, turn", "  ".join(f"{value:.4f}" for value in np.degrees(sigma[:3])) + " deg"),
        (
            "1 sigma, place",
            "  ".join(f"{1e3 * value:.3f}" for value in sigma[3:]) + f" mm at the origin of {result.source}",
        ),
        ("residual (FRE)", f"{result.fre_mm:.3f} mm rms, {result.residuals[worst]:.3f} mm at {result.names[worst]}"),
        *((f"95 % error at {name}", f"{value:.3f} mm") for name, value in result.tre_p95_mm.items()),
        ("samples", f"{result.samples} pairs" + (f", {len(result.rejected)} left out" if result.rejected else "")),
    )
