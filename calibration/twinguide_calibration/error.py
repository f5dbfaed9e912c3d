"""How the error of a fit shows at a point: TRE, not FRE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.points import RigidFit

Array = NDArray[np.float64]


def tre_covariance(fit: RigidFit, points: Array) -> Array:
    """Return the covariance [m2], shape (m, 3, 3), in target, that a fit's error causes at points in source.

    `points` [m], shape (m, 3). `J C J'` with `J = R [-skew(p) | I]`: the Cramer-Rao bound, where the covariances given
    to the fit were the true ones.
    """
    points = np.asarray(points, dtype=np.float64)
    x, y, z, zero = points[:, 0], points[:, 1], points[:, 2], np.zeros(len(points))
    minus_skew = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=1).reshape(-1, 3, 3)
    jacobian = fit.rotation @ np.concatenate([minus_skew, np.tile(np.eye(3), (len(points), 1, 1))], axis=2)
    return jacobian @ fit.covariance @ jacobian.transpose(0, 2, 1)
