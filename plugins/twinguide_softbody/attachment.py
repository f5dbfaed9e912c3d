"""Bring springs into the kernels' order: which enter the matrix, and which are kept as additions of low rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from twinguide.errors import CaseError

from .arrays import MOST_WIDE, Arrays
from .body import Array, Springs, stacked
from .layout import Layout

NARROW = 16  # nodes: a spring over more would fill the matrix


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Springs' points in the layout's order: what does not hang on their stiffness."""

    weights: sp.csr_matrix  # (k, n)
    spread: sp.csr_matrix  # (blocks, k): what each touched block takes of each spring
    blocks: NDArray[np.int32]  # of the matrix, ascending
    wide: NDArray[np.intp]  # springs that are kept out of the matrix,
    moved: sp.csr_matrix  # their weights on nodes that are not held
    on_lattice: Array  # and on the lattice's nodes, (wide, lattice)


class Attachment:
    """Springs on a body as the kernels see them; their stiffness may change, their points only by another one.

    What is `known` of the same springs, or of the same parts of joined ones, is not laid out again. Of a further part
    of few springs, those over several nodes stay out of the matrix, if few do: it comes and goes without another one.
    """

    def __init__(
        self, lay: Layout, springs: Springs, arrays: Arrays, known: Mapping[Springs, Rows] | None = None
    ) -> None:
        nodes = cast("tuple[int, int]", springs.weights.shape)[1]
        if nodes != len(lay.order):
            got, where = f"{nodes}", "the springs' weights"
            raise CaseError(f"weights of {len(lay.order)} nodes", got, where, "Build the springs for this body.")
        known, parts = known or {}, springs.parts or (springs,)
        self.rows = {part: known.get(part) or _laid_out(lay, part, further=k > 0) for k, part in enumerate(parts)}
        if sum(len(one.wide) for one in self.rows.values()) > MOST_WIDE:
            self.rows = {part: _laid_out(lay, part, further=False) for part in parts}
        rows = list(self.rows.values())
        start = np.cumsum([0, *(len(one.weights.indptr) - 1 for one in rows)])
        self.places = {part: slice(start[k], start[k + 1]) for k, part in enumerate(self.rows)}
        self._wide = np.concatenate([one.wide + first for one, first in zip(rows, start, strict=False)])
        if len(self._wide) > MOST_WIDE:
            fix = "Take fewer, or springs on the nodes themselves."
            raise CaseError(f"at most {MOST_WIDE} springs over many nodes", f"{len(self._wide)}", "the springs", fix)
        self._arrays = arrays
        self.weights = stacked([one.weights for one in rows])
        self._wide_on_lattice = np.concatenate([one.on_lattice for one in rows])
        self._blocks, self._of_rows = _united([one.blocks for one in rows])
        count = int(start[-1])
        arrays.set("touched_at", self._blocks, np.int32)
        arrays.set("touched_values", np.zeros((len(self._blocks), 9)), np.float32)
        arrays.system.touched, arrays.system.wide = len(self._blocks), len(self._wide)
        arrays.system.springs = count
        arrays.set("spring_start", self.weights.indptr, np.int32)
        arrays.set("spring_node", self.weights.indices, np.int32)
        arrays.set("spring_weight", self.weights.data, np.float64)
        if arrays.by_node:
            by_node = self.weights.tocsc()
            arrays.set("spring_row", by_node.indptr, np.int32)
            arrays.set("spring_of", by_node.indices, np.int32)
            arrays.set("spring_share", by_node.data, np.float64)
        arrays.set("pull", np.zeros((count, 4)), np.float64)
        arrays.set("spring_stiffness", np.zeros((count, 9)), np.float64)
        _set_wide(arrays, lay, stacked([one.moved for one in rows]))
        self.coarse = np.zeros((3 * lay.lattice.count,) * 2)  # what low-rank springs add to the coarse matrix [N/m]
        self.stiffen(springs.stiffness)

    def stiffen(self, stiffness: Array) -> None:
        """Set the springs' stiffness [N/m], shape (k, 3, 3)."""
        self.stiffness = stiffness
        flat = stiffness.reshape(-1, 9)
        self._arrays.write("spring_stiffness", flat)
        self._touched = np.zeros((len(self._blocks), 9))
        for part, at in zip(self.rows, self._of_rows, strict=True):
            self._touched[at] += self.rows[part].spread @ flat[self.places[part]]
        self._arrays.write("touched_values", self._touched)
        self._arrays.write("wide_stiffness", flat[self._wide])
        on, size = self._wide_on_lattice, len(self.coarse)
        drawn = np.einsum("kij,kb->kibj", stiffness[self._wide], on).reshape(len(on), 3 * size)
        self.coarse[...] = (on.T @ drawn).reshape(size, size)

    def touches_as(self, other: Attachment) -> bool:
        """Tell whether the matrix holds the same of both: they differ in additions of low rank alone."""
        return np.array_equal(self._blocks, other._blocks) and np.array_equal(self._touched, other._touched)


