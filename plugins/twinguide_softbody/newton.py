"""Newton's method on one body: float64 forces, float32 directions, and a search that never lets an element invert.

Directions are solved in float32 and corrected by float64 forces: iterative refinement (Moler 1967), so that the error
falls to the forces' own rounding while the matrix and its Krylov space move half the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .attachment import Attachment
from .body import Array
from .history import History
from .layout import Layout
from .machine import Machine
from .precondition import Coarse

LEAST_J = 0.02  # of rest: a step may not compress a quadrature point beyond, or beyond a fifth of what it was
SHORTEST = 1 / 64  # of a direction


@dataclass(slots=True)
class Balance:
    """Where a pose stands: energy [J], smallest J, imbalance and acting forces [N]."""

    energy: float
    smallest_j: float
    left: float
    acting: float

    @property
    def residual(self) -> float:
        """The imbalance over the forces that act [N/N]."""
        return self.left / self.acting if self.acting > 0 else 0.0


def floor(smallest_j: float) -> float:
    """Return what a step may not bring the smallest J down to; as `judge` of cuda.cu."""
    return min(LEAST_J, 0.2 * smallest_j)


def better(new: Balance, old: Balance) -> bool:
    """Tell whether a step lowers the energy, but for rounding, or halves the imbalance; as `judge` of cuda.cu."""
    slack = 1e-10 * abs(old.energy) + 1e-18
    return new.energy <= old.energy + slack or new.left < 0.5 * old.left


@dataclass(frozen=True, slots=True)
class Tally:
    """What a frame took, and leaves."""

    iterations: int
    missing: float  # [m], rms
    again: bool  # a second direction was taken


class Newton:
    """One body's pose, and the moves that bring it into balance; arrays (n, 3), float64, in the layout's order."""

    def __init__(self, lay: Layout, machine: Machine, attachment: Attachment) -> None:
        n = len(lay.order)
        self.machine = machine
        self.coarse, self.history = Coarse(machine), History(machine, n)
        zeros = machine.arrays.zeros
        poses = zeros(2, 3, -(-n // 8) * 8, 3)  # each in one piece, and each of its arrays on a boundary of 64 bytes
        self.u, self._force, self._right = (poses[0, k, :n] for k in range(3))
        self._new_u, self._new_force, self._new_right = (poses[1, k, :n] for k in range(3))
        self._old_u, self._old_force, self.direction = zeros(n, 3), zeros(n, 3), zeros(1, n, 3)
        self._length, self._none = np.zeros(1), np.zeros(0)
        self._inner = (0.0, 1.0)  # energy [J] and smallest J of the elements at u
        self.balance = Balance(0.0, 1.0, 0.0, 0.0)
        self.attach(attachment)
        self.place(np.zeros((n, 3)))

    def attach(self, attachment: Attachment) -> None:
        """Take other springs; they pull where they stand until `load` sets their targets."""
        self.attachment = attachment
        self.history.attach(attachment.stiffness)

    def stiffen(self, stiffness: Array) -> None:
        """Set the springs' stiffness [N/m], (k, 3, 3)."""
        self.attachment.stiffen(stiffness)
        self.history.attach(stiffness)

    def place(self, u: Array) -> float:
        """Take displacements u of the CPU; return the smallest J."""
        self.machine.arrays.memory.write(self.u, u)
        self._inner = self.machine.evaluate(self.u, self._force)
        self.history.forget()
        return self._inner[1]

    def displacements(self) -> Array:
        """Return a copy of the displacements [m] on the CPU, (n, 3)."""
        return self.machine.arrays.memory.read(self.u)

    def load(self, targets: Array, share: float = 1.0) -> None:
        """Set the springs' targets as displacements [m], (k, 3), and the share of gravity that acts."""
        self._targets, self._share = targets, share
        self.balance = self._balanced(self.u, self._force, self._inner, self._right)

    def frame(self, targets: Array, variant: object, flow: Callable[[], Tally]) -> Tally:
        """Follow targets by `flow`, the same moves for the same `variant`, and learn from it."""
        del variant  # of no matter where every move is decided as it is made
        self.begin()
        self.load(targets)
        tally = flow()
        self.end()
        return tally

    def begin(self) -> None:
        """Remember the pose, for `end` to learn from."""
        self.machine.combine(self.u, self.direction, self._none, self._old_u)
        self.machine.combine(self._force, self.direction, self._none, self._old_force)

    def end(self) -> None:
        """Learn from what changed since `begin`."""
        self.history.push(self._old_u, self.u, self._old_force, self._force)

    def guess(self) -> bool:
        """Move as the last moves suggest, where that lowers the energy; say whether it did."""
        known = self.history.guess(self.u, self._right, self._new_u)
        return known and self._take()

    def assemble(self) -> None:
        """Build the matrix at the pose."""
        self.machine.tangent(self.u)

    def iterate(self, most: int, relative: float, absolute: float = 0.0) -> tuple[int, float]:
        """Move along one direction of the matrix as it stands; return its iterations and the part of it taken."""
        count, _, _, _ = self.machine.solve(self._right, self.direction[0], most, relative, absolute)
        length = 1.0
        while length >= SHORTEST:
            self._length[0] = length
            self.machine.combine(self.u, self.direction, self._length, self._new_u)
            if self._take():
                return count, length
            length /= 2
        return count, 0.0

    def missing(self, most: int, enough: float = 0.0) -> float:
        """Return the rms [m] of the move that `most` more iterations would make: what is seen of the solver's error.

        What follows in a frame is done only where that is above `enough` [m].
        """
        del enough  # the caller's to decide, who knows what is returned
        self.machine.solve(self._right, self.direction[0], most, 0.0)
        return self.machine.rms(self.direction[0])

    def _take(self) -> bool:
        """Make the new displacements the pose, if they invert nothing and do not raise the energy."""
        inner = self.machine.evaluate(self._new_u, self._new_force)
        if not inner[1] > floor(self._inner[1]):
            return False
        new = self._balanced(self._new_u, self._new_force, inner, self._new_right)
        if not better(new, self.balance):
            return False
        self.u, self._new_u = self._new_u, self.u
        self._force, self._new_force = self._new_force, self._force
        self._right, self._new_right = self._new_right, self._right
        self._inner, self.balance = inner, new
        return True

    def _balanced(self, u: Array, force: Array, inner: tuple[float, float], right: Array) -> Balance:
        energy, left, own, other = self.machine.balance(u, force, self._targets, self._share, right)
        return Balance(inner[0] + energy, inner[1], left**0.5, own**0.5 + other**0.5)
