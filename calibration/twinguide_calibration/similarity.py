"""Point registration with an unknown scale: for a model whose size is not known, never for two metric devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, sqrt

import numpy as np
from scipy.special import ndtr, stdtrit  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.points import align_points
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, as_floats, no_rows, point_jacobian

OTHER_SCALE = 3e-3  # metric devices are not so far off; another unit, or another board than was stated, is
OTHER_SIGMAS = 4.0  # of normal noise, or as unlikely by Student's t: chance makes no such difference


def is_other(scale: float, sigma: float, freedom: float = inf) -> bool:
    """Tell whether lengths differ by more than those of two metric devices do, from their ratio and its sigma.

    `freedom` is the degrees that sigma was estimated with.
    """
    return abs(scale - 1.0) > max(OTHER_SCALE, float(stdtrit(freedom, ndtr(OTHER_SIGMAS))) * sigma)


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityFit:
    """`target = scale * rotation @ source + translation` with its error.

    `covariance` (7, 7) is over (rotation vector [rad], translation, relative scale) in source: the true map is
    `scale (1 + e) rotation (exp(w) p + v) + translation`.
    """

    scale: float
    rotation: Array  # (3, 3)
    translation: Array  # (3,) [m] in target
    covariance: Array  # (7, 7)
    residuals: Array  # (n,) [m], distances in target
    fre_rms: float  # [m]
    freedom: float  # 3n - 7
    rejected: Ints = field(default_factory=no_rows)
    notes: tuple[str, ...] = ()

    @property
    def scale_sigma(self) -> float:
        """Return the standard deviation of the scale."""
        return self.scale * sqrt(self.covariance[6, 6])

    def apply(self, points: Array) -> Array:
        """Return points, shape (..., 3), mapped from source into target."""
        return self.scale * points @ self.rotation.T + self.translation


def register_similarity(source: Array, target: Array) -> SimilarityFit:
    """Return scale, rotation and translation that best map source onto target (Umeyama 1991, eq. 40-42).

    `source` in any unit, `target` [m], both shape (n, 3), n >= 3, paired by row; the noise is isotropic, in target, and
    its size is estimated. Raises CalibrationRefused as `align_points`.
    """
    source, target = as_floats(source), as_floats(target)
    if source.ndim != 2 or source.shape[1] != 3 or source.shape != target.shape:
        raise CalibrationRefused(f"wanted paired points of shape (n, 3); got {source.shape} and {target.shape}")
    rotation, _ = align_points(source, target)
    centre_s, centre_t = source.mean(axis=0), target.mean(axis=0)
    turned = (source - centre_s) @ rotation.T
    scale = float((turned * (target - centre_t)).sum() / (turned**2).sum())
    if not scale > 0.0:
        raise CalibrationRefused("no positive scale maps the points onto each other", "Are they paired row by row?")
    translation = centre_t - scale * rotation @ centre_s
    residual = target - scale * source @ rotation.T - translation
    square = (residual**2).sum(axis=1)
    freedom = 3 * len(source) - 7
    jacobian: Array = scale * np.concatenate([point_jacobian(source), source[:, :, None]], axis=2).reshape(-1, 7)
    covariance = as_floats(np.linalg.inv(jacobian.T @ jacobian)) * float(square.sum()) / freedom
    rms = float(np.sqrt(as_floats(square).mean()))
    return SimilarityFit(scale, rotation, translation, covariance, np.sqrt(square), rms, float(freedom))
