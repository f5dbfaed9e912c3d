"""Gathering, conjugate gradients and the coarse matrix in Numba, for machines without a C compiler.

The algorithms of `kernels/elements.c`, `krylov.c` and `coarse.c`, on one thread, in float64 where C has vectors of
float32: the two agree to the float32 matrix's rounding, not to the bit.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np

from .jit_elements import compiled


@compiled
def gather_forces(start, incident, element, force):
    """Sum the elements' rows of each node."""
    for i in range(len(force)):
        force[i] = 0
        for k in range(start[i], start[i + 1]):
            force[i] += element[incident[k]]


@compiled
def gather_matrix(upper_start, upper, upper_at, lower_at, element, row_start, diagonal, values):
    """Sum the element blocks into the matrix; a diagonal block is minus the others of its row."""
    for k in range(len(upper_at)):
        block = np.zeros((3, 3), np.float32)
        for e in range(upper_start[k], upper_start[k + 1]):
            which = upper[e]
            part = element[~which if which < 0 else which].reshape(3, 3)
            block += part.T if which < 0 else part
        values[upper_at[k]] = block.ravel()
        values[lower_at[k]] = np.ascontiguousarray(block.T).ravel()
    for i in range(len(diagonal)):
        own = np.zeros(9, np.float32)
        for k in range(row_start[i], row_start[i + 1]):
            if k != diagonal[i]:
                own -= values[k]
        values[diagonal[i]] = own


@compiled
def invert_blocks(values, diagonal, held, inverse):
    """Invert each node's own block; by its trace alone where it is not positive definite."""
    for i in range(len(diagonal)):
        a = values[diagonal[i]].reshape(3, 3).astype(np.float64)
        inverse[i] = 0
        if held[i]:
            continue
        trace = a[0, 0] + a[1, 1] + a[2, 2]
        second = a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
        if a[0, 0] > 0 and second > 0 and np.linalg.det(a) > 1e-12 * trace**3:
            inverse[i] = np.linalg.inv((a + a.T) / 2).ravel()
        else:
            inverse[i, 0] = inverse[i, 4] = inverse[i, 8] = 3 / trace if trace > 0 else 3.0


@compiled
def multiply(row_start, column, values, wide_start, wide_node, wide_weight, wide_stiffness, p, q):
    """Write q = (K + w'Sw) p, both (n, 3)."""
    for i in range(len(q)):
        x = y = z = 0.0
        for k in range(row_start[i], row_start[i + 1]):
            v, a = values[k], p[column[k]]
            x += v[0] * a[0] + v[3] * a[1] + v[6] * a[2]
            y += v[1] * a[0] + v[4] * a[1] + v[7] * a[2]
            z += v[2] * a[0] + v[5] * a[1] + v[8] * a[2]
        q[i, 0], q[i, 1], q[i, 2] = x, y, z
    for j in range(len(wide_start) - 1):
        seen = np.zeros(3)
        for k in range(wide_start[j], wide_start[j + 1]):
            seen += wide_weight[k] * p[wide_node[k]]
        pull = wide_stiffness[j].reshape(3, 3).astype(np.float64) @ seen
        for k in range(wide_start[j], wide_start[j + 1]):
            q[wide_node[k]] += wide_weight[k] * pull


@compiled
def precondition(inverse, share, corner, chunk_of, coarse, wide_start, wide_node, wide_weight, wide_inner, r, z):
    """Write z = M^-1 r, both (n, 3): nodes' blocks, low-rank springs, coarse lattice."""
    right = np.zeros(len(coarse))
    for i in range(len(r)):
        z[i] = inverse[i].reshape(3, 3).astype(np.float64) @ r[i]
        for a in range(8):
            at = 3 * corner[chunk_of[i], a]
            right[at : at + 3] += share[i, a] * r[i]
    seen = np.zeros(len(wide_inner))
    for j in range(len(wide_start) - 1):
        for k in range(wide_start[j], wide_start[j + 1]):
            seen[3 * j : 3 * j + 3] += wide_weight[k] * z[wide_node[k]]
    drawn = wide_inner.astype(np.float64) @ seen
    for j in range(len(wide_start) - 1):
        for k in range(wide_start[j], wide_start[j + 1]):
            block = inverse[wide_node[k]].reshape(3, 3).astype(np.float64)
            z[wide_node[k]] -= wide_weight[k] * (block @ drawn[3 * j : 3 * j + 3])
    left = coarse.astype(np.float64) @ right
    for i in range(len(r)):
        for a in range(8):
            at = 3 * corner[chunk_of[i], a]
            z[i] += share[i, a] * left[at : at + 3]


@compiled
def conjugate_gradients(matrix, wide, inner, smoother, right, d, most, relative, absolute):
    """Write d with K d = right, (n, 3); return iterations, norms before and after, negative curvature."""
    inverse, share, corner, chunk_of, coarse = smoother
    r, z, q = right.copy(), np.empty_like(right), np.empty_like(right)
    p = np.zeros_like(right)
    d[...] = 0
    first = before = 0.0
    for it in range(most + 1):
        precondition(inverse, share, corner, chunk_of, coarse, wide[0], wide[1], wide[2], inner, r, z)
        rz = (r * z).sum()
        if it == 0:
            first = rz
        if not rz > relative**2 * first or rz <= absolute**2 or it >= most:
            return it, max(first, 0.0) ** 0.5, max(rz, 0.0) ** 0.5, False
        p[...] = z if it == 0 else z + rz / before * p
        before = rz
        multiply(matrix[0], matrix[1], matrix[2], wide[0], wide[1], wide[2], wide[3], p, q)
        curvature = (p * q).sum()
        if not curvature > 0:
            if it == 0:
                d[...] = p
            return it, max(first, 0.0) ** 0.5, max(rz, 0.0) ** 0.5, True
        d += rz / curvature * p
        r -= rz / curvature * q
    return most, max(first, 0.0) ** 0.5, 0.0, False


@compiled
def coarse_matrix(row_start, column, values, share, corner, chunk_of, out):
    """Write P'KP [N/m] in float64, (3 lattice, 3 lattice)."""
    out[...] = 0
    for i in range(len(share)):
        for k in range(row_start[i], row_start[i + 1]):
            j = column[k]
            for a in range(8):
                for b in range(8):
                    w = np.float64(share[i, a]) * share[j, b]
                    if w != 0:
                        x, y = 3 * corner[chunk_of[i], a], 3 * corner[chunk_of[j], b]
                        for c in range(9):
                            out[x + c % 3, y + c // 3] += w * values[k, c]
