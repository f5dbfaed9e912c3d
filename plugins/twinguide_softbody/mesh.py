"""Tetrahedral meshes: refuse what cannot be solved on, and make blocks, midside nodes, boundaries and areas.

Positions [m]. Linear tetrahedra have 4 nodes, quadratic ones 10 as VTK orders them: midsides of 01, 12, 20, 03, 13, 23.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from twinguide.errors import CaseError

from .body import EDGES

Array = NDArray[np.float64]
Indices = NDArray[np.int32]
LEAST_QUALITY = 1e-3  # below, one sliver spoils the whole matrix's condition
WHERE, FIX = "the body", "Mend the mesh, or import the case again."
# Six paths from a cell's corner to the opposite one, an axis at a time (Kuhn 1960): every face meets its neighbour's.
KUHN = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0))


def check_mesh(vertices: Array, tetrahedra: Indices) -> None:
    """Refuse a mesh that cannot be solved on; raise CaseError with the reason and the first offender."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or tetrahedra.ndim != 2 or tetrahedra.shape[1] not in (4, 10):
        got = f"{vertices.shape}, {tetrahedra.shape}"
        raise CaseError("vertices (n, 3) and tetrahedra (m, 4 or 10)", got, WHERE, FIX)
    if tetrahedra.dtype.kind not in "iu":
        raise CaseError("tetrahedra of whole numbers, from 0 on", f"{tetrahedra.dtype}", WHERE, FIX)
    if not len(tetrahedra) or tetrahedra.min() < 0 or tetrahedra.max() >= len(vertices):
        got = f"{tetrahedra.min()} to {tetrahedra.max()}, of {len(vertices)}" if len(tetrahedra) else "none"
        raise CaseError("tetrahedra that name its vertices", got, WHERE, FIX)
    if not np.isfinite(vertices).all():
        bad = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise CaseError("finite vertices", f"vertex {bad}: {vertices[bad].tolist()}", WHERE, FIX)
    size = float(np.ptp(vertices, axis=0).max())
    if not 1e-3 < size < 2.0:
        raise CaseError("a body of 1 mm to 2 m", f"{size:g} m", WHERE, "Give lengths in metres.")
    _check_shapes(vertices, tetrahedra[:, :4])
    _check_links(len(vertices), tetrahedra)


def _check_shapes(vertices: Array, tetrahedra: Indices) -> None:
    alike = np.unique(np.sort(tetrahedra, axis=1), axis=0, return_index=True)[1]
    if len(alike) < len(tetrahedra):
        bad = int(np.setdiff1d(np.arange(len(tetrahedra)), alike)[0])
        raise CaseError("each tetrahedron once", f"{len(tetrahedra) - len(alike)} duplicates, first {bad}", WHERE, FIX)
    q = quality(vertices, tetrahedra)
    worst = int(np.argmin(q))
    if q[worst] <= 0:
        got = f"{int((q <= 0).sum())} flat or inverted, first {worst}"
        raise CaseError("tetrahedra of positive volume", got, WHERE, FIX)
    if q[worst] < LEAST_QUALITY:
        got = f"{int((q < LEAST_QUALITY).sum())} slivers, {q[worst]:.1e} at {worst}"
        raise CaseError(f"a quality of {LEAST_QUALITY} at least", got, WHERE, FIX)


def _check_links(count: int, tetrahedra: Indices) -> None:
    a, b = np.repeat(tetrahedra[:, 0], tetrahedra.shape[1] - 1), tetrahedra[:, 1:].ravel()
    links = sp.coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    pieces = int(connected_components(links, directed=False)[0])
    if pieces > 1:
        raise CaseError("one connected body", f"{pieces} pieces (loose vertices count)", WHERE, FIX)
    crowded = int((np.unique(_faces(tetrahedra), axis=0, return_counts=True)[1] > 2).sum())
    if crowded:
        raise CaseError("faces of two tetrahedra at most", f"{crowded} faces of three or more overlap", WHERE, FIX)


