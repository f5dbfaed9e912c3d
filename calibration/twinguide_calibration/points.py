"""Point-based rigid registration under anisotropic noise, with the covariance of the fit.

The closed form (Arun 1987; Umeyama 1991, with the determinant corrected) is the answer where the noise is alike in all
directions; where it is not, it starts a Gauss-Newton iteration of the weighted least squares `sum_i r_i' S_i^-1 r_i`,
which reaches the Cramer-Rao bound where the covariances S_i are the true ones. The perturbation is on the right:
`T_true = T exp(delta)`, delta = (rotation vector, translation) in source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, sqrt

import numpy as np

from twinguide_calibration.layouts import (
    COLLINEAR_RATIO,
    check_layouts,
    check_mirror,
    check_rotation,
    check_size,
    inverse_of,
)
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, as_floats, compose, exponential, no_rows, point_jacobian

ROOT_STEPS = 30
STEP_CONVERGED = 1e-9  # [rad, m] a nanometre is far below any sensor's noise


@dataclass(frozen=True, slots=True, eq=False)
class RigidFit:
    """A rigid transform `target_from_source` with its error.

    `covariance` (6, 6) is over (rotation vector [rad], translation [m]) in source, perturbation on the right.
    `misfit` is the weighted sum of squared residuals over its degrees of freedom: near 1 where the stated covariances
    are right; 1 by construction where none were given. `freedom` lies behind the covariance's size: infinite where the
    noise was given, 3n - 6 where it was estimated (`tre_p95` and `covers` heed it).
    """

    rotation: Array  # (3, 3)
    translation: Array  # (3,) [m]
    covariance: Array  # (6, 6)
    residuals: Array  # (n,) [m], distances in target
    fre_rms: float  # [m]; says nothing about the error at a target (Fitzpatrick 2009)
    singular_values: Array  # (3,) [m], rms extents of the source layout along its principal axes
    misfit: float
    freedom: float = inf
    rejected: Ints = field(default_factory=no_rows)  # a least-squares fit takes every row; `register_robust` does not
    notes: tuple[str, ...] = ()
    shared: Array | None = None  # (6, k) covariance of the pose's error with those that all points share

    @property
    def transform(self) -> Array:
        """Return `target_from_source`, shape (4, 4)."""
        return compose(self.rotation, self.translation)

    def apply(self, points: Array) -> Array:
        """Return points [m], shape (..., 3), mapped from source into target."""
        return points @ self.rotation.T + self.translation


def align_points(source: Array, target: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return the bare (rotation (3, 3), translation (3,) [m]) that maps source onto target, without its error.

    `source`, `target` [m], float64, shape (n, 3), paired by row; `weights` (n,), positive (Markley 1993; where the
    turn is hardly held Umeyama 1991, eq. 40-42). Raises CalibrationRefused for fewer than 3 points, and points that are
    not finite, coincide or lie on a line.
    """
    n = len(source)
    if n < 3 or source.shape != (n, 3) or target.shape != (n, 3):
        check_layouts(source[None], target[None], None)
    share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    centre_s: Array = share.dot(source)  # `dot` takes half of the time of `@` on matrices as small as these
    centre_t: Array = share.dot(target)
    rotation = None
    if all(map(isfinite, centre_s.tolist() + centre_t.tolist())):
        left = (target - centre_t).T if weights is None else (target - centre_t).T * share
        rotation = _rotation_of(left.dot(source - centre_s))
    if rotation is None:
        check_layouts(source[None], target[None], None)
        return tuple(part[0] for part in _closed_form(source[None], target[None], share[None]))
    return rotation, centre_t - rotation.dot(centre_s)


