"""How sure each vertex is: what is not known of the tissue and its surroundings, the mesh, the solver and the sensors.

An error is e = b + sum_p a_p x_p with x_p standard normal: each `a_p` is what one sigma of one unknown does to a vertex
under the present drive (`response.py`), and `b` the mesh's bias as quadratic tetrahedra tell it. The radius that holds
95 % of |e| is found from the two first moments of |e|^2 (Patnaik 1949), whose quantile is Wilson & Hilferty's (1931):
exact for a bias alone, within 2 % for normal errors of any shape.

A frame reads every column once, in the kernels (`kernels/errors.c`) or by NumPy where there is no compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from . import native
from .arrays import aligned
from .response import Columns

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
CHI_95 = 2.7955  # radius of a 3-D normal's 95 % region, in standard deviations
Z_95 = 1.6448536
BEYOND = 1.25  # the quadratic mesh's own error added to its difference: both fall alike, a quarter is left
BIAS_SHARE = 0.25  # of the bias that is not known: quadratic tetrahedra have an error of their own
MM = 1e3  # the kernels' lengths are mm: squares of squares of metres leave float32's range
SIDE = 16  # vertices side by side, as in kernels/errors.c
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def radius95(covariance: Array, bias: Array) -> Array:
    """Return radii [m], shape (n,), that hold 95 % of errors of a covariance [m2], (n, 6), about a bias [m], (n, 3).

    The covariance's six entries are xx, yy, zz, xy, xz, yz.
    """
    xx, yy, zz, xy, xz, yz = covariance.T
    x, y, z = bias.T
    mean = xx + yy + zz + x * x + y * y + z * z
    square = xx * xx + yy * yy + zz * zz + 2 * (xy * xy + xz * xz + yz * yz)
    through = xx * x * x + yy * y * y + zz * z * z + 2 * (xy * x * y + xz * x * z + yz * y * z)
    some = mean > 0
    k = np.where(some, 2.0 / 9.0 * (square + 2 * through) / np.where(some, mean, 1.0) ** 2, 0.0)
    return np.sqrt(np.maximum(mean, 0.0) * (1.0 - k + Z_95 * np.sqrt(k)) ** 3)


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A point that a spring may hold: its nodes and weights, and its columns side by side for the kernels."""

    nodes: NDArray[np.intp]
    weights: Array
    columns: Floats  # (blocks, 9 (1 + answered), 16): the answer to a unit force [m/N], what each unknown changes of it

    complete: bool  # or the one unknown stands for all: `Response.in_a_hurry`

    @staticmethod
    def of(row: sp.csr_matrix, found: Columns, *, complete: bool = True) -> Point:
        """Keep the columns of a point, csr (1, n)."""
        nodes, weights = np.asarray(row.indices, dtype=np.intp), np.asarray(row.data, dtype=np.float64)
        return Point(nodes, weights, _side_by_side(np.concatenate([found.answer[None], found.unknown])), complete)

    def seen(self, columns: Floats) -> Array:
        """Return the point's part of columns, (columns, 3, 3)."""
        at = columns[self.nodes // SIDE, :, self.nodes % SIDE]
        return (self.weights @ at.astype(np.float64)).reshape(-1, 3, 3)


class _Own(ctypes.Structure):
    """`Own` of kernels/errors.c."""

    _fields_ = (("columns", ctypes.c_void_p), ("count", ctypes.c_int32), ("complete", ctypes.c_int32))


class _Errors(ctypes.Structure):
    """`Errors` of kernels/errors.c."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("blocks", "unknowns", "answered", "points")),
        *((name, ctypes.c_void_p) for name in ("base", "own", "noise", "turned")),
        *((name, ctypes.c_float) for name in ("bias_share", "quantile", "scale")),
    ]


class ErrorModel:
    """The error of each of n vertices for a drive [m], shape (k, 3): the target's displacement, then each point's own.

    `target` are the columns of the target's drive, of whose unknowns the first `answered` change the points' too;
    `mesh`, shape (n, 3, 3), is `bias.mesh_error`; `turn`, shape (n, 3, 3), is what the surroundings' turning by one
    sigma about each axis does, per metre of the drive's length. `hold` says which points' springs act, the target's
    patch first.
    """

    def __init__(self, target: Columns, mesh: Array, answered: int, turn: Array) -> None:
        self._count, self._unknowns, self._answered = len(target.answer), len(target.unknown), answered
        stacked = np.concatenate([target.answer[None], BEYOND * mesh[None], target.unknown])
        self._base = _side_by_side(stacked)
        self._turn = _side_by_side(turn[None])
        self._noise, self._turned = (aligned((len(self._base), 6, SIDE), np.float32) for _ in range(2))
        self._sigma = np.zeros(len(self._base) * SIDE, np.float32)
        self._points: Sequence[Point] = ()
        try:
            self._library: Any = native.library()
        except native.NoCompiler:
            self._library = None

    def hold(self, points: Sequence[Point], stiffness: Array, covariance: Array) -> None:
        """Let springs [N/m] hold points, both (k, 3, 3); all but the first are measured with a covariance [m2]."""
        k = len(points)
        self._points = points
        base = np.stack([p.seen(self._base) for p in points])  # (k, columns, 3, 3)
        own = np.zeros((k, k, 1 + self._answered, 3, 3))  # at each point, of each
        for i, j in np.ndindex(k, k):
            seen = points[i].seen(points[j].columns if points[j].complete else points[j].columns[:, :9])
            own[i, j, : len(seen)] = seen
        self._free = base[:, 0].reshape(3 * k, 3)
        self._base_at = base[:, 2:].transpose(1, 0, 2, 3).reshape(-1, 3 * k, 3)
        self._own_at = own[:, :, 1:].transpose(2, 0, 3, 1, 4).reshape(-1, 3 * k, 3 * k)
        compliance = own[:, :, 0].transpose(0, 2, 1, 3).reshape(3 * k, 3 * k)
        springs = np.zeros((k, 3, k, 3))
        springs[range(k), :, range(k)] = stiffness
        springs = springs.reshape(3 * k, 3 * k)
        self._drawn = np.linalg.solve(np.eye(3 * k) + springs @ compliance, springs)  # [N/m]
        self._held_turn = self._turn_held()
        for pair, (a, b) in enumerate(PAIRS):
            self._turned[:, pair] = np.einsum("bul,bul->bl", self._held_turn[:, a], self._held_turn[:, b])
        self._hold_noise(covariance)

    def _turn_held(self) -> Floats:
        """Return what the turn does under the points' springs, (blocks, 3, 3, 16): by axis and by axis turned about."""
        at = np.concatenate([p.seen(self._turn)[0] for p in self._points])
        out = self._turn.reshape(-1, 3, 3, SIDE).copy()
        for point, f in zip(self._points, (self._drawn @ at).reshape(-1, 3, 3), strict=True):
            answer = point.columns[:, :9].reshape(-1, 3, 3, SIDE)
            out -= f.T.astype(np.float32) @ answer
        return out

    def _hold_noise(self, covariance: Array) -> None:
        """Find what the measured points' errors do to each vertex."""
        self._noise[...] = 0.0
        k = len(self._points)
        if k == 1:
            return
        values, vectors = np.linalg.eigh(covariance[1:])
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]  # (k - 1, 3, 3)
        forces = np.einsum("fja,jab->fjb", self._drawn.reshape(3 * k, k, 3)[:, 1:], root).reshape(k, 3, -1)
        for block in range(0, len(self._noise), 64):  # small enough to stay near
            part = slice(block, block + 64)
            moved = np.zeros((len(self._noise[part]), 3, forces.shape[2], SIDE), np.float32)
            for p, f in zip(self._points, forces, strict=True):
                answer = p.columns[part, :9].reshape(-1, 3, 3, SIDE)
                moved += f.T.astype(np.float32) * np.float32(MM) @ answer
            for pair, (a, b) in enumerate(PAIRS):
                self._noise[part, pair] = np.einsum("brl,brl->bl", moved[:, a], moved[:, b])

    def moved(self, drive: Array) -> Array:
        """Return the linear answer [m], shape (n, 3), to a drive [m], shape (k, 3)."""
        force = self._forces(drive)
        out = _along(self._base[:, :9], drive[0])
        for point, f in zip(self._points, force, strict=True):
            out += _along(point.columns[:, :9], f)
        return out.transpose(0, 2, 1).reshape(-1, 3)[: self._count].astype(np.float64)

    def unsure(self, drive: Array) -> Array:
        """Return what the surroundings' springs change of incomplete points' motion [m], shape (n, 3), each by itself.

        A body that is softer everywhere moves alike under its points; what differs is how it is held.
        """
        forces = self._forces(drive)
        out = np.zeros((len(self._base), 3, SIDE))
        for point, f in zip(self._points, forces, strict=True):
            if not point.complete:
                out -= _along(point.columns[:, 9:], f)
        at = [p.weights @ out[p.nodes // SIDE, :, p.nodes % SIDE] for p in self._points]
        for point, f in zip(self._points, (self._drawn @ np.concatenate(at)).reshape(-1, 3), strict=True):
            out -= _along(point.columns[:, :9], f)
        return out.transpose(0, 2, 1).reshape(-1, 3)[: self._count]

    def effects(self, drive: Array) -> Array:
        """Return what one sigma of each unknown does [m], shape (unknowns, n, 3), under a drive [m], shape (k, 3).

        The last three are the surroundings' turns about x, y and z.
        """
        length = float(np.linalg.norm(drive[0]))
        turned = [length * self._held_turn[:, :, axis] for axis in range(3)]
        found = np.stack([*self._effects(drive[0], self._forces(drive), self._drawn_by(drive)), *turned])
        return found.transpose(0, 1, 3, 2).reshape(len(found), -1, 3)[:, : self._count].astype(np.float64)

    def sigma(self, drive: Array, *, solver_m: float = 0.0, term: Array | None = None) -> Array:
        """Return each vertex's error [m], shape (n,): 2.7955 of it hold 95 % of that vertex's errors.

        `solver_m` [m] is the solver's (and a reduction's) own, rms over vertices; `term` [m], shape (n, 3), is one more
        unknown's effect.
        """
        forces = (drive[0], self._forces(drive), self._drawn_by(drive))
        parts = [np.ascontiguousarray(MM * a, dtype=np.float32) for a in forces]
        one_more = None if term is None else self._filled(term)
        self._pass(parts[0], parts[1], parts[2], one_more, (MM * solver_m) ** 2 / 3)
        return self._sigma[: self._count].astype(np.float64)

    def _forces(self, drive: Array) -> Array:
        """Return the points' springs' forces [N], shape (k, 3)."""
        return (self._drawn @ (drive.ravel() - self._free @ drive[0])).reshape(-1, 3)

    def _effects(self, drive: NDArray[Any], force: NDArray[Any], drawn: NDArray[Any]) -> list[NDArray[Any]]:
        """Return each unknown's effect, (blocks, 3, 16), of a drive, (3,), and what the points' springs make of it."""
        out = [_along(self._base[:, 9 * (2 + u) : 9 * (3 + u)], drive) for u in range(self._unknowns)]
        for u, t in enumerate(out):
            for point, f, d in zip(self._points, force, drawn[u], strict=True):
                t -= _along(point.columns[:, :9], d)
                if u < self._answered and point.complete:
                    t -= _along(point.columns[:, 9 * (1 + u) : 9 * (2 + u)], f)
        return out

    def _drawn_by(self, drive: Array) -> Array:
        """Return the forces [N] by which the points' springs take back each unknown's effect, (unknowns, k, 3)."""
        at = self._base_at @ drive[0]
        at[: self._answered] -= self._own_at @ self._forces(drive).ravel()
        return (at @ self._drawn.T).reshape(self._unknowns, -1, 3)

    def _filled(self, values: Array) -> Floats:
        out = np.zeros((len(self._sigma), 3), np.float32)
        out[: self._count] = MM * values
        return out

    def _pass(self, drive: Floats, force: Floats, drawn: Floats, term: Floats | None, even: float) -> None:
        """Write each vertex's error; lengths [mm]."""
        if self._library is None:
            self._sigma[:] = self._in_numpy(drive, force, drawn, term, even)
            return
        own = (_Own * len(self._points))(
            *(_Own(p.columns.ctypes.data, p.columns.shape[1], p.complete) for p in self._points)
        )
        sizes = (len(self._base), self._unknowns, self._answered, len(self._points))
        pointers = (self._base.ctypes.data, ctypes.addressof(own), self._noise.ctypes.data, self._turned.ctypes.data)
        system = _Errors(*sizes, *pointers, BIAS_SHARE, Z_95, 1 / (MM * CHI_95))
        arrays = (None if a is None else native.pointer(a) for a in (drive, force, drawn, term))
        out = native.pointer(self._sigma)
        self._library.vertex_errors(ctypes.byref(system), *arrays, ctypes.c_float(even), out)

    def _in_numpy(self, drive: Floats, force: Floats, drawn: Floats, term: Floats | None, even: float) -> Array:
        """Return what the kernel writes."""
        mesh = _along(self._base[:, 9:18], drive)
        terms = [BIAS_SHARE * mesh, *self._effects(drive, force, drawn)]
        terms += [] if term is None else [term.reshape(-1, SIDE, 3).transpose(0, 2, 1)]
        covariance = np.stack([sum(t[:, a] * t[:, b] for t in terms) for a, b in PAIRS], axis=1)
        covariance += self._noise + float(drive @ drive) * self._turned
        covariance[:, :3] += even
        flat = (a.astype(np.float64).transpose(0, 2, 1) for a in (covariance, mesh))
        return radius95(*(a.reshape(-1, a.shape[2]) for a in flat)) / (MM * CHI_95)


def _side_by_side(columns: Array) -> Floats:
    """Return columns, (c, n, 3, 3), as (blocks, 9 c, 16): sixteen vertices side by side, the last block filled up."""
    count = columns.shape[1]
    out = aligned((-(-count // SIDE), 9 * len(columns), SIDE), np.float32)
    full = np.zeros((len(columns), len(out) * SIDE, 9), np.float32)
    full[:, :count] = columns.reshape(len(columns), count, 9)
    out[...] = full.reshape(len(columns), len(out), SIDE, 9).transpose(1, 0, 3, 2).reshape(out.shape)
    return out


def _along(columns: NDArray[Any], by: NDArray[Any]) -> NDArray[Any]:
    """Return columns of one kind, (blocks, 9, 16), along a drive, shape (3,): (blocks, 3, 16)."""
    return np.einsum("bxal,a->bxl", columns.reshape(len(columns), 3, 3, SIDE), by.astype(columns.dtype))
