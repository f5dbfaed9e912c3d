from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="session")
def box():
    """Return a maker of boxes of Kuhn tetrahedra, six to a cell, with shaken inner vertices."""

    def make(cells=(4, 4, 4), size=(0.1, 0.1, 0.1), shake=0.0):
        axes = [np.linspace(0, s, n + 1) for n, s in zip(cells, size, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        vertices = grid.reshape(-1, 3).copy()
        ny, nz = cells[1] + 1, cells[2] + 1
        strides = np.array([ny * nz, nz, 1])
        corner = np.stack(np.meshgrid(*[np.arange(n) for n in cells], indexing="ij"), axis=-1).reshape(-1, 3) @ strides
        paths = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0)]
        tetrahedra = np.concatenate([corner[:, None] + np.cumsum([0, *strides[list(p)]]) for p in paths])
        edges = vertices[tetrahedra][:, 1:] - vertices[tetrahedra][:, :1]
        negative = np.linalg.det(edges) < 0
        tetrahedra[negative] = tetrahedra[negative][:, [0, 2, 1, 3]]
        inner = ((vertices > 1e-9) & (vertices < np.array(size) - 1e-9)).all(axis=1)
        step = np.array(size) / cells
        vertices[inner] += shake * step * np.random.default_rng(0).uniform(-1, 1, (int(inner.sum()), 3))
        return SimpleNamespace(vertices=vertices, tetrahedra=tetrahedra.astype(np.int32), inner=inner)

    return make
