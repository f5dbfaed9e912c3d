"""Read surfaces: STL, OBJ and PLY through trimesh, legacy VTK polygon data through ITK; map names, units and axes.

ITK comes as WebAssembly (`itkwasm-mesh-io`, 63 MB installed, where the `vtk` and `itk` wheels take half a gigabyte): a
damaged file that makes it fail ends in an exception, not in a dead process.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from twinguide.errors import CaseError
from twinguide.frames import Array
from twinguide.hookspecs import Anatomy, Organ

Triangles = NDArray[np.int64]
Units = Literal["mm", "m"]
Axes = Literal["lps", "ras"]
READ = (".vtk", ".stl", ".obj", ".ply")
KNOWN_BUT_NOT_READ = (".vtp", ".vtu", ".mha", ".nii", ".nrrd", ".dcm", ".gltf", ".glb", ".off")
MOST_TRIANGLES = 2_000_000  # an import takes about 2 minutes of a core and 1.3 GB for each million
CUT_OFF = "The file is cut off: copy it anew."
IN_THE_SAME = "Its points are to be in the surfaces' own --units and --axes: docs/case.md."
SAVE_AGAIN = "Open it in the program that wrote it, and save it again."
METRES_PER = {"mm": 1e-3, "m": 1.0}
LPS_SIGNS = {"lps": (1.0, 1.0, 1.0), "ras": (-1.0, -1.0, 1.0)}  # a half turn about the body's axis, never a mirror


def to_image(points: Array, units: Units, axes: Axes) -> Array:
    """Return points [m], (n, 3), in image (LPS), of points in the source's units and axes."""
    return np.asarray(points, dtype=np.float64) * METRES_PER[units] * np.array(LPS_SIGNS[axes])


def find_surfaces(folder: Path) -> list[Path]:
    """Return the surface files of a folder in the order of their names; raise CaseError where there is none."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise CaseError("a folder of surfaces, one file for each structure", got, str(folder), "Name the folder.")
    seen = sorted(path for path in folder.iterdir() if not path.name.startswith("."))  # macOS leaves a ._liver.stl
    files = [path for path in seen if path.suffix.lower() in READ]
    other = [path.name for path in seen if path.suffix.lower() in KNOWN_BUT_NOT_READ]
    if not files:
        raise CaseError(
            f"surfaces ({', '.join(READ)})", f"none, but {', '.join(other)}" if other else "none", str(folder),
            "Save each structure as a closed triangle surface in one of these formats.",
        )  # fmt: skip
    return files


def read_surface(path: Path) -> tuple[Array, Triangles]:
    """Return vertices, (n, 3), in the file's own units and axes, and triangles, (m, 3); raise CaseError."""
    if not path.is_file() or path.stat().st_size == 0:
        got = "an empty file" if path.is_file() else "a folder" if path.is_dir() else "a name that leads to no file"
        raise CaseError("a readable surface", got, str(path), "Save the surface anew, or take this away.")
    try:
        if path.suffix.lower() == ".stl":
            _check_stl(path)
        if path.suffix.lower() == ".vtk":
            vertices, triangles = _read_vtk(path)
        else:
            with path.open("rb") as file:  # given the path, trimesh fails where its name is no UTF-8
                mesh = trimesh.load_mesh(file, file_type=path.suffix[1:].lower(), process=False)
            vertices = np.asarray(mesh.vertices, dtype=np.float64)
            triangles = np.asarray(mesh.faces, dtype=np.int64)
            if path.suffix.lower() == ".ply":
                _check_ply(path, len(triangles))
    except CaseError:
        raise
    except Exception as error:  # a broken file makes a reader raise anything
        told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise CaseError(f"a readable {path.suffix} surface", told, str(path), SAVE_AGAIN) from error
    if len(vertices) == 0 or len(triangles) == 0:
        raise CaseError("triangles", "none", str(path), "Points and lines bound nothing: save the closed surface.")
    check_count(len(triangles), path)
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        got = f"indices {triangles.min()}..{triangles.max()} of {len(vertices)} points"
        raise CaseError("triangles of the file's own points", got, str(path), "The file is damaged.")
    return vertices, triangles


def check_count(triangles: int, path: Path) -> None:
    """Refuse a surface of more triangles than an import bears."""
    if triangles > MOST_TRIANGLES:
        raise CaseError(
            f"at most {MOST_TRIANGLES:,} triangles", f"{triangles:,}", str(path),
            "Decimate it in the program that made it: distances are kept on a grid of 3 mm anyway.",
        )  # fmt: skip


