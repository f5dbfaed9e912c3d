"""One body on a CUDA device: the kernels of `kernels/cuda.cu`, launched in one fixed order.

What launches is apart (`launchers.py`): `Device` compiles the text by CuPy; `Shim` runs the same text, compiled by the
C compiler, thread after thread, so that the sequence below and every kernel are tested where no device is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import backends
from .arrays import MOST_WIDE, Arrays
from .body import Array
from .launchers import Device, Shim
from .layout import Layout

_log = logging.getLogger(__name__)
SEGMENTS, LAST, ROWS = 1024, 32, 12  # as in system.h
SCALARS = 32  # as in cuda.cu


class Cuda:
    """Passes over one body by CUDA's kernels; the same calls as `machine.Native`, arrays in the launcher's memory.

    While a frame is `queueing` (`queued.py`) its kernels are captured alone, and what they find is known to them alone.
    """

    def __init__(self, lay: Layout, material: str, launcher: Shim | Device) -> None:
        self._launcher = launcher
        self.arrays = Arrays(lay, material, 1, launcher.memory)
        self._host = backends.on_cpu(lay, material, 1)  # the coarse factor is the worker's, on the CPU
        self._n, self._m = n, m = len(lay.order), len(lay.connectivity)
        sizes = {"product": m + 4 * n + 3 * MOST_WIDE, "sums": ROWS * (SEGMENTS + LAST), "scalars": SCALARS}
        for name, size in sizes.items():
            self.arrays.set(name, np.zeros(size), np.float64)
        self.arrays.set("held", lay.held, np.uint8)
        self.arrays.set("chunk_of", lay.chunk_of, np.int32)
        self._last = self.arrays["sums"][ROWS * SEGMENTS :]
        self._raw, self._system = b"", None
        self._matrix = self.arrays.zeros(0)  # work of `prepare_wide`
        self._captured: dict[object, object] = {}
        self._captures, self.queueing = True, False

    def replay(self, key: object, flow: Callable[[], None]) -> bool:
        """Run what `flow` launches; under a key it is captured once, until an address changes. Say whether it could be.

        Where one capture has failed none is tried again: CuPy's errors tell no passing fault from a lasting one.
        """
        self._follow_system()
        if key not in self._captured and self._captures:
            self.queueing = True
            try:
                self._captured[key] = self._launcher.capture(flow)
            except Exception as error:  # CUDA's, CuPy's or Python's: they share no other base
                self._captures = False
                _log.warning("the device captures no frame, and waits for each decision: %s", error, exc_info=True)
            finally:
                self.queueing = False
        if self._captures:
            self._launcher.replay(self._captured[key])
        return self._captures

    def evaluate(self, u: Array, force: Array) -> tuple[float, float]:
        """Write the elements' forces at displacements u; return energy [J] and smallest J."""
        self.run("force_elements", self._m, u)
        self.run("gather_forces", self._n, None, force)
        if self.queueing:
            return math.nan, math.nan
        self._sum("sum_pose", 2, least=1.0)
        last = self.arrays.memory.read(self._last)
        return float(last[LAST : 2 * LAST].sum()), float(last[:LAST].min())

    def balance(
        self, u: Array, element: Array, targets: Array, share: float, right: Array
    ) -> tuple[float, float, float, float]:
        """Write what is out of balance; return energy [J] of springs and load, and squares of the three forces."""
        asked = targets if self.queueing else self.arrays.memory.take(targets, np.float64)
        self.run("spring_pulls", self.arrays.system.springs, u, None, asked)
        self.run("balance_nodes", self._n, u, right, element, x=share)
        self._sum("sum_pose", 7, least=1.0)
        sums = self._sums(7)
        return sums[2] - sums[3], sums[6], sums[4], sums[5]

    def tangent(self, u: Array) -> None:
        """Assemble the matrix [N/m] and the nodes' part of its preconditioner at displacements u."""
        system = self.arrays.system
        self.run("tangent_elements", self._m, u)
        self.run("gather_uppers", system.uppers)
        self.run("gather_diagonals", self._n)
        self.run("touch", system.touched)
        self.run("invert_diagonals", self._n)
        self.prepare_wide()

    def prepare_wide(self) -> None:
        """Write (1 + S w D^-1 w')^-1 S of the springs over many nodes."""
        wide = self.arrays.system.wide
        if not self.queueing:
            self._follow_system()
        self.run("wide_system", 18 * wide**2, None, self._matrix)
        for k in range(wide):
            self.run("wide_eliminate", 6 * wide**2, None, self._matrix, k=k)
        self.run("wide_inverse", 3 * wide**2, self._matrix)

    def solve(
        self, right: Array, d: Array, most: int, relative: float, absolute: float = 0.0
    ) -> tuple[int, float, float, bool]:
        """Write d with K d = right; return iterations, norms sqrt(r'M^-1 r) before and after, negative curvature.

        All iterations are queued at once: the device decides which of them move, nothing waits for the host.
        """
        n = self._n
        self._sum("dot_rows", 1, right, right, y=3.0 * n)
        self.run("begin", 1)
        self.run("start", n, right)
        for _ in range(most + 1):
            self._iteration(most, relative, absolute)
        self.run("resume", 1)
        self.run("finish", n, None, d)
        if self.queueing:
            return 0, math.nan, math.nan, False
        rz, first, _, _, negative, count, scale = self.arrays.memory.read(self.arrays["scalars"])[:7].tolist()
        return int(count), scale * max(first, 0.0) ** 0.5, scale * max(rz, 0.0) ** 0.5, bool(negative)

    def _iteration(self, most: int, relative: float, absolute: float) -> None:
        system, n = self.arrays.system, self._n
        self.run("descend", n)
        self.run("restrict_chunks", 8 * system.chunks)
        self.run("restrict_lattice", system.lattice)
        self.run("coarse_rows", 3 * system.lattice)
        self.run("wide_points", system.wide)
        self.run("wide_draw", 3 * system.wide)
        self._sum("sum_segments", 1, y=n + 3.0 * (system.lattice + system.wide))
        self.run("weigh", 1, x=relative, y=absolute, k=most)
        self.run("turn", n)
        self.run("wide_points", system.wide, k=1)
        self.run("forward", n)
        self._sum("sum_segments", 1, y=n, k=1)
        self.run("stride", 1)

    def coarse_inverse(self, values: NDArray[np.float32], added: Array, work: Array, out: NDArray[np.float32]) -> bool:
        """Write (P'KP + added)^-1 [m/N] on the CPU; false where it is not positive definite."""
        return self._host.coarse_inverse(values, added, work, out)

    def dots(self, rows: Array, v: Array, out: Array, first: int = 0) -> None:
        """Write the dot products of v with each of `rows`, (count, n, 3); queued, into the sums from `first` on."""
        self._sum("dot_rows", len(rows), rows, v, y=3.0 * self._n, k=first)
        if not self.queueing:
            out[...] = self._sums(len(rows))

    def rms(self, v: Array) -> float:
        """Return the root of the mean squared length of v's rows."""
        self._sum("dot_rows", 1, v, v, y=3.0 * self._n)
        return math.sqrt(self._sums(1)[0] / self._n)

    def combine(self, base: Array, rows: Array, share: Array, out: Array) -> None:
        """Write base plus share times rows, (count, n, 3); of none a copy."""
        if not len(share):
            self.run("add_scaled", 3 * self._n, base, out, base)
        for j, factor in enumerate(share):
            self.run("add_scaled", 3 * self._n, out if j else base, out, rows[j], x=float(factor))

    def spring_points(self, v: Array, out: Array) -> None:
        """Write the springs' weighted means of v, (springs, 3), to the CPU."""
        if self.arrays.system.springs:
            self.run("spring_pulls", self.arrays.system.springs, v)
            if not self.queueing:
                out[...] = self.arrays.memory.read(self.arrays["pull"])[:, :3]

    def _sum(
        self, name: str, rows: int, a: Array | None = None, b: Array | None = None, *,
        y: float = 0.0, k: int = 0, least: float = 0.0,
    ) -> None:  # fmt: skip
        """Sum by the kernel `name` into rows from `k` on, of which the first is the smallest where `least`."""
        self.run(name, rows * SEGMENTS, a, b, y=y, k=k)
        self.run("sum_last", rows * LAST, x=least, k=k)

    def _sums(self, rows: int) -> list[float]:
        """Return the first sums on the CPU, NaN while they are queued."""
        if self.queueing:
            return [math.nan] * rows
        return self.arrays.memory.read(self._last).reshape(ROWS, LAST)[:rows].sum(axis=1).tolist()

    def _follow_system(self) -> None:
        """Let the device see the system as it stands; what was captured before it changed is void."""
        raw = bytes(self.arrays.system)
        if raw != self._raw:
            self._raw, self._system = raw, self._launcher.system(self.arrays.system)
            self._captured.clear()
            self._matrix = self.arrays.zeros(18 * self.arrays.system.wide**2)

    def run(
        self,
        name: str,
        count: int,
        a: Array | None = None,
        b: Array | None = None,
        c: Array | None = None,
        *,
        x: float = 0.0,
        y: float = 0.0,
        k: int = 0,
    ) -> None:
        """Launch a kernel over `count` items."""
        if not count:
            return
        if not self.queueing:
            self._follow_system()
        where = self.arrays.memory.pointer
        pointers = (0 if a is None else where(a), 0 if b is None else where(b), 0 if c is None else where(c))
        self._launcher.launch(name, self._system, count, pointers, x, y, k)
