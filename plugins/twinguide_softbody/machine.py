"""The state that the kernels work on, and the calls: one body on the CPU, by the C library.

Names and types of `System` mirror `kernels/system.h`, field by field.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import native
from .body import Array
from .layout import Layout, Pattern


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


MATERIALS = ("neo_hookean", "corotational", "linear")
MOST_WIDE = 32  # springs over many nodes, as in system.h
_SIZES = (
    *("nodes", "elements", "element_nodes", "material", "blocks", "uppers", "chunks", "lattice", "touched", "wide"),
    *("threads", "springs", "groups"),
)
_POINTERS = (
    *("conn8", "conn16", "data8", "data16", "element_force", "element_blocks", "energy", "least"),
    *("incident_start", "incident", "values", "row_start", "column", "diagonal"),
    *("upper_start", "upper", "upper_at", "lower_at", "touched_at", "touched_values"),
    *("group_start", "group_row", "side_column", "side_block", "side_values", "inverse", "chunk_start"),
    *("chunk_corner", "share", "lattice_start", "lattice_from", "coarse"),
    *("wide_start", "wide_node", "wide_weight", "wide_stiffness", "wide_chunk", "wide_at", "wide_of"),
    *("wide_chunk_weight", "wide_inner"),
    *("spring_start", "spring_node", "spring_weight", "spring_stiffness", "load", "pull"),
    *("x", "r", "z", "p", "q", "restricted", "partial", "curvature"),
    *("coarse_right", "coarse_left", "wide_row", "spring_row", "spring_of", "spring_share", "chunk_of", "held"),
    *("product", "sums", "scalars", "wide_seen", "wide_pull"),
)


class System(ctypes.Structure):
    """`System` of kernels/system.h."""

    _fields_ = [*((name, ctypes.c_int32) for name in _SIZES), *((name, ctypes.c_void_p) for name in _POINTERS)]


def default_threads() -> int:
    """Return 1 up to three cores, then a third of them, at most 4: the others belong to the loop and its parts.

    A thread that waits at a barrier for one that the loop has pushed off its core costs milliseconds.
    """
    return max(1, min(4, (os.cpu_count() or 1) // 3))


def aligned(shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    """Return zeros on a 64-byte boundary, as the kernels' vectors want them."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    raw = np.zeros(size + 64, dtype=np.uint8)
    offset = -raw.ctypes.data % 64
    return raw[offset : offset + size].view(kind).reshape(shape)


