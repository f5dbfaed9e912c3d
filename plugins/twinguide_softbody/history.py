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
        self._moves, self._answers, self._move = zeros(KEPT, n, 3), zeros(KEPT, n, 3), zeros(n, 3)
        self._less, self._work = np.array([-1.0]), np.zeros((KEPT, KEPT))
        self._stiffness = np.zeros((0, 3, 3))
        self._points = self._pulls = np.zeros((KEPT, 0, 3))
        self._dots = np.zeros((2, KEPT))
        self._count = self._at = 0

    def forget(self) -> None:
        """Start anew."""
        self._count = self._at = 0

    def attach(self, stiffness: Array) -> None:
        """Learn how the known directions move springs of a stiffness [N/m], (k, 3, 3)."""
        self._stiffness = stiffness
        self._points, self._pulls = np.zeros((2, KEPT, len(stiffness), 3))
        for k in range(self._count):
            self._see(k)

    def _see(self, k: int) -> None:
        self._machine.spring_points(self._moves[k], self._points[k])
        np.einsum("kij,kj->ki", self._stiffness, self._points[k], out=self._pulls[k])

    def push(self, before: Array, after: Array, force_before: Array, force_after: Array) -> None:
        """Keep a change of positions [m] with that of the elements' forces [N], all (n, 3)."""
        self._machine.combine(after, before[None], self._less, self._move)
        if self._machine.rms(self._move) < STILL:
            return
        move, answer, dot = self._moves[self._at], self._answers[self._at], self._dots
        move[...] = self._move
        self._machine.combine(force_before, force_after[None], self._less, answer)
        self._machine.dots(self._answers, move, dot[0])
        self._machine.dots(self._moves, answer, dot[1])
        self._work[self._at] = self._work[:, self._at] = (dot[0] + dot[1]) / 2
        self._see(self._at)
        self._at = (self._at + 1) % KEPT
        self._count = min(self._count + 1, KEPT)

    def guess(self, u: Array, right: Array, out: Array) -> bool:
        """Write u plus the best known change for the imbalance `right` [N]; false where nothing is known."""
        if not self._count:
            return False
        known = slice(0, self._count)
        self._machine.dots(self._moves[known], right, self._dots[0, known])
        springs = np.tensordot(self._points[known], self._pulls[known], axes=([1, 2], [1, 2]))
        matrix = self._work[known, known] + springs
        scale = np.sqrt(np.maximum(np.diag(matrix), 0))
        if not (scale > 0).all():
            return False
        values, vectors = np.linalg.eigh(matrix / scale[:, None] / scale)
        kept = values > LEAST * values[-1]
        part = vectors[:, kept] @ ((vectors[:, kept].T @ (self._dots[0, known] / scale)) / values[kept])
        self._machine.combine(u, self._moves[known], part / scale, out)
        return True
