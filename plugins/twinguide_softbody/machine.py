"""What Newton's method asks of a machine, and the machine of one body on the CPU, by the C library."""

from __future__ import annotations

import ctypes
import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import native
from .arrays import Arrays
from .body import Array
from .layout import Layout
from .native import pointer


class Machine(Protocol):
    """What Newton's method asks of a machine; `Native`, `Jit` and `Cuda` are siblings."""

    arrays: Arrays

    def evaluate(self, u: Array, force: Array) -> tuple[float, float]:
        """Write the elements' forces at displacements u; return energy [J] and smallest J."""
        ...

    def balance(
        self, u: Array, element: Array, targets: Array, share: float, right: Array
    ) -> tuple[float, float, float, float]:
        """Write what is out of balance; return energy [J] of springs and load, and squares of the three forces."""
        ...

    def tangent(self, u: Array) -> None:
        """Assemble the matrix [N/m] at displacements u."""
        ...

    def prepare_wide(self) -> None:
        """Write (1 + S w D^-1 w')^-1 S of the springs over many nodes."""
        ...

    def solve(
        self, right: Array, d: Array, most: int, relative: float, absolute: float = 0.0
    ) -> tuple[int, float, float, bool]:
        """Write d with K d = right; return iterations, norms before and after, negative curvature."""
        ...

    def coarse_inverse(self, values: NDArray[np.float32], added: Array, work: Array, out: NDArray[np.float32]) -> bool:
        """Write (P'KP + added)^-1 [m/N]; false where it is not positive definite."""
        ...

    def dots(self, rows: Array, v: Array, out: Array) -> None:
        """Write the dot products of v with each of `rows`."""
        ...

    def rms(self, v: Array) -> float:
        """Return the root of the mean squared length of v's rows."""
        ...

    def combine(self, base: Array, rows: Array, share: Array, out: Array) -> None:
        """Write base plus share times rows."""
        ...

    def spring_points(self, v: Array, out: Array) -> None:
        """Write the springs' weighted means of v."""
        ...


def default_threads() -> int:
    """Return 1 up to three cores, then a third of them, at most 4: the others belong to the loop and its parts.

    A thread that waits at a barrier for one that the loop has pushed off its core costs milliseconds.
    """
    return max(1, min(4, (os.cpu_count() or 1) // 3))


class Native:
    """Passes over one body by the compiled library; raises NoCompiler where it cannot be had.

    Displacements, forces and directions are float64, shape (n, 3), in the layout's order, [m] and [N].
    """

    def __init__(self, lay: Layout, material: str, threads: int) -> None:
        self._library = native.library()
        self.arrays = Arrays(lay, material, threads)
        self.arrays.set_groups(lay.pattern)
        self._system = ctypes.byref(self.arrays.system)
        self._held, self._chunk_of = lay.held, lay.chunk_of
        self._out = np.zeros(4)

    def evaluate(self, u: Array, force: Array) -> tuple[float, float]:
        """Write the elements' forces at displacements u; return energy [J] and smallest J."""
        self._library.evaluate(self._system, pointer(u), pointer(force), pointer(self._out))
        return float(self._out[0]), float(self._out[1])

    def balance(
        self, u: Array, element: Array, targets: Array, share: float, right: Array
    ) -> tuple[float, float, float, float]:
        """Write what is out of balance; return energy [J] of springs and load, and squares of the three forces."""
        self._library.balance(
            self._system, pointer(u), pointer(element), pointer(targets), ctypes.c_double(share), pointer(self._held),
            pointer(right), pointer(self._out),
        )  # fmt: skip
        energy, left, inner, outer = self._out.tolist()
        return energy, left, inner, outer

    def tangent(self, u: Array) -> None:
        """Assemble the matrix [N/m] and the nodes' part of its preconditioner at displacements u."""
        self._library.tangent(self._system, pointer(u), pointer(self._held))
        if self.arrays.system.wide:
            self.prepare_wide()

    def prepare_wide(self) -> None:
        """Write (1 + S w D^-1 w')^-1 S of the springs over many nodes."""
        self._library.prepare_wide(self._system, pointer(self.arrays["wide_inner"]))

    def solve(
        self, right: Array, d: Array, most: int, relative: float, absolute: float = 0.0
    ) -> tuple[int, float, float, bool]:
        """Write d with K d = right; return iterations, norms sqrt(r'M^-1 r) before and after, negative curvature.

        Ends at `most` iterations, or where the norm [sqrt(J)] fell to `relative` of its start or to `absolute`.
        """
        limits = (ctypes.c_int(most), ctypes.c_double(relative), ctypes.c_double(absolute))
        self._library.conjugate_gradients(self._system, pointer(right), pointer(d), *limits, pointer(self._out))
        count, first, last, negative = self._out.tolist()
        return int(count), first, last, bool(negative)

    def coarse_inverse(self, values: NDArray[np.float32], added: Array, work: Array, out: NDArray[np.float32]) -> bool:
        """Write (P'KP + added)^-1 [m/N] of blocks `values`; false where it is not positive definite.

        `work` is (2, 3 lattice, 3 lattice). No state is changed, so that a worker may do it.
        """
        self._library.coarse_matrix(self._system, pointer(values), pointer(self._chunk_of), pointer(work[0]))
        work[0] += added
        size = ctypes.c_int(len(added))
        return bool(self._library.coarse_inverse(pointer(work[0]), size, pointer(work[1]), pointer(out)))

    def dots(self, rows: Array, v: Array, out: Array) -> None:
        """Write the dot products of v with each of `rows`, (count, n, 3)."""
        self._library.dots(self._system, pointer(rows), ctypes.c_int(len(rows)), pointer(v), pointer(out))

    def rms(self, v: Array) -> float:
        """Return the root of the mean squared length of v's rows (not by BLAS: its threads wait for each other)."""
        self._library.dots(self._system, pointer(v), ctypes.c_int(1), pointer(v), pointer(self._out))
        return float(np.sqrt(self._out[0] / len(v)))

    def combine(self, base: Array, rows: Array, share: Array, out: Array) -> None:
        """Write base plus share times rows, (count, n, 3)."""
        self._library.combine(
            self._system, pointer(base), pointer(rows), ctypes.c_int(len(share)), pointer(share), pointer(out)
        )

    def spring_points(self, v: Array, out: Array) -> None:
        """Write the springs' weighted means of v, (springs, 3)."""
        self._library.spring_points(self._system, pointer(v), pointer(out))
