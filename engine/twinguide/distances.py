"""Signed distances on regular grids: of one structure at some points, or of many structures at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import Array


@dataclass(frozen=True, slots=True, eq=False)
class DistanceGrid:
    """Signed distance [m] to a surface, negative inside, on a regular grid that holds the whole surface."""

    origin: Array  # (3,) [m], in image, of values[0, 0, 0]
    spacing: float  # [m]
    values: NDArray[np.float32]  # (nx, ny, nz) [m]

    def at(self, points: Array) -> Array:
        """Return the signed distance [m], (n,), at points [m], (n, 3), in image: trilinear inside the grid.

        Outside it is a lower bound: the surface lies in the grid's box, which is convex, so with d to the box and v
        at its nearest point the true distance is at least sqrt(d^2 + v^2). A point that is not finite gives NaN.
        """
        return DistanceGrids((self,)).at(np.asarray(points, dtype=np.float64)[None])[0]


class DistanceGrids:
    """Several grids, looked up in one go: a frame asks five structures in the time of one."""

    def __init__(self, grids: Sequence[DistanceGrid]) -> None:
        shapes = np.array([grid.values.shape for grid in grids], dtype=np.int64).reshape(-1, 3)
        flat = [grid.values.reshape(-1) for grid in grids]
        self._values = flat[0] if len(flat) == 1 else np.concatenate([*flat, np.zeros(0, dtype=np.float32)])
        # coordinates lead: NumPy passes whole rows of one in half the time that it takes for three numbers at a time
        self._origin = np.array([grid.origin for grid in grids]).reshape(-1, 3).T[..., None]
        self._spacing = np.array([grid.spacing for grid in grids]).reshape(-1, 1)
        self._last = shapes.T[..., None] - 1.0
        self._last_cell = self._last - 1.0
        _, ny, nz = shapes.T[..., None]
        self._ny, self._nz = ny.astype(np.float64), nz.astype(np.float64)
        start = np.cumsum([0, *(len(values) for values in flat[:-1])], dtype=np.int64)[: len(flat), None]
        corners = [zero := np.zeros_like(nz), zero + 1, nz, nz + 1]
        self._corners = start + np.stack([*corners, *(corner + ny * nz for corner in corners)])

    def at(self, points: Array) -> Array:
        """Return the signed distances [m], (k, n), of the k grids at points [m], (k, n, 3); see `DistanceGrid.at`."""
        return self.with_rise(points)[0]

    def with_rise(self, points: Array) -> tuple[Array, Array]:
        """Return the distances as `at` does, and how they rise along the last axis [m/m], (k, n), inside the grids."""
        index = (np.ascontiguousarray(np.moveaxis(points, -1, 0)) - self._origin) / self._spacing
        inside = np.fmin(np.fmax(index, 0.0), self._last)  # they take the number where the other is none
        low = np.floor(np.minimum(inside, self._last_cell))
        first = ((low[0] * self._ny + low[1]) * self._nz + low[2]).astype(np.int64)
        corners = self._values[first + self._corners].astype(np.float64)
        x, y, z = inside - low
        faces = corners[:4] + (corners[4:] - corners[:4]) * x
        edges = faces[:2] + (faces[2:] - faces[:2]) * y
        rise = edges[1] - edges[0]
        value = edges[0] + rise * z
        beyond = index - inside
        to_box = (beyond * beyond).sum(axis=0) * self._spacing**2
        far: Array = np.where(np.isfinite(to_box), np.sqrt(to_box + value * value), np.nan)
        return np.where(to_box == 0.0, value, far), rise / self._spacing
