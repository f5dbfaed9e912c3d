"""The trunk about the liver: skin, ribs and the lower recess of the right pleura; mm, LPS, nominal size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fields import Grid, common

Array = NDArray[np.float64]
Triangles = NDArray[np.int64]
LOW_Z, HIGH_Z = -185.0, 175.0
CAGE_DEPTH = 34.0  # from the unfatted torso to the liver's room inside the ribs
RIB_DEPTH = 16.0
# rib number: how far forward it reaches [deg from the spine]; bone only, the cartilage is not there on CT surfaces
RIB_ENDS = {5: 152.0, 6: 152.0, 7: 150.0, 8: 140.0, 9: 127.0, 10: 113.0, 11: 92.0}
RIB_RING = 8


@dataclass(frozen=True)
class Torso:
    """An elliptic trunk: half width and half depth [mm], squareness, fat [mm]."""

    half_width: float
    half_depth: float
    power: float
    fat: float
    seed: int

    def radial(self, p: Array, offset: float) -> Array:
        """Return about the distance [mm] to the trunk's wall, moved outwards by `offset` [mm]."""
        waist = 1.0 - 0.05 * np.exp(-(((p[..., 2] + 95.0) / 60.0) ** 2))
        a, b = (self.half_width + offset) * waist, (self.half_depth + offset) * waist
        k = (np.abs(p[..., 0] / a) ** self.power + np.abs(p[..., 1] / b) ** self.power) ** (1 / self.power)
        return (k - 1.0) * np.hypot(p[..., 0], p[..., 1]) / np.maximum(k, 1e-6)

    def cage(self, p: Array) -> Array:
        """Return the distance [mm] to the room inside the ribs."""
        return self.radial(p, -CAGE_DEPTH)

    def wall(self, p: Array) -> Array:
        """Return the distance [mm] to the skin."""
        middle, half = 0.5 * (LOW_Z + HIGH_Z), 0.5 * (HIGH_Z - LOW_Z)
        return common(self.radial(p, self.fat), np.abs(p[..., 2] - middle) - half, 40.0)

    def skin(self, spacing: float) -> tuple[Array, Triangles]:
        """Return the skin's vertices [mm] and triangles."""
        reach = np.array([self.half_width, self.half_depth, 0.0]) + self.fat + 20.0
        low, high = -reach, reach
        low[2], high[2] = LOW_Z - 15.0, HIGH_Z + 15.0
        grid = Grid.over(low, high, spacing)
        return grid.contour(self.wall(grid.points()))


def ribs(torso: Torso, detail: float) -> tuple[Array, Triangles]:
    """Return ribs 5 to 11 of both sides as closed bent bars, vertices [mm] and triangles."""
    rng = np.random.default_rng([torso.seed, 3])
    drop = rng.uniform(56.0, 72.0)
    pitch = rng.uniform(25.0, 27.5)
    vertices: list[Array] = []
    triangles: list[Triangles] = []
    count = 0
    for number, end_deg in RIB_ENDS.items():
        top = 146.0 - pitch * (number - 5)
        for side in (-1.0, 1.0):
            v, t = _bar(_centreline(torso, side, top, drop, end_deg), max(10, round(27 / detail)))
            vertices.append(v)
            triangles.append(t + count)
            count += len(v)
    return np.concatenate(vertices), np.concatenate(triangles)


def _centreline(torso: Torso, side: float, top: float, drop: float, end_deg: float) -> Array:
    """Return a rib's centreline [mm], (200, 3): from beside the spine round the side, falling, to its front end."""
    angle = np.radians(np.linspace(10.0, end_deg, 200))
    a, b = torso.half_width - RIB_DEPTH, torso.half_depth - RIB_DEPTH
    power = 2.0 / torso.power
    x = side * a * np.sin(angle) ** power
    y = b * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    z = top - drop * np.sin(0.5 * angle) ** 1.5
    return np.stack([x, y, z], axis=1)


def _bar(line: Array, count: int) -> tuple[Array, Triangles]:
    """Return a closed bar of oval section, 12 mm high and 7 mm thick, about a line [mm], (n, 3)."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count)
    centre = np.stack([np.interp(at, length, line[:, k]) for k in range(3)], axis=1)
    ahead = np.gradient(centre, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    out = centre * [1.0, 1.0, 0.0]
    out -= ahead * np.einsum("ij,ij->i", out, ahead)[:, None]
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    up = np.cross(ahead, out)
    taper = np.sqrt(np.clip(1.0 - np.abs(np.linspace(-1.0, 1.0, count)) ** 12 * 0.6, 0.0, 1.0))[:, None, None]
    turn = 2 * np.pi * np.arange(RIB_RING) / RIB_RING
    ring = 3.5 * np.cos(turn)[None, :, None] * out[:, None] + 6.0 * np.sin(turn)[None, :, None] * up[:, None]
    vertices = np.concatenate([(centre[:, None] + taper * ring).reshape(-1, 3), centre[[0, -1]]])
    k = np.arange(RIB_RING)
    i = (np.arange(count - 1)[:, None] * RIB_RING + k).reshape(-1)
    j = (np.arange(count - 1)[:, None] * RIB_RING + (k + 1) % RIB_RING).reshape(-1)
    walls = np.concatenate([np.stack([i, j, j + RIB_RING], 1), np.stack([i, j + RIB_RING, i + RIB_RING], 1)])
    base, tip, n = count * RIB_RING, count * RIB_RING + 1, (count - 1) * RIB_RING
    caps = [np.stack([np.full(RIB_RING, base), (k + 1) % RIB_RING, k], 1)]
    caps.append(np.stack([np.full(RIB_RING, tip), n + k, n + (k + 1) % RIB_RING], 1))
    return vertices, np.concatenate([walls, *caps])


def pleura(torso: Torso, dome: Callable[[Array], Array], spacing: float) -> tuple[Array, Triangles]:
    """Return the right lower pleural recess as a closed thin dome over the liver, vertices [mm] and triangles.

    Its lower border climbs from the tenth rib at the back to the sixth at the front.
    """
    low, high = np.array([-175.0, -130.0, -75.0]), np.array([40.0, 130.0, 150.0])
    grid = Grid.over(low, high, spacing)
    p = grid.points()
    shell = np.abs(dome(p) - 8.0) - 3.0
    border = (6.0 - 0.45 * p[..., 1] - p[..., 2]) / np.hypot(1.0, 0.45)
    return grid.contour(common(common(shell, border, 6.0), p[..., 0] - 5.0, 6.0))
