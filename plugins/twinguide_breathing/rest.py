"""Notice that reference and chest marker have crept against each other, by what breathing does not explain.

A reference body that creeps on the patient takes the registration with it, too slowly to be told as a bump. What tells
is the chest: at the end of expiration it rests where it did, seen from the reference. Along its own direction of travel
another way of breathing looks the same, so only what lies across it counts. It may as well be the chest's marker that
crept: either way what is shown is less sure by as much, and only a landmark, touched anew, can tell.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .waveform import LONGEST_GAP_S

Array = NDArray[np.float64]

BLOCK_BREATHS = 2.0  # wherever in a breath it begins, a block holds a whole rest
REST_SHARE = 0.3  # of a block: breathers rest for longer
BASE_BLOCKS = 3  # where the chest rested at first
NOW_BLOCKS = 2
LEAST_SHARE = 0.7  # of a block's time, where the marker was hidden now and then
KNOWN_SIGMA_M = 1.5e-4  # of a block's rest, which four blocks known beforehand would tell
SURE_SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class Creep:
    """How far the rest has crept across the chest's travel [m], shape (3,), and how well that is known [m]."""

    shift: Array
    sigma: float

    @property
    def size(self) -> float:
        """The length of the shift [m]."""
        return float(np.linalg.norm(self.shift))


class RestWatch:
    """Follow where the chest rests, block by block; the first blocks tell where it belongs."""

    def __init__(self, direction: Array, period_s: float) -> None:
        """Take the unit vector of inspiration, shape (3,), in reference, and a breath's length [s]."""
        self._direction, self._block_s = direction, BLOCK_BREATHS * period_s
        self._times: list[float] = []
        self._positions: list[Array] = []
        self._base: list[Array] = []
        self._newest: deque[Array] = deque(maxlen=NOW_BLOCKS)
        self.creep: Creep | None = None  # None until the base is known and blocks have followed it

    def add(self, t_s: float, position: Array) -> None:
        """Take the chest marker's place [m], shape (3,), at a time [s]; times run forwards."""
        if self._times and t_s - self._times[0] >= self._block_s:
            gaps = np.diff(self._times)
            if gaps[gaps < LONGEST_GAP_S].sum() >= LEAST_SHARE * self._block_s:
                self._close(np.array(self._positions))
            self._times, self._positions = [], []
        self._times.append(t_s)
        self._positions.append(position)

    def _close(self, positions: Array) -> None:
        along = positions @ self._direction
        rest = positions[along <= np.quantile(along, REST_SHARE)].mean(axis=0)
        rest = rest - (rest @ self._direction) * self._direction
        if len(self._base) < BASE_BLOCKS:
            self._base.append(rest)
            return
        self._newest.append(rest)
        base = np.array(self._base)
        off = base - base.mean(axis=0)
        # two directions across; the blocks' own scatter is drawn towards what is known beforehand
        variance = (4 * KNOWN_SIGMA_M**2 + float(np.sum(off**2)) / 2) / (4 + BASE_BLOCKS - 1)
        sigma = float(np.sqrt(variance * (1 / BASE_BLOCKS + 1 / len(self._newest))))
        self.creep = Creep(np.mean(self._newest, axis=0) - base.mean(axis=0), sigma)

    def covariance(self) -> Array:
        """Return what the creep adds to the covariance of what is shown in reference [m2], shape (3, 3).

        Along the travel it is not seen, and as large as in one direction across.
        """
        creep = self.creep
        if creep is None or creep.size < SURE_SIGMAS * creep.sigma:
            return np.zeros((3, 3))
        return np.outer(creep.shift, creep.shift) + 0.5 * creep.size**2 * np.outer(self._direction, self._direction)
