"""Quasi-static balance of a hyperelastic body between its springs, one solution per set of targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from twinguide.errors import CaseError

from .body import Array, Body, Springs, points, stiffness_of

Material = Literal["neo_hookean", "corotational", "linear"]
RAMP = (0.15, 0.3, 0.5, 0.75, 1.0)
LEAST_J = 0.02


@dataclass(slots=True, eq=False)
class Solved:
    """One solution: positions [m], shape (n, 3), and how far it can be believed."""

    positions: Array
    residual: float  # [N/N], imbalance over the forces that act
    smallest_j: float  # of all quadrature points; at or below 0 the body is inverted
    iterations: int
    converged: bool
    level: str  # full, reduced or rigid
    solver_error_m: float  # [m], rms, estimated


class Elements:
    """Energy, force and tangent of all elements, in float64."""

    def __init__(self, body: Body, material: Material) -> None:
        rule = points(body.elements.shape[1])
        self._material, self._nodes, self._count = material, body.elements, len(body.vertices)
        self._rest = body.vertices
        self._g = np.einsum("qac,mcx->qmax", rule.by_corner, body.gradients)
        self._v = rule.share[:, None] * body.volumes
        self._mu, self._lame = body.lame
        dofs = (3 * body.elements[:, :, None] + np.arange(3)).reshape(len(body.elements), -1)
        self._rows, self._columns = np.repeat(dofs, dofs.shape[1], axis=1), np.tile(dofs, dofs.shape[1])

    def evaluate(self, x: Array, tangent: bool) -> tuple[float, float, Array, sp.csc_matrix | None]:
        """Return energy [J], smallest J, force [N] (n, 3) and, where asked, the tangent [N/m]."""
        u = (x - self._rest)[self._nodes]
        size = 3 * self._nodes.shape[1]
        energy, least = 0.0, np.inf
        force, block = np.zeros((*self._nodes.shape, 3)), np.zeros((len(self._nodes), size, size))
        for g, v in zip(self._g, self._v, strict=True):
            h = np.einsum("max,may->mxy", u, g)
            w, p, m, d, j = self._point(h)
            energy += float(v @ w)
            least = min(least, float(j.min()))
            force -= np.einsum("m,mxy,may->max", v, p, g)
            if tangent:
                block += self._blocks(g, v, h, m, d).reshape(block.shape)
        total = np.zeros((self._count, 3))
        np.add.at(total, self._nodes, force)
        k = None
        if tangent:
            shape = (3 * self._count, 3 * self._count)
            k = sp.csc_matrix((block.ravel(), (self._rows.ravel(), self._columns.ravel())), shape=shape)
        return energy, least, total, k

    def _point(self, h: Array) -> tuple[Array, Array, Array, Array, Array]:
        f = h + np.eye(3)
        j = np.linalg.det(f)
        mu, lame = self._mu, self._lame
        if self._material == "neo_hookean":
            lam = lame + mu
            cof = np.stack([np.cross(f[:, :, 1], f[:, :, 2]), np.cross(f[:, :, 2], f[:, :, 0]),
                            np.cross(f[:, :, 0], f[:, :, 1])], axis=2)  # fmt: skip
            over = j - 1 - mu / lam
            w = mu / 2 * (2 * np.trace(h, axis1=1, axis2=2) + (h * h).sum((1, 2))) + lam / 2 * over**2 - mu**2 / lam / 2
            return w, mu[:, None, None] * f + (lam * over)[:, None, None] * cof, cof, lam * over, j
        r = np.broadcast_to(np.eye(3), f.shape) if self._material == "linear" else _rotation(f)
        e = np.einsum("mki,mkj->mij", r, f) - np.eye(3)
        e = (e + e.transpose(0, 2, 1)) / 2
        trace = np.trace(e, axis1=1, axis2=2)
        w = mu * (e * e).sum((1, 2)) + lame / 2 * trace**2
        s = 2 * mu[:, None, None] * e + (lame * trace)[:, None, None] * np.eye(3)
        return w, r @ s, np.array(r), np.zeros_like(j), j

    def _blocks(self, g: Array, v: Array, h: Array, m: Array, d: Array) -> Array:
        mu, lame = self._mu, self._lame
        neo = self._material == "neo_hookean"
        b, c = (lame + mu, np.zeros_like(mu)) if neo else (lame, mu)
        t = np.einsum("mxy,may->max", m, g)
        tt = np.einsum("max,mby->maxby", t, t)
        out = np.einsum("m,maz,mbz,xy->maxby", v * mu, g, g, np.eye(3))
        out += (v * b)[:, None, None, None, None] * tt
        out += (v * c)[:, None, None, None, None] * tt.transpose(0, 1, 4, 3, 2)
        if neo:
            w = np.einsum("mxy,maby->mabx", h + np.eye(3), np.cross(g[:, :, None], g[:, None]))
            levi = np.zeros((3, 3, 3))
            levi[[0, 1, 2], [1, 2, 0], [2, 0, 1]] = 1
            levi[[0, 2, 1], [2, 1, 0], [1, 0, 2]] = -1
            out += np.einsum("m,mabz,zxy->maxby", v * d, w, levi)
        return out


def _rotation(f: Array) -> Array:
    u, _, vt = np.linalg.svd(f)
    flip = np.ones((len(f), 3))
    flip[:, 2] = np.sign(np.linalg.det(u @ vt))
    return (u * flip[:, None]) @ vt


class Solver:
    """Keep a body in balance with the targets of its springs."""

    def __init__(
        self,
        body: Body,
        springs: Springs,
        fixed: NDArray[np.bool_] | None = None,
        *,
        material: Material = "neo_hookean",
        backend: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int | None = None,
        tolerance: float = 1e-8,
    ) -> None:
        del backend, threads
        self._body, self._tolerance = body, tolerance
        self._elements = Elements(body, material)
        self._free = np.repeat(~np.asarray(fixed, bool) if fixed is not None else np.ones(len(body.vertices), bool), 3)
        self.attach(springs)
        self.reset()

    def attach(self, springs: Springs) -> None:
        """Exchange the springs."""
        if springs.weights.shape[1] != len(self._body.vertices):
            raise CaseError(f"weights of {len(self._body.vertices)} columns", f"{springs.weights.shape}", "the springs")
        self._weights = springs.weights
        self.stiffen(springs.stiffness)

    def stiffen(self, stiffness: Array) -> None:
        """Set the springs' stiffness [N/m], shape (k, 3, 3)."""
        self._stiffness = stiffness_of(stiffness, self._weights.shape[0])
        wide = sp.kron(self._weights, sp.eye_array(3)).tocsc()
        self._springs = wide.T @ sp.block_diag(list(self._stiffness), format="csc") @ wide if len(stiffness) else None

    def reset(self, positions: Array | None = None) -> None:
        """Start again from positions [m], shape (n, 3), or from rest."""
        self.positions = np.array(self._body.vertices if positions is None else positions, dtype=np.float64)

    def solve(self, targets: Array) -> Solved:
        """Solve to convergence from rest, the loads and targets raised in steps."""
        start = self._weights @ self._body.vertices
        self.reset()
        total = 0
        for share in RAMP:
            last = share == RAMP[-1]
            solved = self._newton(start + share * (targets - start), share, 60, self._tolerance if last else 1e-3)
            total += solved.iterations
        solved.iterations = total
        return solved

    def step(self, targets: Array) -> Solved:
        """Follow the targets by one frame."""
        return self._newton(np.asarray(targets, dtype=np.float64), 1.0, 2, self._tolerance)

    def _forces(self, x: Array, targets: Array, share: float) -> tuple[float, float, Array, float]:
        energy, least, force, _ = self._elements.evaluate(x, False)
        gap = targets - self._weights @ x
        pull = np.einsum("kij,kj->ki", self._stiffness, gap)
        outer = self._weights.T @ pull + share * self._body.weight
        energy += 0.5 * float((gap * pull).sum()) - share * float((self._body.weight * x).sum())
        free = self._free.reshape(-1, 3)
        scale = float(np.linalg.norm(outer) + np.linalg.norm(force)) or 1.0
        return energy, least, (force + outer) * free, scale

    def _newton(self, targets: Array, share: float, most: int, tolerance: float) -> Solved:
        x = self.positions
        energy, least, force, scale = self._forces(x, targets, share)
        error, count = np.inf, 0
        while count < most and np.linalg.norm(force) > tolerance * scale:
            _, _, _, k = self._elements.evaluate(x, True)
            assert k is not None
            k = k if self._springs is None else k + self._springs
            free = np.flatnonzero(self._free)
            d = np.zeros(x.size)
            d[free] = splu(k[free][:, free].tocsc()).solve(force.ravel()[free])
            d = d.reshape(x.shape)
            length, moved = 1.0, False
            while length > 1e-4:
                new = self._forces(x + length * d, targets, share)
                if new[1] > LEAST_J * min(least, 1) and new[0] <= energy + 1e-9 * abs(energy) + 1e-18:
                    x, (energy, least, force, scale), moved = x + length * d, new, True
                    break
                length /= 2
            count += 1
            error = float(np.sqrt((d**2).sum(axis=1).mean()))
            if not moved:
                break
        residual = float(np.linalg.norm(force)) / scale
        done = residual <= tolerance
        self.positions = x
        return Solved(x.copy(), residual, least, count, done, "full", error * residual if done else error)
