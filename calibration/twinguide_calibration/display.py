"""Where the eye sits behind a known display: three numbers per eye, not the eleven of a free projection.

Marks are drawn on the display's (virtual) screen and the wearer lines them up with real points: the eye lies on
every line through a point and its mark. Only the eye is estimated: several times as exact as SPAAM within reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twinguide_calibration.error import p95_radius
from twinguide_calibration.linear import eigen, invert, solve, squared_lengths
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, as_floats, no_rows
from twinguide_calibration.weights import biweight, estimate_variance, robust_scale, settle_scale, tukey

LEAST_MARKS = 4
ROUNDS = 20
STEP_CONVERGED = 1e-8  # [m]
SCALE_FLOOR_RAD = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class EyeFit:
    """The eye [m], shape (3,), in view, its covariance (3, 3) [m2], and the angles [rad], (n,), by which marks miss."""

    eye: Array
    covariance: Array
    residuals: Array
    rejected: Ints
    sigma_rad: float  # per axis, of lining up
    p95: float  # [m]
    freedom: float
    notes: tuple[str, ...] = ()

    def overlay_error(self, points: Array, screen_distance_m: float) -> Array:
        """Return the rms error [m], shape (n,), that the eye's error causes at points [m], shape (n, 3), in view.

        The screen lies at `screen_distance_m` [m] before the eye: a point on it is not moved at all.
        """
        along = points - self.eye
        distance = np.sqrt(squared_lengths(along))
        line = along / distance[:, None]
        across = np.eye(3) - line[:, :, None] * line[:, None, :]
        variance = np.einsum("nij,jk,nki->n", across, self.covariance, across)
        return np.sqrt(variance) * np.abs(distance / screen_distance_m - 1.0)


def locate_eye(targets: Array, marks: Array, start: Array | None = None, *, p95_max: float = 5e-3) -> EyeFit:
    """Return the eye from points and the marks lined up with them, both [m], shape (n, 3), in view.

    `marks` lie where the display model puts them in space: on the virtual screen. `start` [m], shape (3,), is the eye
    of the headset's own model; none is the view's origin. Raises CalibrationRefused for fewer than 4 marks, points on
    the screen itself, and an eye known worse than `p95_max` [m].
    """
    targets, marks = as_floats(targets), as_floats(marks)
    if targets.shape != marks.shape or targets.ndim != 2 or targets.shape[1] != 3:
        raise CalibrationRefused(f"wanted points and marks of shape (n, 3); got {targets.shape} and {marks.shape}")
    if len(targets) < LEAST_MARKS or not (np.isfinite(targets).all() and np.isfinite(marks).all()):
        raise CalibrationRefused(f"wanted at least {LEAST_MARKS} finite marks; got {len(targets)}", "Line up more.")
    eye = np.zeros(3) if start is None else as_floats(start)
    weights, kind = np.ones(len(targets)), biweight(2, 2.0 * len(targets) - 3.0)
    for _ in range(ROUNDS):
        residual, jacobian = _misses(eye, targets, marks)
        squares = squared_lengths(residual)
        sigma = max(settle_scale(squares, kind, robust_scale(squares, 2), 3), SCALE_FLOOR_RAD)
        weights = tukey(squares, kind, sigma)
        information, gradient = _normal(residual, jacobian, weights)
        _check_held(information)
        step = -solve(information, gradient)
        eye = eye + step
        if float(np.abs(step).max()) < STEP_CONVERGED:
            break
    return _result(eye, targets, marks, p95_max)


def _misses(eye: Array, targets: Array, marks: Array) -> tuple[Array, Array]:
    """Return the angles (n, 3) between the directions to point and mark, and their derivative by the eye (n, 3, 3)."""
    far, near = targets - eye, marks - eye
    far_m, near_m = np.sqrt(squared_lengths(far)), np.sqrt(squared_lengths(near))
    if min(float(far_m.min()), float(near_m.min())) < 1e-3:
        raise CalibrationRefused("a point or a mark lies in the eye", "Are all in metres, and in view?")
    far, near = far / far_m[:, None], near / near_m[:, None]
    turned = [(line[:, :, None] * line[:, None] - np.eye(3)) / size[:, None, None]
              for line, size in ((far, far_m), (near, near_m))]  # fmt: skip
    return far - near, turned[0] - turned[1]


def _normal(residual: Array, jacobian: Array, weights: Array) -> tuple[Array, Array]:
    flat = jacobian.reshape(-1, 3)
    weighted = flat * np.repeat(weights, 3)[:, None]
    return weighted.T @ flat, weighted.T @ residual.ravel()


def _check_held(information: Array) -> None:
    values, vectors = eigen(information)
    if not values[0] > 1e-6 * values[2]:
        axis = ", ".join(f"{v:.2f}" for v in vectors[:, 0])
        raise CalibrationRefused(
            f"the marks leave the eye unknown along ({axis})",
            "Line up points to all sides, at reach and away from the screen's own distance.",
        )


def _result(eye: Array, targets: Array, marks: Array, p95_max: float) -> EyeFit:
    residual, jacobian = _misses(eye, targets, marks)
    squares, kind = squared_lengths(residual), biweight(2, 2.0 * len(targets) - 3.0)
    sigma = max(settle_scale(squares, kind, robust_scale(squares, 2), 3), SCALE_FLOOR_RAD)
    inside = kind.within(squares, sigma)
    information, _ = _normal(residual, jacobian, np.ones(len(targets)))
    covariance = invert(information) * estimate_variance(squares, kind, sigma, 3)
    freedom = max(2.0 * float(inside.sum()) - 3.0, 1.0)
    p95 = float(p95_radius(covariance, freedom))
    if p95 > p95_max:
        raise CalibrationRefused(
            f"the eye is known to {p95 * 1e3:.1f} mm (95 %), wanted {p95_max * 1e3:.1f} mm",
            "Line up more points at reach distance, to all sides.",
        )
    rejected = np.flatnonzero(~inside) if not inside.all() else no_rows()
    return EyeFit(eye, covariance, np.sqrt(squares), rejected, sigma, p95, freedom)
