"""Make a body's fast model offline: a few modes, and the few quadrature points that feel them as all do.

Modes are the linear response to each driven direction (the lifting: a stiff spring is then followed exactly) and the
principal modes of what is left of full solutions (POD). Points and weights reproduce the modes' forces on all
solutions (ECSW: Farhat 2015; non-negative least squares: Lawson & Hanson 1974). The same inputs give the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import qmc

from twinguide.errors import CaseError

from .body import Array, Body, points
from .layout import Layout
from .quasistatic import Solver

SETTLED_M = 2e-7  # [m]: a snapshot is a solution to this; the modes are to be good to micrometres
CANDIDATES = 16384  # most points among which the cubature chooses: more cost time and add nothing
MOST_STEPS = 60
ALIKE = 1e-12  # of a column's squared length, added: two that are alike must not make the Gram matrix singular


@dataclass(frozen=True, eq=False)
class Drive:
    """The family of targets that a model is made for: rest + sum_i share_i directions_i, every |share| <= 1.

    `rest` [m], shape (k, 3); `directions` [m], shape (p, k, 3), as long as the range.
    """

    rest: Array
    directions: Array

    def targets(self, share: Array) -> Array:
        """Return targets [m], shape (k, 3)."""
        return self.rest + np.tensordot(share, self.directions, axes=1)

    def coordinates(self, targets: Array) -> tuple[Array, float]:
        """Return the shares, shape (p,), nearest to `targets`, and how far [m] the farthest target lies off them."""
        gap = (targets - self.rest).ravel()
        share = self._onto @ gap
        off = (gap - share @ self.directions.reshape(len(share), -1)).reshape(-1, 3)
        return share, float(np.sqrt((off**2).sum(axis=1).max(initial=0.0)))

    @cached_property
    def _onto(self) -> Array:
        """What takes targets less `rest` to shares: the directions' pseudo-inverse, (p, 3 k)."""
        flat = self.directions.reshape(len(self.directions), -1)
        return np.asarray(np.linalg.solve(flat @ flat.T, flat), dtype=np.float64)

    def samples(self, count: int) -> Array:
        """Return shares to solve for: none, each alone, all corners, then `count` of Halton's sequence."""
        p = len(self.directions)
        alone = np.concatenate([np.eye(p), -np.eye(p)])
        corners = np.array(list(product((-1.0, 1.0), repeat=p))) if 1 < p <= 4 else np.zeros((0, p))
        rest = 2 * qmc.Halton(p, scramble=False).random(count + 1)[1:] - 1
        return np.concatenate([np.zeros((1, p)), alone, corners, rest])


@dataclass(frozen=True, eq=False)
class Reduction:
    """Modes and sampled points of one body under one drive, in the layout's order of nodes and elements."""

    drive: Drive
    mean: Array  # (n, 3), m: displacement at the middle of the range
    modes: Array  # (r, n, 3), orthogonal, each of root mean square 1
    gradient: Array  # (points, 1 + r, 9), 1/m
    weights: Array  # (points,), weight times volume [m3]
    moduli: Array  # (points, 2), mu and lambda [Pa]


def reduction(
    solver: Solver, body: Body, lay: Layout, drive: Drive, *, modes: int = 16, samples: int = 40
) -> Reduction:
    """Solve for `samples` targets and more, and keep `modes` modes; raise CaseError where they cannot be solved for."""
    shares = drive.samples(samples)
    solutions = np.stack([u[lay.order] for u in snapshots(solver, body, drive, shares)])
    count, p = len(body.vertices), len(drive.directions)
    mean = solutions[0]
    lifting = (solutions[1 : 1 + p] - solutions[1 + p : 1 + 2 * p]) / 2
    left = solutions - mean - np.tensordot(shares, lifting, axes=1)
    basis = _orthogonal(np.concatenate([lifting, principal(left, modes - p)])).reshape(-1, count, 3)
    q = np.tensordot(solutions - mean, basis, axes=([1, 2], [1, 2])) / count
    gradients, volume, moduli = _gradients(lay, np.concatenate([mean[None], basis]))
    chosen, weights = cubature(gradients, volume, moduli, q)
    return Reduction(drive, mean, basis, gradients[chosen], weights, moduli[chosen])


