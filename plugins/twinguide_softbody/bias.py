"""The mesh's own error: what quadratic tetrahedra answer to the target's drive beyond linear ones, about rest.

Of a linear body, solved by conjugate gradients on two levels: the corners by the linear mesh's answer (`response.py`),
edges smoothed by their own stiffness; products with the quadratic body's matrix are passes over its elements. A
quadratic body has that answer already, and the linear one is solved beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from .backends import on_cpu
from .body import Array, Body, Indices
from .constraints import Held, patch_weights
from .layout import layout
from .materials import Mixture
from .mesh import EDGES, quadratic
from .reduction import own_stiffness
from .response import Columns, Response

MESH_RTOL = 1e-3  # of the forces out of balance: leaves 5 % of the estimate, 0.01 would leave as much as it is
COARSE_RTOL = 1e-2
MOST = 100  # iterations
LEFT = 0.25  # of the difference: 1 sigma of quadratic tetrahedra's own error; 0.1 to 0.3 measured, of either sign
Around = Callable[[Array, Indices], Sequence[Held]]


class Patch:
    """The target's patch on a spring [N/m], shape (3, 3): weights, shape (n,), and what a unit force on it moves."""

    def __init__(self, weights: Array, spring: Array, answer: Array) -> None:
        self._weights, self._answer = weights, answer
        compliance = np.einsum("n,nxa->xa", weights, answer)
        self.drawn = np.linalg.solve(np.eye(3) + spring @ compliance, spring)  # [N/m], per metre of the free answer

    def answer_to(self, columns: tuple[Columns, Columns]) -> Array:
        """Return the answer, shape (n, 3, 3), to the target's unit drives, of the response to it and to the patch."""
        target, point = (one.answer for one in columns)
        gap = np.eye(3) - np.einsum("n,nxa->xa", self._weights, target)
        return target + point @ (self.drawn @ gap)

    def held(self, free: Array) -> Array:
        """Return answers [m], (n, 3), with the patch's spring, of those without."""
        return free - self._answer @ (self.drawn @ (self._weights @ free))


def mesh_error(
    response: Response,
    body: Body,
    mixture: Mixture,
    around: Around,
    patch: tuple[Array, float],
    spring: Array,
    columns: tuple[Columns, Columns],
) -> tuple[Columns, Array]:
    """Return the target's columns and the mesh's bias under its unit drives, shape (n, 3, 3).

    Linear tetrahedra's bias is what quadratic ones answer beyond them; of quadratic ones none is known: how far they
    may be off is a share of the same difference, and one more unknown of the columns. `around` lays the surroundings'
    springs on a mesh, `patch` is the target's centre [m] and reach [m], `columns` are the response to the target and to
    the patch. Measured points are left out: under a point's own spring the difference is local, and has no limit.
    """
    target = columns[0]
    weights = patch_weights(body.vertices, *patch)
    drawn = Patch(weights, spring, columns[1].answer)
    own = drawn.answer_to(columns)
    if body.elements.shape[1] == 10:
        unsure = LEFT * (own - _linear(body, mixture, around, patch, spring))
        return Columns(target.answer, np.concatenate([target.unknown, unsure[None]])), np.zeros_like(own)
    fine = _Quadratic(body, around, *patch, spring)

    def coarsely(r: Array) -> Array:
        order, place = response.order
        return drawn.held(response.solve(r[order], COARSE_RTOL)[place])

    out = np.empty_like(own)
    for axis in range(3):
        out[:, :, axis] = fine.beyond(axis, own[:, :, axis], coarsely)
    return target, out


def _linear(body: Body, mixture: Mixture, around: Around, patch: tuple[Array, float], spring: Array) -> Array:
    """Return what linear tetrahedra of the same corners answer to the target's unit drives, shape (n, 3, 3)."""
    corners = Body(body.vertices[: body.corners], body.tetrahedra, body.young_pa, body.poisson)
    held = around(corners.vertices, corners.elements)
    response = Response(layout(corners, np.zeros(body.corners, dtype=bool)), corners, mixture, held)
    weights = patch_weights(corners.vertices, *patch)
    columns = response.of_target(), response.of_point(weights)
    answer = Patch(weights, spring, columns[1].answer).answer_to(columns)
    return (_halfway(body, body.corners) @ answer.reshape(-1, 9)).reshape(-1, 3, 3)


class _Quadratic:
    """The body on quadratic tetrahedra, held and drawn alike."""

    def __init__(self, body: Body, around: Around, centre: Array, reach_m: float, spring: Array) -> None:
        vertices, elements = quadratic(body.vertices, body.elements)
        fine = Body(vertices, elements, body.young_pa, body.poisson)
        self._spring, self._count = spring, len(vertices)
        self._take = _halfway(fine, len(body.vertices))
        self._lay = layout(fine, np.zeros(len(vertices), dtype=bool), matrix=False)
        self._machine = on_cpu(self._lay, "linear", 1)
        self._diagonal, self._pull = np.zeros(len(vertices)), np.zeros(len(vertices))
        for one in around(vertices, elements):
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


def _halfway(fine: Body, count: int) -> sp.csr_matrix:
    """Return the interpolation, csr (n2, n), of corners to all nodes of a quadratic mesh."""
    ends, middle = fine.elements[:, EDGES].reshape(-1, 2), fine.elements[:, 4:].ravel()
    middle, first = np.unique(middle, return_index=True)
    rows = np.concatenate([np.arange(count), np.repeat(middle, 2)])
    columns = np.concatenate([np.arange(count), ends[first].ravel()])
    values = np.concatenate([np.ones(count), np.full(2 * len(middle), 0.5)])
    return sp.csr_matrix((values, (rows, columns)), shape=(len(fine.vertices), count))
