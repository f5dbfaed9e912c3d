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

from twinguide.errors import CaseError

from .mesh import EDGES, Array, Indices, check_materials, check_mesh, shape_functions

OF_TEN = 8  # times the work of a tetrahedron of 4 nodes: 5 to 8 measured
STIFFEST_N_M = 1e12  # a spring's, up to where steps are right to what they say; at 1e16 they are millimetres off


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The quadrature points of an element, in barycentric coordinates."""

    share: Array  # (q,), of the element's volume
    by_corner: Array  # (q, nodes, 4): derivative of each node's shape function by each barycentric coordinate
    values: Array  # (q, nodes): the shape functions


def points(nodes: int) -> Rule:
    """Return the rule for 4 nodes (one point) or 10 (four points, exact to degree 2; Zienkiewicz 2000, table 5.3)."""
    if nodes == 4:
        return Rule(np.ones(1), np.eye(4)[None], np.full((1, 4), 0.25))
    high, low = (5 + 3 * np.sqrt(5)) / 20, (5 - np.sqrt(5)) / 20
    places = np.full((4, 4), low) + (high - low) * np.eye(4)
    a, b = EDGES.T
    by_corner = np.zeros((4, 10, 4))
    by_corner[:, range(4), range(4)] = 4 * places - 1
    by_corner[:, range(4, 10), a] = 4 * places[:, b]
    by_corner[:, range(4, 10), b] = 4 * places[:, a]
    return Rule(np.full(4, 0.25), by_corner, shape_functions(places))


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
        vertices, elements = np.asarray(self.vertices, dtype=np.float64), np.asarray(self.elements)
        check_mesh(vertices, elements)
        object.__setattr__(self, "vertices", np.ascontiguousarray(vertices))
        object.__setattr__(self, "elements", np.ascontiguousarray(elements, dtype=np.int32))
        for name in ("young_pa", "poisson"):
            values, count = np.asarray(getattr(self, name), dtype=np.float64), len(elements)
            if values.shape not in ((), (count,)):
                raise CaseError(f"one {name}, or {count}", f"shape {values.shape}", "the body")
            object.__setattr__(self, name, np.ascontiguousarray(np.broadcast_to(values, (count,))))
        check_materials(self.young_pa, self.poisson)
        load = np.append(self.gravity, self.density_kg_m3)
        if load.shape != (4,) or not np.isfinite(load).all() or self.density_kg_m3 < 0:
            got = f"{self.gravity} and {self.density_kg_m3}"
            raise CaseError("gravity (3,) [m/s2] and a density [kg/m3] of 0 or more", got, "the body")

    @property
    def corners(self) -> int:
        """How many of the vertices are corners, where those come first, as in `mesh.quadratic`."""
        return int(self.tetrahedra.max()) + 1

    @property
    def work(self) -> int:
        """How many tetrahedra of 4 nodes take as long for a step (`benchmarks/softbody.py --only mesh`)."""
        return len(self.elements) * (1 if self.elements.shape[1] == 4 else OF_TEN)

    @property
    def tetrahedra(self) -> Indices:
        """The elements' corners, shape (m, 4), as `twinguide.embedding` asks for them."""
        return self.elements[:, :4]

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
        if not np.isfinite(weights.data).all():
            raise CaseError("finite weights", f"{int((~np.isfinite(weights.data)).sum())} that are not", "the springs")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "stiffness", stiffness_of(self.stiffness, len(weights.indptr) - 1))


def joined(*parts: Springs) -> Springs:
    """Return springs one after the other; a solver lays a part out once, however often it is joined to others.

    Raises CaseError where one is among them twice.
    """
    if len({id(one) for one in parts}) < len(parts):
        raise CaseError("each part once", "one twice", "joined springs", "Give the part twice the stiffness.")
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
    if not (np.abs(s) <= STIFFEST_N_M).all():
        bad = int(np.argmin((np.abs(s) <= STIFFEST_N_M).all(axis=(1, 2))))
        raise CaseError(f"stiffness of {STIFFEST_N_M:g} N/m at most", f"row {bad}: {s[bad].tolist()}", where, fix)
    size = np.maximum(np.abs(s).max(axis=(1, 2), initial=0), 1e-300)
    skew = np.abs(s - s.transpose(0, 2, 1)).max(axis=(1, 2), initial=0) / size
    least = np.linalg.eigvalsh(s).min(axis=1, initial=np.inf) / size if count else np.zeros(0)
    if count and (skew.max() > 1e-9 or least.min() < -1e-9):
        bad = int(np.argmax((skew > 1e-9) | (least < -1e-9)))
        raise CaseError("a symmetric, positive semidefinite stiffness", f"row {bad}: {s[bad].tolist()}", where, fix)
    return s
