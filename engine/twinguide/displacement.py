"""How far a structure has moved *at a time*, and how certain that is."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from twinguide.errors import BusError
from twinguide.messages import Displacement
from twinguide.scene import Point


class DisplacementHistory:
    """The newest trajectory of how far a structure has moved, interpolated at display time."""

    def __init__(self) -> None:
        self.newest: Displacement | None = None
        self._times: tuple[int, ...] = ()
        self._rows = np.zeros((0, 12))  # mean and covariance of each time

    def add(self, message: Displacement) -> None:
        """Take a newer trajectory."""
        if self.newest is not None and message.t_ns <= self.newest.t_ns:
            return
        times = message.times_ns
        mean = message.mean.numpy()
        covariance = message.covariance.numpy()
        n = len(times)
        where = f"displacement of {message.of}"
        if n < 2 or list(times) != sorted(set(times)) or mean.shape != (n, 3) or covariance.shape != (n, 3, 3):
            got = f"{n} times, mean {mean.shape}, covariance {covariance.shape}"
            raise BusError("a trajectory: ascending times (n >= 2), (n, 3), (n, 3, 3)", got, where)
        if covariance.diagonal(axis1=1, axis2=2).min() < 0.0:
            raise BusError("covariances", f"a variance of {covariance.diagonal(axis1=1, axis2=2).min():g} m2", where)
        self.newest = message
        self._times = times
        self._rows = np.hstack([mean, covariance.reshape(-1, 9)])

    def at(self, t_ns: int, sigma_ns: int = 0) -> Point | None:
        """Return the displacement [m] at a time that is known to `sigma_ns` [ns]; None outside the trajectory."""
        if self.newest is None or not self._times[0] <= t_ns <= self._times[-1]:
            return None
        after = min(bisect_right(self._times, t_ns), len(self._times) - 1)
        start, end = self._times[after - 1], self._times[after]
        share = (t_ns - start) / (end - start)
        row = self._rows[after - 1] * (1.0 - share) + self._rows[after] * share
        covariance = row[3:].reshape(3, 3)
        if sigma_ns:
            step = (self._rows[after] - self._rows[after - 1])[:3] * (sigma_ns / (end - start))
            covariance += np.outer(step, step)
        return Point(row[:3], covariance)
