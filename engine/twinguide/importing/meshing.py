"""Mesh the organ with tetrahedra: isosurface stuffing on a body-centred cubic lattice, the same on every machine.

Labelle & Shewchuk 2007, "Isosurface Stuffing". Chosen over fTetWild (another mesh in every process, and its wheel needs
VTK) and TetGen, CGAL and Gmsh (licences). Deviations: a warp threshold of its own, quadrilaterals split along a total
order of points instead of the parity rule, and a few rounds of guarded smoothing; quality is measured, not proven.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Body, Surface
from twinguide.errors import CaseError
from twinguide.importing.geometry import inside, nearest, pieces, signed_distance

Array = NDArray[np.float64]
Tets = NDArray[np.int64]
WARP = 0.3  # a lattice point nearer to the surface than this share of its edge is moved onto it
SNAP_M = 1e-7  # coordinates are rounded to this, so that processors that differ in a last bit agree
ROUNDS = 12
EDGES = np.array(list(itertools.combinations(range(4), 2)))
SAMPLES_A_SIDE = 5  # 35 points sample a tetrahedron's material: its shares come in steps of 3 %


def mesh(surface: Surface, cell: float) -> tuple[Array, Tets]:
    """Return vertices [m], (n, 3), and tetrahedra, (m, 4), of positive volume, of a closed surface.

    `cell` [m] is the side of the lattice's cube, which holds 12 tetrahedra. Raises CaseError for too thin a body.
    """
    points, tets = _bcc(surface.vertices.min(axis=0) - cell, surface.vertices.max(axis=0) + cell, cell)
    distance = np.round(signed_distance(surface, points), 9)
    near = (distance[tets] < 0).any(axis=1)
    points, tets, distance = _compact(points, tets[near], distance)
    points, distance = _warp(surface, points, tets, distance)
    points, tets = _cut(points, tets, distance)
    if len(tets) == 0 or volumes(points, tets).min() <= 0:
        raise CaseError("a body as thick as the lattice's cells", f"a thinner one, with a cell of {cell * 1e3:.1f} mm")
    points, tets = _largest(points, tets)
    return _smooth(surface, points, tets), tets


def volumes(points: Array, tets: Tets) -> Array:
    """Return the signed volumes [m3], (m,), of tetrahedra."""
    a, b, c, d = (points[tets[:, k]] for k in range(4))
    return np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a) / 6.0


def dihedral_angles(points: Array, tets: Tets) -> Array:
    """Return the six dihedral angles [rad], (m, 6), of each tetrahedron."""
    corner = points[tets]
    out = np.zeros((len(tets), 6))
    for column, (i, j) in enumerate(EDGES):
        k, m = (n for n in range(4) if n not in (i, j))
        axis = corner[:, j] - corner[:, i]
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        u, v = corner[:, k] - corner[:, i], corner[:, m] - corner[:, i]
        u = u - axis * np.einsum("ij,ij->i", u, axis)[:, None]
        v = v - axis * np.einsum("ij,ij->i", v, axis)[:, None]
        cosine = np.einsum("ij,ij->i", u, v) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1) + 1e-300)
        out[:, column] = np.arccos(np.clip(cosine, -1.0, 1.0))
    return out


def fractions(points: Array, tets: Tets, inner: dict[str, Surface]) -> dict[str, NDArray[np.float32]]:
    """Return each inner structure's share of every tetrahedron's volume, (m,), from 35 points in each."""
    n = SAMPLES_A_SIDE
    steps = [w for w in itertools.product(range(n), repeat=4) if sum(w) == n - 1]
    weights = (np.array(steps) + 0.25) / n
    samples = np.einsum("sk,mkd->msd", weights, points[tets]).reshape(-1, 3)
    return {
        name: inside(surface, samples).reshape(len(tets), -1).mean(axis=1).astype(np.float32)
        for name, surface in inner.items()
    }


def body_of(surface: Surface, cell: float, inner: dict[str, Surface]) -> tuple[Body, str]:
    """Return the organ's body and a line that states its quality."""
    points, tets = mesh(surface, cell)
    angles = np.degrees(dihedral_angles(points, tets))
    off = np.abs(signed_distance(surface, points[np.unique(boundary(tets))]))
    note = (
        f"isosurface stuffing, cell {cell * 1e3:.1f} mm: {len(points)} vertices, {len(tets)} tetrahedra, "
        f"{volumes(points, tets).sum() * 1e6:.0f} mL, dihedral angles {angles.min():.1f} to {angles.max():.1f} deg, "
        f"boundary vertices within {off.max() * 1e3:.2f} mm of the surface"
    )
    return Body(points, tets.astype(np.int32), fractions(points, tets, inner)), note