class Host:
    """The CPU's memory, as the kernels want it."""

    def take(self, values: NDArray[Any], kind: type) -> NDArray[Any]:
        """Return a copy of `values` on a 64-byte boundary."""
        kept = aligned(values.shape, kind)
        kept[...] = values
        return kept

    def pointer(self, array: NDArray[Any]) -> int:
        """Return the address of an array."""
        return array.ctypes.data

    def write(self, array: NDArray[Any], values: NDArray[Any]) -> None:
        """Copy values of the CPU into an array."""
        array[...] = values

    def read(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of an array on the CPU."""
        return array.copy()


class Memory(Protocol):
    """Where a machine's arrays lie: `Host`, or a CUDA device."""

    def take(self, values: NDArray[Any], kind: type) -> Any:  # noqa: ANN401 - NumPy's or CuPy's
        """Return a copy of `values`."""
        ...

    def pointer(self, array: Any) -> int:  # noqa: ANN401
        """Return the address of an array."""
        ...

    def write(self, array: Any, values: NDArray[Any]) -> None:  # noqa: ANN401
        """Copy values of the CPU into an array."""
        ...

    def read(self, array: Any) -> NDArray[Any]:  # noqa: ANN401
        """Return a copy of an array on the CPU."""
        ...


class Arrays:
    """The arrays behind a System, kept alive with it."""

    def __init__(self, lay: Layout, material: str, threads: int, memory: Memory | None = None) -> None:
        self.system, self.memory = System(), memory or Host()
        self.by_node = memory is not None  # springs are told by node too: a device gathers what the CPU adds in turn
        self._kept: dict[str, NDArray[Any]] = {}
        n, (m, nodes) = len(lay.order), lay.connectivity.shape
        full, pairs, chunks, lattice = -(-m // 16) * 16, nodes * (nodes - 1) // 2, len(lay.chunk_start) - 1, lay.lattice
        sizes = (n, m, nodes, MATERIALS.index(material), len(lay.pattern.column), len(lay.pattern.upper_at), chunks)
        for name, size in zip(_SIZES, (*sizes, lattice.count, 0, 0, threads, 0, 0), strict=True):
            setattr(self.system, name, size)
        for width, kind in ((8, np.float64), (16, np.float32)):
            connectivity, data = lay.blocks(width)
            self.set(f"conn{width}", connectivity, np.int32)
            self.set(f"data{width}", data, kind)
        for name in ("row_start", "column", "diagonal", "upper_start", "upper", "upper_at", "lower_at"):
            self.set(name, getattr(lay.pattern, name), np.int32)
        for name in ("incident_start", "incident", "chunk_start"):
            self.set(name, getattr(lay, name), np.int32)
        self.set("chunk_corner", lattice.corners, np.int32)
        self.set("share", lattice.share, np.float32)
        self.set("lattice_start", lattice.start, np.int32)
        self.set("lattice_from", lattice.source, np.int32)
        for name, shape, kind in (
            ("element_force", (full, nodes, 3), np.float64),
            ("element_blocks", (full * pairs + 1 if len(lay.pattern.upper_at) else 0, 9), np.float32),
            ("energy", (full // 8,), np.float64),
            ("least", (max(full, n),), np.float64),  # CUDA keeps one for each element
            (
                "values",
                (len(lay.pattern.column) + 2, 9),
                np.float32,
            ),  # and one of zeros; loads reach seven past
            ("inverse", (n + 1, 9), np.float32),
            ("coarse", (3 * lattice.count, 3 * lattice.count), np.float32),
            *((name, (n + 2, 4), np.float32) for name in "xrzpq"),  # and one that fills up, with its load's reach
            ("restricted", (chunks, 8, 4), np.float32),
            ("partial", (chunks,), np.float64),
            ("coarse_right", (threads, 3 * lattice.count), np.float32),
            ("coarse_left", (3 * lattice.count,), np.float32),
        ):
            self.set(name, np.zeros(shape, kind), kind)
        if not self.by_node:
            self._set_groups(lay.pattern)

    def _set_groups(self, pattern: Pattern) -> None:
        start, rows, block = pattern.side_by_side()
        self.system.groups = len(start) - 1
        self.set("group_start", start, np.int32)
        self.set("group_row", rows, np.int32)
        self.set("side_block", block, np.int32)
        self.set("side_column", np.append(pattern.column, 0)[block], np.int32)
        self.set("side_values", np.zeros((len(block), 9, 8)), np.float32)
        self.set("curvature", np.zeros(self.system.groups), np.float64)

    def set(self, name: str, values: NDArray[Any], kind: type) -> None:
        """Let the kernels see a copy of `values`."""
        self._kept[name] = self.memory.take(values, kind)
        setattr(self.system, name, self.memory.pointer(self._kept[name]))

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Change the values of an array of the same shape."""
        self.memory.write(self._kept[name], values)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """Return the array that the kernels see under this name, where they see it."""
        return self._kept[name]

    def zeros(self, *shape: int) -> Any:  # noqa: ANN401
        """Return float64 zeros where the kernels work."""
        return self.memory.take(np.zeros(shape), np.float64)


class Native:
    """Passes over one body by the compiled library; raises NoCompiler where it cannot be had.

    Displacements, forces and directions are float64, shape (n, 3), in the layout's order, [m] and [N].
    """

    def __init__(self, lay: Layout, material: str, threads: int) -> None:
        self._library = native.library()
        self.arrays = Arrays(lay, material, threads)
        self._system = ctypes.byref(self.arrays.system)
        self._held, self._chunk_of = lay.held, lay.chunk_of
        self._out = np.zeros(4)

    def evaluate(self, u: Array, force: Array) -> tuple[float, float]:
        """Write the elements' forces at displacements u; return energy [J] and smallest J."""
        self._library.evaluate(self._system, _at(u), _at(force), _at(self._out))
        return float(self._out[0]), float(self._out[1])

    def balance(
        self, u: Array, element: Array, targets: Array, share: float, right: Array
    ) -> tuple[float, float, float, float]:
        """Write what is out of balance; return energy [J] of springs and load, and squares of the three forces."""
        self._library.balance(
            *(self._system, _at(u), _at(element), _at(targets), ctypes.c_double(share), _at(self._held)),
            *(_at(right), _at(self._out)),
        )
        energy, left, inner, outer = self._out.tolist()
        return energy, left, inner, outer

    def tangent(self, u: Array) -> None:
        """Assemble the matrix [N/m] and the nodes' part of its preconditioner at displacements u."""
        self._library.tangent(self._system, _at(u), _at(self._held))
        if self.arrays.system.wide:
            self.prepare_wide()

    def prepare_wide(self) -> None:
        """Write (1 + S w D^-1 w')^-1 S of the springs over many nodes."""
        self._library.prepare_wide(self._system, _at(self.arrays["wide_inner"]))

    def solve(
        self, right: Array, d: Array, most: int, relative: float, absolute: float = 0.0
    ) -> tuple[int, float, float, bool]:
        """Write d with K d = right; return iterations, norms sqrt(r'M^-1 r) before and after, negative curvature.

        Ends at `most` iterations, or where the norm [sqrt(J)] fell to `relative` of its start or to `absolute`.
        """
        limits = (ctypes.c_int(most), ctypes.c_double(relative), ctypes.c_double(absolute))
        self._library.conjugate_gradients(self._system, _at(right), _at(d), *limits, _at(self._out))
        count, first, last, negative = self._out.tolist()
        return int(count), first, last, bool(negative)

    def coarse_inverse(self, values: NDArray[np.float32], added: Array, work: Array, out: NDArray[np.float32]) -> bool:
        """Write (P'KP + added)^-1 [m/N] of blocks `values`; false where it is not positive definite.

        `work` is (2, 3 lattice, 3 lattice). No state is changed, so that a worker may do it.
        """
        self._library.coarse_matrix(self._system, _at(values), _at(self._chunk_of), _at(work[0]))
        work[0] += added
        size = ctypes.c_int(len(added))
        return bool(self._library.coarse_inverse(_at(work[0]), size, _at(work[1]), _at(out)))

    def dots(self, rows: Array, v: Array, out: Array) -> None:
        """Write the dot products of v with each of `rows`, (count, n, 3)."""
        self._library.dots(self._system, _at(rows), ctypes.c_int(len(rows)), _at(v), _at(out))

    def rms(self, v: Array) -> float:
        """Return the root of the mean squared length of v's rows (not by BLAS: its threads wait for each other)."""
        self._library.dots(self._system, _at(v), ctypes.c_int(1), _at(v), _at(self._out))
        return float(np.sqrt(self._out[0] / len(v)))

    def combine(self, base: Array, rows: Array, share: Array, out: Array) -> None:
        """Write base plus share times rows, (count, n, 3)."""
        self._library.combine(self._system, _at(base), _at(rows), ctypes.c_int(len(share)), _at(share), _at(out))

    def spring_points(self, v: Array, out: Array) -> None:
        """Write the springs' weighted means of v, (springs, 3)."""
        self._library.spring_points(self._system, _at(v), _at(out))


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
