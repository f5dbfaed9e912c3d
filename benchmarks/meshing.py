"""Compare tetrahedral meshers on an organ's surface: determinism across processes, quality, likeness, time.

    python benchmarks/meshing.py LIVER.vtk --units mm --repeats 5

`netgen` is what the importer does. `wildmeshing` (fTetWild, MPL-2, `pip install wildmeshing`) and Netgen's own
remeshing of the surface (`netgen-stl`) are tried where they are installed. Each runs in a process of its own, on one
thread; likeness is the distance of 5000 points on one surface to the other.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import trimesh

from twinguide.case import Surface
from twinguide.importing.cleaning import clean
from twinguide.importing.geometry import signed_distance, volume_of
from twinguide.importing.importer import TRIANGLES
from twinguide.importing.meshing import boundary, dihedral_angles, mesh, volumes
from twinguide.importing.reading import read_surface, to_image

TOOLS = ("netgen", "netgen-stl", "wildmeshing")


def edge_of(surface: Surface) -> float:
    """Return the edge [m] of regular tetrahedra of which as many as the importer aims at fill the surface."""
    volume = volume_of(surface.vertices, surface.triangles)
    return float((6.0 * np.sqrt(2.0) * volume / (2.25 * TRIANGLES)) ** (1 / 3))


def tetrahedra(tool: str, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices [m] and tetrahedra of one tool; raise ImportError where it is not installed."""
    if tool == "netgen":
        return mesh(surface, TRIANGLES)
    if tool == "netgen-stl":
        from netgen.stl import STLGeometry

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "surface.stl"
            trimesh.Trimesh(surface.vertices * 1e3, surface.triangles, process=False).export(file)
            grid = STLGeometry(str(file)).GenerateMesh(maxh=edge_of(surface) * 1e3)
        points = np.array([list(point.p) for point in grid.Points()]) * 1e-3
        return points, np.array([[corner.nr - 1 for corner in cell.vertices] for cell in grid.Elements3D()])
    from wildmeshing import Tetrahedralizer

    share = 1.15 * edge_of(surface) / float(np.linalg.norm(np.ptp(surface.vertices, axis=0)))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it leaves its tracked surface where it is
        mesher = Tetrahedralizer(max_threads=1, epsilon=2e-3, edge_length_r=share)
        mesher.set_mesh(surface.vertices, surface.triangles)
        mesher.tetrahedralize()
        points, tets = mesher.get_tet_mesh()[:2]
    return np.asarray(points), np.asarray(tets)


def judge(tool: str, path: Path, units: str) -> dict:
    """Mesh once and return hash, size, seconds, angles [deg], volume error and distances [mm]."""
    raw, triangles = read_surface(path)
    surface, _ = clean(path.name, to_image(raw, units, "lps"), triangles, single=True)
    start = time.perf_counter()
    points, tets = tetrahedra(tool, surface)
    seconds = time.perf_counter() - start
    points, tets = np.ascontiguousarray(points, np.float64), np.ascontiguousarray(tets, np.int64)
    digest = hashlib.sha256(points.tobytes() + tets.tobytes()).hexdigest()
    if volumes(points, tets).sum() < 0:
        tets = tets[:, [0, 1, 3, 2]]
    sizes, angles = volumes(points, tets), np.degrees(dihedral_angles(points, tets))
    rim = Surface(points, boundary(tets).astype(np.int32))

    def away(one: Surface, other: Surface) -> list[float]:
        solid = trimesh.Trimesh(one.vertices, one.triangles, process=False)
        gap = np.abs(signed_distance(other, np.asarray(trimesh.sample.sample_surface(solid, 5000, seed=0)[0]))) * 1e3
        return [float(gap.mean()), float(np.percentile(gap, 95))]

    return {
        "tool": tool, "file": path.name, "hash": digest[:12], "tetrahedra": len(tets), "vertices": len(points),
        "seconds": seconds, "angle_min_deg": float(angles.min()), "angle_max_deg": float(angles.max()),
        "smallest_over_mean_volume": float(sizes.min() / sizes.mean()),
        "volume_error": float(sizes.sum() / volume_of(surface.vertices, surface.triangles) - 1.0),
        "surface_to_organ_mm": away(rim, surface), "organ_to_surface_mm": away(surface, rim),
    }  # fmt: skip


def main() -> None:
    """Run every tool in processes of its own and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--units", choices=("mm", "m"), required=True)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", action="store_true", help="mesh the first file with the first tool, here")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(judge(args.tools[0], args.file[0], args.units)))
        return
    for path in args.file:
        for tool in args.tools:
            command = [sys.executable, __file__, str(path), "--units", args.units, "--tools", tool, "--one"]
            rows = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(args.repeats)]
            if any(row.returncode for row in rows):
                print(
                    f"{tool:12} {path}: {next(row.stderr for row in rows if row.returncode).strip().splitlines()[-1]}"
                )
                continue
            found = [json.loads(row.stdout.strip().splitlines()[-1]) for row in rows]
            different = len({row["hash"] for row in found})
            print(f"{tool:12} {path}: {different} different meshes of {len(found)}; the last: {json.dumps(found[-1])}")


if __name__ == "__main__":
    main()