def boundary(tets: Tets) -> Tets:
    """Return the triangles, (k, 3), that belong to one tetrahedron only, outward."""
    faces = np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 3, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 1]]])
    _, first, counts = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(first[counts == 1])]


def _bcc(low: Array, high: Array, cell: float) -> tuple[Array, Tets]:
    """Return the points and tetrahedra of a body-centred cubic lattice: 4 about each face shared by two cubes."""
    low = np.floor(low / cell) * cell
    n = np.ceil((high - low) / cell).astype(int) + 1
    corner = np.arange(np.prod(n)).reshape(n)
    centre = corner.size + np.arange(np.prod(n - 1)).reshape(n - 1)
    grid = np.moveaxis(np.indices((int(n[0]), int(n[1]), int(n[2]))), 0, -1)
    points = np.concatenate([grid.reshape(-1, 3), grid[:-1, :-1, :-1].reshape(-1, 3) + 0.5]) * cell + low
    out: list[Tets] = []
    for axis in range(3):
        a, b = np.moveaxis(centre, axis, 0)[:-1], np.moveaxis(centre, axis, 0)[1:]
        face = np.moveaxis(corner, axis, 0)[1:-1]
        ring = [face[:, :-1, :-1], face[:, 1:, :-1], face[:, 1:, 1:], face[:, :-1, 1:]]
        for k in range(4):
            out.append(np.stack([a, b, ring[k], ring[(k + 1) % 4]], axis=-1).reshape(-1, 4))
    tets = np.concatenate(out)
    flip = volumes(points, tets) < 0
    tets[flip] = tets[flip][:, [0, 1, 3, 2]]
    return points, tets


def _compact(points: Array, tets: Tets, distance: Array) -> tuple[Array, Tets, Array]:
    used, inverse = np.unique(tets, return_inverse=True)
    return points[used], inverse.reshape(-1, 4), distance[used]


def _warp(surface: Surface, points: Array, tets: Tets, distance: Array) -> tuple[Array, Array]:
    """Move lattice points that lie close to a crossing onto the surface; their distance becomes zero."""
    pairs = np.unique(np.sort(tets[:, EDGES].reshape(-1, 2), axis=1), axis=0)
    i, j = pairs[(np.sign(distance[pairs[:, 0]]) * np.sign(distance[pairs[:, 1]])) < 0].T
    share = distance[i] / (distance[i] - distance[j])  # of the way from i, where the edge crosses
    move = np.zeros(len(points), dtype=bool)
    move[i[share < WARP]] = True
    move[j[share > 1 - WARP]] = True
    points, distance = points.copy(), distance.copy()
    points[move] = nearest(surface, points[move])
    distance[move] = 0.0
    return np.round(points / SNAP_M) * SNAP_M, distance


def _cut(points: Array, tets: Tets, distance: Array) -> tuple[Array, Tets]:
    """Keep the inside of each tetrahedron: whole, or cut where its edges cross the surface."""
    sign = np.sign(distance)[tets].astype(int)
    positive, negative = (sign > 0).sum(axis=1), (sign < 0).sum(axis=1)
    whole = tets[(positive == 0) & (negative > 0)]
    crossing = tets[(positive > 0) & (negative > 0)]
    pairs = np.unique(np.sort(crossing[:, EDGES].reshape(-1, 2), axis=1), axis=0)
    pairs = pairs[(np.sign(distance[pairs[:, 0]]) * np.sign(distance[pairs[:, 1]])) < 0]
    i, j = pairs.T
    share = (distance[i] / (distance[i] - distance[j]))[:, None]
    cuts = np.round((points[i] * (1 - share) + points[j] * share) / SNAP_M) * SNAP_M
    name = {(a, b): len(points) + k for k, (a, b) in enumerate(pairs.tolist())}
    out: list[tuple[int, int, int, int]] = []
    for tet in crossing.tolist():
        out += _inside_of(tet, distance, name)
    points = np.concatenate([points, cuts])
    tets = np.concatenate([whole, np.array(out, dtype=np.int64).reshape(-1, 4)])
    volume = volumes(points, tets)
    tets[volume < 0] = tets[volume < 0][:, [0, 1, 3, 2]]
    return points, tets