def snapshots(solver: Solver, body: Body, drive: Drive, shares: Array) -> list[Array]:
    """Return displacements [m], each (n, 3), at all `shares`, solved in an order of short ways."""
    out: list[Array] = [np.zeros(0)] * len(shares)
    left, here = list(range(len(shares))), 0
    while left:
        here = min(left, key=lambda k: (float(((shares[k] - shares[here]) ** 2).sum()), k))
        left.remove(here)
        out[here] = settled(solver, drive.targets(shares[here]), first=len(left) == len(shares) - 1) - body.vertices
    return out


def settled(solver: Solver, targets: Array, *, first: bool = False) -> Array:
    """Return positions [m], shape (n, 3), solved to SETTLED_M from where the solver stands."""
    last = solver.solve(targets).positions if first else None
    for _ in range(MOST_STEPS):
        solved = solver.step(targets)
        moved = np.inf if last is None else float(np.sqrt(((solved.positions - last) ** 2).sum(axis=1).mean()))
        if moved < SETTLED_M and solved.converged:
            return solved.positions
        stuck = moved < SETTLED_M  # too far away for a step that may invert nothing
        last = (solver.solve(targets) if stuck else solved).positions
    raise CaseError("targets that the body can follow", "no balance", "the drive's range", "Make the range smaller.")


