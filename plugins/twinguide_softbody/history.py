"""Guess a step from the last ones: the response of the body along directions that it has just taken.

For the last changes d_j of the positions, the change of the elements' forces -G_j is known exactly, without a matrix:
the secants G_j = K d_j. Galerkin's choice over their span, (D'G + (wD)'S(wD)) a = D'r, takes most of a step's error
at once while the targets move as they did (as columns of compliance would, and for any number of springs).
"""

from __future__ import annotations

import numpy as np

from .body import Array
from .machine import Machine

KEPT = 6  # directions: three that a sensor may move in, twice
LEAST = 1e-10  # of the largest eigenvalue, after scaling: below, directions are the same
STILL = 1e-7  # [m], rms: smaller changes are rounding


class History:
    """The last changes of positions and of forces, newest over oldest."""

    def __init__(self, machine: Machine, n: int) -> None:
        self._machine = machine
        zeros = machine.arrays.zeros
        self.moves, self.answers, self._move = zeros(KEPT, n, 3), zeros(KEPT, n, 3), zeros(n, 3)
        self._less, self._work, self._none = np.array([-1.0]), np.zeros((KEPT, KEPT)), np.zeros(0)
        self._stiffness, self._points, self._held = np.zeros((0, 3, 3)), np.zeros((KEPT, 0, 3)), np.zeros((KEPT, KEPT))
        self._dots = np.zeros((2, KEPT))
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.at, self._count = 0, 0  # the row that the next change takes; rows that hold one
        self.basis = np.zeros((KEPT, KEPT))  # moves'basis are orthonormal in K: Galerkin's choice is basis basis' D'r
        self.known = False

    def attach(self, stiffness: Array) -> None:
        """Learn how the known directions move springs of a stiffness [N/m], (k, 3, 3)."""
        self._stiffness = stiffness
        self._points = np.zeros((KEPT, len(stiffness), 3))
        for k in range(self._count):
            self._machine.spring_points(self.moves[k], self._points[k])
        pulls = (self._points.transpose(1, 0, 2) @ stiffness).transpose(1, 0, 2)
        self._held = np.tensordot(self._points, pulls, axes=([1, 2], [1, 2]))
        self._prepare()

    def push(self, before: Array, after: Array, force_before: Array, force_after: Array) -> None:
        """Keep a change of positions [m] with that of the elements' forces [N], all (n, 3)."""
        self._machine.combine(after, before[None], self._less, self._move)
        if self._machine.rms(self._move) < STILL:
            return
        move, answer, dots = self.moves[self.at], self.answers[self.at], self._dots
        self._machine.combine(self._move, self.moves, self._none, move)
        self._machine.combine(force_before, force_after[None], self._less, answer)
        self._machine.dots(self.answers, move, dots[0])
        self._machine.dots(self.moves, answer, dots[1])
        self._machine.spring_points(move, self._points[self.at])
        self.learn(dots, self._points[self.at])

    def learn(self, dots: Array, points: Array) -> None:
        """Take in row `at`: answers'move and moves'answer [J], (2, KEPT), and how it moves the springs [m], (k, 3)."""
        self._work[self.at] = self._work[:, self.at] = (dots[0] + dots[1]) / 2
        self._points[self.at] = points
        pull = (points[:, None] @ self._stiffness)[:, 0]
        self._held[self.at] = self._held[:, self.at] = self._points.reshape(KEPT, -1) @ pull.ravel()
        self.at = (self.at + 1) % KEPT
        self._count = min(self._count + 1, KEPT)
        self._prepare()

    def guess(self, u: Array, right: Array, out: Array) -> bool:
        """Write u plus the best known change for the imbalance `right` [N]; false where nothing is known."""
        if not self.known:
            return False
        rows, basis, dots = self.moves[: self._count], self.basis[: self._count], self._dots[0, : self._count]
        self._machine.dots(rows, right, dots)
        self._machine.combine(u, rows, basis @ (basis.T @ dots), out)
        return True

    def _prepare(self) -> None:
        known = slice(0, self._count)
        matrix = (self._work + self._held)[known, known]
        scale = np.sqrt(np.maximum(np.diag(matrix), 0))
        self.known = bool(self._count) and bool((scale > 0).all())
        if self.known:
            values, vectors = np.linalg.eigh(matrix / scale[:, None] / scale)
            kept = np.where(values > LEAST * values[-1], values, np.inf)
            self.basis[known, known] = vectors / np.sqrt(kept) / scale[:, None]
