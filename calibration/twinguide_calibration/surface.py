"""Rigid registration of touched or scanned points to a surface: partial, noisy patches with outliers.

Point-to-plane (Chen & Medioni 1992) with Tukey's weights, their scale taken from the residuals at every step, so that
a far start keeps every point and a near one drops what is not on the surface. A thinned set walks in, the whole set
settles. The covariance, its widening by correlated residuals, and the verdict which directions the patch leaves free
are made in `surface_error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from twinguide_calibration.linear import eigen, squared_lengths
from twinguide_calibration.poses import refuse_mixed
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, as_floats, difference, perturb
from twinguide_calibration.surface_error import FreeDirection, Patch, SurfaceError, assess
from twinguide_calibration.surface_samples import SurfaceModel
from twinguide_calibration.weights import biweight, robust_scale, settle_scale, tukey

LEAST_POINTS = 12
THINNED = 250  # points that walk in
WALK, SETTLE = 30, 15  # steps at most
MANY, KEPT_SHARE = 16, 0.25  # of more starts than that, the best share after a short walk of few points goes on
SKETCHED, SKETCH = 60, 8  # those points and steps: a start that finds the place was then seldom behind a tenth
WALKED_M, SETTLED_M = 5e-4, 2e-5  # a step that moves no point by more ends the walk, the settling
KEPT_M = 4e-4  # a smaller step keeps the nearest samples: others change the place by a fiftieth of its error
STEP_RAD = 0.2  # a longer turn at once leaves the region where the planes tell anything
STIFFNESS = 1e-6  # of the largest eigenvalue: a direction held less is not moved at all
LEAST_INSIDE = 0.5  # of the points; fewer, and this is another surface
SCALE_FLOOR_M = 1e-7
MAD_WORTH = 0.37  # of the degrees behind a mean square: what the median's scale is worth
LIFT_M = 2e-3  # larger residuals are a start's, not noise
RIVAL_COST = 1.1  # a second place whose residual is within 10 % cannot be told from the first
RIVAL_M = 5.0e-3  # and that moves the points by more than this


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceFit:
    """`target_from_source`: the points' frame (source) placed in the surface's frame (target), with its error.

    `covariance` (6, 6) is over (rotation vector [rad], translation [m]) in source, perturbation on the right; `free`
    lists the directions that the patch does not hold: where there are any, the pose is not to be used. `rivals` are
    other places, shape (4, 4), at which the points fit as well.
    """

    transform: Array
    covariance: Array
    residuals: Array  # (n,) [m], signed distance from the surface; NaN where a point was not finite
    rejected: Ints
    sigma: float  # [m] of the points that fit
    inlier_share: float
    free: tuple[FreeDirection, ...]
    freedom: float
    inflation: float
    rivals: tuple[Array, ...]
    notes: tuple[str, ...]

    @property
    def rotation(self) -> Array:
        """Return the rotation, shape (3, 3)."""
        return self.transform[:3, :3]

    @property
    def constrained(self) -> bool:
        """Return whether the patch holds all six directions and no other place fits as well."""
        return not self.free and not self.rivals

    def apply(self, points: Array) -> Array:
        """Return points [m], shape (..., 3), mapped from source into target."""
        return points @ self.transform[:3, :3].T + self.transform[:3, 3]


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Residuals [m], shape (n,), their Jacobian (n, 6) about the centre, the nearest samples, the robust scale [m]."""

    residuals: Array
    jacobian: Array
    nearest: Ints
    sigma: float


def register_surface(
    points: Array,
    model: SurfaceModel,
    start: Array | None = None,
    *,
    noise_max: float = 3e-3,
    model_error: SurfaceError | None = None,
) -> SurfaceFit:
    """Return where points [m], shape (n, 3), lie on a surface, from a start `target_from_source` within its reach.

    `noise_max` [m] is the residual beyond which this is taken for another surface; `model_error` what is known of the
    surface's own error (segmentation, deformation). Points that are not finite are left out and noted. Raises
    CalibrationRefused for fewer than 12 points, and for points of which most do not lie on the surface.
    """
    return register_surface_starts(
        points, model, [np.eye(4) if start is None else start], noise_max=noise_max, model_error=model_error
    )


