"""Tetrahedral meshes: refuse what cannot be solved on, and make blocks, midside nodes, boundaries and areas.

Positions [m]. Linear tetrahedra have 4 nodes, quadratic ones 10 as VTK orders them: midsides of 01, 12, 20, 03, 13, 23.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from twinguide.errors import CaseError

Array = NDArray[np.float64]
Indices = NDArray[np.int32]
EDGES = np.array([[0, 1], [1, 2], [2, 0], [0, 3], [1, 3], [2, 3]])  # whose midpoints are nodes 4 to 9
FACES = np.array([[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]])  # without each corner, counter-clockwise from outside
MIDDLES = np.array([[5, 9, 8], [7, 9, 6], [4, 8, 7], [6, 5, 4]])  # the midside nodes of the same
LEAST_QUALITY = 1e-3  # below, one sliver spoils the whole matrix's condition
NEIGHBOURS = 8  # by their centres, among which one that overlaps is looked for
INSIDE = 0.01  # of a barycentric coordinate: far above rounding in slivers
STRAIGHT = 1e-6  # of the edge: how far a midside node may lie from its edge's middle
SOFTEST_PA, STIFFEST_PA = 1e-3, 1e12  # diamond's
MOST_POISSON = 0.4995  # as near to 0.5 as the solver is verified; in single precision what lies beyond stands still
WHERE, FIX = "the body's mesh", "Mend the mesh, or import the case again."
# Six paths from a cell's corner to the opposite one, an axis at a time (Kuhn 1960): every face meets its neighbour's.
KUHN = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0))


def check_mesh(vertices: Array, tetrahedra: Indices) -> None:
    """Refuse a mesh that cannot be solved on; raise CaseError with the reason and the first offender.

    That parts overlap which share no face is seen where one tetrahedron's centre lies in another.
    """
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
    _check_shapes(vertices, tetrahedra)
    _check_links(len(vertices), tetrahedra)
    _check_overlap(vertices[tetrahedra[:, :4]])


def _check_shapes(vertices: Array, tetrahedra: Indices) -> None:
    corners = np.sort(tetrahedra[:, :4], axis=1)
    order = np.lexsort(corners.T)
    alike = order[1:][(corners[order[1:]] == corners[order[:-1]]).all(axis=1)]
    if len(alike):
        raise CaseError("each tetrahedron once", f"{len(alike)} duplicates, first {alike.min()}", WHERE, FIX)
    q = quality(vertices, tetrahedra)
    worst = int(np.argmin(q))
    if q[worst] <= 0:
        got, every = f"{int((q <= 0).sum())} flat or inverted, first {worst}", q.max() < 0
        fix = "Swap two columns: all are numbered the other way round." if every else FIX
        raise CaseError("tetrahedra of positive volume", got, WHERE, fix)
    if q[worst] < LEAST_QUALITY:
        got = f"{int((q < LEAST_QUALITY).sum())} slivers, {q[worst]:.1e} at {worst}"
        raise CaseError(f"a quality of {LEAST_QUALITY} at least", got, WHERE, FIX)
    if tetrahedra.shape[1] == 10:
        ends = vertices[tetrahedra[:, EDGES]]
        off = np.linalg.norm(vertices[tetrahedra[:, 4:]] - ends.mean(axis=2), axis=2)
        off = (off / np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=2)).max(axis=1)
        if off.max() > STRAIGHT:
            got = f"{off.max():.2g} of an edge off at {int(off.argmax())}"
            raise CaseError("midside nodes halfway at rest", got, WHERE, FIX)
        torn = (midsides(tetrahedra, tetrahedra[:, EDGES]) != tetrahedra[:, 4:]).any(axis=1)
        if torn.any():
            got = f"another in {int(torn.sum())} tetrahedra, first {int(torn.argmax())}"
            raise CaseError("one midside node to an edge", got, WHERE, FIX)


def _check_links(count: int, tetrahedra: Indices) -> None:
    loose = np.setdiff1d(np.arange(count), tetrahedra)
    if len(loose):
        raise CaseError("every vertex in a tetrahedron", f"{len(loose)} loose, first {loose[0]}", WHERE, FIX)
    faces, one, other = shared(tetrahedra)
    crowded = len(np.intersect1d(one, other))
    # Neighbours go round the face that they share in opposite ways; else one lies within the other.
    odd = (faces[:, [0, 0, 1]] > faces[:, [1, 2, 2]]).sum(axis=1) % 2
    folded = int((odd[one] == odd[other]).sum())
    if crowded or folded:
        got = f"{crowded} faces of three or more, {folded} of two on one side: they overlap"
        raise CaseError("faces of two tetrahedra at most, one on each side", got, WHERE, FIX)
    links = sp.coo_matrix((np.ones(len(one)), (one // 4, other // 4)), shape=(len(tetrahedra), len(tetrahedra)))
    pieces, of = connected_components(links, directed=False)
    if pieces > 1:
        got = f"{pieces} pieces, the smallest of {np.bincount(of).min()} tetrahedra"
        raise CaseError("one body, joined by faces", got, WHERE, f"A vertex or an edge is but a hinge. {FIX}")


def _check_overlap(corners: Array) -> None:
    """Refuse tetrahedra, shape (m, 4, 3) [m], of which one has another's centre inside."""
    centres, inverse = corners.mean(axis=1), np.linalg.inv(corners[:, 1:] - corners[:, :1])
    near = KDTree(centres).query(centres, k=min(NEIGHBOURS, len(centres)))[1]
    for other in np.asarray(near, dtype=np.intp).reshape(len(centres), -1).T:
        at = np.einsum("mx,mxc->mc", centres - corners[other, 0], inverse[other])
        within = np.minimum(at.min(axis=1), 1.0 - at.sum(axis=1)) > INSIDE
        within &= other != np.arange(len(centres))
        if within.any():
            got = f"{int(within.sum())} with their centre in another, first {int(within.argmax())}"
            raise CaseError("tetrahedra that do not overlap", got, WHERE, FIX)


