"""A soft body and what holds it: values that say what is solved, checked where they are made.

Tetrahedra of 4 nodes (constant strain) or of 10 (quadratic: the midside nodes of edges 01, 12, 20, 03, 13, 23 follow
the corners, straight at rest). Constraints are springs between a weighted mean of nodes and a target: as stiff as
what was measured is sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from twinguide.errors import CaseError

Array = NDArray[np.float64]
Indices = NDArray[np.int32]

EDGES = np.array([[0, 1], [1, 2], [2, 0], [0, 3], [1, 3], [2, 3]])  # whose midpoints are nodes 4 to 9
STRAIGHT = 1e-6  # of the edge: how far a midside node may lie from its edge's middle
_SOURCE = "the body's mesh"
_FIX = "Check the mesh before it is loaded."


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The quadrature points of an element, in barycentric coordinates."""

    share: Array  # (q,), of the element's volume
    by_corner: Array  # (q, nodes, 4): derivative of each node's shape function by each barycentric coordinate
    values: Array  # (q, nodes): the shape functions


def points(nodes: int) -> Points:
    """Return the rule for 4 nodes (one point) or 10 (four points, exact to degree 2; Zienkiewicz 2000, table 5.3)."""
    if nodes == 4:
        return Points(np.ones(1), np.eye(4)[None], np.full((1, 4), 0.25))
    high, low = (5 + 3 * np.sqrt(5)) / 20, (5 - np.sqrt(5)) / 20
    places = np.full((4, 4), low) + (high - low) * np.eye(4)
    a, b = EDGES.T
    by_corner = np.zeros((4, 10, 4))
    by_corner[:, range(4), range(4)] = 4 * places - 1
    by_corner[:, range(4, 10), a] = 4 * places[:, b]
    by_corner[:, range(4, 10), b] = 4 * places[:, a]
    values = np.concatenate([places * (2 * places - 1), 4 * places[:, a] * places[:, b]], axis=1)
    return Points(np.full(4, 0.25), by_corner, values)


@dataclass(frozen=True, eq=False)
class Body:
    """A body at rest: vertices [m], shape (n, 3); elements, shape (m, 4 or 10); moduli [Pa] and ratios, shape (m,).

    Raises CaseError where the arrays do not describe a body that can be solved on.
    """

    vertices: Array
    elements: Indices
    young_pa: Array
    poisson: Array
    density_kg_m3: float = 0.0
    gravity: tuple[float, float, float] = (0.0, 0.0, 0.0)  # [m/s2]

    def __post_init__(self) -> None:
        """Bring the arrays to their types; refuse what cannot be solved on."""
        count = len(self.elements)
        for name, kind in (("vertices", np.float64), ("elements", np.int32)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=kind))
        for name in ("young_pa", "poisson"):
            spread = np.broadcast_to(np.asarray(getattr(self, name), dtype=np.float64), (count,))
            object.__setattr__(self, name, np.ascontiguousarray(spread))
        _check(self)

    @cached_property
    def gradients(self) -> Array:
        """Gradients of the barycentric coordinates [1/m], shape (m, 4, 3)."""
        edges = self.vertices[self.elements[:, 1:4]] - self.vertices[self.elements[:, :1]]
        inverse = np.asarray(np.linalg.inv(edges), dtype=np.float64)
        return np.concatenate([-inverse.sum(axis=2)[:, None], inverse.transpose(0, 2, 1)], axis=1)

    @cached_property
    def volumes(self) -> Array:
        """Volumes at rest [m3], shape (m,)."""
        edges = self.vertices[self.elements[:, 1:4]] - self.vertices[self.elements[:, :1]]
        return np.asarray(np.linalg.det(edges), dtype=np.float64) / 6.0

    @cached_property
    def lame(self) -> tuple[Array, Array]:
        """Lame's parameters mu and lambda [Pa], shape (m,) each."""
        mu = self.young_pa / (2 * (1 + self.poisson))
        return mu, 2 * mu * self.poisson / (1 - 2 * self.poisson)

    @cached_property
    def weight(self) -> Array:
        """Gravity's load on each node [N], shape (n, 3), from the shape functions."""
        rule = points(self.elements.shape[1])
        share = rule.share @ rule.values
        mass = np.zeros(len(self.vertices))
        np.add.at(mass, self.elements, self.density_kg_m3 * self.volumes[:, None] * share)
        return mass[:, None] * np.asarray(self.gravity, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Springs:
    """Compliant constraints: each row of `weights`, csr (k, n), is a point as a weighted mean of nodes.

    `stiffness` [N/m], shape (k, 3, 3), is symmetric and positive semidefinite: the inverse of what the target's
    covariance leaves open. Raises CaseError where it is not.
    """

    weights: sp.csr_matrix
    stiffness: Array
    parts: tuple[Springs, ...] = ()  # that they were joined of

    def __post_init__(self) -> None:
        """Bring the arrays to their types; refuse what is not a spring."""
        if self.parts:
            return
        weights = sp.csr_matrix(self.weights, dtype=np.float64)
        weights.sum_duplicates()
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "stiffness", stiffness_of(self.stiffness, len(weights.indptr) - 1))


