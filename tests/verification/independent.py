"""Static hyperelasticity by scikit-fem: the solver that ours is judged by, and shares no line with it.

What is solved is the residual that scikit-fem assembles (its shape functions, mappings and quadrature); the tangent
is formed here because Newton's limit does not depend on it. Positions [m], moduli [Pa], body forces [N/m3].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import skfem


@dataclass(frozen=True)
class Law:
    """A material: first Piola-Kirchhoff stress [Pa], shape (3, 3, ...), and its derivative (3, 3, 3, 3, ...) by F."""

    stress: Callable[[np.ndarray], np.ndarray]
    tangent: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Bed:
    """Springs under boundary facets: their stiffness per area [N/m3] at points [m], shape (3, ...)."""

    facets: np.ndarray
    stiffness: Callable[[np.ndarray], np.ndarray]


def lame(young: float, poisson: float) -> tuple[float, float]:
    """Return Lame's two moduli [Pa]: first, shear."""
    return young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))


def neo_hookean(young: float, poisson: float) -> Law:
    """Return W = mu/2 (Ic - 3) + lam/2 (J - a)^2 with lam = lame + mu, a = 1 + mu/lam (Smith 2018, without the log)."""
    first, mu = lame(young, poisson)
    lam = first + mu
    a = 1 + mu / lam

    def stress(f: np.ndarray) -> np.ndarray:
        return mu * f + lam * (determinant(f) - a) * cofactor(f)

    def tangent(f: np.ndarray) -> np.ndarray:
        c = cofactor(f)
        identity = np.einsum("ik,jl->ijkl", np.eye(3), np.eye(3)).reshape(3, 3, 3, 3, *[1] * (f.ndim - 2))
        # d cof(F) = eps_imn eps_jpq F_np dF_mq ...: the second derivative of the determinant
        twist = np.einsum("ikm,jln,mn...->ijkl...", LEVI_CIVITA, LEVI_CIVITA, f)
        return mu * identity + lam * (np.einsum("ij...,kl...->ijkl...", c, c) + (determinant(f) - a) * twist)

    return Law(stress, tangent)


LEVI_CIVITA = np.zeros((3, 3, 3))
for _i, _j, _k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    LEVI_CIVITA[_i, _j, _k], LEVI_CIVITA[_i, _k, _j] = 1.0, -1.0


def cofactor(f: np.ndarray) -> np.ndarray:
    """Return det(F) F^-T, shape (3, 3, ...)."""
    return 0.5 * np.einsum("ikm,jln,kl...,mn...->ij...", LEVI_CIVITA, LEVI_CIVITA, f, f, optimize=True)


def determinant(f: np.ndarray) -> np.ndarray:
    """Return det F, shape (...)."""
    return np.einsum("j...,j...->...", f[0], np.cross(f[1], f[2], axis=0))


def factored(matrix: sp.csr_matrix) -> Callable[[np.ndarray], np.ndarray]:
    """Return the solution operator; PARDISO's where `pypardiso` is installed (ten times quicker), else SuperLU's."""
    try:
        import pypardiso
    except ImportError:
        return scipy.sparse.linalg.splu(
            matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
        ).solve
    return lambda right: pypardiso.spsolve(matrix, right)


class Static:
    """The equilibrium of a body under its weight and held degrees of freedom."""

    def __init__(
        self, mesh: skfem.Mesh, element: skfem.Element, law: Law, force: np.ndarray, bed: Bed | None = None
    ) -> None:
        """Prepare `mesh` [m] of scalar `element` under body force [N/m3], shape (3,), and perhaps on a bed."""
        order = 4 if element.maxdeg > 1 else 1
        self.law, self.basis = law, skfem.Basis(mesh, skfem.ElementVector(element), intorder=order)
        scalar = skfem.Basis(mesh, element, intorder=order)
        self._gradients = np.stack([field[0].grad for field in scalar.basis], axis=0)  # (nodes, 3, elements, points)
        self._dofs = self.basis.element_dofs  # (nodes * 3, elements), node by node
        load = skfem.LinearForm(lambda v, w: sum(force[k] * v[k] for k in range(3)))
        self.load = load.assemble(self.basis)
        self._bed = sp.csr_matrix((self.basis.N, self.basis.N))
        if bed is not None:
            faces = skfem.FacetBasis(mesh, self.basis.elem, facets=bed.facets, intorder=2 * order)
            form = skfem.BilinearForm(lambda u, v, w: bed.stiffness(w.x) * sum(u[k] * v[k] for k in range(3)))
            self._bed = form.assemble(faces)

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Return the internal forces [N], shape (dofs,), at displacements [m]."""
        stress = self.law.stress(self._deformation(u))
        form = skfem.LinearForm(lambda v, w: np.einsum("ij...,ij...->...", w["p"], v.grad))
        return form.assemble(self.basis, p=stress) + self._bed @ u

    def tangent(self, u: np.ndarray) -> sp.csr_matrix:
        """Return the stiffness [N/m], shape (dofs, dofs), at displacements [m]."""
        moduli = self.law.tangent(self._deformation(u)) * self.basis.dx
        g = self._gradients
        nodes, count = g.shape[0], g.shape[2]
        values = np.empty((count, nodes, 3, nodes, 3))
        for part in np.array_split(np.arange(count), max(1, count // 256)):  # in parts: else it takes gigabytes
            right = np.einsum("ijklep,blep->eijkbp", moduli[..., part, :], g[:, :, part], optimize=True)
            values[part] = np.einsum("ajep,eijkbp->eaibk", g[:, :, part], right, optimize=True)
        size = 3 * nodes
        rows = np.repeat(self._dofs.T, size, axis=1).ravel()
        columns = np.tile(self._dofs.T, (1, size)).ravel()
        return sp.csr_matrix((values.ravel(), (rows, columns)), shape=(self.basis.N, self.basis.N)) + self._bed

    def solve(self, held: np.ndarray, *, steps: int = 4, tolerance: float = 1e-9) -> np.ndarray:
        """Return displacements [m], shape (dofs,), `held` ones 0, the load raised in `steps` (in one it inverts)."""
        u, free = np.zeros(self.basis.N), np.setdiff1d(np.arange(self.basis.N), held)
        scale = float(np.linalg.norm(self.load[free]))
        for share in np.arange(1, steps + 1) / steps:
            for _ in range(30):
                out = (share * self.load - self.residual(u))[free]
                if np.linalg.norm(out) < tolerance * scale:
                    break
                way = np.zeros(len(u))
                way[free] = factored(self.tangent(u)[free][:, free])(out)
                u = u + self._length(u, way) * way
            else:
                raise RuntimeError(f"no equilibrium at {share:.0%} of the load: {np.linalg.norm(out) / scale:.1e} left")
        return u

    def _length(self, u: np.ndarray, way: np.ndarray) -> float:
        """Return how much of `way` to go: no element inverted."""
        length = 1.0
        while length > 1e-3 and self.smallest_j(u + length * way) <= 0:
            length /= 2
        return length

    def smallest_j(self, u: np.ndarray) -> float:
        """Return the smallest volume ratio at the quadrature points."""
        return float(determinant(self._deformation(u)).min())

    def _deformation(self, u: np.ndarray) -> np.ndarray:
        gradient = self.basis.interpolate(u).grad
        return gradient + np.eye(3).reshape(3, 3, 1, 1)
