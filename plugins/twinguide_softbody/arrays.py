"""The state that the kernels work on, in the CPU's memory or a device's.

Names and types of `System` mirror `kernels/system.h`, field by field.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .layout import Layout, Pattern

MATERIALS = ("neo_hookean", "corotational", "linear")
MOST_WIDE = 32  # springs over many nodes, as in system.h
RUN = 32  # elements whose energies one thread adds, as there
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
            ("element_force", (full * nodes + 1, 3), np.float64),  # loads reach one past
            ("element_blocks", (full * pairs + 1 if len(lay.pattern.upper_at) else 0, 9), np.float32),
            ("energy", (-(-full // RUN),), np.float64),
            ("least", (max(full, n),), np.float64),  # CUDA keeps one for each element
            # and one of zeros; loads reach seven past
            ("values", (len(lay.pattern.column) + 2, 9), np.float32),
            ("inverse", (n + 1, 9), np.float32),
            ("coarse", (3 * lattice.count, 3 * lattice.count), np.float32),
            *((name, (n + 2, 4), np.float32) for name in "xrzpq"),  # and one that fills up, with its load's reach
            ("restricted", (chunks, 8, 4), np.float32),
            ("partial", (chunks,), np.float64),
            ("coarse_right", (threads, 3 * lattice.count), np.float32),
            ("coarse_left", (3 * lattice.count,), np.float32),
        ):
            self.set(name, np.zeros(shape, kind), kind)

    def set_groups(self, pattern: Pattern) -> None:
        """Let the kernels see the matrix's rows side by side, as the compiled library multiplies by them."""
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
