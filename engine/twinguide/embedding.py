"""Points that ride in a tetrahedral body: surfaces drawn from a solver's vertices, and how sure they are.

A point inside moves as the linear interpolation of its tetrahedron, and is as uncertain as that.

The rule for what lies outside, such as a vessel on its way to the liver: it rides on the nearest point of the nearest
tetrahedron and keeps its offset from there, so that it moves with the body and never faster than its skin. At rest
every point is reproduced exactly, and a rigid translation of the body is one of the points. What the body says of it
fades with the distance: `LOOSE_M` from the body it may as well move along as stay, which is a uniform distribution
over the skin's motion, and its error grows to that one's linearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]

from twinguide.errors import CaseError

Array = NDArray[np.float64]
CANDIDATES = (8, 32, 96)  # tetrahedra with the nearest centroids that are looked at, until one holds the point
INSIDE = -1e-9  # of a barycentric coordinate
LOOSE_M = 0.1  # from the body, where a point outside may as well stay as move along: a hand's breadth, an assumption
STAY_OR_GO = 12**-0.5  # standard deviation of a uniform distribution over 0..1
FEW = 64  # points up to which to gather each one's corners costs less than to call a sparse product
CHUNK = 2000  # points at a time: bounds the memory for 96 candidates to some 30 MB


class BodyLike(Protocol):
    """What is needed of a body: vertices [m], shape (n, 3), and tetrahedra, shape (m, 4)."""

    @property
    def vertices(self) -> Array: ...  # noqa: D102

    @property
    def tetrahedra(self) -> NDArray[np.int32]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """How points ride: `points = weights @ vertices[indices] + offset`."""

    indices: NDArray[np.int32]  # (k, 4)
    weights: Array  # (k, 4), not negative, sum 1
    offset: Array  # (k, 3) [m], zero for a point inside
    far: Array  # (k,) how far outside, 1 from `LOOSE_M` on
    matrix: Any  # (k, n) sparse: the same weights, faster than the indices for many points

    def apply(self, vertices: NDArray[Any]) -> Array:
        """Return the points [m], shape (k, 3), for the body's vertices [m], shape (n, 3)."""
        return self._mix(vertices) + self.offset

    def _mix(self, values: NDArray[Any]) -> Array:
        """Return the points' values, shape (k, c), for the vertices', shape (n, c)."""
        if len(self.indices) > FEW:
            return np.asarray(self.matrix @ values, dtype=np.float64)
        return np.einsum("kt,ktc->kc", self.weights, values[self.indices])

    def sigma(self, sigma_m: NDArray[Any], vertices: NDArray[Any], rest: Array) -> Array:
        """Return the points' errors [m], shape (k,), 1 sigma per axis, for the vertices' [m], shape (n,).

        `vertices` and `rest` [m], shape (n, 3), say how far the body has moved. Neighbouring vertices err alike, so
        their errors are averaged, not their squares: exact where they are the same, else an upper bound.
        """
        own = self._mix(sigma_m[:, None])[:, 0]
        if not self.far.any():
            return own
        moved = self._mix(vertices - rest)
        # The motion's length over the root of three axes: per axis, as all errors here.
        loose = STAY_OR_GO * self.far * np.sqrt((moved**2).sum(axis=1) / 3.0)
        return np.hypot(own, loose)

    def outside(self) -> NDArray[np.bool_]:
        """Return which points lie outside the body at rest, shape (k,)."""
        return np.asarray((self.offset**2).sum(axis=1) > 1e-18)


def embed(body: BodyLike, points: Array) -> Embedding:
    """Find how points [m], shape (k, 3), ride in a body at rest; raise CaseError where either is not usable."""
    vertices, tetrahedra = body.vertices, body.tetrahedra
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all() or not len(tetrahedra):
        got = f"points of shape {points.shape}, {len(tetrahedra)} tetrahedra"
        raise CaseError("finite points of shape (k, 3) and a body", got, "embed")
    owner, weights = _locate(vertices, tetrahedra, points)
    indices = tetrahedra[owner]
    offset = points - np.einsum("kc,kcx->kx", weights, vertices[indices])
    offset[weights.min(axis=1) > 0] = 0.0  # inside, what is left is rounding
    rows = np.repeat(np.arange(len(points)), 4)
    matrix = sp.csr_matrix((weights.ravel(), (rows, indices.ravel())), shape=(len(points), len(vertices)))
    far = np.minimum(np.sqrt((offset**2).sum(axis=1)) / LOOSE_M, 1.0)
    return Embedding(indices, weights, offset, far, matrix)


def _locate(vertices: Array, tetrahedra: NDArray[np.int32], points: Array) -> tuple[NDArray[np.intp], Array]:
    """Return each point's tetrahedron, shape (k,), and its clamped barycentric weights, shape (k, 4)."""
    corners = vertices[tetrahedra]
    edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
    inverse = np.asarray(np.linalg.inv(edges), dtype=np.float64)
    tree: Any = KDTree(corners.mean(axis=1))
    owner = np.zeros(len(points), dtype=np.intp)
    weights = np.zeros((len(points), 4))
    for first in range(0, len(points), CHUNK):
        unheld = np.arange(first, min(first + CHUNK, len(points)))
        for count in _counts(len(tetrahedra)):
            near = np.asarray(tree.query(points[unheld], k=count)[1], dtype=np.intp).reshape(len(unheld), count)
            owner[unheld], weights[unheld], held = _best(corners, inverse, near, points[unheld])
            unheld = unheld[~held]
            if not len(unheld):
                break
    return owner, weights


def _counts(tetrahedra: int) -> Sequence[int]:
    return sorted({min(count, tetrahedra) for count in CANDIDATES})


def _best(
    corners: Array, inverse: Array, near: NDArray[np.intp], points: Array
) -> tuple[NDArray[np.intp], Array, NDArray[np.bool_]]:
    """Choose among candidates, shape (k, c), the one that holds the point or whose clamped point is nearest."""
    local = np.einsum("kcxy,kcy->kcx", inverse[near], points[:, None] - corners[near, 0])
    weights = np.concatenate([1 - local.sum(axis=2, keepdims=True), local], axis=2)
    clamped = np.maximum(weights, 0.0)
    clamped /= clamped.sum(axis=2, keepdims=True)
    distance = np.linalg.norm(points[:, None] - np.einsum("kct,kctx->kcx", clamped, corners[near]), axis=2)
    inside = np.asarray(weights.min(axis=2), dtype=np.float64)
    # One that holds the point beats all others; among several, which share a face there, the deepest.
    cost = np.where(inside >= INSIDE, -1.0 - inside, distance)
    choice = np.asarray(np.argmin(cost, axis=1), dtype=np.intp)
    rows = np.arange(len(points))
    return near[rows, choice], clamped[rows, choice], inside[rows, choice] >= INSIDE
