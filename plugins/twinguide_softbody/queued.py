"""A frame on a CUDA device: `newton.py`'s moves as one queue of kernels, decided there, and one read at its end.

The moves are queued by the same flow that the CPU runs. Where it asks what a move came to, no one knows yet: every
candidate of the line search and the second direction are queued, and kernels of one thread (`judge`, `settle`) say
which of them do nothing. What is captured of one frame is launched again for the next, with other numbers in `_given`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .attachment import Attachment
from .body import Array
from .cuda import ROWS, SCALARS, Cuda
from .history import KEPT, STILL
from .layout import Layout
from .newton import LEAST_J, Balance, Newton, Tally

_GIVEN = 3 + KEPT**2  # energy [J] and smallest J of the elements, row for a secant, the guess's basis; then targets
_INNER, _LEAST, _ENERGY, _LEFT, _ACTING, _TOTAL, _MISSING, _DIRECTIONS, _LEARNT = 7, 8, 9, 10, 11, 15, 16, 17, 18

_NOWHERE = np.zeros(0)  # what the device keeps is written to no array of the CPU


class Queued(Newton):
    """Newton's method whose frames are queued; outside of them as on the CPU, number by number."""

    machine: Cuda

    def __init__(self, lay: Layout, machine: Cuda, attachment: Attachment) -> None:
        self._n, self._candidate = len(lay.order), 0
        self._seen: Array | None = None  # displacements on the CPU, as the last frame left them
        super().__init__(lay, machine, attachment)

    def attach(self, attachment: Attachment) -> None:
        """Take other springs; they pull where they stand until `load` sets their targets."""
        super().attach(attachment)
        count = len(attachment.stiffness)
        self._given = self.machine.arrays.zeros(_GIVEN + 3 * count)
        self._told = self.machine.arrays.zeros(SCALARS + ROWS + 3 * count + 3 * self._n)

    def place(self, u: Array) -> float:
        """Take displacements u of the CPU; return the smallest J."""
        self._seen = None
        return super().place(u)

    def displacements(self) -> Array:
        """Return a copy of the displacements [m] on the CPU, (n, 3)."""
        return super().displacements() if self._seen is None else self._seen.copy()

    def frame(self, targets: Array, variant: object, flow: Callable[[], Tally]) -> Tally:
        """Follow targets by `flow`, captured for each `variant`, and learn from it: one write, one queue, one read.

        Where the device captures nothing, decide move by move.
        """
        machine, history = self.machine, self.history
        numbers = [*self._inner, float(history.at)]
        given = np.concatenate([numbers, history.basis.ravel(), targets.ravel()])
        machine.arrays.memory.write(self._given, given)
        where = machine.arrays.memory.pointer
        key = (variant, history.known, where(self.u), where(self._given), where(self._told))
        if not machine.replay(key, lambda: self._queue(flow)):
            self._seen = None
            return super().frame(targets, variant, flow)
        told = machine.arrays.memory.read(self._told)
        self._targets, self._share = targets, 1.0
        self._inner = (float(told[_INNER]), float(told[_LEAST]))
        self.balance = Balance(float(told[_ENERGY]), self._inner[1], float(told[_LEFT]), float(told[_ACTING]))
        self._seen = told[-3 * self._n :].reshape(-1, 3)
        if told[_LEARNT]:
            dots, points = told[SCALARS : SCALARS + ROWS], told[SCALARS + ROWS : -3 * self._n]
            history.learn(dots.reshape(2, KEPT), points.reshape(-1, 3))
        return Tally(int(told[_TOTAL]), float(told[_MISSING]), bool(told[_DIRECTIONS] > 1))

    def _queue(self, flow: Callable[[], Tally]) -> None:
        machine = self.machine
        machine.run("open_frame", 1, self._given)
        self.begin()
        machine.balance(self.u, self._force, self._given[_GIVEN:], 1.0, self._right)
        machine.run("judge", 1)
        flow()
        self.end()
        machine.run("report", len(self._told), self.u, self._told)
        machine.run("resume", 1, k=1)

    def guess(self) -> bool:
        """Move as the last moves suggest, where that lowers the energy."""
        if not self.machine.queueing:
            return super().guess()
        if self.history.known:
            machine, size = self.machine, 3 * self._n
            machine.dots(self.history.moves, self._right, _NOWHERE)
            machine.run("project", 1, self._given[3:])
            machine.run("combine_shares", size, self.u, self._new_u, self.history.moves)
            self._take()
            machine.run("resume", 1)
        return False

    def iterate(self, most: int, relative: float, absolute: float = 0.0) -> tuple[int, float]:
        """Move along one direction of the matrix as it stands; return its iterations and the part of it taken."""
        taken = super().iterate(most, relative, absolute)
        if self.machine.queueing:
            self.machine.run("resume", 1, x=1.0)
        return taken

    def missing(self, most: int, enough: float = 0.0) -> float:
        """Return the rms [m] of the move that `most` more iterations would make; where it is `enough` a frame ends."""
        left = super().missing(most)
        if self.machine.queueing:
            self.machine.run("settle", 1, x=enough)
        return left

    def end(self) -> None:
        """Learn from what changed since `begin`."""
        machine, history, size = self.machine, self.history, 3 * self._n
        if not machine.queueing:
            super().end()
            return
        machine.run("resume", 1, k=1)
        machine.run("add_scaled", size, self.u, self._new_u, self._old_u, x=-1.0)
        machine.run("add_scaled", size, self._old_force, self._new_force, self._force, x=-1.0)
        machine.rms(self._new_u)
        machine.run("learn", 1, x=STILL)
        machine.run("store", size, self._new_u, history.moves)
        machine.run("store", size, self._new_force, history.answers)
        machine.dots(history.answers, self._new_u, _NOWHERE)
        machine.dots(history.moves, self._new_force, _NOWHERE, first=KEPT)
        machine.spring_points(self._new_u, _NOWHERE)

    def _take(self) -> bool:
        """Make the new displacements the pose, if they invert nothing and do not raise the energy; queued, say no."""
        machine = self.machine
        if not machine.queueing:
            self._seen = None
            return super()._take()
        self._candidate += 1
        machine.evaluate(self._new_u, self._new_force)
        machine.balance(self._new_u, self._new_force, self._given[_GIVEN:], 1.0, self._new_right)
        machine.run("judge", 1, x=LEAST_J, k=self._candidate)
        machine.run("adopt", 9 * (-(-self._n // 8) * 8), self._new_u, self.u, k=self._candidate)
        return False
