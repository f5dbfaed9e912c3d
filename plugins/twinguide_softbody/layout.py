"""Lay a body out for the kernels: order of nodes, elements side by side, pattern of the matrix, coarse lattice.

Made once per body, offline. Nodes are sorted by the lattice cell that they lie in, then along a Z-curve, and cut into
chunks of one cell each: chunks are the unit of work and the order of every sum, whatever the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .body import Array, Body, Indices
from .mesh import shared

CHUNK = 128  # nodes: 6 kB of Krylov vectors, small against a first-level cache, large against a loop's start
LATTICE = 128  # most nodes of the coarse lattice: its dense inverse (0.6 MB) must not leave the second-level cache,
TO_ONE = 15  # and its product must stay cheap beside the matrix's: so many nodes at least to one of the lattice,
SMALL, TO_ONE_SMALL = 64, 5  # except in small bodies, where a lattice of 64 costs nothing
WINDOW = 256  # elements, or rows, among which those side by side are chosen: their nodes stay in the first-level cache
Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """A coarse trilinear lattice over the body: chunks' corners and nodes' weights on them."""

    corners: Indices  # (chunks, 8), lattice nodes
    share: Floats  # (n, 8), 0 for held nodes
    start: Indices
    source: Indices  # per lattice node, rows of (chunks, 8) that add to it

    @property
    def count(self) -> int:
        """How many lattice nodes carry weight."""
        return len(self.start) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """The matrix: block CSR, and which element blocks add to each block above the diagonal."""

    row_start: Indices
    column: Indices
    diagonal: Indices
    upper_start: Indices
    upper: Indices  # row of the element blocks, ~row where transposed
    upper_at: Indices
    lower_at: Indices
    keys: NDArray[np.int64]  # row * n + column, ascending

    def find(self, rows: Indices, columns: Indices) -> Indices:
        """Return where the blocks lie, -1 for those that the pattern lacks."""
        wanted = rows.astype(np.int64) * (len(self.row_start) - 1) + columns
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, at, -1).astype(np.int32)

    def side_by_side(self) -> tuple[Indices, Indices, Indices]:
        """Return the rows in groups of eight: each group's first step, its rows, (groups, 8), and the steps' blocks.

        A step, of shape (8,), is one block of each row. Rows as long as each other are put together; what fills up is
        the row and the block behind the last.
        """
        count, lengths = len(self.row_start) - 1, np.diff(self.row_start)
        full = -(-count // 8) * 8
        rows, long = np.full(full, count, np.int32), np.zeros(full, np.intp)
        rows[:count] = along = np.lexsort((-lengths, np.arange(count) // WINDOW))
        long[:count] = lengths[along]
        steps = long.reshape(-1, 8).max(axis=1)
        start = np.concatenate([[0], np.cumsum(steps)])
        group = np.repeat(np.arange(len(steps)), steps)
        step = (np.arange(start[-1]) - start[group])[:, None]
        some = step < long.reshape(-1, 8)[group]
        block = np.where(some, self.row_start[rows.reshape(-1, 8)[group]] + step, self.row_start[-1])
        return start.astype(np.int32), rows, block.astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Everything about a body that does not change from frame to frame, in the kernels' order."""

    order: NDArray[np.int64]  # (n,), the body's node at each place
    place: NDArray[np.int64]  # (n,), each of the body's nodes' place
    connectivity: Indices  # (m, 4 or 10), in places
    along: NDArray[np.intp]  # (m,), the body's element at each place
    data: Array  # (m, 12): gradients of corners 1..3 [1/m], volume [m3], mu, lambda [Pa]
    held: NDArray[np.uint8]  # (n,)
    incident_start: Indices
    incident: Indices
    chunk_start: Indices
    chunk_of: Indices
    pattern: Pattern
    lattice: Lattice

    def blocks(self, width: int) -> tuple[Indices, Array]:
        """Return connectivity and data in blocks of `width` elements; the last is filled up with empty ones."""
        count, nodes = self.connectivity.shape
        full = -(-count // 16) * 16
        c, d = np.zeros((full, nodes), np.int32), np.zeros((full, 12))
        c[:count], d[:count] = self.connectivity, self.data
        side = (c.reshape(-1, width, nodes), d.reshape(-1, width, 12))
        return np.ascontiguousarray(side[0].transpose(0, 2, 1)), np.ascontiguousarray(side[1].transpose(0, 2, 1))


def layout(body: Body, held: Flags, *, matrix: bool = True) -> Layout:
    """Lay out a body whose nodes `held`, shape (n,), do not move; without a `matrix` for passes over elements alone."""
    cells, places, weights = _cells(body.vertices, held)
    order = np.lexsort((_z_curve(body.vertices), cells))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    cells = cells[order]
    chunk_start = _chunks(cells)
    chunk_of = np.repeat(np.arange(len(chunk_start) - 1), np.diff(chunk_start)).astype(np.int32)
    share = weights[order] * ~held[order, None]
    elements, gradients = _ascending(place[body.elements].astype(np.int32), body.gradients)
    along = _apart(np.argsort(elements[:, :4].min(axis=1), kind="stable"))
    mu, lame = body.lame
    data = np.column_stack([gradients[:, 1:].reshape(-1, 9), body.volumes, mu, lame])[along]
    connectivity = np.ascontiguousarray(elements[along])
    incident_start, incident = _incident(connectivity, len(order))
    return Layout(
        order=order,
        place=place,
        connectivity=connectivity,
        along=along,
        data=data,
        held=held[order].astype(np.uint8),
        incident_start=incident_start,
        incident=incident,
        chunk_start=chunk_start,
        chunk_of=chunk_of,
        pattern=_pattern(connectivity if matrix else connectivity[:0], len(order)),
        lattice=_lattice(places[order][chunk_start[:-1]], share, chunk_of),
    )


def part_of(lay: Layout, rows: NDArray[np.intp], mu: Array, lame: Array) -> Layout:
    """Return the same nodes with the elements `rows` alone, of moduli `mu` and `lame` [Pa], for passes over them."""
    connectivity = np.ascontiguousarray(lay.connectivity[rows])
    start, incident = _incident(connectivity, len(lay.order))
    data = np.column_stack([lay.data[rows, :10], mu, lame])
    return replace(
        lay,
        connectivity=connectivity,
        along=lay.along[rows],
        data=data,
        incident_start=start,
        incident=incident,
        pattern=_pattern(connectivity[:0], len(lay.order)),
    )


def pairs(elements: Indices) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match tetrahedra by the faces that they share; return each one's side, 4 element + the corner that it lacks.

    An element that finds no neighbour is its own. Faces between elements that could match least go first.
    """
    sides, lot = np.sort(shared(elements)[1:], axis=0), np.random.default_rng(0)
    taken, free = [np.zeros((2, 0), np.intp)], np.ones(len(elements), dtype=bool)
    while sides.shape[1]:
        a, b = sides // 4
        could = np.bincount(sides.ravel() // 4, minlength=len(free))
        rank = np.argsort(np.argsort(could[a] + could[b] + lot.random(len(a))))
        first = np.full(len(free), len(a))
        np.minimum.at(first, a, rank)
        np.minimum.at(first, b, rank)
        chosen = (first[a] == rank) & (first[b] == rank)
        taken.append(sides[:, chosen])
        free[sides[:, chosen].ravel() // 4] = False
        sides = sides[:, free[a] & free[b]]
    alone = 4 * np.flatnonzero(free)
    one, other = np.concatenate([*taken, np.stack([alone, alone])], axis=1)
    along = np.argsort(one)
    return one[along], other[along]


def _ascending(elements: Indices, gradients: Array) -> tuple[Indices, Array]:
    """Return elements of 4 nodes with their nodes in ascending order, so that no block between them is transposed."""
    if elements.shape[1] != 4:
        return elements, gradients
    order = np.argsort(elements, axis=1)
    return np.take_along_axis(elements, order, 1), np.take_along_axis(gradients, order[:, :, None], 1)


def _apart(along: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return elements that are ordered along their nodes so that the sixteen of a block are sixteen places apart.

    Neighbours share nodes, and a sum into a node waits for the one before.
    """
    whole = len(along) // WINDOW * WINDOW
    mixed = along[:whole].reshape(-1, 16, WINDOW // 16).transpose(0, 2, 1).ravel()
    return np.concatenate([mixed, along[whole:]])


def _cells(vertices: Array, held: Flags) -> tuple[Indices, Indices, Array]:
    """Return each node's cell, its eight lattice nodes and their trilinear weights, on the finest lattice allowed."""
    low, size = vertices.min(axis=0), np.ptp(vertices, axis=0)
    most = min(LATTICE, max(8, min(SMALL, len(vertices) // TO_ONE_SMALL), len(vertices) // TO_ONE))
    best = _on_lattice(vertices, low, size, 1)
    for along in range(2, 33):
        finer = _on_lattice(vertices, low, size, along)
        used = finer[1][~held][finer[2][~held] > 0]
        if len(np.unique(used)) > most:
            break
        best = finer
    return best


def _on_lattice(vertices: Array, low: Array, size: Array, along: int) -> tuple[Indices, Indices, Array]:
    """Lay cubes over the body, `along` of them on its longest side."""
    counts = np.maximum(np.ceil(size / size.max() * along - 1e-9).astype(int), 1)
    at = (vertices - low) / np.where(size > 0, size, 1) * counts
    cell = np.clip(np.floor(at).astype(int), 0, counts - 1)
    within = at - cell
    bits = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    weights = np.prod(np.where(bits, within[:, None], 1 - within[:, None]), axis=2)
    corner = cell[:, None] + bits
    place = (corner[..., 0] * (counts[1] + 1) + corner[..., 1]) * (counts[2] + 1) + corner[..., 2]
    cells = (cell[:, 0] * counts[1] + cell[:, 1]) * counts[2] + cell[:, 2]
    return cells.astype(np.int32), place.astype(np.int32), np.where(weights > 1e-12, weights, 0.0)


def _z_curve(vertices: Array) -> NDArray[np.int64]:
    """Return each vertex's place along a Z-curve of 2^10 steps a side (Morton 1966)."""
    low, size = vertices.min(axis=0), max(float(np.ptp(vertices, axis=0).max()), 1e-12)
    grid = ((vertices - low) / size * 1023).astype(np.int64)
    spread = [((grid[:, axis] >> bit) & 1) << (3 * bit + axis) for bit in range(10) for axis in range(3)]
    return np.asarray(np.sum(spread, axis=0), dtype=np.int64)


def _chunks(cells: Indices) -> Indices:
    """Return where each chunk starts: at most CHUNK nodes, all of one cell."""
    ends = np.concatenate([np.flatnonzero(np.diff(cells)) + 1, [len(cells)]])
    starts, begin = [], 0
    for end in ends:
        pieces = -(-(end - begin) // CHUNK)
        starts.extend(begin + np.arange(pieces) * (end - begin) // pieces)
        begin = end
    return np.array([*starts, len(cells)], dtype=np.int32)


def _lattice(corners: Indices, share: Array, chunk_of: Indices) -> Lattice:
    """Give numbers to the lattice nodes that carry weight and list what adds to each."""
    carries = np.zeros(corners.shape, dtype=bool)
    np.logical_or.at(carries, chunk_of, share > 0)
    used = np.unique(corners[carries])
    number = np.searchsorted(used, corners).clip(max=max(len(used) - 1, 0)).astype(np.int32)
    rows = np.flatnonzero(carries.ravel())
    start, source = _grouped(number.ravel()[rows], rows, len(used))
    return Lattice(number, share.astype(np.float32), start, source)


def _pattern(connectivity: Indices, count: int) -> Pattern:
    nodes = connectivity.shape[1]
    a, b = np.triu_indices(nodes, 1)
    first, second = connectivity[:, a].ravel().astype(np.int64), connectivity[:, b].ravel().astype(np.int64)
    low, high = np.minimum(first, second), np.maximum(first, second)
    upper_keys, group = np.unique(low * count + high, return_inverse=True)
    rows = np.arange(len(low))
    upper_start, upper = _grouped(group.ravel(), np.where(first < second, rows, ~rows), len(upper_keys))
    i, j = upper_keys // count, upper_keys % count
    itself = np.arange(count, dtype=np.int64) * (count + 1)
    keys = np.sort(np.concatenate([upper_keys, j * count + i, itself]))
    row_start = np.searchsorted(keys, np.arange(count + 1) * count).astype(np.int32)
    return Pattern(
        row_start=row_start,
        column=(keys % count).astype(np.int32),
        diagonal=np.searchsorted(keys, itself).astype(np.int32),
        upper_start=upper_start,
        upper=upper,
        upper_at=np.searchsorted(keys, upper_keys).astype(np.int32),
        lower_at=np.searchsorted(keys, j * count + i).astype(np.int32),
        keys=keys,
    )


def _incident(connectivity: Indices, count: int) -> tuple[Indices, Indices]:
    """Return by node where its elements' forces on it lie: blocks of 8 elements, each node by node."""
    nodes = connectivity.shape[1]
    element, node = np.divmod(np.arange(connectivity.size), nodes)
    return _grouped(connectivity.ravel(), (element // 8 * nodes + node) * 8 + element % 8, count)


def _grouped(group: NDArray[np.integer], values: NDArray[np.integer], count: int) -> tuple[Indices, Indices]:
    """Return starts, shape (count + 1,), and `values` sorted by `group`, in their own order within each."""
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], np.arange(count + 1))
    return start.astype(np.int32), values[order].astype(np.int32)
