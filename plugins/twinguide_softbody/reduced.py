"""Follow targets by a few modes, check the full body's balance every frame, and fall back to it.

A frame: Newton's method on the modes over sampled points, all positions from the modes, then one pass over every
element of the full body. What that pass leaves out of balance, divided by each node's own stiffness (one sweep of
Jacobi's method) and times a ratio measured against full solutions inside and outside the range, is the error stated.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import CaseError

from . import native
from .arrays import aligned
from .body import Array, Body, Springs, points
from .layout import Layout, layout, pairs
from .mesh import FACES
from .native import pointer
from .quasistatic import Solved, Solver
from .reduction import Drive, Reduction, own_stiffness, reduction, settled

ACCEPT_M = 5e-5  # [m], rms: a frame whose stated error is larger is solved in full
NEAR = 1.02  # how far beyond its range a model may be asked, by each share
BEYOND = 1.6  # how far outside the range the check is calibrated
OFF_M = 2e-4  # [m]: how far a target may lie off the family
LEAST_J = 0.05  # below, the full solver with its line search is to say what happens
STEPS, SETTLED_M = 4, 1e-6
NEAR_M = 1e-3  # a step below hardly turns the next: strains of 1 %, of which its remainder is the square
ROW = 16  # bytes of a node's displacement and force in kernels/reduced.c
MOST_MODES = 32  # as in kernels/reduced.c
SWEEP_FLOOR_M = 1e-9  # [m]: sweeps below are rounding and say nothing about the ratio

_SIZES = ("modes", "points", "nodes", "elements", "element_nodes", "springs", "touched", "threads", "steps")
_POINTERS = (
    *("gradient", "point", "linear", "weight", "stiffness", "drawn", "modes_at", "start", "order", "conn16", "data16"),
    *("load", "inverse", "touched_node", "touched_start", "touched_row", "touched_weight"),
    *("pull", "outer", "at", "force", "least", "partial"),
)


class _System(ctypes.Structure):
    """`Reduced` of kernels/reduced.c."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in _SIZES),
        *((name, ctypes.c_double) for name in ("settled", "near")),
        ("middle", ctypes.c_double * 3),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What training makes: modes and points, and how far the check can be believed."""

    reduction: Reduction
    ratio: float  # of the true error [m], rms, to the check's sweep [m]: the largest met, inside and outside the range


class Reduced:
    """Follow targets like `Solver.step`, by modes where they are good enough and in full where not.

    With a `model` that was trained for the same body, springs and drive, nothing is trained.
    Raises native.NoCompiler where the kernels cannot be built: then the full solver alone is to be used; CaseError for
    a number of `modes` that the kernels have no room for.
    """

    def __init__(
        self,
        solver: Solver,
        body: Body,
        springs: Springs,
        fixed: NDArray[np.bool_] | None,
        drive: Drive,
        *,
        modes: int = 16,
        samples: int = 40,
        accept_m: float = ACCEPT_M,
        threads: int = 2,
        model: Model | None = None,
    ) -> None:
        least = len(drive.directions)
        if not least <= modes <= MOST_MODES:
            fix = "Ask for fewer, or drive the body in fewer ways."
            raise CaseError(f"{least} (a mode for each way to drive) to {MOST_MODES} modes", f"{modes}", "Reduced", fix)
        self._library = native.library("reduced.c")
        held = np.zeros(len(body.vertices), bool) if fixed is None else np.asarray(fixed, bool)
        lay = layout(body, held)
        trained = None if model is None else model.reduction
        self.reduction = trained or reduction(solver, body, lay, drive, modes=modes, samples=samples)
        self._solver, self._accept, self._drive = solver, accept_m, drive
        self._kept: dict[str, NDArray[Any]] = {}
        self._system = _System()
        self._lay_out(body, lay, threads)
        self._body, self._lay, self._held, self._own = body, lay, held, own_stiffness(lay)
        self.stiffen(springs)
        self._at = np.zeros(len(self.reduction.modes))
        self._out = np.zeros(6)
        self._left: Array | None = None  # where the modes have led, which the solver does not know yet
        self.ratio = 0.0 if model is None else model.ratio
        if model is None:
            self.ratio = self._calibrate()
            self._at[:] = 0.0  # where a kept model begins

    @property
    def model(self) -> Model:
        """What was trained, to be kept."""
        return Model(self.reduction, self.ratio)

    def step(self, targets: Array) -> Solved:
        """Follow the targets [m], shape (k, 3), by one frame."""
        targets = np.asarray(targets, dtype=np.float64)
        share, off = self._drive.coordinates(targets)
        if np.abs(share).max(initial=0.0) <= NEAR and off <= OFF_M:
            solved = self._reduced(targets)
            sound = isfinite(solved.solver_error_m) and solved.smallest_j > LEAST_J  # the error heeds every vertex
            if sound:
                self._left = solved.positions
            if sound and solved.converged and solved.solver_error_m <= self._accept:
                return solved
        self.leave()
        return self._solver.step(targets)

    def leave(self) -> None:
        """Bring the solver to where the modes have led: it is to go on from there."""
        if self._left is not None:
            self._solver.reset(self._left)
            self._left = None

    def _reduced(self, targets: Array) -> Solved:
        """Solve on the modes and check, whatever the range."""
        x, gap = np.empty_like(self._body.vertices), targets - self._reach
        arrays = (pointer(a) for a in (gap, self._at, x, self._out))
        self._library.reduced_step(ctypes.byref(self._system), *arrays)
        sweep, left, acting, least, steps, moved = self._out.tolist()
        good = moved < 10 * SETTLED_M  # which a mode that is no number is not
        if not good:
            self._at[:] = 0.0
        residual = left / acting if acting > 0 else 0.0
        return Solved(x, residual, least, int(steps), good, "reduced", self.ratio * sweep + moved)

    def _calibrate(self) -> float:
        """Measure the check against full solutions, between the trained shares and up to BEYOND times the range."""
        between = self._drive.samples(64)[-8:] * 0.97
        outside = between[:4] * BEYOND / np.abs(between[:4]).max(axis=1, keepdims=True)
        ratios = [0.0]
        for share in np.concatenate([between, outside]):
            targets = self._drive.targets(share)
            truth = settled(self._solver, targets)
            self._at[:] = 0.0
            solved = self._reduced(targets)
            error = float(np.sqrt(((solved.positions - truth) ** 2).sum(axis=1).mean()))
            sweep = float(self._out[0])
            if sweep > SWEEP_FLOOR_M:
                ratios.append(error / sweep)
        return max(ratios)

    def _lay_out(self, body: Body, lay: Layout, threads: int) -> None:
        r, (corners, law) = self.reduction, _side_by_side(lay)
        m, nodes = corners.shape
        n, modes = len(body.vertices), len(r.modes)
        count = -(-len(r.weights) // 16) * 16
        for name, size in zip(_SIZES, (modes, count, n, m, nodes, 0, 0, threads, STEPS), strict=True):
            setattr(self._system, name, size)
        self._system.settled, self._system.near = SETTLED_M, NEAR_M
        gradient, point = np.zeros((count, 1 + modes, 9)), np.ones((count, 3))
        gradient[: len(r.weights)], point[:, 0] = r.gradient, 0.0
        point[: len(r.weights)] = np.column_stack([r.weights, r.moduli])
        self._set("gradient", gradient.reshape(-1, 16, 1 + modes, 9).transpose(0, 2, 3, 1), np.float32)
        self._set("point", point.reshape(-1, 16, 3).transpose(0, 2, 1), np.float32)
        at = np.zeros((-(-n // 16) * 16, modes, 3))
        at[:n] = r.modes.transpose(1, 0, 2)
        self._set("modes_at", at.reshape(-1, 16, modes, 3).transpose(0, 2, 1, 3), np.float32)
        self._set("start", np.pad(body.vertices + r.mean[lay.place], ((0, 1), (0, 0))), np.float64)  # read as four
        self._set("order", lay.order, np.int32)
        self._system.middle[:] = body.vertices.mean(axis=0).tolist()
        rows = np.minimum(np.arange(-(-m // 16) * 16), m - 1)  # filled up by the last, without forces
        law = law[rows].reshape(len(rows), -1, 9)
        law[m:, :, :8] = 0.0
        self._set("conn16", ROW * corners[rows].reshape(-1, 16, nodes).transpose(0, 2, 1), np.int32)
        self._set("data16", law.reshape(len(rows) // 16, 16, -1).transpose(0, 2, 1), np.float32)
        for name, shape in (
            ("at", (n, 4)),
            ("force", (threads, n, 4)),
            ("least", (threads, 16)),
        ):
            self._set(name, np.zeros(shape), np.float32)
        self._set("partial", np.zeros((threads, 4)), np.float64)

    def stiffen(self, springs: Springs) -> None:
        """Bring springs, on the same points, and weight to the modes, and each node's own stiffness to the check."""
        body, lay, held = self._body, self._lay, self._held
        r, n = self.reduction, len(body.vertices)
        weights = springs.weights[:, lay.order]
        shape = np.stack([weights @ mode for mode in r.modes], axis=-1).reshape(-1, len(r.modes))  # (3 k, r)
        drawn = (springs.stiffness @ shape.reshape(-1, 3, len(r.modes))).reshape(shape.shape)
        self._reach = weights @ (body.vertices[lay.order] + r.mean)
        self._system.springs = len(self._reach)
        self._set("stiffness", springs.stiffness, np.float64)
        self._set("drawn", drawn, np.float64)
        self._set("weight", np.tensordot(r.modes, body.weight[lay.order], axes=([1, 2], [0, 1])), np.float64)
        self._set("linear", drawn.T @ shape, np.float64)
        self._set("pull", np.zeros_like(self._reach), np.float32)
        self._set("load", body.weight[lay.order], np.float32)
        self._set("outer", np.pad(body.weight[lay.order], ((0, 0), (0, 1))), np.float32)
        own = self._own.copy()
        by_node = weights.tocsc()
        counts = np.diff(by_node.indptr)
        np.add.at(
            own, np.repeat(np.arange(n), counts), by_node.data[:, None, None] ** 2 * springs.stiffness[by_node.indices]
        )
        inverse = np.linalg.inv(own)
        inverse[held[lay.order]] = 0.0
        self._set("inverse", np.pad(inverse.reshape(n, 9), ((0, 1), (0, 0))), np.float32)  # a column is read as four
        touched = np.flatnonzero(counts)
        self._system.touched = len(touched)
        self._set("touched_node", touched, np.int32)
        self._set("touched_start", np.concatenate([[0], np.cumsum(counts[touched])]), np.int32)
        self._set("touched_row", by_node.indices, np.int32)
        self._set("touched_weight", by_node.data, np.float32)

    def _set(self, name: str, values: NDArray[Any], kind: type) -> None:
        kept = aligned(values.shape, kind)
        kept[...] = values
        self._kept[name] = kept
        setattr(self._system, name, kept.ctypes.data)