def _rotation_of(cross: Array) -> Array | None:
    """Return the rotation nearest to a cross-covariance, shape (3, 3), or None where it is hardly determined.

    FOAM (Markley 1993, J. Astronaut. Sci. 41, 261): the sum of the singular values, the last one with the sign of the
    determinant, is the largest root of a quartic; from above, Newton's steps reach it. Twice as quick as an SVD.
    """
    (a, b, c), (d, e, f), (g, h, i) = cross.tolist()
    cofactors = (
        (e * i - f * h, f * g - d * i, d * h - e * g),
        (c * h - b * i, a * i - c * g, b * g - a * h),
        (b * f - c * e, c * d - a * f, a * e - b * d),
    )
    determinant = a * cofactors[0][0] + b * cofactors[0][1] + c * cofactors[0][2]
    norm = a * a + b * b + c * c + d * d + e * e + f * f + g * g + h * h + i * i
    minors = sum(v * v for row in cofactors for v in row)
    total = sqrt(3.0 * norm)
    for _ in range(ROOT_STEPS):
        left = total * total - norm
        slope = 4.0 * total * left - 8.0 * determinant
        step = (left * left - 8.0 * total * determinant - 4.0 * minors) / slope if slope > 0.0 else 0.0
        total -= step
        if not step > 1e-15 * total:
            break
    held = 0.5 * (total * total - norm)  # s1 s2 + s2 s3 + s3 s1
    if not held > COLLINEAR_RATIO**2 * norm:
        return None
    inner: Array = (held + norm) * cross + total * np.array(cofactors) - cross.dot(cross.T.dot(cross))
    return inner / (held * total - determinant)


def register_points(
    source: Array, target: Array, covariances: Array | None = None, shared: Array | None = None
) -> RigidFit:
    """Return the rigid transform that best maps source points onto target points.

    `source`, `target` [m], shape (n, 3), n >= 3, paired by row. `covariances` [m2], shape (n, 3, 3), are those of
    `target - target_from_source(source)`, told in target; without them the noise is taken as isotropic and its size is
    estimated from the residuals. `shared` [m], shape (n, 3, k): how far each target point is moved by k errors of
    variance 1 that all points have in common, as that of the tip which touched them; the covariances contain them.
    Raises CalibrationRefused for fewer than 3 points, points that coincide or lie on a line, layouts of different size
    (mixed units) or handedness (swapped axes), numbers that are not finite, covariances that are not positive definite,
    and noise too large for the layout.
    """
    source, target = as_floats(source), as_floats(target)
    check_size(source, target)
    check_mirror(source, target)
    if covariances is None:
        if shared is not None:
            raise CalibrationRefused("wanted the points' covariances beside what their errors share; got none")
        return _isotropic(source, target)
    fit = register_layouts(source[None], target[None], as_floats(covariances)[None])[0]
    return fit if shared is None else _shared(fit, source, target, as_floats(covariances), as_floats(shared))


def _shared(fit: RigidFit, source: Array, target: Array, covariances: Array, shared: Array) -> RigidFit:
    """Return the fit with the errors that all points share, `shared` (n, 3, k), estimated beside the pose.

    Generalised least squares (Aitken 1936), the common errors as parameters known beforehand to be of variance 1. One
    step from the fit that took every error as a point's own: the two differ by less than the noise.
    """
    if shared.ndim != 3 or shared.shape[:2] != source.shape or not np.isfinite(shared).all():
        raise CalibrationRefused(f"wanted finite shared errors of shape {source.shape} and k; got {shared.shape}")
    turn, count = fit.rotation, shared.shape[2]
    jacobian = np.concatenate([point_jacobian(source), turn.T @ shared], axis=2)
    own = covariances - shared @ shared.transpose(0, 2, 1)
    weights = turn.T @ inverse_of(own, "a point's covariance, less what all share,") @ turn
    residual = ((target - fit.translation) @ turn - source)[..., None]
    product = jacobian.transpose(0, 2, 1) @ weights
    information = (product @ jacobian).sum(axis=0) + np.diag([0.0] * 6 + [1.0] * count)
    covariance = as_floats(np.linalg.inv(information))
    step = covariance @ (product @ residual).sum(axis=0)[:, 0]
    left = residual - (jacobian @ step)[..., None]
    square = float((left.transpose(0, 2, 1) @ weights @ left).sum() + step[6:] @ step[6:])
    rotation, translation = turn @ exponential(step[:3]), fit.translation + turn @ step[3:6]
    distances = np.linalg.norm(target - source @ rotation.T - translation, axis=1)
    return replace(
        fit,
        rotation=rotation,
        translation=translation,
        covariance=covariance[:6, :6],
        residuals=distances,
        fre_rms=sqrt(float((distances**2).mean())),
        misfit=square / (3 * len(source) - 6),
        shared=covariance[:6, 6:],
    )


