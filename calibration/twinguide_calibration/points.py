"""Point-based rigid registration under anisotropic noise, with the covariance of the fit.

The closed form (Arun 1987; Umeyama 1991, with the determinant corrected) starts a Gauss-Newton iteration of the
weighted least squares `sum_i r_i' S_i^-1 r_i`, which reaches the Cramer-Rao bound where the covariances S_i are the
true ones. The perturbation is on the right: `T_true = T exp(delta)`, delta = (rotation vector, translation) in source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
COLLINEAR_RATIO = 0.01  # second over first singular value of the source layout: a line but for 1 %
ROTATION_SIGMA_MAX = 0.2  # [rad] beyond it the linear covariance says nothing any more
STEP_CONVERGED = 1e-9  # [rad, m] a nanometre is far below any sensor's noise


@dataclass(frozen=True, slots=True, eq=False)
class RigidFit:
    """A rigid transform `target_from_source` with its error.

    `covariance` (6, 6) is over (rotation vector [rad], translation [m]) in source, perturbation on the right.
    `misfit` is the weighted sum of squared residuals over its degrees of freedom: near 1 where the stated covariances
    are right; 1 by construction where none were given.
    """

    rotation: Array  # (3, 3)
    translation: Array  # (3,) [m]
    covariance: Array  # (6, 6)
    residuals: Array  # (n,) [m], distances in target
    fre_rms: float  # [m]; says nothing about the error at a target (Fitzpatrick 2009)
    singular_values: Array  # (3,) [m], rms extents of the source layout along its principal axes
    misfit: float

    def apply(self, points: Array) -> Array:
        """Return points [m], shape (..., 3), mapped from source into target."""
        return points @ self.rotation.T + self.translation


def register_points(source: Array, target: Array, covariances: Array | None = None) -> RigidFit:
    """Return the rigid transform that best maps source points onto target points.

    `source`, `target` [m], shape (n, 3), n >= 3, paired by row. `covariances` [m2], shape (n, 3, 3), are those of
    `target - target_from_source(source)`, told in target; without them the noise is taken as isotropic and its size is
    estimated from the residuals. Raises CalibrationRefused for fewer than 3 points, points that coincide or lie on a
    line, numbers that are not finite, covariances that are not positive definite, and noise too large for the layout.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    batch = None if covariances is None else np.asarray(covariances, dtype=np.float64)[None]
    return register_layouts(source[None], target[None], batch)[0]


def register_layouts(
    source: Array, target: Array, covariances: Array | None = None, iterations: int = 20
) -> Sequence[RigidFit]:
    """Return one fit for each of k layouts of n points: `register_points` for all tools of an exposure at once.

    `source`, `target` [m], shape (k, n, 3); `covariances` [m2], shape (k, n, 3, 3). At most `iterations` Gauss-Newton
    steps; from the closed form one is enough where the noise is small against the layout. Raises as
    `register_points`; one layout that is refused refuses all.
    """
    extents = _check(source, target, covariances)
    n = source.shape[1]
    weights = np.tile(np.eye(3), (*source.shape[:2], 1, 1)) if covariances is None else _inverse(covariances)
    rotation, translation = _closed_form(source, target, np.trace(weights, axis1=2, axis2=3))
    jacobian = _jacobian(source)
    for _ in range(iterations):
        step, _ = _gauss_newton(source, target, weights, jacobian, rotation, translation)
        translation = translation + np.einsum("kij,kj->ki", rotation, step[:, 3:])
        rotation = rotation @ _exponential(step[:, :3])
        if np.abs(step).max() < STEP_CONVERGED:
            break
    _, information = _gauss_newton(source, target, weights, jacobian, rotation, translation)
    covariance = _float(np.linalg.inv(information))
    residual = target - (source @ rotation.transpose(0, 2, 1) + translation[:, None])
    misfit = np.einsum("kni,knij,knj->k", residual, weights, residual) / (3 * n - 6)
    if covariances is None:
        covariance, misfit = covariance * misfit[:, None, None], np.ones_like(misfit)
    _check_rotation(covariance)
    distances = np.sqrt((residual**2).sum(axis=2))
    rms = np.sqrt((distances**2).mean(axis=1))
    rows = zip(rotation, translation, covariance, distances, rms.tolist(), extents, misfit.tolist(), strict=True)
    return [RigidFit(*row) for row in rows]


