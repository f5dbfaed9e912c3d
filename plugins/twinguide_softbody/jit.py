"""The passes over one body in Numba, for machines without a C compiler; the same calls as `machine.Native`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from . import jit_elements, jit_krylov
from .arrays import Arrays
from .body import Array, points
from .layout import Layout


class Jit:
    """Passes over one body by Numba, on one thread.

    Displacements, forces and directions are float64, shape (n, 3), in the layout's order, [m] and [N].
    """

    def __init__(self, lay: Layout, material: str, threads: int) -> None:
        del threads
        self.arrays = Arrays(lay, material, 1)
        self._lay, self._material = lay, self.arrays.system.material
        self._slope = points(lay.connectivity.shape[1]).by_corner
        m, nodes = lay.connectivity.shape
        self._blocks = np.zeros((m, nodes * (nodes - 1) // 2, 9), np.float32)

    def evaluate(self, u: Array, force: Array) -> tuple[float, float]:
        """Write the elements' forces at displacements u; return energy [J] and smallest J."""
        lay, forces = self._lay, self.arrays["element_force"]
        energy, least = jit_elements.element_forces(
            *(lay.connectivity, lay.data, self._slope, self._material, u),
            forces[:-1].reshape(-1, lay.connectivity.shape[1], 8, 3),
        )
        jit_krylov.gather_forces(lay.incident_start, lay.incident, forces, force)
        return energy, least

    def balance(
        self, u: Array, element: Array, targets: Array, share: float, right: Array
    ) -> tuple[float, float, float, float]:
        """Write what is out of balance; return energy [J] of springs and load, and squares of the three forces."""
        load, stiffness = self.arrays["load"], self.arrays["spring_stiffness"].reshape(-1, 3, 3)
        weights = self._weights()
        gap = targets - weights @ u
        pull = np.matmul(stiffness, gap[..., None])[..., 0]
        right[...] = share * load + weights.T @ pull
        energy = 0.5 * float((gap * pull).sum()) - share * float((load * u).sum())
        outer = float((right**2).sum())
        right += element
        right[self._lay.held != 0] = 0
        return energy, float((right**2).sum()), float((element**2).sum()), outer

    def tangent(self, u: Array) -> None:
        """Assemble the matrix [N/m] and the nodes' part of its preconditioner at displacements u."""
        lay, arrays = self._lay, self.arrays
        pattern, values = lay.pattern, arrays["values"]
        jit_elements.element_blocks(lay.connectivity, lay.data, self._slope, self._material, u, self._blocks)
        jit_krylov.gather_matrix(
            *(pattern.upper_start, pattern.upper, pattern.upper_at, pattern.lower_at),
            *(self._blocks.reshape(-1, 9), pattern.row_start, pattern.diagonal, values),
        )
        values[arrays["touched_at"]] += arrays["touched_values"]
        jit_krylov.invert_blocks(values, pattern.diagonal, lay.held, arrays["inverse"])
        if arrays.system.wide:
            self.prepare_wide()

    def solve(
        self, right: Array, d: Array, most: int, relative: float, absolute: float = 0.0
    ) -> tuple[int, float, float, bool]:
        """Write d with K d = right; return iterations, norms sqrt(r'M^-1 r) before and after, negative curvature."""
        arrays, lay = self.arrays, self._lay
        matrix = (lay.pattern.row_start, lay.pattern.column, arrays["values"])
        wide = tuple(arrays[name] for name in ("wide_start", "wide_node", "wide_weight", "wide_stiffness"))
        smoother = (arrays["inverse"], lay.lattice.share, lay.lattice.corners, lay.chunk_of, arrays["coarse"])
        return jit_krylov.conjugate_gradients(
            matrix, wide, arrays["wide_inner"], smoother, right, d, most, relative, absolute
        )

    def coarse_inverse(self, values: NDArray[np.float32], added: Array, work: Array, out: NDArray[np.float32]) -> bool:
        """Write (P'KP + added)^-1 [m/N] of blocks `values`; false where it is not positive definite."""
        lay = self._lay
        matrix = work[0]
        jit_krylov.coarse_matrix(
            *(lay.pattern.row_start, lay.pattern.column, values, lay.lattice.share),
            *(lay.lattice.corners, lay.chunk_of, matrix),
        )
        matrix += added
        matrix[...] = (matrix + matrix.T) / 2
        matrix[np.diag_indices(len(matrix))] *= 1 + 1e-6
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return False
        out[...] = np.linalg.inv(matrix)
        return True

    def dots(self, rows: Array, v: Array, out: Array) -> None:
        """Write the dot products of v with each of `rows`, (count, n, 3)."""
        out[...] = np.einsum("kni,ni->k", rows, v)

    def rms(self, v: Array) -> float:
        """Return the root of the mean squared length of v's rows."""
        return float(np.sqrt((v**2).sum() / len(v)))

    def combine(self, base: Array, rows: Array, share: Array, out: Array) -> None:
        """Write base plus share times rows, (count, n, 3)."""
        out[...] = base + np.einsum("k,kni->ni", share, rows[: len(share)])

    def spring_points(self, v: Array, out: Array) -> None:
        """Write the springs' weighted means of v, (springs, 3)."""
        out[...] = self._weights() @ v

    def _weights(self) -> Any:  # noqa: ANN401 - scipy's sparse matrices have no types
        parts = (self.arrays["spring_weight"], self.arrays["spring_node"], self.arrays["spring_start"])
        return sp.csr_matrix(parts, shape=(self.arrays.system.springs, len(self._lay.order)))

    def prepare_wide(self) -> None:
        """Write (1 + S w D^-1 w')^-1 S: Woodbury's identity for the springs over many nodes."""
        arrays, count = self.arrays, self.arrays.system.wide
        parts = (arrays["wide_weight"].astype(np.float64), arrays["wide_node"], arrays["wide_start"])
        weights = sp.csr_matrix(parts, shape=(count, len(self._lay.order))).tocsc()
        nodes = np.unique(arrays["wide_node"])
        w, inverse = weights[:, nodes].toarray(), arrays["inverse"][nodes].reshape(-1, 3, 3).astype(np.float64)
        between = np.einsum("jn,nab,kn->jakb", w, inverse, w).reshape(3 * count, 3 * count)
        stiffness = np.zeros((count, 3, count, 3))
        stiffness[range(count), :, range(count)] = arrays["wide_stiffness"].reshape(-1, 3, 3)
        s = stiffness.reshape(3 * count, 3 * count)
        arrays["wide_inner"][...] = np.linalg.solve(np.eye(3 * count) + s @ between, s)
