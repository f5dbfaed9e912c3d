"""How the error of a fit shows at a point: TRE, not FRE. Covariances are propagated, radii hold 95 %."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
from scipy.special import chdtrc, chdtri, fdtri  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, as_floats, point_jacobian


class Fit(Protocol):
    """What of a fit its error needs: any fit of a rigid transform serves."""

    @property
    def rotation(self) -> Array:
        """Return the rotation, shape (3, 3)."""
        ...

    @property
    def covariance(self) -> Array:
        """Return the covariance, shape (6, 6), perturbation on the right."""
        ...

    @property
    def freedom(self) -> float:
        """Return the degrees of freedom behind the covariance's size."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ErrorMap:
    """The error at each of m points, in target: covariances (m, 3, 3) [m2], rms (m,) and 95 % radii (m,) [m]."""

    covariances: Array
    rms: Array
    p95: Array


def tre_covariance(fit: Fit, points: Array) -> Array:
    """Return the covariance [m2], shape (m, 3, 3), in target, that a fit's error causes at points in source.

    `points` [m], shape (m, 3). `J C J'` with `J = R [-skew(p) | I]`: the Cramer-Rao bound, where the covariances given
    to the fit were the true ones.
    """
    jacobian = fit.rotation @ point_jacobian(as_floats(points))
    return jacobian @ fit.covariance @ np.swapaxes(jacobian, 1, 2)


def tre_p95(fit: Fit, points: Array) -> Array:
    """Return the radii [m], shape (m,), that hold 95 % of a fit's errors at points [m], shape (m, 3), in source."""
    return p95_radius(tre_covariance(fit, points), fit.freedom)


def error_map(fit: Fit, vertices: Array) -> ErrorMap:
    """Return a fit's error at each vertex [m], shape (m, 3), in source, of an organ's surface."""
    covariances = tre_covariance(fit, vertices)
    rms = np.sqrt(np.einsum("mii->m", covariances))
    return ErrorMap(covariances, rms, p95_radius(covariances, fit.freedom))


def layout_covariance(source: Array, covariances: Array, weights: Array | None = None) -> Array:
    """Return the covariance, shape (6, 6), in source, that a layout will give before anything is touched.

    `source` [m], shape (n, 3); `covariances` [m2], shape (n, 3, 3), the true noise told in source axes; `weights`,
    shape (n, 3, 3), those that the fit will use, none for a plain one. The sandwich `H^-1 (sum J'W S W J) H^-1` with
    `H = sum J'W J`; `weights = inv(covariances)` gives the Cramer-Rao bound.
    """
    jacobian = point_jacobian(as_floats(source))
    product = np.swapaxes(jacobian, 1, 2) if weights is None else np.swapaxes(jacobian, 1, 2) @ weights
    information = (product @ jacobian).sum(axis=0)
    values = np.linalg.eigvalsh(information)
    if not values[0] > 1e-12 * values[-1]:
        raise CalibrationRefused("the layout lies on a line", "Add a point away from it.")
    meat = (product @ covariances @ np.swapaxes(product, 1, 2)).sum(axis=0)
    bread: Array = as_floats(np.linalg.inv(information))
    return bread @ meat @ bread


def fitzpatrick_west(source: Array, fle_rms: float, points: Array) -> Array:
    """Return the rms TRE [m], shape (m,), for isotropic noise of `fle_rms` [m] (three axes together), for comparison.

    `source` [m], shape (n, 3), `points` [m], shape (m, 3) (Fitzpatrick, West & Maurer 1998, eq. 46). Up to 40 % too
    small for a camera whose depth is its worst axis: use `tre_covariance`.
    """
    source, points = as_floats(source), as_floats(points)
    centred = source - source.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    along = (points - source.mean(axis=0)) @ axes.T
    total = (values**2).sum()
    f2 = (total - values**2) / len(source)  # mean squared distances of the points from each principal axis
    d2 = (along**2).sum(axis=1, keepdims=True) - along**2
    return fle_rms * np.sqrt((1.0 + (d2 / f2).sum(axis=1) / 3.0) / len(source))


def p95_radius(covariances: Array, freedom: float = inf) -> Array:
    """Return the radii, shape (...), that hold 95 % of zero-mean normal errors with covariances, shape (..., k, k).

    The sum of weighted chi-squares is matched by a scaled one in its first two moments (Satterthwaite 1946); `freedom`
    degrees behind an estimated size widen it by F (Hotelling 1931). Within 2 % for any shape of the ellipsoid.
    """
    trace = np.einsum("...ii->...", covariances)
    square = np.einsum("...ij,...ji->...", covariances, covariances)
    some = (trace > 0.0) & (square > 0.0)
    k = np.where(some, trace, 1.0) ** 2 / np.where(some, square, 1.0)
    quantile = chdtri(k, 0.05) / k if np.isinf(freedom) else fdtri(k, freedom, 0.95)
    return np.where(some, np.sqrt(np.maximum(trace, 0.0) * quantile), 0.0)


def covers(errors: Array, covariance: Array, freedom: float = inf) -> Any:  # noqa: ANN401 - bool or array of bool
    """Return whether the 95 % region of a covariance, shape (..., k, k), holds errors, shape (..., k)."""
    k = errors.shape[-1]
    distance = np.einsum("...i,...i->...", errors, np.linalg.solve(covariance, errors[..., None])[..., 0])
    return distance <= region_limit(k, freedom)


def region_limit(k: int, freedom: float = inf) -> float:
    """Return the squared Mahalanobis distance that bounds the 95 % region of k values (Hotelling 1931)."""
    return float(chdtri(k, 0.05)) if np.isinf(freedom) else k * float(fdtri(k, freedom, 0.95))


def misfit_probability(misfit: float, freedom: float) -> float:
    """Return how often sound data have a `misfit` (chi-square over `freedom`) as large as this."""
    return float(chdtrc(freedom, misfit * freedom))
