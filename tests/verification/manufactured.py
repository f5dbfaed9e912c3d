"""A smooth deformation made up, and the weight that would cause it: the only way to see the elements' full order.

The block of 10 cm, its whole surface held; inside x = X + AMPLITUDE sin sin sin. The body force -div P(F) comes from
`independent.py`'s stress by central differences, its nodal shares from scikit-fem's quadrature, and the error is
integrated over the body, not taken at nodes, where it may be smaller by luck.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import skfem
from independent import neo_hookean
from problems import POISSON, YOUNG, mesh

from twinguide_softbody.body import Body, Springs
from twinguide_softbody.quasistatic import Solver

SIZE, AMPLITUDE = 0.1, np.array([4e-3, -3e-3, 5e-3])  # [m]: strains to 0.16
SOFT = (
    0.1  # [N/m], of the springs that pull the nodes: 1e-3 of the tissue's own, and no force where the answer is right
)
LAW = neo_hookean(YOUNG, POISSON)
ELEMENTS = {1: skfem.ElementTetP1(), 2: skfem.ElementTetP2()}


def displacement(x: np.ndarray) -> np.ndarray:
    """Return the made-up displacement [m] at points [m], shape (3, ...)."""
    s = np.sin(np.pi * x / SIZE)
    return np.multiply.outer(AMPLITUDE, s[0] * s[1] * s[2])


def deformation(x: np.ndarray) -> np.ndarray:
    """Return F, shape (3, 3, ...), at points [m], shape (3, ...)."""
    s, c = np.sin(np.pi * x / SIZE), np.pi / SIZE * np.cos(np.pi * x / SIZE)
    slope = np.stack([c[0] * s[1] * s[2], s[0] * c[1] * s[2], s[0] * s[1] * c[2]])
    return np.multiply.outer(AMPLITUDE, slope) + np.eye(3).reshape(3, 3, *[1] * (x.ndim - 1))


def body_force(x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return -div P [N/m3] at points [m], shape (3, ...); differences over a micrometre are good to 1e-8."""
    out = np.zeros_like(x)
    for axis, unit in enumerate(step * np.eye(3)):
        away = unit.reshape(3, *[1] * (x.ndim - 1))
        ahead, behind = (LAW.stress(deformation(x + sign * away))[:, axis] for sign in (1, -1))
        out -= (ahead - behind) / (2 * step)
    return out


def smooth_error(cells: int, order: int) -> float:
    """Return the root of the mean squared error over that of the displacement, integrated."""
    vertices, elements = mesh(cells, SIZE, order)
    grid = skfem.MeshTet(vertices[: elements[:, :4].max() + 1].T, elements[:, :4].T)
    basis = skfem.Basis(grid, skfem.ElementVector(ELEMENTS[order]), intorder=5)
    points = np.asarray(basis.global_coordinates())
    share = skfem.LinearForm(lambda v, w: np.einsum("i...,i...->...", w["f"], v))
    node, axis = places(basis, vertices)
    force = np.zeros_like(vertices)
    force[node, axis] = share.assemble(basis, f=body_force(points))
    fixed = ((vertices < 1e-9) | (vertices > SIZE - 1e-9)).any(axis=1)
    inside = np.flatnonzero(~fixed)
    count = len(inside)
    rows = sp.csr_matrix((np.ones(count), (np.arange(count), inside)), shape=(count, len(vertices)))
    springs = Springs(rows, np.tile(SOFT * np.eye(3), (count, 1, 1)))
    solver = Solver(Body(vertices, elements, YOUNG, POISSON), springs, fixed, backend="cpu")
    solved = solver.solve((vertices + displacement(vertices.T).T + force / SOFT)[inside])
    assert solved.converged
    found = basis.interpolate((solved.positions - vertices)[node, axis])
    wrong, size = (
        skfem.Functional(lambda w, of=of: ((of - displacement(w.x)) ** 2).sum(axis=0)).assemble(basis)
        for of in (found, 0.0)
    )
    return float(np.sqrt(wrong / size))


def places(basis: skfem.Basis, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each degree of freedom's node of ours and its axis."""
    known = {tuple(at): n for n, at in enumerate(np.rint(vertices * 1e7).astype(int).tolist())}
    node = np.array([known[tuple(at)] for at in np.rint(basis.doflocs.T * 1e7).astype(int).tolist()])
    axis = np.empty(basis.N, dtype=int)
    for dofs in (basis.nodal_dofs, basis.edge_dofs):
        for k, row in enumerate(dofs):
            axis[row] = k % 3
    return node, axis
