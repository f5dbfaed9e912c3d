"""Read surfaces: STL, OBJ and PLY through trimesh, VTK polygon data through `reading_vtk`; map units and axes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from twinguide.errors import CaseError
from twinguide.hookspecs import Anatomy
from twinguide.importing.reading_vtk import read_vtk

Array = NDArray[np.float64]
Triangles = NDArray[np.int64]
Units = Literal["mm", "m"]
Axes = Literal["lps", "ras"]
READ = (".vtk", ".stl", ".obj", ".ply")
KNOWN_BUT_NOT_READ = (".vtp", ".vtu", ".mha", ".nii", ".nrrd", ".dcm", ".gltf", ".glb", ".off")
METRES_PER = {"mm": 1e-3, "m": 1.0}
LPS_SIGNS = {"lps": (1.0, 1.0, 1.0), "ras": (-1.0, -1.0, 1.0)}  # a half turn about the body's axis, never a mirror


def to_image(points: Array, units: Units, axes: Axes) -> Array:
    """Return points [m], (n, 3), in image (LPS), of points in the source's units and axes."""
    return np.asarray(points, dtype=np.float64) * METRES_PER[units] * np.array(LPS_SIGNS[axes])


def find_surfaces(folder: Path) -> list[Path]:
    """Return the surface files of a folder in the order of their names; raise CaseError where there is none."""
    if not folder.is_dir():
        raise CaseError("a folder of surfaces", "no such folder", str(folder))
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READ)
    other = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in KNOWN_BUT_NOT_READ)
    if not files:
        raise CaseError(
            f"surfaces ({', '.join(READ)})", f"none, but {', '.join(other)}" if other else "none", str(folder),
            "Save each structure as a closed triangle surface in one of these formats.",
        )  # fmt: skip
    return files


def read_surface(path: Path) -> tuple[Array, Triangles]:
    """Return vertices, (n, 3), in the file's own units and axes, and triangles, (m, 3); raise CaseError."""
    try:
        if path.suffix.lower() == ".vtk":
            vertices, triangles = read_vtk(path.read_bytes(), str(path))
        else:
            mesh = trimesh.load_mesh(str(path), process=False)  # pyright: ignore[reportUnknownMemberType]
            vertices = np.asarray(mesh.vertices, dtype=np.float64)
            triangles = np.asarray(mesh.faces, dtype=np.int64)
    except CaseError:
        raise
    except Exception as error:  # a broken file makes a reader raise anything
        raise CaseError(
            f"a readable {path.suffix} surface", f"{type(error).__name__}: {error}", str(path),
            "Open it in the program that wrote it, and save it again.",
        ) from error  # fmt: skip
    if len(vertices) == 0 or len(triangles) == 0:
        raise CaseError("triangles", f"{len(vertices)} points, {len(triangles)} triangles", str(path))
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        got = f"indices {triangles.min()}..{triangles.max()} of {len(vertices)} points"
        raise CaseError("triangles of the file's own points", got, str(path), "The file is damaged.")
    return vertices, triangles


def match(stem: str, structures: Sequence[Anatomy]) -> Anatomy | None:
    """Return the structure whose `match` words fit a file's stem best (the longest wins), or None."""
    stem = stem.lower()
    fits = [(len(word), anatomy) for anatomy in structures for word in anatomy.match if word.lower() in stem]
    if not fits:
        return None
    longest = max(length for length, _ in fits)
    best = {anatomy.name: anatomy for length, anatomy in fits if length == longest}
    if len(best) > 1:
        raise CaseError("a file name that means one structure", f"{stem!r} fits {sorted(best)}", next_step="Rename it.")
    return next(iter(best.values()))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