def _check_stl(path: Path) -> None:
    """Refuse an STL file that is neither text nor as long as its count of triangles says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
        file.seek(max(0, size - 1024))
        tail = file.read()
    count = int.from_bytes(head[80:84], "little")
    if size >= 84 and size == 84 + 50 * count:
        return check_count(count, path)
    head = head.removeprefix(b"\xef\xbb\xbf")  # a text's byte order mark
    if head.lstrip().lower().startswith(b"solid") and b"\0" not in head:
        if b"endsolid" in tail.lower():
            return None
        raise CaseError("text to 'endsolid'", "text without", str(path), CUT_OFF)
    if size > 84 and not _is_text(head) and 0 < count <= 10 * MOST_TRIANGLES:  # else no count
        surplus = size - 84 - 50 * count
        if surplus < 0:
            got = f"a file that ends after {(size - 84) // 50} of {count}"
            raise CaseError("every triangle", got, str(path), CUT_OFF)
        got = f"{surplus} bytes too many after {count} triangles"
        raise CaseError("a file that ends with its last triangle", got, str(path), SAVE_AGAIN)
    raise CaseError("an STL surface", f"{size} bytes of neither binary nor text STL", str(path), SAVE_AGAIN)


def _check_ply(path: Path, triangles: int) -> None:
    """Refuse a PLY file of fewer triangles than its header says: a text's end is missed by nobody else."""
    with path.open("rb") as file:
        told = re.search(rb"element\s+face\s+(\d+)", file.read(10_000))
    if told and triangles < int(told[1]):
        got = f"a file that ends after {triangles} of {int(told[1])}"
        raise CaseError("every triangle", got, str(path), CUT_OFF)


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)


def _read_vtk(path: Path) -> tuple[Array, Triangles]:
    """Return points and triangles; polygons become fans about their first corner."""
    data = path.read_bytes()
    if b"DATASET POLYDATA" not in data[:1024] or b"TRIANGLE_STRIPS" in data:
        raise CaseError(
            "legacy VTK polygon data (DATASET POLYDATA, in upper case), without strips, which ITK passes over",
            repr(data[:100].decode("ascii", errors="replace")), str(path), "Save it as triangles, in binary.",
        )  # fmt: skip
    from itkwasm_mesh_io import vtk_poly_data_read_mesh  # half a second to import, and only VTK needs it

    try:
        known, mesh = vtk_poly_data_read_mesh(path)
        vertices = np.asarray(mesh.points, dtype=np.float64).reshape(-1, 3)
        cells = np.asarray(mesh.cells, dtype=np.int64).reshape(-1)  # kind, corners, corner, corner, ...
    except Exception:  # ITK dies in its sandbox, and says no more than that
        known, vertices, cells = False, np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    if not known or len(cells) == 0:
        raise CaseError(
            "legacy VTK polygon data", "what ITK cannot read", str(path),
            "Usual causes: binary numbers that are not big-endian, keywords not in upper case, no points or triangles, "
            "a file cut off. Save it anew with VTK or ParaView.",
        )  # fmt: skip
    if len(cells) % 5 == 0 and (cells.reshape(-1, 5)[:, 1] == 3).all():
        triangles = cells.reshape(-1, 5)[:, 2:]
    else:
        triangles = _fans(cells.tolist())
    if (triangles == 0).all(axis=1).any():
        raise CaseError("numbers to the end", "triangles without any", str(path), CUT_OFF)
    return vertices, np.ascontiguousarray(triangles)


def _fans(cells: list[int]) -> Triangles:
    out: list[list[int]] = []
    at = 0
    while at < len(cells):
        corners = cells[at + 2 : at + 2 + cells[at + 1]]
        out += [[corners[0], b, c] for b, c in itertools.pairwise(corners[1:])]
        at += 2 + cells[at + 1]
    return np.array(out, dtype=np.int64).reshape(-1, 3)


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


def choose_organ(files: Sequence[Path], organs: Sequence[Organ]) -> Organ:
    """Return the organ plugin whose organ is among the files; raise CaseError for none or several."""
    fits: list[Organ] = []
    for organ in organs:
        found = [anatomy for path in files if (anatomy := match(path.stem, organ.structures))]
        if any(anatomy.role == "organ" for anatomy in found):
            fits.append(organ)
    if len(fits) == 1:
        return fits[0]
    known = ", ".join(
        f"{organ.name} ({', '.join(word for a in organ.structures if a.role == 'organ' for word in a.match)})"
        for organ in organs
    )
    got = ", ".join(organ.name for organ in fits) or "none"
    raise CaseError(
        f"files of one organ that a plugin knows by words in their names: {known or 'no organ'}",
        f"{got} in {', '.join(path.name for path in files)}",
        next_step="Put such a word into the name of the organ's file; another organ is declared in six lines: "
        "docs/plugins.md, Organ.",
    )


def expect_target(source: Path, files: Sequence[Path], organ: Organ) -> None:
    """Refuse a source whose file names hold neither a target nor a plan, before anything is read."""
    found = [anatomy for path in files if (anatomy := match(path.stem, organ.structures))]
    if (source / "plan.toml").is_file() or any(anatomy.risk == "target" for anatomy in found):
        return
    words = ", ".join(word for anatomy in organ.structures if anatomy.risk == "target" for word in anatomy.match)
    raise CaseError(
        f"a target, a file with one of the words {words}" if words else f"a plan.toml, as {organ.name} has no target",
        f"{', '.join(path.name for path in files)}", str(source),
        "Add the target's surface, or a plan.toml with target_structure, entry and target: docs/case.md.",
    )  # fmt: skip


def read_text(path: Path) -> str:
    """Return a text of UTF-8, with or without a byte order mark; raise CaseError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaseError("text in UTF-8", str(error), str(path), "Save it as UTF-8, in Excel as 'CSV UTF-8'.") from error
    except OSError as error:
        raise CaseError("a file that can be read", str(error), str(path), "Check its rights.") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
