"""Geometry on triangle surfaces, through libigl (MPL-2) and scipy: the only file that imports libigl."""

# libigl's arrays carry no usable types: they are given here, once
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import igl
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from twinguide.case import Surface
from twinguide.distances import DistanceGrid
from twinguide.frames import Array

Indices = NDArray[np.int64]


def signed_distance(surface: Surface, points: Array) -> Array:
    """Return the distance [m], (n,), of points [m], (n, 3), to a closed surface; negative inside.

    The distance is exact, its sign that of the fast winding number (Barill 2018).
    """
    sign = igl.SignedDistanceType.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER
    points, triangles = np.ascontiguousarray(points), surface.triangles.astype(np.int64)
    return np.asarray(igl.signed_distance(points, surface.vertices, triangles, sign_type=sign)[0], dtype=np.float64)


def inside(surface: Surface, points: Array) -> NDArray[np.bool_]:
    """Return whether points [m], (n, 3), lie in a closed surface, (n,)."""
    out = np.zeros(len(points), dtype=bool)
    low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
    near = ((points >= low) & (points <= high)).all(axis=1)
    if near.any():
        some, triangles = np.ascontiguousarray(points[near]), surface.triangles.astype(np.int64)
        out[near] = np.asarray(igl.fast_winding_number(surface.vertices, triangles, some)) > 0.5
    return out


def nearest(surface: Surface, points: Array) -> Array:
    """Return the surface's nearest points [m], (n, 3), to points [m], (n, 3)."""
    points, triangles = np.ascontiguousarray(points), surface.triangles.astype(np.int64)
    return np.asarray(igl.point_mesh_squared_distance(points, surface.vertices, triangles)[2], dtype=np.float64)


def vertex_normals(surface: Surface) -> Array:
    """Return outward unit normals, (n, 3), at a surface's vertices."""
    normals = igl.per_vertex_normals(surface.vertices, surface.triangles.astype(np.int64))
    return np.asarray(normals, dtype=np.float64)


def decimate(surface: Surface, triangles: int) -> Surface:
    """Return a surface [m] of at most so many triangles, by collapse of the shortest edges; it makes no cuts."""
    vertices, found = igl.decimate(surface.vertices, surface.triangles.astype(np.int64), triangles, True)[:2]
    return Surface(np.asarray(vertices, dtype=np.float64), np.asarray(found, dtype=np.int32))


def agree(triangles: Indices) -> Indices:
    """Return the triangles, (m, 3), turned so that neighbours agree, where the surface has two sides."""
    return np.asarray(igl.bfs_orient(triangles)[0], dtype=np.int64)


def rims(triangles: Indices) -> list[Indices]:
    """Return the vertices round each hole, in order."""
    return [np.array(loop, dtype=np.int64) for loop in igl.boundary_loop_all(triangles)]


def pieces(links: Indices, count: int) -> Indices:
    """Return the number of the connected piece, (count,), of each of `count` nodes joined by links, (k, 2)."""
    ones = np.ones(len(links), dtype=np.int8)
    graph = coo_matrix((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def shells(triangles: Indices) -> list[Indices]:
    """Return the triangles of each connected shell, in the order of their first triangle."""
    label = pieces(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]]), int(triangles.max()) + 1)
    _, first, number = np.unique(label[triangles[:, 0]], return_index=True, return_inverse=True)
    return [triangles[number == k] for k in np.argsort(first)]


def lattice(low: Array, high: Array, spacing: float) -> tuple[Array, tuple[int, int, int]]:
    """Return grid points [m], (nx*ny*nz, 3), last axis fastest, from `low` until past `high`, and (nx, ny, nz)."""
    nx, ny, nz = (int(n) + 1 for n in np.ceil((high - low) / spacing))
    index = np.indices((nx, ny, nz)).reshape(3, -1).T
    return low + spacing * index, (nx, ny, nz)


def grid_of(surface: Surface, spacing: float, padding: float) -> DistanceGrid:
    """Return the signed distance grid [m] of a surface, its box padded by `padding` [m] on every side."""
    low = np.floor((surface.vertices.min(axis=0) - padding) / spacing) * spacing
    points, shape = lattice(low, surface.vertices.max(axis=0) + padding, spacing)
    values = np.round(signed_distance(surface, points), 7)  # 0.1 um: the same on every processor
    return DistanceGrid(low, spacing, values.reshape(shape).astype(np.float32))


def contour(values: Array, points: Array, shape: tuple[int, int, int], level: float) -> Surface:
    """Return the closed surface [m], outward, where a field on a lattice, (nx*ny*nz,), has a level."""
    nx, ny, nz = shape
    vertices, triangles, _ = igl.marching_cubes(values - level, np.ascontiguousarray(points), nz, ny, nx, 0.0)
    surface = Surface(np.asarray(vertices, dtype=np.float64), np.asarray(triangles, dtype=np.int32))
    if volume_of(surface.vertices, surface.triangles) < 0:
        return Surface(surface.vertices, np.ascontiguousarray(surface.triangles[:, ::-1]))
    return surface


def convex_hull(points: Array) -> Surface:
    """Return the convex hull [m] of points [m], (n, 3), outward."""
    hull = ConvexHull(points)
    used, triangles = np.unique(np.asarray(hull.simplices, dtype=np.int64), return_inverse=True)
    vertices, triangles = points[used], triangles.reshape(-1, 3).astype(np.int32)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a - vertices.mean(axis=0)) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return Surface(vertices, triangles)


def volume_of(vertices: Array, triangles: NDArray[np.int64] | NDArray[np.int32]) -> float:
    """Return the enclosed volume [m3], positive for an outward surface (divergence theorem)."""
    a, b, c = (vertices[triangles[:, k]] - vertices.mean(axis=0) for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)


def centroid_of(vertices: Array, triangles: NDArray[np.int64] | NDArray[np.int32]) -> Array:
    """Return the centroid [m], (3,), of the enclosed volume."""
    origin = vertices[triangles[:, 0]].mean(axis=0)
    a, b, c = (vertices[triangles[:, k]] - origin for k in range(3))
    volumes = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0
    return origin + (volumes[:, None] * (a + b + c)).sum(axis=0) / (4.0 * float(volumes.sum()))


def in_mm(point: Array) -> str:
    """Return a point [m], (3,), as text in millimetres, for a message."""
    return "(" + ", ".join(f"{value * 1e3:.1f}" for value in point) + ") mm (LPS)"