def principal(fields: Array, count: int) -> Array:
    """Return the leading `count` principal fields of (s, n, 3), fewer where the rest is below SETTLED_M."""
    flat = fields.reshape(len(fields), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    size = np.sqrt(np.maximum(values[::-1], 0) / (len(flat) * fields.shape[1]))
    keep = min(count, int((size > SETTLED_M).sum()))
    return (vectors[:, ::-1][:, :keep].T @ flat).reshape(keep, *fields.shape[1:])


def stress(f: Array, mu: Array, lame: Array) -> Array:
    """Return the stress [Pa] of deformations (..., 3, 3) by the Neo-Hookean law of kernels/element.h."""
    cofactor = np.stack([np.cross(f[..., 1, :], f[..., 2, :]), np.cross(f[..., 2, :], f[..., 0, :]),
                         np.cross(f[..., 0, :], f[..., 1, :])], axis=-2)  # fmt: skip
    j = (f[..., 0, :] * cofactor[..., 0, :]).sum(axis=-1)
    pressure = (lame + mu) * (j - 1) - mu
    return mu[..., None, None] * f + pressure[..., None, None] * cofactor


def cubature(gradients: Array, volume: Array, moduli: Array, q: Array) -> tuple[NDArray[np.intp], Array]:
    """Return the points, and their weights times volume [m3], whose forces on the modes add up to all points'."""
    candidates = np.arange(len(volume))
    if len(candidates) > CANDIDATES:
        candidates = np.sort(np.random.default_rng(0).choice(len(volume), CANDIDATES, replace=False))
    rows: list[Array] = []
    totals: list[Array] = []
    for state in q:
        change = gradients[:, 0] + np.einsum("mrc,r->mc", gradients[:, 1:], state)
        p = stress(change.reshape(-1, 3, 3) + np.eye(3), moduli[:, 0], moduli[:, 1]).reshape(-1, 9) * volume[:, None]
        force = np.einsum("mrc,mc->rm", gradients[:, 1:], p, optimize=True)
        totals.append(force.sum(axis=1))
        rows.append(force[:, candidates].astype(np.float32))
    scale = 1 / np.maximum(np.abs(np.array(totals)).max(axis=0), 1e-12)  # every mode counts, not the stiffest alone
    matrix = np.concatenate([r * scale[:, None] for r in rows])
    weights = nonnegative(matrix, np.concatenate([t * scale for t in totals]), 2e-4, 40 * q.shape[1])
    chosen = np.flatnonzero(weights)
    return candidates[chosen], weights[chosen] * volume[candidates[chosen]]


def nonnegative(matrix: NDArray[np.floating], right: Array, tolerance: float, most: int) -> Array:
    """Return weights >= 0, few of them above 0, with |matrix w - right| <= tolerance |right|, or as near as any get.

    Lawson & Hanson 1974, by normal equations, whose Gram matrix grows by a row with each column taken: a least squares
    solution for each step costs minutes.
    """
    columns = np.ascontiguousarray(matrix.T, dtype=np.float64)  # a row for each weight
    quick, toward = columns.astype(np.float32), columns @ right
    active, refused = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    some, gram, left = np.zeros(0), np.zeros((0, 0)), right
    while np.linalg.norm(left) > tolerance * np.linalg.norm(right) and len(active) < most:
        gain = quick @ left.astype(np.float32)
        gain[active] = gain[refused] = -np.inf
        new = int(np.argmax(gain))
        if not gain[new] > 0:
            break  # no weight that is 0 would lower what is left
        beside = columns[active] @ columns[new]
        own = (1 + ALIKE) * np.array([[columns[new] @ columns[new]]])
        gram = np.block([[gram, beside[:, None]], [beside[None], own]])
        active, some = np.append(active, new), np.append(some, 0.0)
        kept, some = _positive(gram, toward[active], some)
        refused = np.zeros(0, dtype=np.intp) if kept[-1] else np.append(refused, new)
        active, gram = active[kept], gram[np.ix_(kept, kept)]
        left = right - some @ columns[active]
    weights = np.zeros(matrix.shape[1])
    weights[active] = some
    return weights


def _positive(gram: Array, toward: Array, weights: Array) -> tuple[NDArray[np.bool_], Array]:
    """Return which weights stay above 0 on the way from `weights` to the normal equations' solution, and theirs."""
    kept = np.ones(len(weights), dtype=bool)
    while kept.any():
        factor = cho_factor(gram[np.ix_(kept, kept)], lower=True, check_finite=False)
        trial = cho_solve(factor, toward[kept], check_finite=False)
        if trial.min() > 0:
            return kept, trial
        old, bad = weights[kept], trial <= 0
        moved = old + float((old[bad] / np.maximum(old[bad] - trial[bad], 1e-300)).min()) * (trial - old)
        weights[kept] = np.where(moved > 1e-14 * moved.max(initial=0.0), moved, 0.0)
        kept = kept & (weights > 0)
    return kept, np.zeros(0)


def own_stiffness(lay: Layout) -> Array:
    """Return each node's own block of the tangent at rest [N/m], shape (n, 3, 3), of 4- or 10-node elements."""
    corners = lay.data[:, :9].reshape(-1, 3, 3)
    corners = np.concatenate([-corners.sum(axis=1)[:, None], corners], axis=1)
    mu, both = lay.data[:, 10], lay.data[:, 10] + lay.data[:, 11]
    rule = points(lay.connectivity.shape[1])
    out = np.zeros((len(lay.order), 3, 3))
    for share, by_corner in zip(rule.share, rule.by_corner, strict=True):
        g = np.einsum("ac,mcx->max", by_corner, corners)
        v = share * lay.data[:, 9]
        block = np.einsum("m,max,may->maxy", v * both, g, g, optimize=True)
        block += np.einsum("m,ma,xy->maxy", v * mu, (g**2).sum(axis=2), np.eye(3), optimize=True)
        np.add.at(out, lay.connectivity, block)
    return out


def _orthogonal(fields: Array) -> Array:
    flat = fields.reshape(len(fields), -1)
    q, r = np.linalg.qr(flat.T)
    sound = np.abs(np.diag(r)) > 1e-9 * np.abs(np.diag(r)).max()
    return np.ascontiguousarray(q[:, sound].T) * np.sqrt(fields.shape[1])


def _gradients(lay: Layout, fields: Array) -> tuple[Array, Array, Array]:
    """Return grad of `fields`, (points, fields, 9), volumes and moduli of all quadrature points."""
    corners = lay.data[:, :9].reshape(-1, 3, 3)
    corners = np.concatenate([-corners.sum(axis=1)[:, None], corners], axis=1)
    rule = points(lay.connectivity.shape[1])
    at_nodes = fields[:, lay.connectivity]  # (fields, m, nodes, 3)
    parts = []
    for by_corner in rule.by_corner:
        slopes = np.einsum("ac,mcx->max", by_corner, corners)
        parts.append(np.einsum("rmai,max->mrix", at_nodes, slopes, optimize=True).reshape(len(corners), len(fields), 9))
    volume = np.concatenate([lay.data[:, 9] * share for share in rule.share])
    return np.concatenate(parts), volume, np.tile(lay.data[:, 10:12], (len(rule.share), 1))
