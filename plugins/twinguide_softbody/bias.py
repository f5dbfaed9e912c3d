"""The mesh's own error: what quadratic tetrahedra answer to the target's drive beyond linear ones, about rest.

Solved by conjugate gradients on two levels: the corners by the linear mesh's answer (`response.py`), edges smoothed by
their own stiffness; products with the quadratic body's matrix are passes over its elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from .backends import on_cpu
from .body import Array, Body
from .constraints import Held, patch_weights
from .layout import layout
from .mesh import EDGES, face_areas, quadratic
from .reduction import own_stiffness
from .response import Columns, Response

MESH_RTOL = 1e-3  # of the forces out of balance: leaves 5 % of the estimate, 0.01 would leave as much as it is
COARSE_RTOL = 1e-2
MOST = 100  # iterations


class Patch:
    """The target's patch on a spring [N/m], shape (3, 3): weights, shape (n,), and what a unit force on it moves."""

    def __init__(self, weights: Array, spring: Array, answer: Array) -> None:
        self._weights, self._answer = weights, answer
        compliance = np.einsum("n,nxa->xa", weights, answer)
        self.drawn = np.linalg.solve(np.eye(3) + spring @ compliance, spring)  # [N/m], per metre of the free answer

    def held(self, free: Array) -> Array:
        """Return answers [m], (n, 3), with the patch's spring, of those without."""
        return free - self._answer @ (self.drawn @ (self._weights @ free))


def mesh_error(
    response: Response,
    body: Body,
    held: Sequence[Held],
    patch: tuple[Array, float],
    spring: Array,
    columns: tuple[Columns, Columns],
) -> Array:
    """Return what quadratic tetrahedra answer to the target's unit drives beyond linear ones, shape (n, 3, 3).

    `patch` is the target's centre [m] and reach [m], `columns` are the response to the target and to the patch.
    Measured points are left out: under a point's own spring the difference is local, and has no limit.
    """
    centre, reach_m = patch
    target, point = columns
    weights = patch_weights(body.vertices, centre, reach_m)
    drawn = Patch(weights, spring, point.answer)
    gap = np.eye(3) - np.einsum("n,nxa->xa", weights, target.answer)
    linear = target.answer + point.answer @ (drawn.drawn @ gap)
    fine = _Quadratic(body, held, centre, reach_m, spring)

    def coarsely(r: Array) -> Array:
        order, place = response.order
        return drawn.held(response.solve(r[order], COARSE_RTOL)[place])

    out = np.empty_like(linear)
    for axis in range(3):
        out[:, :, axis] = fine.beyond(axis, linear[:, :, axis], coarsely)
    return out


class _Quadratic:
    """The body on quadratic tetrahedra, held and drawn alike."""

    def __init__(self, body: Body, held: Sequence[Held], centre: Array, reach_m: float, spring: Array) -> None:
        vertices, elements = quadratic(body.vertices, body.elements)
        fine = Body(vertices, elements, body.young_pa, body.poisson)
        self._spring, self._count = spring, len(vertices)
        self._take = _halfway(fine, len(body.vertices))
        self._lay = layout(fine, np.zeros(len(vertices), dtype=bool), matrix=False)
        self._machine = on_cpu(self._lay, "linear", 1)
        on_midsides = _on_midsides(body, self._take, held)
        self._diagonal, self._pull = np.zeros(len(vertices)), np.zeros(len(vertices))
        for one in on_midsides:
            self._diagonal[one.nodes] += one.stiffness
            self._pull[one.nodes] += one.stiffness * one.share
        self._patch = patch_weights(vertices, centre, reach_m)
        own = np.einsum("nxx->nx", own_stiffness(self._lay))[self._lay.place]
        self._smooth = 1.0 / (own + self._diagonal[:, None] + self._patch[:, None] ** 2 * np.diag(spring))
        self._force = np.zeros_like(vertices)

    def apply(self, u: Array) -> Array:
        """Return the forces [N] that hold displacements u [m], both (n, 3)."""
        self._machine.evaluate(np.ascontiguousarray(u[self._lay.order]), self._force)
        drawn = self._spring @ (self._patch @ u)
        return self._diagonal[:, None] * u + self._patch[:, None] * drawn - self._force[self._lay.place]

    def beyond(self, axis: int, linear: Array, coarsely: Callable[[Array], Array]) -> Array:
        """Return the answer [m] to a unit drive along `axis` beyond the linear one, both (n, 3), at the corners."""
        load = self._patch[:, None] * self._spring[:, axis]
        load[:, axis] += self._pull
        u = self._take @ linear
        # Relative to the linear answer's own residual: it is the difference that is asked for.
        r = load - self.apply(u)
        enough, p, before = MESH_RTOL**2 * _dot(r, r), np.zeros_like(r), 1.0
        for _ in range(MOST):
            if _dot(r, r) <= enough:
                break
            z = self._take @ coarsely(self._take.T @ r) + self._smooth * r
            now = _dot(r, z)
            p = z + (now / before if p.any() else 0.0) * p
            q, before = self.apply(p), now
            step = now / _dot(p, q)
            u, r = u + step * p, r - step * q
        return u[: len(linear)] - linear


def _dot(a: Array, b: Array) -> float:
    return float(np.einsum("ni,ni->", a, b))  # not by BLAS: its threads wait for each other


def _on_midsides(body: Body, take: sp.csr_matrix, held: Sequence[Held]) -> list[Held]:
    """Lay the surface's springs on a quadratic mesh: as much per area, on the midsides.

    A quadratic function's integral over a triangle is a third of the area times each midside's value, and nothing of
    the corners' (Zienkiewicz & Taylor 2000, table 5.2).
    """
    count, total = len(body.vertices), len(np.asarray(take.indptr)) - 1
    corners = np.asarray(take.indices)[np.asarray(take.indptr)[count] :].reshape(-1, 2)
    known = np.sort(corners, axis=1).astype(np.int64) @ [count, 1]
    order = np.argsort(known)
    out: list[Held] = []
    for one in held:
        ends = np.sort(one.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).astype(np.int64) @ [count, 1]
        nodes = count + order[np.searchsorted(known, ends, sorter=order)]
        thirds = np.repeat(np.linalg.norm(face_areas(body.vertices, one.faces), axis=1) / 3.0, 3)
        spring = one.per_area * np.bincount(nodes, thirds, total)
        where = np.flatnonzero(spring)
        out.append(replace(one, nodes=where, stiffness=spring[where]))
    return out


def _halfway(fine: Body, count: int) -> sp.csr_matrix:
    """Return the interpolation, csr (n2, n), of corners to all nodes of a quadratic mesh."""
    ends, middle = fine.elements[:, EDGES].reshape(-1, 2), fine.elements[:, 4:].ravel()
    middle, first = np.unique(middle, return_index=True)
    rows = np.concatenate([np.arange(count), np.repeat(middle, 2)])
    columns = np.concatenate([np.arange(count), ends[first].ravel()])
    values = np.concatenate([np.ones(count), np.full(2 * len(middle), 0.5)])
    return sp.csr_matrix((values, (rows, columns)), shape=(len(fine.vertices), count))