def check_stiffness(young_pa: Array) -> None:
    """Refuse moduli [Pa], shape (m,), that no one body has; raise CaseError with the reason.

    A ratio above 1e5 leaves single precision no digit for the soft part: its answer would be noise.
    """
    if not np.isfinite(young_pa).all() or young_pa.min() <= 0:
        bad = int(np.argmin(np.where(np.isfinite(young_pa), young_pa, -np.inf)))
        got = f"{young_pa[bad]:g} Pa at tetrahedron {bad}"
        raise CaseError("moduli above 0", got, WHERE, "Check the case's young_pa.")
    ratio = float(young_pa.max() / young_pa.min())
    if ratio > 1e5:
        got = f"{young_pa.min():g} to {young_pa.max():g} Pa"
        raise CaseError("a stiffest tissue at most 1e5 times the softest", got, WHERE, "Check the units of young_pa.")


def quality(vertices: Array, tetrahedra: Indices) -> Array:
    """Return volume over cubed root-mean-square edge, shape (m,), 1 for a regular tetrahedron, negative if inverted."""
    corners = vertices[tetrahedra[:, :4]]
    a, b = np.triu_indices(4, 1)
    lengths = np.sqrt(((corners[:, a] - corners[:, b]) ** 2).sum(axis=2).mean(axis=1))
    return 6.0 * np.sqrt(2.0) * volumes(vertices, tetrahedra) / np.maximum(lengths, 1e-12) ** 3


def volumes(vertices: Array, tetrahedra: Indices) -> Array:
    """Return the signed volumes of the corners [m3], shape (m,)."""
    corners = vertices[tetrahedra[:, :4]]
    return np.asarray(np.linalg.det(corners[:, 1:] - corners[:, :1]), dtype=np.float64) / 6.0


def block(cells: int | tuple[int, int, int], size_m: float | tuple[float, float, float]) -> tuple[Array, Indices]:
    """Return a block of Kuhn's tetrahedra, six to a cell: vertices [m], shape (n, 3), and tetrahedra, shape (m, 4)."""
    count = (cells, cells, cells) if isinstance(cells, int) else cells
    size = (size_m, size_m, size_m) if isinstance(size_m, int | float) else size_m
    axes = [np.linspace(0.0, s, n + 1) for n, s in zip(count, size, strict=True)]
    vertices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    ny, nz = count[1] + 1, count[2] + 1
    stride = np.array([ny * nz, nz, 1])
    corner = np.stack(np.meshgrid(*[np.arange(n) for n in count], indexing="ij"), axis=-1).reshape(-1, 3) @ stride
    paths = [corner[:, None] + np.cumsum([0, *stride[list(path)]]) for path in KUHN]
    tetrahedra = np.concatenate(paths).astype(np.int32)
    inverted = volumes(vertices, tetrahedra) < 0
    tetrahedra[inverted] = tetrahedra[inverted][:, [0, 2, 1, 3]]
    return vertices, tetrahedra


def quadratic(vertices: Array, tetrahedra: Indices) -> tuple[Array, Indices]:
    """Add midside nodes: vertices [m], the old ones first, and tetrahedra, shape (m, 10)."""
    ends = np.sort(tetrahedra[:, EDGES], axis=2).reshape(-1, 2)
    edges, inverse = np.unique(ends, axis=0, return_inverse=True)
    middles = vertices[edges].mean(axis=1)
    midside = len(vertices) + inverse.reshape(len(tetrahedra), 6)
    return np.concatenate([vertices, middles]), np.concatenate([tetrahedra, midside], axis=1).astype(np.int32)


def _faces(tetrahedra: Indices) -> Indices:
    return np.sort(tetrahedra[:, [[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]]].reshape(-1, 3), axis=1)


def boundary(tetrahedra: Indices) -> Indices:
    """Return the faces, shape (f, 3), of corners that only one tetrahedron has, counter-clockwise from outside."""
    faces = tetrahedra[:, [[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]]].reshape(-1, 3)
    _, index, count = np.unique(_faces(tetrahedra), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(index[count == 1])]


def face_areas(vertices: Array, faces: Indices) -> Array:
    """Return each face's outward area vector [m2], shape (f, 3)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a) / 2.0


def vertex_areas(vertices: Array, faces: Indices) -> Array:
    """Return each vertex's outward area vector [m2], shape (n, 3): a third of its faces', zero inside."""
    area, flat = face_areas(vertices, faces) / 3.0, faces.T.ravel()
    sums = [np.bincount(flat, np.tile(area[:, k], 3), len(vertices)) for k in range(3)]
    return np.stack(sums, axis=1).astype(np.float64)