def _by_edges(lay: Layout, elements: NDArray[np.intp], ends: NDArray[np.intp]) -> Array:
    """Return what `edge_forces` of kernels/reduced.c takes of elements, (k, 9), by their edges to `ends`, (k, 3)."""
    g, (volume, mu, lame) = lay.data[:, :9].reshape(-1, 3, 3), lay.data[elements, 9:].T
    g = np.concatenate([-g.sum(axis=1, keepdims=True), g], axis=1)[elements[:, None], ends]
    share = volume / len(points(lay.connectivity.shape[1]).share)
    between, det = -(share * mu)[:, None, None] * (g @ g.transpose(0, 2, 1)), np.linalg.det(g)
    i, j = np.triu_indices(3)
    both, area = lame + mu, share * det  # p = both (J - 1) - mu; V cof F g_i = V det g a_i
    return np.column_stack([between[:, i, j], -both * det * area, (both + mu) * area, det])


def _side_by_side(lay: Layout) -> tuple[NDArray[np.int32], Array]:
    """Return nodes and law as `ten_block` and `pair_block` of kernels/reduced.c take them: elements of 10, or pairs.

    A pair shares the face (a, b, c): nodes (a, b, d, c, e) of the elements (a, b, d, c) and (a, b, c, e).
    """
    m, nodes = lay.connectivity.shape
    if nodes != 4:
        return lay.connectivity, _by_edges(lay, np.arange(m), np.tile([1, 2, 3], (m, 1)))
    one, other = pairs(lay.connectivity)
    (first, d), (second, e) = divmod(one, 4), divmod(other, 4)
    faces = np.sort(FACES, axis=1)  # as nodes ascend in an element, those of a face do in both
    a, b, c = faces[d].T
    law = _by_edges(lay, first, np.stack([b, d, c], axis=1)), _by_edges(lay, second, np.column_stack([faces[e, 1:], e]))
    law[1][first == second, :8] = 0.0  # alone: its own mirror, of the same J and without forces
    nodes_of = [*(lay.connectivity[first, k] for k in (a, b, d, c)), lay.connectivity[second, e]]
    return np.stack(nodes_of, axis=1), np.concatenate(law, axis=1)
