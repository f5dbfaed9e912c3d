"""NumPy's linear algebra as the solvers here use it: float64 in, float64 out."""

from __future__ import annotations

import numpy as np

from twinguide_calibration.rigid import Array, as_floats


def solve(matrix: Array, right: Array) -> Array:
    """Return x of `matrix x = right`, shapes (..., k, k) and (k,) or (..., k, m)."""
    return as_floats(np.linalg.solve(matrix, right))


def invert(matrix: Array) -> Array:
    """Return the inverse of matrices, shape (..., k, k)."""
    return as_floats(np.linalg.inv(matrix))


def whitening_of(covariance: Array) -> Array:
    """Return W with `W' W = covariance^-1`, shapes (..., k, k)."""
    return invert(as_floats(np.linalg.cholesky(covariance)))


def eigen(matrix: Array) -> tuple[Array, Array]:
    """Return the eigenvalues, rising, and eigenvectors (columns) of symmetric matrices, shape (..., k, k)."""
    values, vectors = np.linalg.eigh(matrix)
    return as_floats(values), as_floats(vectors)


def squared_lengths(vectors: Array) -> Array:
    """Return the squared lengths, shape (n,), of vectors, shape (n, k)."""
    return as_floats(np.einsum("nk,nk->n", vectors, vectors))