def register_surface_starts(
    points: Array,
    model: SurfaceModel,
    starts: Sequence[Array],
    *,
    noise_max: float = 3e-3,
    model_error: SurfaceError | None = None,
) -> SurfaceFit:
    """Return the best of registrations from several starts, shape (4, 4) each, with other places that fit as well.

    As `register_surface`.
    """
    points = as_floats(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise CalibrationRefused(f"wanted points of shape (n, 3); got {points.shape}")
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    notes = () if len(rows) == len(points) else (f"{len(points) - len(rows)} points were not finite and left out",)
    if len(rows) < LEAST_POINTS:
        raise CalibrationRefused(f"wanted at least {LEAST_POINTS} points; got {len(rows)}", "Touch more of the organ.")
    used = points[rows]
    refuse_mixed(used, rows + 1, "points")
    centre = used.mean(axis=0)
    size = float(np.sqrt(((used - centre) ** 2).sum(axis=1).mean()))
    if size > 20.0 * model.extent or size < 1e-3 * model.extent:
        raise CalibrationRefused(
            f"the points span {size:.3g} m, the surface {model.extent:.3g} m", "Are both in metres?"
        )
    thin = used[np.random.default_rng(len(used)).permutation(len(used))[:THINNED]]
    if len(starts) > MANY:
        sketched = _walked(thin[:SKETCHED], centre, model, starts, SKETCH, size)
        starts = [place for place, _ in sketched[: max(int(KEPT_SHARE * len(starts)), MANY)]]
    walked = _walked(thin, centre, model, starts, WALK, size)
    best, last = _descend(used, centre, model, walked[0][0], SETTLE, SETTLED_M, size)
    look = _look(used, centre, model, best, last.nearest)
    fit = _result(used - centre, centre, model, best, look, rows, len(points), notes, model_error)
    _gate(fit, len(rows), noise_max)
    return replace(fit, rivals=_rivals(walked, best, centre, size))


def _walked(
    points: Array, centre: Array, model: SurfaceModel, starts: Sequence[Array], steps: int, size: float
) -> list[tuple[Array, _Look]]:
    """Return where walks from starts end, as `_descend`, the smallest robust scale first."""
    found = [_descend(points, centre, model, as_floats(start), steps, WALKED_M, size) for start in starts]
    return sorted(found, key=lambda end: end[1].sigma)


def _look(points: Array, centre: Array, model: SurfaceModel, transform: Array, near: Ints | None = None) -> _Look:
    """Return what the points tell at a transform; `near` are the samples to measure from, where they are known."""
    placed = points @ transform[:3, :3].T + transform[:3, 3]
    near = model.nearest(placed) if near is None else near
    normals = model.normals.take(near, axis=0)
    offset = placed - model.samples.take(near, axis=0)
    height = np.einsum("ni,ni->n", normals, offset)
    bend = np.einsum("nij,nj->ni", model.bends.take(near, axis=0), offset - height[:, None] * normals)
    residuals = height + 0.5 * np.einsum("ni,ni->n", bend, offset)
    normals += bend
    normals /= np.sqrt(squared_lengths(normals))[:, None]
    sigma = robust_scale(residuals**2, 1) / sqrt(1.0 - 6.0 / len(points))  # six numbers are fitted
    # Noise along a curved surface lifts points off it by sigma^2 times the mean curvature.
    residuals -= min(sigma, LIFT_M) ** 2 * model.curvatures.take(near)
    told = normals @ transform[:3, :3]  # normals in source axes
    (x, y, z), (u, v, w) = (points - centre).T, told.T
    jacobian = np.stack([y * w - z * v, z * u - x * w, x * v - y * u, u, v, w], axis=1)
    return _Look(residuals, jacobian, near, max(sigma, SCALE_FLOOR_M))


def _descend(
    points: Array, centre: Array, model: SurfaceModel, transform: Array, steps: int, converged: float, size: float
) -> tuple[Array, _Look]:
    """Return the transform reached and the look from which it was, or at it where the steps ran out: Gauss-Newton.

    The nearest planes are sought anew after each step that is not small; between samples a surface bends as its shape
    operator says.
    """
    about = np.eye(4)
    about[:3, 3] = centre
    back = np.eye(4)
    back[:3, 3] = -centre
    look, kind = _look(points, centre, model, transform), biweight(1, MAD_WORTH * (len(points) - 6.0))
    for _ in range(steps):
        weighted = look.jacobian * tukey(look.residuals**2, kind, look.sigma)[:, None]
        step = _step(weighted.T @ look.jacobian, weighted.T @ look.residuals, size)
        transform = perturb(transform @ about, step) @ back
        moved = _moved(step, size)
        if moved < converged:
            break
        look = _look(points, centre, model, transform, look.nearest if moved < KEPT_M else None)
    return transform, look


def _moved(step: Array, size: float) -> float:
    return float(np.sqrt(step[:3] @ step[:3])) * size + float(np.sqrt(step[3:] @ step[3:]))


def _step(information: Array, gradient: Array, size: float) -> Array:
    """Return the step in the directions that the points hold, turns and shifts alike weighed at the patch's size."""
    scale = np.array([1.0 / size] * 3 + [1.0] * 3)
    values, vectors = eigen(information * np.outer(scale, scale))
    held = values > STIFFNESS * values[-1]
    inverse = np.where(held, 1.0 / np.where(held, values, 1.0), 0.0)
    step = -scale * (vectors @ (inverse * (vectors.T @ (gradient * scale))))
    turn = float(np.sqrt(step[:3] @ step[:3]))
    return step * min(1.0, STEP_RAD / max(turn, 1e-12))


def _result(
    places: Array,
    centre: Array,
    model: SurfaceModel,
    transform: Array,
    look: _Look,
    rows: Ints,
    n: int,
    notes: tuple[str, ...],
    model_error: SurfaceError | None,
) -> SurfaceFit:
    squares, kind = look.residuals**2, biweight(1, len(places) - 6.0)
    sigma = max(settle_scale(squares, kind, look.sigma, 6), SCALE_FLOOR_M)
    inside = kind.within(squares, sigma)
    held = inside if inside.sum() > LEAST_POINTS else np.ones(len(places), dtype=np.bool_)
    turn = transform[:3, :3]
    patch = Patch(
        places=places[held],
        jacobian=look.jacobian[held],
        residuals=look.residuals[held],
        bends=turn.T @ model.bends[look.nearest[held]] @ turn,
        sigma=sigma,
        kind=kind,
        extent=model.extent,
    )
    verdict = assess(patch, centre, model_error)
    residuals = np.full(n, np.nan)
    residuals[rows] = look.residuals
    if verdict.inflation > 2.0:
        notes = (*notes, f"residuals are correlated over the patch: variance widened {verdict.inflation:.1f} times")
    return SurfaceFit(
        transform=transform,
        covariance=verdict.covariance,
        residuals=residuals,
        rejected=rows[~inside],
        sigma=sigma,
        inlier_share=float(inside.mean()),
        free=verdict.free,
        freedom=verdict.freedom,
        inflation=verdict.inflation,
        rivals=(),
        notes=notes,
    )


def _gate(fit: SurfaceFit, used: int, noise_max: float) -> None:
    if fit.inlier_share < LEAST_INSIDE or fit.sigma > noise_max:
        raise CalibrationRefused(
            f"{fit.inlier_share:.0%} of {used} points lie on the surface, with {fit.sigma * 1e3:.1f} mm noise "
            f"(wanted {LEAST_INSIDE:.0%} within {noise_max * 1e3:.1f} mm)",
            "Start nearer (10 mm and 10 deg), clean the points, or check that this is the right surface.",
        )


def _rivals(walked: Sequence[tuple[Array, _Look]], best: Array, centre: Array, size: float) -> tuple[Array, ...]:
    """Return other places whose robust residual is nearly as small."""
    found: list[Array] = []
    about = np.eye(4)
    about[:3, 3] = centre
    least = walked[0][1].sigma
    for transform, look in walked[1:]:
        if look.sigma > RIVAL_COST * least:
            break
        if all(_moved(difference(transform @ about, other @ about), size) > RIVAL_M for other in (best, *found)):
            found.append(transform)
    return tuple(found)