def _isotropic(source: Array, target: Array) -> RigidFit:
    """Return the fit in closed form: the information comes from the layout's first and second moments."""
    extents = check_layouts(source[None], target[None], None)[0]
    n = len(source)
    rotation, translation = align_points(source, target)
    residual = target - source @ rotation.T - translation
    square = np.einsum("ij,ij->i", residual, residual)
    freedom = 3 * n - 6
    variance = float(square.sum()) / freedom
    jacobian = point_jacobian(source).reshape(3 * n, 6)
    covariance = as_floats(np.linalg.inv(jacobian.T @ jacobian)) * variance
    check_rotation(covariance[None])
    rms = sqrt(float(square.sum()) / n)
    return RigidFit(
        rotation=rotation,
        translation=translation,
        covariance=covariance,
        residuals=np.sqrt(square),
        fre_rms=rms,
        singular_values=extents,
        misfit=1.0,
        freedom=float(freedom),
    )


def register_layouts(
    source: Array, target: Array, covariances: Array | None = None, iterations: int = 20
) -> Sequence[RigidFit]:
    """Return one fit for each of k layouts of n points: `register_points` for all tools of an exposure at once.

    `source`, `target` [m], shape (k, n, 3); `covariances` [m2], shape (k, n, 3, 3). At most `iterations` Gauss-Newton
    steps; from the closed form one is enough where the noise is small against the layout. Raises as
    `register_points`; one layout that is refused refuses all.
    """
    extents = check_layouts(source, target, covariances)
    n = source.shape[1]
    weights = np.tile(np.eye(3), (*source.shape[:2], 1, 1)) if covariances is None else inverse_of(covariances)
    rotation, translation = _closed_form(source, target, np.trace(weights, axis1=2, axis2=3))
    jacobian = point_jacobian(source)
    for _ in range(iterations if covariances is not None else 0):
        step, _ = _gauss_newton(source, target, weights, jacobian, rotation, translation)
        translation = translation + np.einsum("kij,kj->ki", rotation, step[:, 3:])
        rotation = rotation @ exponential(step[:, :3])
        if np.abs(step).max() < STEP_CONVERGED:
            break
    _, information = _gauss_newton(source, target, weights, jacobian, rotation, translation)
    covariance = as_floats(np.linalg.inv(information))
    residual = target - (source @ rotation.transpose(0, 2, 1) + translation[:, None])
    misfit = np.einsum("kni,knij,knj->k", residual, weights, residual) / (3 * n - 6)
    freedom = inf
    if covariances is None:
        covariance, misfit, freedom = covariance * misfit[:, None, None], np.ones_like(misfit), 3.0 * n - 6.0
    check_rotation(covariance)
    distances = np.sqrt((residual**2).sum(axis=2))
    rms = np.sqrt((distances**2).mean(axis=1))
    return [
        RigidFit(
            rotation=rotation[k],
            translation=translation[k],
            covariance=covariance[k],
            residuals=distances[k],
            fre_rms=float(rms[k]),
            singular_values=extents[k],
            misfit=float(misfit[k]),
            freedom=freedom,
        )
        for k in range(len(source))
    ]


def _closed_form(source: Array, target: Array, weights: Array) -> tuple[Array, Array]:
    """Return rotations (k, 3, 3) and translations (k, 3) of the scalar-weighted problem (Umeyama 1991, eq. 40-42)."""
    w = (weights / weights.sum(axis=1, keepdims=True))[..., None]
    centre_s, centre_t = (w * source).sum(axis=1), (w * target).sum(axis=1)
    cross = (w * (target - centre_t[:, None])).transpose(0, 2, 1) @ (source - centre_s[:, None])
    u, _, vt = np.linalg.svd(cross)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation = u @ vt
    return rotation, centre_t - np.einsum("kij,kj->ki", rotation, centre_s)


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
    return (as_floats(np.linalg.inv(information)) @ gradient)[..., 0], information
