"""How sure each vertex is: what is not known of the tissue and its surroundings, the mesh, the solver and the sensors.

An error is e = b + sum_p a_p x_p with x_p standard normal: each `a_p` is what one sigma of one unknown does to a vertex
under the present drive (`response.py`), and `b` the mesh's bias as quadratic tetrahedra tell it. The radius that holds
95 % of |e| is found from the two first moments of |e|^2 (Patnaik 1949), whose quantile is Wilson & Hilferty's (1931):
exact for a bias alone, within 2 % for normal errors of any shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .response import Response

Array = NDArray[np.float64]
CHI_95 = 2.7955  # radius of a 3-D normal's 95 % region, in standard deviations
Z_95 = 1.6448536
BEYOND = 1.25  # the quadratic mesh's own error added to its difference: both fall alike, a quarter is left
BIAS_SHARE = 0.25  # of the bias that is not known: quadratic tetrahedra have an error of their own


def radius95(covariance: Array, bias: Array) -> Array:
    """Return radii [m], shape (n,), that hold 95 % of errors of a covariance [m2], (n, 6), about a bias [m], (n, 3).

    The covariance's six entries are xx, yy, zz, xy, xz, yz.
    """
    xx, yy, zz, xy, xz, yz = covariance.T
    x, y, z = bias.T
    mean = xx + yy + zz + x * x + y * y + z * z
    square = xx * xx + yy * yy + zz * zz + 2 * (xy * xy + xz * xz + yz * yz)
    through = xx * x * x + yy * y * y + zz * z * z + 2 * (xy * x * y + xz * x * z + yz * y * z)
    some = mean > 0
    k = np.where(some, 2.0 / 9.0 * (square + 2 * through) / np.where(some, mean, 1.0) ** 2, 0.0)
    return np.sqrt(np.maximum(mean, 0.0) * (1.0 - k + Z_95 * np.sqrt(k)) ** 3)


class ErrorModel:
    """The error of each of n vertices for a drive, a few products a frame; `mesh` is `response.mesh_error`."""

    def __init__(self, response: Response, mesh: Array) -> None:
        p, size, q = response.unknown.shape
        self._count, self._p = size // 3, p
        wide = np.pad(BEYOND * mesh, ((0, 0), (0, q - mesh.shape[1])))
        stacked = np.concatenate([response.unknown, response.columns[None], wide[None]])
        self._columns = np.ascontiguousarray(stacked.reshape(-1, q))
        self._noise = response.noise

    def moved(self, drive: Array) -> Array:
        """Return the linear answer [m], shape (n, 3), to a drive [m], shape (q,)."""
        first = self._p * 3 * self._count
        return (self._columns[first : first + 3 * self._count] @ drive).reshape(-1, 3)

    def sigma(self, drive: Array, *, solver_m: float = 0.0, bias: Array | None = None) -> Array:
        """Return each vertex's error [m], shape (n,): 2.7955 of it hold 95 % of that vertex's errors.

        `drive` [m], shape (q,); `solver_m` [m] is the solver's (and a reduction's) own, rms over vertices; `bias` [m],
        shape (n, 3), is what the answer is known to lack, as a rigid body lacks its deformation.
        """
        parts = (self._columns @ drive).reshape(-1, self._count, 3)
        unknown, mesh = parts[: self._p], parts[-1]
        terms = np.concatenate([unknown, BIAS_SHARE * mesh[None]])
        covariance = np.empty((self._count, 6))
        for k, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
            covariance[:, k] = np.einsum("pn,pn->n", terms[:, :, a], terms[:, :, b]) + self._noise[:, a, b]
        covariance[:, :3] += solver_m**2 / 3
        return radius95(covariance, mesh if bias is None else mesh + bias) / CHI_95
