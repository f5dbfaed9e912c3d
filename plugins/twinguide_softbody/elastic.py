"""Linear elasticity on tetrahedra: checks of a mesh, gradients, stiffness. Arrays in, arrays out.

Four-node tetrahedra with constant strain (Zienkiewicz & Taylor 2000, ch. 6); positions [m], stiffness [Pa], forces [N].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from twinguide.errors import CaseError

Array = NDArray[np.float64]
Tetrahedra = NDArray[np.int32]
LEAST_QUALITY = 1e-3  # below, one sliver spoils the whole matrix's condition


def shape_gradients(vertices: Array, tetrahedra: Tetrahedra) -> tuple[Array, Array]:
    """Return the gradients of the shape functions [1/m], shape (m, 4, 3), and the volumes [m3], shape (m,), signed."""
    corners = vertices[tetrahedra]
    edges = corners[:, 1:] - corners[:, :1]
    volumes = np.asarray(np.linalg.det(edges), dtype=np.float64) / 6.0
    inverse = np.asarray(np.linalg.inv(edges), dtype=np.float64)  # columns are the gradients of nodes 1..3
    gradients = np.concatenate([-inverse.sum(axis=2)[:, None], inverse.transpose(0, 2, 1)], axis=1)
    return gradients, volumes


def quality(vertices: Array, tetrahedra: Tetrahedra) -> Array:
    """Return volume over cubed root-mean-square edge, shape (m,), 1 for a regular tetrahedron, negative if inverted."""
    corners = vertices[tetrahedra]
    a, b = np.triu_indices(4, 1)
    lengths = np.sqrt(((corners[:, a] - corners[:, b]) ** 2).sum(axis=2).mean(axis=1))
    volumes = np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6.0
    return 6.0 * np.sqrt(2.0) * volumes / np.maximum(lengths, 1e-12) ** 3


def check_mesh(vertices: Array, tetrahedra: Tetrahedra) -> None:
    """Refuse a mesh that cannot be solved on; raise CaseError with the reason and the first offender."""
    fix = "Import the case again."
    if vertices.ndim != 2 or vertices.shape[1] != 3 or tetrahedra.ndim != 2 or tetrahedra.shape[1] != 4:
        raise CaseError("vertices (n, 3) and tetrahedra (m, 4)", f"{vertices.shape}, {tetrahedra.shape}", "body", fix)
    if not len(tetrahedra) or tetrahedra.min() < 0 or tetrahedra.max() >= len(vertices):
        raise CaseError("tetrahedra that name its vertices", f"{len(tetrahedra)} of them, some do not", "body", fix)
    if not np.isfinite(vertices).all():
        bad = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise CaseError("finite vertices", f"vertex {bad}: {vertices[bad].tolist()}", "body", fix)
    q = quality(vertices, tetrahedra)
    worst = int(np.argmin(q))
    if q[worst] <= 0:
        raise CaseError("tetrahedra of positive volume", f"{int((q <= 0).sum())} inverted, first {worst}", "body", fix)
    if q[worst] < LEAST_QUALITY:
        raise CaseError(f"a quality of {LEAST_QUALITY} at least", f"{q[worst]:.1e} at {worst}", "body", fix)
    a, b = tetrahedra[:, [0, 0, 0]].ravel(), tetrahedra[:, 1:].ravel()
    links = sp.coo_matrix((np.ones(len(a)), (a, b)), shape=(len(vertices), len(vertices)))
    pieces = int(connected_components(links, directed=False)[0])
    if pieces > 1:
        raise CaseError("one connected body", f"{pieces} pieces (loose vertices count)", "body", fix)


def mixed_young(own_pa: float, fractions: Mapping[str, NDArray[Any]], young_pa: Mapping[str, float]) -> Array:
    """Return Young's modulus [Pa], shape (m,), by volume fractions (Voigt's mean); 0 is the organ's own."""
    count = len(next(iter(fractions.values()))) if fractions else 1
    young = np.full(count, own_pa)
    for name, share in fractions.items():
        inner = young_pa.get(name, 0.0)
        if inner > 0:
            young += (inner - own_pa) * share
    return young


def stiffness(vertices: Array, tetrahedra: Tetrahedra, young: Array, poisson: float) -> sp.csc_matrix:
    """Return the stiffness matrix [N/m], shape (3 n, 3 n), for moduli [Pa], shape (m,), and Poisson's ratio."""
    gradients, volumes = shape_gradients(vertices, tetrahedra)
    shear = np.asarray(young) / (2 * (1 + poisson))
    lame = np.asarray(young) * poisson / ((1 + poisson) * (1 - 2 * poisson))
    dots = np.einsum("mix,mjx->mij", gradients, gradients)
    blocks = (lame * volumes)[:, None, None, None, None] * np.einsum("mia,mjb->mijab", gradients, gradients)
    blocks += (shear * volumes)[:, None, None, None, None] * (
        np.einsum("mib,mja->mijab", gradients, gradients) + dots[..., None, None] * np.eye(3)
    )
    dofs = (3 * tetrahedra[:, :, None] + np.arange(3)).reshape(len(tetrahedra), 12)
    rows, columns = np.repeat(dofs, 12, axis=1), np.tile(dofs, 12)
    values = blocks.transpose(0, 1, 3, 2, 4).reshape(len(tetrahedra), 144)
    size = 3 * len(vertices)
    return sp.csc_matrix((values.ravel(), (rows.ravel(), columns.ravel())), shape=(size, size))


def boundary(tetrahedra: Tetrahedra) -> Tetrahedra:
    """Return the faces, shape (f, 3), that only one tetrahedron has, counter-clockwise from outside."""
    faces = tetrahedra[:, [[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]]].reshape(-1, 3)
    _, index, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(index[count == 1])]


def vertex_areas(vertices: Array, faces: Tetrahedra) -> Array:
    """Return each vertex's outward area vector [m2], shape (n, 3): a third of its faces'."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a) / 6.0
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], area)
    return out


def determinants(f: Any) -> Any:  # noqa: ANN401 - arrays of either module
    """Return det F, shape (m,), of F, shape (3, 3, m): written out, forty times faster than factoring each."""
    return (
        f[0, 0] * (f[1, 1] * f[2, 2] - f[1, 2] * f[2, 1])
        - f[0, 1] * (f[1, 0] * f[2, 2] - f[1, 2] * f[2, 0])
        + f[0, 2] * (f[1, 0] * f[2, 1] - f[1, 1] * f[2, 0])
    )
