"""What a hand-eye fit tells of itself: its covariance, and whether X is known well enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np

from twinguide_calibration.error import p95_radius
from twinguide_calibration.hand_eye_fit import TURN_MORE, Final
from twinguide_calibration.hand_eye_noise import small_sample
from twinguide_calibration.linear import eigen, invert, squared_lengths
from twinguide_calibration.parts import MANY_REJECTED, check_majority, spread_inflation
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, adjoint, point_jacobian
from twinguide_calibration.weights import estimate_variance

OPEN = 1e-10  # of the largest eigenvalue: what pairs leave open
FOLLOWED = 20.0  # times the variance is widened by residuals that follow one another: no longer noise
COUNTED = "counted in"  # ends a note of what widened the covariance
TIED = 0.99  # correlation with the offset: what is left of it, slow errors and curvature, is not in the covariance
EFFICIENCY = 0.95  # of Tukey's weights under normal noise


@dataclass(frozen=True, slots=True, eq=False)
class HandEyeFit:
    """X and Z of `A_i X = Z B_i`, with their error.

    `covariance` (12, 12) is over X's then Z's (rotation vector [rad], translation [m]), each perturbed on the right;
    `freedom` the degrees behind its size. `offset_s` [s] is added to b's stamps to reach a's; its sigma is infinite
    where it was not asked for. `axis_spread` is the second over the first extent of the turning axes: 0 where the body
    turned about one axis alone.
    """

    x: Array  # (4, 4)
    z: Array  # (4, 4)
    covariance: Array  # (12, 12)
    rotation_residuals: Array  # (n,) [rad]; NaN where a pose was missing
    translation_residuals: Array  # (n,) [m]
    rejected: Ints
    sigma_rotation: float  # [rad] per axis
    sigma_translation: float  # [m] per axis
    x_p95: float  # [m] of X's translation
    z_p95: float  # [m] of what Z carries, in the middle of b's places: its origin may be metres from any use
    middle: Array  # (3,) [m] of b's places, in Z's source
    z_spread: float  # [m] rms of the places that single pairs give Z's source
    axis_spread: float
    freedom: float
    inflation: float
    offset_s: float
    offset_sigma_s: float
    notes: tuple[str, ...]

    @property
    def residuals(self) -> Array:
        """Return the distances [m], shape (n,), by which the two sides miss each other."""
        return self.translation_residuals


def result_of(
    x: Array, z: Array, offset: float, final: Final, rows: Ints, n: int, spread: float, notes: tuple[str, ...]
) -> HandEyeFit:
    """Return X and Z, shape (4, 4), of `rows` of n pairs with the covariance that the residuals at the end tell.

    Raises CalibrationRefused for pairs that leave X, Z or the offset open.
    """
    squares = squared_lengths(final.whitened)
    inside = final.kind.within(squares, final.scale)
    inflation = spread_inflation(final.whitened, final.jacobian, inside, final.scale**2)
    count = final.jacobian.shape[2]
    information = _told_information(final.jacobian[inside])
    if final.shape is None:
        covariance, freedom, variance = invert(information), inf, final.scale**2 / EFFICIENCY
    else:
        covariance, freedom = small_sample(final.jacobian[inside], final.shape, float(inside.sum()) / inflation)
        variance = estimate_variance(squares[inside], final.kind, final.scale, count)
    covariance = covariance * variance * inflation
    turned, moved = np.full(n, np.nan), np.full(n, np.nan)
    turned[rows], moved[rows] = lengths_of(final.residual).T
    at_z = (adjoint(final.b) @ final.residual[:, :, None])[:, 3:, 0]
    used = final.residual[inside] if inside.any() else final.residual
    timed = count > 12
    if timed and (np.abs(covariance[:12, 12]) > TIED * np.sqrt(np.diag(covariance)[:12] * covariance[12, 12])).any():
        raise CalibrationRefused(
            "the body went round so evenly that an offset in time and a turn of X and Z look alike", "Move irregularly."
        )
    middle = final.b[inside, :3, 3].mean(axis=0) if inside.any() else final.b[:, :3, 3].mean(axis=0)
    return HandEyeFit(
        x=x,
        z=z,
        covariance=covariance[:12, :12],
        rotation_residuals=turned,
        translation_residuals=moved,
        rejected=rows[~inside],
        sigma_rotation=float(np.sqrt((used[:, :3] ** 2).mean())),
        sigma_translation=float(np.sqrt((used[:, 3:] ** 2).mean())),
        x_p95=float(p95_radius(covariance[3:6, 3:6], freedom)),
        z_p95=float(p95_radius(_at(middle, covariance[6:12, 6:12]), freedom)),
        middle=middle,
        z_spread=float(np.sqrt((at_z[inside] ** 2).sum(axis=1).mean())),
        axis_spread=spread,
        freedom=freedom,
        inflation=inflation,
        offset_s=offset,
        offset_sigma_s=sqrt(float(covariance[12, 12])) if timed else inf,
        notes=notes,
    )


def _at(point: Array, covariance: Array) -> Array:
    """Return the covariance [m2] of a point (3,) [m] that a transform of covariance (6, 6) carries."""
    jacobian = point_jacobian(point)
    return jacobian @ covariance @ jacobian.T


def _told_information(jacobian: Array) -> Array:
    """Return the information (k, k) of pairs with a whitened Jacobian (n, 6, k); refuse pairs that leave some open."""
    flat = jacobian.reshape(-1, jacobian.shape[2])
    information = flat.T @ flat
    sizes = np.sqrt(np.maximum(np.diag(information), 1e-300))
    values = eigen(information / np.outer(sizes, sizes))[0]
    if not values[0] > OPEN * values[-1]:
        raise CalibrationRefused(f"the {len(jacobian)} pairs that agree leave X or Z open", TURN_MORE)
    return information


def lengths_of(residual: Array) -> Array:
    """Return the lengths (n, 2) of residuals (n, 6), turning and moving."""
    return np.sqrt(np.stack([squared_lengths(residual[:, :3]), squared_lengths(residual[:, 3:])], axis=1))


def widened(fit: HandEyeFit, more: Array, note: str) -> HandEyeFit:
    """Return a fit with a covariance (12, 12) more, and why."""
    total = fit.covariance + more
    x_p95 = float(p95_radius(total[3:6, 3:6], fit.freedom))
    z_p95 = float(p95_radius(_at(fit.middle, total[6:12, 6:12]), fit.freedom))
    return replace(fit, covariance=total, x_p95=x_p95, z_p95=z_p95, notes=(*fit.notes, f"{note}: {COUNTED}"))


def gated(fit: HandEyeFit, used: int, p95_max: float) -> HandEyeFit:
    """Return a fit of `used` pairs, what is odd told; refuse many rejected, and X or Z worse than p95_max [m]."""
    check_majority(
        len(fit.rejected),
        used,
        "pairs of poses fit no single X and Z",
        "Check that the marker did not move on its body and that the poses belong to the same instants.",
    )
    if not max(fit.x_p95, fit.z_p95) <= p95_max:
        raise _not_known(fit, used, p95_max)
    told: list[str] = []
    if fit.inflation > 2.0:
        told.append(f"residuals follow the motion: the covariance was widened {fit.inflation:.1f} times")
    if len(fit.rejected) > MANY_REJECTED * used:
        told.append(f"{len(fit.rejected)} of {used} pairs lie beyond the noise of the others: see the picture for when")
    return replace(fit, notes=(*fit.notes, *told))


def _not_known(fit: HandEyeFit, used: int, p95_max: float) -> CalibrationRefused:
    """Return the refusal of X or Z, whichever is known worse: poses inverse in both streams exchange the two."""
    of_x = not fit.z_p95 > fit.x_p95
    if of_x:
        name, at, p95, covariance = "X", fit.x, fit.x_p95, fit.covariance[3:6, 3:6]
    else:
        name, at, p95, covariance = "Z", fit.z, fit.z_p95, _at(fit.middle, fit.covariance[6:12, 6:12])
    values, vectors = eigen(covariance)
    worst = ", ".join(f"{v:.2f}" for v in at[:3, :3] @ vectors[:, 2])
    followed = fit.inflation > FOLLOWED
    worth = f": what is left follows the motion, {used} pairs are worth {used / fit.inflation:.0f}" * followed
    counted = "".join(f"; {note}" for note in fit.notes if note.endswith(COUNTED))
    return CalibrationRefused(
        f"{name} is known to {p95 * 1e3:.1f} mm (95 %), wanted {p95_max * 1e3:.1f} mm; worst along ({worst}), "
        f"{sqrt(float(values[2])) * 1e3:.1f} mm (1 sigma){worth}{counted}",
        "Look for what it follows: poses of other instants, a camera not calibrated, a body that bends."
        if followed or counted
        else "Turn the body more, about axes across that direction, and record more poses.",
    )
