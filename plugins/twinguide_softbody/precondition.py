"""Keep the coarse lattice's factor of a recent pose: made anew by a worker, taken over at a fixed step.

At 10 cm, 4.4k to 20k tetrahedra, blocks of nodes alone need 89 to 154 iterations for 1 % of the error; with a lattice
of 64 nodes 16 to 26. Which pose the factor is of depends on the count of steps alone, never on the clock: a run in
virtual time has the same bits, and a late worker is waited for; where frames may not wait, its factor is taken over
by the first step that finds it done.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .attachment import Attachment
from .body import Array
from .machine import Machine

EVERY = 32  # steps between two factors: a third of a second at 90 Hz, tissue turns little meanwhile
DELAY = 16  # steps after which a factor is taken over; 20k tetrahedra need 10 ms, one step


class Coarse:
    """The inverse of the coarse matrix in the kernels' array, refreshed now or by the worker."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self.waits = machine, True  # for a worker that is late, or goes on without its factor
        self._values = machine.arrays.memory.read(machine.arrays["values"])
        self._next = np.zeros(machine.arrays["coarse"].shape, np.float32)
        self._work = np.zeros((2, *self._next.shape))
        self._added = np.zeros(self._next.shape)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="softbody-factor")
        self._pending: Future[bool] | None = None
        self._stale = False
        self._steps = 0

    def refresh(self, attachment: Attachment) -> None:
        """Factor the matrix as it stands, and wait for it."""
        self._drop()
        self._steps = 0
        self._snapshot(attachment)
        self._adopt(self._factor())

    def tick(self, attachment: Attachment) -> None:
        """Count one step that was taken: hand over its matrix, or take over the factor."""
        self._steps += 1
        pending = self._pending
        ready = pending is None or self.waits or pending.done()
        if self._steps >= DELAY and pending is not None and ready and not self._stale:
            self._adopt(pending.result())
            self._pending = None
        if self._steps >= EVERY and ready:
            self._drop()
            self._snapshot(attachment)
            self._pending, self._stale, self._steps = self._worker.submit(self._factor), False, 0

    def follow(self, rows: Array, stiffness: Array) -> None:
        """Add springs' stiffness [N/m], (k, 3, 3), at rows on the lattice, (k, lattice), to the factor.

        By Woodbury's identity, exact for what is added and taken away; k is to be small. A factor that the worker is
        making knows nothing of it, and is not taken over.
        """
        self._stale = True
        inverse = self._machine.arrays.memory.read(self._machine.arrays["coarse"])
        k, size = len(rows), len(inverse)
        points = np.einsum("kl,ab->kalb", rows, np.eye(3)).reshape(3 * k, size)
        springs = np.zeros((k, 3, k, 3))
        springs[range(k), :, range(k)] = stiffness
        springs = springs.reshape(3 * k, 3 * k)
        reached = points.astype(np.float32) @ inverse
        drawn = np.linalg.solve(np.eye(3 * k) + springs @ (reached @ points.T), springs @ reached)
        change = reached.T @ drawn.astype(np.float32)
        self._machine.arrays.write("coarse", inverse - (change + change.T) / 2)

    def close(self) -> None:
        """Let the worker end."""
        self._worker.shutdown()

    def _drop(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _snapshot(self, attachment: Attachment) -> None:
        self._values = self._machine.arrays.memory.read(self._machine.arrays["values"])
        self._added[...] = attachment.coarse

    def _factor(self) -> bool:
        return self._machine.coarse_inverse(self._values, self._added, self._work, self._next)

    def _adopt(self, definite: bool) -> None:
        """Take the factor; of a matrix that is not positive definite the last one is the better guide."""
        if definite:
            self._machine.arrays.write("coarse", self._next)