def _check(source: Array, target: Array, covariances: Array | None) -> Array:
    """Refuse what cannot carry a fit; return the layouts' rms extents [m], shape (k, 3)."""
    if source.ndim != 3 or source.shape[2] != 3 or source.shape != target.shape:
        raise CalibrationRefused(f"wanted paired points of shape (n, 3); got {source.shape[1:]} and {target.shape[1:]}")
    if source.shape[1] < 3:
        raise CalibrationRefused(f"wanted at least 3 points; got {source.shape[1]}. Touch more landmarks.")
    if covariances is not None and covariances.shape != (*source.shape, 3):
        raise CalibrationRefused(f"wanted one 3x3 covariance a point; got shape {covariances.shape[1:]}")
    if not all(np.isfinite(a).all() for a in (source, target, covariances) if a is not None):
        raise CalibrationRefused("wanted finite points and covariances; got NaN or infinity")
    extents = _extents(source)
    for extents_of, name in ((extents, "source"), (_extents(target), "target")):
        if extents_of[:, 0].min() < 1e-9:
            raise CalibrationRefused(f"all {name} points coincide. Touch landmarks that lie apart.")
        ratio = float((extents_of[:, 1] / extents_of[:, 0]).min())
        if ratio < COLLINEAR_RATIO:
            raise CalibrationRefused(
                f"the {name} points lie on a line (second extent {ratio:.2g} of the first), so the turn about it is "
                "unknown. Add a landmark away from the line."
            )
    return extents


def _extents(points: Array) -> Array:
    centred = points - points.mean(axis=1, keepdims=True)
    scatter: Array = centred.transpose(0, 2, 1) @ centred / points.shape[1]
    return np.sqrt(np.maximum(_float(np.linalg.eigvalsh(scatter))[:, ::-1], 0.0))


def _inverse(covariances: Array) -> Array:
    try:
        np.linalg.cholesky(covariances)
        return _float(np.linalg.inv(covariances))
    except np.linalg.LinAlgError as error:
        raise CalibrationRefused("a point's covariance is not positive definite") from error


def _closed_form(source: Array, target: Array, weights: Array) -> tuple[Array, Array]:
    """Return rotations (k, 3, 3) and translations (k, 3) of the scalar-weighted problem (Umeyama 1991, eq. 40-42)."""
    w = (weights / weights.sum(axis=1, keepdims=True))[..., None]
    centre_s, centre_t = (w * source).sum(axis=1), (w * target).sum(axis=1)
    cross = (w * (target - centre_t[:, None])).transpose(0, 2, 1) @ (source - centre_s[:, None])
    u, _, vt = np.linalg.svd(cross)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation = u @ vt
    return rotation, centre_t - np.einsum("kij,kj->ki", rotation, centre_s)


def _jacobian(points: Array) -> Array:
    """Return d(point)/d(delta) in source, shape (..., 3, 6): `[-skew(p) | I]`."""
    jacobian = np.zeros((*points.shape, 6))
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    jacobian[..., 0, 1], jacobian[..., 0, 2] = z, -y
    jacobian[..., 1, 0], jacobian[..., 1, 2] = -z, x
    jacobian[..., 2, 0], jacobian[..., 2, 1] = y, -x
    jacobian[..., 0, 3] = jacobian[..., 1, 4] = jacobian[..., 2, 5] = 1.0
    return jacobian


def _gauss_newton(
    source: Array, target: Array, weights: Array, jacobian: Array, rotation: Array, translation: Array
) -> tuple[Array, Array]:
    """Return the step (k, 6) and the information (k, 6, 6) at a transform, both in source."""
    turn = rotation[:, None]
    weighted = turn.transpose(0, 1, 3, 2) @ weights @ turn  # the weights told in source axes
    residual = (target - translation[:, None]) @ rotation - source
    product = jacobian.transpose(0, 1, 3, 2) @ weighted
    information: Array = (product @ jacobian).sum(axis=1)
    gradient = (product @ residual[..., None]).sum(axis=1)
    return (_float(np.linalg.inv(information)) @ gradient)[..., 0], information


def _exponential(vectors: Array) -> Array:
    """Return the rotations, shape (k, 3, 3), of rotation vectors [rad], shape (k, 3) (Rodrigues)."""
    angle = np.sqrt((vectors**2).sum(axis=1))[:, None, None]
    safe = np.maximum(angle, 1e-12)
    skew = -_jacobian(vectors)[:, :, :3]
    return np.eye(3) + np.sin(safe) / safe * skew + (1.0 - np.cos(safe)) / safe**2 * (skew @ skew)


def _check_rotation(covariance: Array) -> None:
    worst = float(np.sqrt(np.linalg.eigvalsh(covariance[:, :3, :3])[:, -1].max()))
    if not worst <= ROTATION_SIGMA_MAX:
        raise CalibrationRefused(
            f"the points leave the rotation unknown by {np.degrees(worst):.0f} deg (1 sigma). "
            "Use points that lie farther apart, or touch them more exactly."
        )


def _float(values: NDArray[np.floating[Any]]) -> Array:
    return np.asarray(values, dtype=np.float64)
