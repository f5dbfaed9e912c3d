"""Implicit shapes: signed distances [mm] on points [mm], (..., 3), nearly metric, negative inside; blends; contours."""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FAR_MM = 1e3


def point(x: float, y: float, z: float) -> Array:
    """Return a point or step [mm], (3,)."""
    return np.array([x, y, z], dtype=np.float64)


def ellipsoid(p: Array, centre: Array, radii: Array) -> Array:
    """Return the distance to an ellipsoid, exact on it and to first order near it."""
    q = (p - centre) / radii
    k0 = np.linalg.norm(q, axis=-1)
    k1 = np.linalg.norm(q / radii, axis=-1)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def cone(p: Array, a: Array, b: Array, radius_a: float, radius_b: float) -> Array:
    """Return the distance to a round cone from a to b, good for slowly changing radii."""
    ab = b - a
    t = np.clip(((p - a) @ ab) / max(float(ab @ ab), 1e-9), 0.0, 1.0)
    return np.linalg.norm(p - a - t[..., None] * ab, axis=-1) - (radius_a + (radius_b - radius_a) * t)


def union(a: Array, b: Array, blend: float) -> Array:
    """Return the smooth union of two shapes, rounded over `blend` [mm] (polynomial smooth minimum)."""
    h = np.maximum(blend - np.abs(a - b), 0.0) / blend
    return np.minimum(a, b) - h * h * blend * 0.25


def common(a: Array, b: Array, blend: float) -> Array:
    """Return the smooth intersection of two shapes."""
    return -union(-a, -b, blend)


def without(a: Array, b: Array, blend: float) -> Array:
    """Return shape a without shape b."""
    return common(a, -b, blend)


def waves(p: Array, rng: np.random.Generator, amplitude: float, count: int = 6) -> Array:
    """Return a smooth seeded field of displacements [mm], shaped as p: waves of 60 to 140 mm."""
    out = np.zeros_like(p)
    for _ in range(count):
        direction = rng.normal(size=3)
        k = 2 * np.pi / rng.uniform(60.0, 140.0) * direction / np.linalg.norm(direction)
        out += rng.normal(size=3) * np.sin(p @ k + rng.uniform(0, 2 * np.pi))[..., None]
    return out * (amplitude / np.sqrt(count))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of points [mm]."""

    low: Array
    shape: tuple[int, int, int]
    spacing: float

    @staticmethod
    def over(low: Array, high: Array, spacing: float) -> Grid:
        """Return a grid that covers a box."""
        nx, ny, nz = (int(n) + 1 for n in np.ceil((high - low) / spacing))
        return Grid(np.asarray(low, dtype=np.float64), (nx, ny, nz), spacing)

    def points(self) -> Array:
        """Return the points [mm], (nx, ny, nz, 3)."""
        return self.low + self.spacing * np.moveaxis(np.indices(self.shape), 0, -1)

    def contour(self, values: Array) -> tuple[Array, NDArray[np.int64]]:
        """Return vertices [mm] and outward triangles where a field, (nx, ny, nz), is zero.

        Values are rounded so that processors which differ in a last bit give the same surface.
        """
        nx, ny, nz = self.shape
        rounded = values.reshape(-1).round(6)
        rounded[np.abs(rounded) < 1e-4] = 1e-4  # a zero at a grid point would give triangles without area
        found = igl.marching_cubes(rounded, self.points().reshape(-1, 3), nz, ny, nx, 0.0)
        vertices, triangles = np.asarray(found[0], dtype=np.float64), np.asarray(found[1], dtype=np.int64)
        a, b, c = (vertices[triangles[:, k]] for k in range(3))
        if np.einsum("ij,ij->", a - vertices.mean(axis=0), np.cross(b - a, c - a)) < 0:
            triangles = triangles[:, ::-1]
        return vertices, triangles


def tubes(grid: Grid, segments: list[tuple[Array, Array, float, float]], blend: float) -> Array:
    """Return the smooth union of round cones on a grid, each worked out near itself only."""
    values = np.full(grid.shape, FAR_MM)
    points = grid.points()
    reach = 3 * grid.spacing + blend
    for a, b, radius_a, radius_b in segments:
        pad = max(radius_a, radius_b) + reach
        first = np.clip(np.floor((np.minimum(a, b) - pad - grid.low) / grid.spacing), 0, None).astype(int)
        last = np.ceil((np.maximum(a, b) + pad - grid.low) / grid.spacing).astype(int) + 1
        box = tuple(slice(i, j) for i, j in zip(first, last, strict=True))
        values[box] = union(values[box], cone(points[box], a, b, radius_a, radius_b), blend)
    return values


def smooth(vertices: Array, triangles: NDArray[np.int64], rounds: int = 8) -> Array:
    """Return vertices with the steps of the grid smoothed away and the volume kept (Taubin 1995)."""
    links = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    count = np.bincount(links[:, 0], minlength=len(vertices))[:, None]
    for step in (0.5, -0.53) * rounds:
        total = np.stack([np.bincount(links[:, 0], vertices[links[:, 1], k], len(vertices)) for k in range(3)], axis=1)
        vertices = vertices + step * (total / count - vertices)
    return vertices
