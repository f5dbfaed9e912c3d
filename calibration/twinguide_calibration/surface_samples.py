"""A surface prepared for registration: samples with smooth normals, and a tree to find the nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, as_floats

FINENESS = 0.08  # of the extent (6 mm for a liver): longer mean edges are split
SHARPEST = 200.0  # [1/m] an edge sharper than 5 mm has no curvature to speak of
MOST_FACES = 400_000


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceModel:
    """Samples of a surface [m], shape (s, 3), unit normals (s, 3), shape operators (s, 3, 3) [1/m]; rms extent [m].

    A shape operator tells how the normal turns along the surface; half its trace, the mean curvature, is positive where
    the surface bends away from its normal, as a ball's does.
    """

    samples: Array
    normals: Array
    bends: Array
    curvatures: Array  # (s,) [1/m]
    extent: float
    tree: Any  # scipy.spatial.KDTree of the samples

    def nearest(self, points: Array) -> Ints:
        """Return the index of the sample nearest to each point [m], shape (n, 3)."""
        return self.tree.query(points)[1]


def surface_model(vertices: Array, faces: Ints) -> SurfaceModel:
    """Return a model of a triangle mesh: vertices [m], shape (v, 3), faces, shape (f, 3).

    Samples are the centroids of faces, split until edges are at most 8 % of the extent; a normal is the mean of
    its face's vertex normals, so that facets do not pretend to hold what a smooth surface lets slide. Raises
    CalibrationRefused for meshes without faces, with indices out of range, and for millimetres.
    """
    vertices, faces = as_floats(vertices), np.asarray(faces, dtype=np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise CalibrationRefused(f"wanted a triangle mesh; got vertices {vertices.shape} and faces {faces.shape}")
    if faces.min() < 0 or faces.max() >= len(vertices) or not np.isfinite(vertices).all():
        raise CalibrationRefused("the mesh has vertices that are not finite, or faces that name none")
    used = vertices[np.unique(faces)]
    extent = float(np.sqrt(((used - used.mean(axis=0)) ** 2).sum(axis=1).mean()))
    if not 1e-4 < extent < 5.0:
        raise CalibrationRefused(f"the mesh's extent is {extent:.3g} m", "Are its vertices millimetres?")
    vertices, faces, normals = _split(vertices, faces, _vertex_normals(vertices, faces), FINENESS * extent)
    bends = _bends(vertices, faces, normals)
    samples = vertices[faces].mean(axis=1)
    blended = normals[faces].mean(axis=1)
    length = np.sqrt((blended**2).sum(axis=1))
    sound = length > 0.1
    return SurfaceModel(
        samples[sound],
        blended[sound] / length[sound, None],
        bends[sound],
        0.5 * np.einsum("sii->s", bends[sound]),
        extent,
        KDTree(samples[sound], leafsize=16),
    )


def _vertex_normals(vertices: Array, faces: Ints) -> Array:
    """Return area-weighted normals, shape (v, 3), of unit length."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return normals / np.maximum(np.sqrt((normals**2).sum(axis=1, keepdims=True)), 1e-300)


def _bends(vertices: Array, faces: Ints, normals: Array) -> Array:
    """Return how the normals turn over each face, shape (f, 3, 3) [1/m], evened out over its neighbours."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    square = np.maximum((across**2).sum(axis=1), 1e-300)
    opposite = np.roll(corners, 1, axis=1) - np.roll(corners, -1, axis=1)  # the edge that faces each corner
    slopes = np.cross(across[:, None], opposite) / square[:, None, None]
    bend = np.einsum("fki,fkj->fij", normals[faces], slopes)
    bend = (0.5 * (bend + bend.transpose(0, 2, 1))).reshape(-1, 9)
    area = np.repeat(np.sqrt(square), 3)
    weight = np.bincount(faces.ravel(), area, len(vertices))
    total = [np.bincount(faces.ravel(), area * np.repeat(column, 3), len(vertices)) for column in bend.T]
    even = (np.stack(total, axis=1) / np.maximum(weight, 1e-300)[:, None])[faces].mean(axis=1)
    size = np.sqrt((even**2).sum(axis=1, keepdims=True))
    return (even * np.minimum(1.0, SHARPEST / np.maximum(size, 1e-300))).reshape(-1, 3, 3)


def _split(vertices: Array, faces: Ints, normals: Array, longest: float) -> tuple[Array, Ints, Array]:
    """Return the mesh with faces split in four until their mean edge is no longer than `longest` [m]."""
    while len(faces) * 4 <= MOST_FACES:
        corners = vertices[faces]
        edge = np.sqrt(((corners - np.roll(corners, 1, axis=1)) ** 2).sum(axis=2)).mean(axis=1)
        large = edge > longest
        if not large.any():
            break
        keep, cut = faces[~large], faces[large]
        middles = (vertices[cut] + vertices[np.roll(cut, -1, axis=1)]) / 2.0
        between = (normals[cut] + normals[np.roll(cut, -1, axis=1)]) / 2.0
        index = len(vertices) + np.arange(3 * len(cut)).reshape(-1, 3)
        vertices = np.concatenate([vertices, middles.reshape(-1, 3)])
        normals = np.concatenate([normals, between.reshape(-1, 3)])
        a, b, c = cut.T
        ab, bc, ca = index.T
        parts = [np.stack(p, axis=1) for p in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        faces = np.concatenate([keep, *parts])
    return vertices, faces, normals
