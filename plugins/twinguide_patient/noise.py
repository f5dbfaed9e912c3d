"""Seeded streams of chance, and smooth noise that is a pure function of time."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def generator(seed: int, stream: str) -> np.random.Generator:
    """Return a generator of its own for each stream, the same in every process of a run."""
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(stream.encode())])


class Wobble:
    """Band-limited noise of several axes: equal sinusoids of random frequency in a band, and random phase.

    `at(t_s)` has the given rms on each axis and is nearly normal (24 sinusoids).
    """

    def __init__(self, rng: np.random.Generator, axes: int, band_hz: tuple[float, float]) -> None:
        self._omega = 2 * np.pi * rng.uniform(*band_hz, (24, axes))
        self._phase = rng.uniform(0, 2 * np.pi, (24, axes))

    def at(self, t_s: float) -> Array:
        """Return noise of unit rms, shape (axes,), at a time [s]."""
        return np.sin(self._omega * t_s + self._phase).sum(axis=0) * np.sqrt(2.0 / 24)