def difference(lay: Layout, old: Attachment, new: Attachment) -> tuple[Array, Array]:
    """Return what the springs of `new` add to those of `old`: rows on the lattice (k, lattice), stiffness (k, 3, 3)."""
    rows, more = [np.zeros((0, lay.lattice.count))], [np.zeros((0, 3, 3))]
    for of, sign in ((old, -1.0), (new, 1.0)):
        for part, one in of.rows.items():
            if part not in old.rows or part not in new.rows:
                rows.append(on_lattice(lay, one.weights))
                more.append(sign * of.stiffness[of.places[part]])
    for part in [part for part in old.rows if part in new.rows]:
        change = new.stiffness[new.places[part]] - old.stiffness[old.places[part]]
        changed = np.flatnonzero(change.any(axis=(1, 2)))
        if len(changed):
            rows.append(on_lattice(lay, new.rows[part].weights[changed]))
            more.append(change[changed])
    return np.concatenate(rows), np.concatenate(more)


def _laid_out(lay: Layout, springs: Springs, *, further: bool) -> Rows:
    w = springs.weights
    weights = sp.csr_matrix((w.data.copy(), lay.place[w.indices], w.indptr), shape=w.shape)
    weights.sort_indices()
    moved = weights
    if lay.held[weights.indices].any():
        moved = weights.multiply(lay.held == 0).tocsr()
        moved.eliminate_zeros()
        moved.sort_indices()
    few = further and len(moved.indptr) - 1 <= MOST_WIDE
    spread, blocks, wide = _pairs(lay, moved, 1 if few else NARROW)
    return Rows(weights, spread, blocks, wide, moved[wide], on_lattice(lay, moved[wide]))


def _pairs(
    lay: Layout, weights: sp.csr_matrix, narrow: int
) -> tuple[sp.csr_matrix, NDArray[np.int32], NDArray[np.intp]]:
    """Return what each touched block takes of each spring, those blocks, and the springs that are kept out of them."""
    count, counts = len(weights.indptr) - 1, np.diff(weights.indptr)
    at: list[NDArray[np.int32]] = []
    spring: list[NDArray[np.intp]] = []
    share: list[Array] = []
    wide = counts > narrow
    for size in np.unique(counts[~wide & (counts > 0)]):
        rows = np.flatnonzero(counts == size)
        entries = weights.indptr[rows][:, None] + np.arange(size)
        nodes, w = weights.indices[entries], np.asarray(weights.data[entries], dtype=np.float64)
        nodes = nodes.astype(np.int32)
        found = lay.pattern.find(np.repeat(nodes, size, axis=1), np.tile(nodes, size))
        fits = (found >= 0).all(axis=1)
        wide[rows[~fits]] = True
        at.append(found[fits].ravel())
        spring.append(np.repeat(rows[fits], size * size))
        share.append((w[:, :, None] * w[:, None])[fits].ravel())
    places = np.concatenate(at) if at else np.zeros(0, np.int32)
    blocks, row = np.unique(places, return_inverse=True)
    values = (np.concatenate(share), (row, np.concatenate(spring))) if at else ([], ([], []))
    return sp.csr_matrix(values, shape=(len(blocks), count)), blocks, np.flatnonzero(wide)


def _united(blocks: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], list[NDArray[np.intp]]]:
    """Return all blocks once, and where those of each part are among them."""
    some = [one for one in blocks if len(one)]
    if len(some) < 2:
        return np.concatenate([*blocks]), [np.arange(len(one)) for one in blocks]
    all_of, place = np.unique(np.concatenate(blocks), return_inverse=True)
    return all_of, np.split(place, np.cumsum([len(one) for one in blocks])[:-1])


def on_lattice(lay: Layout, weights: sp.csr_matrix) -> Array:
    """Return weights, csr (k, n), on the lattice's nodes, (k, lattice)."""
    out, entries = np.zeros((len(weights.indptr) - 1, lay.lattice.count)), weights.tocoo()
    corners = lay.lattice.corners[lay.chunk_of[entries.col]]
    np.add.at(out, (entries.row[:, None], corners), entries.data[:, None] * lay.lattice.share[entries.col])
    return out


def _set_wide(arrays: Arrays, lay: Layout, weights: sp.csr_matrix) -> None:
    count = len(weights.indptr) - 1
    arrays.set("wide_start", weights.indptr, np.int32)
    arrays.set("wide_node", weights.indices, np.int32)
    arrays.set("wide_weight", weights.data, np.float32)
    arrays.set("wide_stiffness", np.zeros((count, 9)), np.float32)
    arrays.set("wide_inner", np.zeros((3 * count, 3 * count)), np.float32)
    for name in ("wide_seen", "wide_pull"):
        arrays.set(name, np.zeros((count, 3)), np.float32)
    entries = weights.tocoo()
    by_node = np.lexsort((entries.row, entries.col))
    node = entries.col[by_node]
    arrays.set("wide_chunk", np.searchsorted(node, lay.chunk_start), np.int32)
    if arrays.by_node:
        arrays.set("wide_row", np.searchsorted(node, np.arange(len(lay.order) + 1)), np.int32)
    arrays.set("wide_at", node, np.int32)
    arrays.set("wide_of", entries.row[by_node], np.int32)
    arrays.set("wide_chunk_weight", entries.data[by_node], np.float32)