def check_materials(young_pa: Array, poisson: Array) -> None:
    """Refuse moduli [Pa] and Poisson's ratios, shape (m,) each, that no one body has; raise CaseError with the reason.

    A ratio of moduli above 1e5 leaves single precision no digit for the soft part: its answer would be noise.
    """
    sound = (young_pa >= SOFTEST_PA) & (young_pa <= STIFFEST_PA) & (poisson > -1) & (poisson <= MOST_POISSON)
    if not sound.all():
        bad = int(np.argmin(sound))
        wanted = f"moduli of {SOFTEST_PA:g} to {STIFFEST_PA:g} Pa and Poisson's ratios above -1, {MOST_POISSON} at most"
        got = f"{young_pa[bad]:g} Pa and {poisson[bad]:g} at tetrahedron {bad}"
        raise CaseError(wanted, got, "the body", "Check the case's young_pa and poisson.")
    if young_pa.max() > 1e5 * young_pa.min():
        got = f"{young_pa.min():g} to {young_pa.max():g} Pa"
        raise CaseError(
            "a stiffest tissue at most 1e5 times the softest", got, "the body", "Check the units of young_pa."
        )


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


def shape_functions(places: Array) -> Array:
    """Return the ten nodes' shape functions, shape (k, 10), at barycentric coordinates, shape (k, 4)."""
    a, b = EDGES.T
    return np.concatenate([places * (2 * places - 1), 4 * places[:, a] * places[:, b]], axis=1)


def midsides(tetrahedra: Indices, ends: Indices) -> Indices:
    """Return the nodes of a quadratic mesh, shape (...), amid its edges between corners `ends`, shape (..., 2)."""
    base = np.array([int(tetrahedra.max()) + 1, 1], dtype=np.int64)
    known, first = np.unique(np.sort(tetrahedra[:, EDGES], axis=2) @ base, return_index=True)
    return tetrahedra[:, 4:].ravel()[first[np.searchsorted(known, np.sort(ends, axis=-1) @ base)]]


def shared(tetrahedra: Indices) -> tuple[Indices, NDArray[np.int64], NDArray[np.int64]]:
    """Return all faces, shape (4 m, 3), and of each pair of tetrahedra that share one the number of either's.

    Face 4 i + k is the one of tetrahedron i that lacks its corner k.
    """
    faces = tetrahedra[:, FACES].reshape(-1, 3)
    known = np.sort(faces, axis=1)
    order = np.lexsort(known.T[::-1])  # several times quicker than np.unique of rows
    same = (known[order[1:]] == known[order[:-1]]).all(axis=1)
    return faces, order[:-1][same], order[1:][same]


def boundary(tetrahedra: Indices, nodes: NDArray[np.int64] = FACES) -> Indices:
    """Return the faces that only one tetrahedron has, shape (f, 3): corners, counter-clockwise from outside.

    Or their midside nodes, by MIDDLES.
    """
    _, one, other = shared(tetrahedra)
    return np.delete(tetrahedra[:, nodes].reshape(-1, 3), np.concatenate([one, other]), axis=0)


def face_areas(vertices: Array, faces: Indices) -> Array:
    """Return each face's outward area vector [m2], shape (f, 3)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a) / 2.0
