"""Find where a surface cuts itself or lies flat on itself: pairs of triangles from a grid of boxes, each looked at.

libigl's wheel has the test of one pair only, and the libraries that look through a whole surface are under the GPL.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Surface
from twinguide.frames import Array

Indices = NDArray[np.int64]
TOUCH = 1e-9  # of the pair's size, cubed: a corner that only touches a triangle does not cut it
MOST_CELLS = 8  # of the grid for each triangle on average: equal ones take 3 or 4
PART = 1_000_000  # pairs looked at together
FLAT_M = 1e-6  # sheets nearer than that lie on each other; points in single precision are off by a thirtieth of it


def entangled(surface: Surface) -> bool:
    """Return whether a surface cuts itself or lies flat on itself anywhere."""
    at = surface.vertices, surface.triangles, near(surface.vertices, surface.triangles)
    return len(crossings(*at)) > 0 or len(overlaps(*at)) > 0


def near(vertices: Array, triangles: NDArray[np.int64] | NDArray[np.int32]) -> Indices:
    """Return the pairs of triangles, (k, 2), i < j, whose boxes touch; vertices [m], (n, 3), triangles (m, 3)."""
    corners: Array = vertices[triangles]
    return _close(corners.min(axis=1), corners.max(axis=1) + FLAT_M)


def crossings(vertices: Array, triangles: NDArray[np.int64] | NDArray[np.int32], pairs: Indices) -> Indices:
    """Return those of the pairs of triangles that cut each other, (k, 2); vertices [m], (n, 3), triangles (m, 3).

    Neighbours across an edge cannot; triangles that lie flat on each other are `overlaps`.
    """
    triangles = np.asarray(triangles, dtype=np.int64)
    corners: Array = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    found: list[Indices] = []
    for part in _parts(pairs):
        some = part[_straddles(corners, normals, part) | _straddles(corners, normals, part[:, ::-1])]
        some = some[_shared(triangles, some) < 2]
        found.append(some[_pierces(vertices, triangles, some) | _pierces(vertices, triangles, some[:, ::-1])])
    return np.concatenate(found)


def overlaps(vertices: Array, triangles: NDArray[np.int64] | NDArray[np.int32], pairs: Indices) -> Indices:
    """Return those of the pairs of triangles that lie flat on each other, (k, 2), a fold's neighbours among them.

    The smaller one's corners lie in the larger one's plane, and no edge of either separates them there.
    """
    corners: Array = vertices[np.asarray(triangles, dtype=np.int64)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1)
    normals /= np.maximum(area, np.finfo(float).tiny)[:, None]
    return np.concatenate([_flat(corners, normals, area, part) for part in _parts(pairs)])


def _flat(corners: Array, normals: Array, area: Array, pairs: Indices) -> Indices:
    pairs = pairs[area[pairs].min(axis=1) > 0.0]
    larger = np.where((area[pairs[:, 0]] >= area[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    base, other, normal = corners[larger[:, 0]], corners[larger[:, 1]], normals[larger[:, 0]]
    height = np.einsum("kij,kj->ki", other - base[:, :1], normal)
    flat = (np.abs(height) < FLAT_M).all(axis=1)
    pairs, base, other, normal = pairs[flat], base[flat], other[flat], normal[flat]
    apart = np.zeros(len(pairs), dtype=bool)
    for sheet in (base, other):
        for k in range(3):
            across = np.cross(normal, sheet[:, (k + 1) % 3] - sheet[:, k])
            across /= np.maximum(np.linalg.norm(across, axis=1), np.finfo(float).tiny)[:, None]
            a, b = (np.einsum("kij,kj->ki", one, across) for one in (base, other))
            apart |= np.minimum(a.max(axis=1), b.max(axis=1)) - np.maximum(a.min(axis=1), b.min(axis=1)) < FLAT_M
    return pairs[~apart]


def _straddles(corners: Array, normals: Array, pairs: Indices) -> NDArray[np.bool_]:
    """Return whether each pair's first triangle has corners on both sides of the second's plane, (k,): few have.

    `_pierces` asks for it too: one product a corner spares a large surface nearly all of the rest.
    """
    i, j = pairs.T
    heights = np.einsum("kij,kj->ki", corners[i] - corners[j, :1], normals[j])
    return (heights.min(axis=1) < 0) & (heights.max(axis=1) > 0)


def _parts(pairs: Indices) -> list[Indices]:
    """Return the pairs in parts that are looked at one after the other: all at once would take gigabytes."""
    return [pairs[start : start + PART] for start in range(0, max(len(pairs), 1), PART)]


def _shared(triangles: Indices, pairs: Indices) -> Indices:
    """Return how many corners each pair of triangles shares, (k,)."""
    one, other = triangles[pairs[:, 0]], triangles[pairs[:, 1]]
    return np.asarray((one[:, :, None] == other[:, None, :]).sum(axis=(1, 2)), dtype=np.int64)


def _close(low: Array, high: Array) -> Indices:
    """Return the pairs of boxes that touch, (k, 2), i < j, of those that share a cell of a grid."""
    cell = 1.5 * float((high - low).max(axis=1).mean())
    while True:  # a few triangles far larger than the rest would else fill the memory with their cells
        first = np.floor(low / cell).astype(np.int64)
        size = np.floor(high / cell).astype(np.int64) - first + 1
        count = size.prod(axis=1)
        if count.sum() <= MOST_CELLS * len(low):
            break
        cell *= 1.5
    owner = np.repeat(np.arange(len(low)), count)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    _, ny, nz = size[owner].T
    at = first[owner] + np.stack([rank // (ny * nz), rank // nz % ny, rank % nz], axis=1)
    x, y, z = (at - at.min(axis=0)).T
    key: Indices = (x * (y.max() + 1) + y) * (z.max() + 1) + z
    order = np.argsort(key, kind="stable")
    key, owner = key[order], owner[order]
    found: list[Indices] = [np.zeros(0, dtype=np.int64)]
    same = np.arange(len(owner))
    for step in itertools.count(1):
        same = same[: np.searchsorted(same, len(owner) - step)]
        same = same[key[same + step] == key[same]]
        if len(same) == 0:
            break
        i, j = owner[same], owner[same + step]  # i < j: the sort is stable
        touch = np.ones(len(same), dtype=bool)
        for k in range(3):
            touch &= (low[i, k] <= high[j, k]) & (low[j, k] <= high[i, k])
        found.append(i[touch] * len(low) + j[touch])
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // len(low), pairs % len(low)], axis=1)


def _pierces(vertices: Array, triangles: Indices, pairs: Indices) -> NDArray[np.bool_]:
    """Return whether an edge of each pair's first triangle passes through the second, (k,)."""
    one, other = triangles[pairs[:, 0]], triangles[pairs[:, 1]]
    a, b, c = (vertices[other[:, k]] for k in range(3))
    small = TOUCH * np.linalg.norm(b - a, axis=1) * np.linalg.norm(c - a, axis=1) * np.linalg.norm(c - b, axis=1)
    hit = np.zeros(len(pairs), dtype=bool)
    for k in range(3):
        start, end = one[:, k], one[:, (k + 1) % 3]
        free = (other != start[:, None]).all(axis=1) & (other != end[:, None]).all(axis=1)
        p, q = vertices[start], vertices[end]
        above, below = _volume(p, a, b, c), _volume(q, a, b, c)
        turns = np.stack([_volume(p, q, a, b), _volume(p, q, b, c), _volume(p, q, c, a)], axis=1)
        through = (turns > small[:, None]).all(axis=1) | (turns < -small[:, None]).all(axis=1)
        opposite = (np.minimum(above, below) < -small) & (np.maximum(above, below) > small)
        hit |= free & opposite & through
    return hit


def _volume(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Return six times the signed volume, (k,), of tetrahedra."""
    return np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a)
