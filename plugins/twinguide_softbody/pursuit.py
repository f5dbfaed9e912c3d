"""Follow a drive by leaps that no element minds, from the last sound pose, with bounded work in a frame.

What a frame does not reach, the next ones do: after a start, a jump that stayed or a probe that comes deep at once. A
leap that would crush the body is taken back, and shorter ones are tried, one a frame, until what crushes gives way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .body import Array
from .constraints import Points
from .quasistatic import Solved, Solver

if TYPE_CHECKING:
    from .reduced import Reduced

LEAST_J = 0.2  # below, a tetrahedron has lost four fifths of its volume: no tissue does, the step is not to be shown
LEAP_M = 0.005  # of the drive in one step: ten times a fast breath's at 60 Hz, and a step still ends near its balance
LEAST_LEAP_M = 0.0005
WORK = 30_000  # tetrahedra (of 4 nodes) times steps in a frame, one at least: some 9 ms


class Pursuit:
    """Where the body is on its way to its drive: the target's displacement and each measured point's, (k, 3) [m]."""

    def __init__(self, solver: Solver, targets: Callable[[Array], Array], fast: Reduced | None = None) -> None:
        self._solver, self._targets, self._fast = solver, targets, fast
        self._most = max(1, WORK // solver.body.work)
        self.pose = solver.body.vertices  # [m], shape (n, 3): the last sound one
        self._at, self._leap = np.zeros((1, 3)), LEAP_M
        self._under_way = True

    def exchange(self, points: Points | None) -> None:
        """Take other measured points, each from where the pose has it."""
        places = np.zeros((0, 3)) if points is None else points.weights @ self.pose - points.rest
        self._at = np.concatenate([self._at[:1], places])

    def follow(self, drive: Array) -> tuple[Solved, str]:
        """Go towards a drive [m], shape (k, 3); say why it was not reached, nothing where it was."""
        solved, reached = self._step(drive)
        taken = 1
        while self._under_way and self._sound(solved) and not (reached and solved.converged) and taken < self._most:
            solved, reached = self._step(drive)
            taken += 1
        if not self._sound(solved):
            if self._fast is not None:
                self._fast.leave()
            self._solver.reset(self.pose)
            self._under_way, self._leap = True, max(self._leap / 2, LEAST_LEAP_M)
            return solved, f"a volume ratio of {solved.smallest_j:.2f}"
        if not reached:
            return solved, f"{1e3 * _farthest(drive, self._at):.1f} mm behind what drives it"
        self._under_way, self._leap = not solved.converged and taken == self._most, LEAP_M
        return solved, ""

    def _step(self, drive: Array) -> tuple[Solved, bool]:
        """Take one leap towards a drive; tell whether it reaches there."""
        far = _farthest(drive, self._at)
        reached = far <= self._leap
        at = drive.copy() if reached else self._at + self._leap / far * (drive - self._at)
        self._under_way = self._under_way or not reached
        fast = self._fast
        if fast is not None and len(drive) == 1 and not self._under_way:
            solved = fast.step(self._targets(at))
        else:
            if fast is not None:
                fast.leave()
            solved = self._solver.step(self._targets(at))
        if self._sound(solved):
            self.pose, self._at = solved.positions, at
        return solved, reached

    @staticmethod
    def _sound(solved: Solved) -> bool:
        return solved.smallest_j >= LEAST_J and bool(np.isfinite(solved.positions).all())


def _farthest(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b, axis=1).max())
