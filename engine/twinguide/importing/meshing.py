"""Mesh the organ with tetrahedra: a coarser surface by libigl, its inside by Netgen, which only this file imports.

Netgen gives the same mesh in every process, where fTetWild does not; `benchmarks/meshing.py` compares them, and
docs/architecture.md has the table.
"""

# Netgen's classes carry no usable types: what is taken from them is given one at once
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import itertools

import numpy as np
from netgen import meshing as netgen
from numpy.typing import NDArray

from twinguide.case import Body, Surface
from twinguide.errors import CaseError
from twinguide.frames import Array
from twinguide.importing.geometry import contour, decimate, inside, lattice, nearest, signed_distance, volume_of
from twinguide.importing.intersections import entangled

Tets = NDArray[np.int64]
SNAP_M = 1e-7  # what Netgen is given is rounded to this, so that processors that differ in a last bit agree
EVEN_ROUNDS = 2  # evens the triangles out; more would shrink thin lobes
LONGEST = 1.4  # of a tetrahedron's edge, in mean edges of the surface
OPTIMISE_STEPS = 10  # Netgen's own default of 3 leaves angles of 6 deg
VOLUME_ERROR = 0.10  # a coarse surface that loses more than this share of the volume is no likeness
EDGES = np.array(list(itertools.combinations(range(4), 2)))
SAMPLES_A_SIDE = 5  # 35 points sample a tetrahedron's material: its shares come in steps of 3 %


def mesh(surface: Surface, triangles: int) -> tuple[Array, Tets]:
    """Return vertices [m], (n, 3), and tetrahedra, (m, 4), of positive volume, of a closed surface.

    The surface must not be entangled. Its boundary has about `triangles` triangles; an organ has about twice as many
    tetrahedra. Raises CaseError for a body too thin to be meshed so coarsely.
    """
    reason = "nothing"
    for rounds in (EVEN_ROUNDS, 0):  # evening out may fold a thin body; the bare decimation does not
        coarse = _even(surface, decimate(surface, triangles), rounds)
        if not entangled(coarse):
            try:
                points, tets = _fill(coarse)
            except Exception as error:  # Netgen raises several kinds
                reason = f"Netgen: {error}"
                continue
            volume = volume_of(surface.vertices, surface.triangles)
            if len(tets) and volumes(points, tets).min() > 0:
                share = abs(volumes(points, tets).sum() / volume - 1.0)
                if share < VOLUME_ERROR:
                    return points, tets
                reason = f"{share:.0%} of the volume lost"
        else:
            reason = "a coarse surface that cuts itself or lies flat on itself"
    raise CaseError(
        f"a body that {triangles} triangles can bound", reason, "meshing", "Smooth the organ's surface, or close gaps."
    )


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


def body_of(surface: Surface, triangles: int, inner: dict[str, Surface]) -> tuple[Body, str]:
    """Return the organ's body and a line that states how it was made, and its quality.

    A surface that is entangled has no inside a mesher could fill: its winding number's contour is meshed in its place.
    """
    how = "Netgen"
    shape = surface
    if entangled(surface):
        spacing = 0.25 * _edge(surface, triangles)
        shape = _untangled(surface, spacing)
        how = f"Netgen on a contour of {spacing * 1e3:.1f} mm, as the surface cuts itself or lies flat on itself"
    points, tets = mesh(shape, triangles)
    angles = np.degrees(dihedral_angles(points, tets))
    off = np.abs(signed_distance(surface, points[np.unique(boundary(tets))]))
    note = (
        f"{how}: {len(points)} vertices, {len(tets)} tetrahedra, "
        f"{volumes(points, tets).sum() * 1e6:.0f} mL, dihedral angles {angles.min():.1f} to {angles.max():.1f} deg, "
        f"boundary vertices within {off.max() * 1e3:.2f} mm of the surface"
    )
    return Body(points, tets.astype(np.int32), fractions(points, tets, inner)), note


def boundary(tets: Tets) -> Tets:
    """Return the triangles, (k, 3), that belong to one tetrahedron only, outward."""
    faces = np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 3, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 1]]])
    _, first, counts = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(first[counts == 1])]


def _edge(surface: Surface, triangles: int) -> float:
    """Return the edge [m] of equilateral triangles, so many of which have the surface's area."""
    a, b, c = (surface.vertices[surface.triangles[:, k]] for k in range(3))
    area = 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
    return float(np.sqrt(4.0 * area / (np.sqrt(3.0) * triangles)))


def _untangled(surface: Surface, spacing: float) -> Surface:
    grid, shape = lattice(
        surface.vertices.min(axis=0) - 2 * spacing, surface.vertices.max(axis=0) + 2 * spacing, spacing
    )
    return contour(np.round(signed_distance(surface, grid), 7), grid, shape, 0.0)


def _even(surface: Surface, coarse: Surface, rounds: int) -> Surface:
    """Move vertices halfway to the mean of their neighbours, and back onto the fine surface."""
    a, b, c = coarse.triangles.astype(np.int64).T
    i, j = np.concatenate([np.stack(pair, axis=1) for pair in ((a, b), (b, c), (c, a), (b, a), (c, b), (a, c))]).T
    count = np.bincount(i, minlength=len(coarse.vertices))[:, None]
    points = np.round(coarse.vertices / SNAP_M) * SNAP_M
    for _ in range(rounds):
        total = np.stack([np.bincount(i, weights=points[j, k], minlength=len(points)) for k in range(3)], axis=1)
        points = np.round(nearest(surface, 0.5 * points + 0.5 * total / count) / SNAP_M) * SNAP_M
    return Surface(points, coarse.triangles)


def _fill(surface: Surface) -> tuple[Array, Tets]:
    """Fill a closed surface by Netgen, in millimetres, and return points [m] and tetrahedra of positive volume."""
    grid = netgen.Mesh(dim=3)
    face = grid.Add(netgen.FaceDescriptor(bc=1, domin=1, domout=0, surfnr=1))
    names = [grid.Add(netgen.MeshPoint(netgen.Pnt(*point))) for point in (surface.vertices * 1e3).tolist()]
    for triangle in surface.triangles.tolist():
        grid.Add(netgen.Element2D(face, [names[corner] for corner in triangle]))
    longest = LONGEST * _edge(surface, len(surface.triangles)) * 1e3
    grid.GenerateVolumeMesh(netgen.MeshingParameters(maxh=longest, optsteps3d=OPTIMISE_STEPS))
    points = np.array([list(point.p) for point in grid.Points()], dtype=np.float64).reshape(-1, 3) * 1e-3
    tets = np.array([[corner.nr - 1 for corner in cell.vertices] for cell in grid.Elements3D()], dtype=np.int64)
    used, inverse = np.unique(tets.reshape(-1, 4), return_inverse=True)
    points, tets = np.round(points[used] / SNAP_M) * SNAP_M, inverse.reshape(-1, 4)
    turned = volumes(points, tets) < 0
    tets[turned] = tets[turned][:, [0, 1, 3, 2]]
    return points, tets