def _inside_of(tet: list[int], distance: Array, cut: dict[tuple[int, int], int]) -> list[tuple[int, int, int, int]]:
    """Return the tetrahedra that fill the inside of one that the surface crosses."""
    minus = [v for v in tet if distance[v] < 0]
    zero = [v for v in tet if distance[v] == 0]
    plus = [v for v in tet if distance[v] > 0]

    def at(a: int, b: int) -> int:
        return cut[(a, b) if a < b else (b, a)]

    if len(minus) == 1:
        a, b, c = [at(minus[0], p) for p in plus] + zero
        return [(minus[0], a, b, c)]
    if len(minus) == 2 and zero:
        a, b = minus
        return _pyramid(zero[0], (a, b, at(b, plus[0]), at(a, plus[0])))
    if len(minus) == 2:
        (a, b), (p, q) = minus, plus
        return _prism((a, at(a, p), at(a, q)), (b, at(b, p), at(b, q)))
    a, b, c = minus
    return _prism((a, b, c), (at(a, plus[0]), at(b, plus[0]), at(c, plus[0])))


def _pyramid(apex: int, base: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """Split a pyramid along the diagonal through its base's point of the lowest number."""
    k = base.index(min(base))
    a, b, c, d = base[k:] + base[:k]
    return [(apex, a, b, c), (apex, a, c, d)]


def _prism(bottom: tuple[int, int, int], top: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """Split a prism along the diagonals through the points of lowest number (Dompierre 1999): neighbours agree."""
    if min(top) < min(bottom):
        bottom, top = top, bottom
    k = bottom.index(min(bottom))
    a, b, c = bottom[k:] + bottom[:k]
    d, e, f = top[k:] + top[:k]
    if min(b, f) < min(c, e):
        return [(a, b, c, f), (a, b, f, e), (a, e, f, d)]
    return [(a, b, c, e), (a, e, c, f), (a, e, f, d)]


def _largest(points: Array, tets: Tets) -> tuple[Array, Tets]:
    """Keep the largest piece that hangs together face by face."""
    faces = np.sort(np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 2, 3]], tets[:, [0, 1, 3]], tets[:, :3]]), axis=1)
    owner = np.tile(np.arange(len(tets)), 4)
    face = np.unique(faces, axis=0, return_inverse=True)[1].reshape(-1)
    label = pieces(np.stack([owner, len(tets) + face], axis=1), len(tets) + int(face.max()) + 1)[: len(tets)]
    size = np.bincount(label, weights=volumes(points, tets))
    tets = tets[label == int(size.argmax())]
    used, inverse = np.unique(tets, return_inverse=True)
    return points[used], inverse.reshape(-1, 4)


def _smooth(surface: Surface, points: Array, tets: Tets) -> Array:
    """Move vertices towards the mean of their neighbours where no tetrahedron about them gets worse."""
    pairs = np.unique(np.sort(tets[:, EDGES].reshape(-1, 2), axis=1), axis=0)
    rim = np.unique(boundary(tets))
    on_rim = np.zeros(len(points), dtype=bool)
    on_rim[rim] = True
    links = pairs[on_rim[pairs[:, 0]] == on_rim[pairs[:, 1]]]
    i, j = np.concatenate([links, links[:, ::-1], pairs[on_rim[pairs[:, 1]] & ~on_rim[pairs[:, 0]]]]).T
    count = np.bincount(i, minlength=len(points))
    for _ in range(ROUNDS):
        total = np.stack([np.bincount(i, weights=points[j, k], minlength=len(points)) for k in range(3)], axis=1)
        moved = 0.5 * points + 0.5 * np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], points)
        moved[rim] = nearest(surface, moved[rim])
        moved = np.round(moved / SNAP_M) * SNAP_M
        points = _accept(points, moved, tets)
    return points


def _accept(points: Array, moved: Array, tets: Tets) -> Array:
    """Return `moved`, taking back every vertex of a tetrahedron whose shape the move made worse."""
    before = np.minimum(_shape(points, tets), 0.5)
    out = moved.copy()
    for _ in range(8):
        worse = _shape(out, tets) < before - 1e-9
        if not worse.any():
            return out
        back = np.unique(tets[worse])
        out[back] = points[back]
    return points


def _shape(points: Array, tets: Tets) -> Array:
    """Return the shape of tetrahedra, (m,): 1 regular, 0 flat, negative turned over (Liu & Joe 1994, mean ratio)."""
    squares = ((points[tets[:, EDGES[:, 0]]] - points[tets[:, EDGES[:, 1]]]) ** 2).sum(axis=(1, 2))
    volume = volumes(points, tets)
    return 12.0 * np.sign(volume) * (3.0 * np.abs(volume)) ** (2.0 / 3.0) / squares
