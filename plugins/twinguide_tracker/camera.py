"""What a camera makes of true tool poses: noisy spheres, and from them poses with their covariance. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration import CalibrationRefused, RigidFit, register_layouts

Array = NDArray[np.float64]
MISFIT_LIMIT = 7.0  # chi-square of 42 at 6 degrees of freedom: one sound fit in 5 million is refused
GAUSS_NEWTON_STEPS = 2  # from the closed form; a third changes nothing above a nanometre


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A tool's sphere layout [m], shape (n, 3), and the noise [m], shape (3,), per sphere and camera axis."""

    spheres: Array
    noise: Array

    def expose(self, places: Array, draw: Array) -> Array:
        """Return spheres as seen [m], shape (k, n, 3): true places [m] with noise from a standard normal draw."""
        return places + draw * self.noise

    def fit(self, seen: Array) -> list[RigidFit | str]:
        """Return for each tool's spheres [m], shape (k, n, 3), its pose, or the reason why there is none."""
        if not len(seen):
            return []
        covariances = np.broadcast_to(np.diag(self.noise**2), (*seen.shape, 3))
        source = np.broadcast_to(self.spheres, seen.shape)
        try:
            fits = register_layouts(source, seen, covariances, GAUSS_NEWTON_STEPS)
        except CalibrationRefused as error:
            return [error.reason] * len(seen)
        return [fit if fit.misfit < MISFIT_LIMIT else _misfit(fit) for fit in fits]


def _misfit(fit: RigidFit) -> str:
    return f"its spheres do not fit its layout (residual {fit.fre_rms * 1e3:.1f} mm rms)"