def joined(*parts: Springs) -> Springs:
    """Return springs one after the other; a solver lays a part out once, however often it is joined to others."""
    return Springs(stacked([one.weights for one in parts]), np.concatenate([one.stiffness for one in parts]), parts)


def stacked(parts: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    """Return rows of csr matrices (k, n) one below the other, in a fraction of SciPy's time for a few."""
    starts = np.cumsum([0, *(len(one.data) for one in parts)])
    rows = [[0], *(one.indptr[1:] + start for one, start in zip(parts, starts, strict=False))]
    entries = (np.concatenate([getattr(one, name) for one in parts]) for name in ("data", "indices"))
    width = cast("tuple[int, int]", parts[0].shape)[1]
    return sp.csr_matrix((*entries, np.concatenate(rows)), shape=(sum(map(len, rows)) - 1, width))


def stiffness_of(stiffness: Array, count: int) -> Array:
    """Return a springs' stiffness [N/m] as (count, 3, 3); raise CaseError unless symmetric, positive semidefinite."""
    s = np.ascontiguousarray(stiffness, dtype=np.float64)
    where, fix = "the springs", "Give one symmetric 3x3 matrix [N/m] for each row of the weights."
    if s.shape != (count, 3, 3):
        raise CaseError(f"a stiffness of shape ({count}, 3, 3)", f"{s.shape}", where, fix)
    if not np.isfinite(s).all():
        raise CaseError("finite stiffness", f"row {int(np.argmin(np.isfinite(s).all(axis=(1, 2))))}", where, fix)
    size = np.maximum(np.abs(s).max(axis=(1, 2), initial=0), 1e-300)
    skew = np.abs(s - s.transpose(0, 2, 1)).max(axis=(1, 2), initial=0) / size
    least = np.linalg.eigvalsh(s).min(axis=1, initial=np.inf) / size if count else np.zeros(0)
    if count and (skew.max() > 1e-9 or least.min() < -1e-9):
        bad = int(np.argmax((skew > 1e-9) | (least < -1e-9)))
        raise CaseError("a symmetric, positive semidefinite stiffness", f"row {bad}: {s[bad].tolist()}", where, fix)
    return s


def _check(body: Body) -> None:
    """Refuse shapes, indices, moduli and midside nodes that do not fit."""
    vertices, elements = body.vertices, body.elements
    if vertices.ndim != 2 or vertices.shape[1] != 3 or elements.ndim != 2 or elements.shape[1] not in (4, 10):
        raise CaseError("vertices (n, 3) and elements (m, 4 or 10)", f"{vertices.shape}, {elements.shape}", _SOURCE)
    if not len(elements) or elements.min() < 0 or elements.max() >= len(vertices):
        raise CaseError("elements that name its vertices", f"{len(elements)} of them, some do not", _SOURCE, _FIX)
    if not np.isfinite(vertices).all():
        raise CaseError("finite vertices", f"{int((~np.isfinite(vertices)).sum())} that are not", _SOURCE, _FIX)
    if body.volumes.min() <= 0:
        bad = int(np.argmin(body.volumes))
        raise CaseError("elements of positive volume", f"{body.volumes[bad]:.3g} m3 at {bad}", _SOURCE, _FIX)
    good = (body.young_pa > 0) & np.isfinite(body.young_pa) & (body.poisson > -1) & (body.poisson < 0.5)
    if not good.all():
        bad = int(np.argmin(good))
        got = f"{body.young_pa[bad]} Pa and {body.poisson[bad]} at element {bad}"
        raise CaseError("moduli above 0 and Poisson's ratios below 0.5", got, _SOURCE, "Check the materials.")
    if elements.shape[1] == 10:
        ends = vertices[elements[:, EDGES]]
        off = np.linalg.norm(vertices[elements[:, 4:]] - ends.mean(axis=2), axis=2)
        off /= np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=2)
        if off.max() > STRAIGHT:
            bad = int(np.argmax(off.max(axis=1)))
            raise CaseError("midside nodes halfway at rest", f"{off.max():.2g} of an edge off at {bad}", _SOURCE, _FIX)
