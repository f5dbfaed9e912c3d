"""Write docs/verification.md and its pictures: `python tests/verification/report.py`."""

# ruff: noqa: E501 - the lines of the page are as long as the page wants them

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from cases import CASES
from manufactured import smooth_error
from problems import BEDDED, bedded_sag, cantilever, clamped, mesh

from twinguide_softbody.mesh import boundary

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = json.loads(Path(__file__).with_name("block_reference.json").read_text())
SMOOTH = {1: (4, 8, 12, 16, 20), 2: (2, 4, 6, 8, 10)}
GRIDS = {1: (4, 6, 9, 12, 15), 2: (2, 3, 4, 5, 6)}


def table() -> list[str]:
    """Return the cases as rows of a table."""
    rows = ["| case | expected | found | error | allowed | why |", "|---|---|---|---|---|---|"]
    for case in CASES:
        got = case.compute()
        error, allowed = case.error(got), case.tolerance
        percent = (f"{100 * error:.2g} %", f"{100 * allowed:g} %")
        shown = percent if case.expected else (f"{error:.1e} {case.unit}", f"{allowed:g} {case.unit}")
        mark = "" if error <= allowed else " **missed**"
        rows.append(
            f"| {case.name} | {case.expected:.6g} {case.unit} | {got:.6g} | {shown[0]}{mark} | {shown[1]} | {case.why} |"
        )
    return rows


def convergence() -> list[str]:
    """Draw the error over the cells, of the sag and of the smooth problem; return the sag's rows."""
    rows = ["| nodes per tetrahedron | tetrahedra | nodes | sag | mesh error |", "|---|---|---|---|---|"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for order, grids in GRIDS.items():
        name, errors = ("linear", "quadratic")[order - 1], []
        for cells in grids:
            sag, nodes = bedded_sag(cells, order), len(mesh(cells, 0.1, order)[0])
            errors.append(100 * abs(sag / BEDDED - 1))
            rows.append(
                f"| {(4, 10)[order - 1]} | {6 * cells**3} | {nodes} | {sag * 1e3:.3f} mm | {errors[-1]:.2f} % |"
            )
        left.loglog([len(mesh(cells, 0.1, order)[0]) for cells in grids], errors, "o-", label=name)
        smooth = [100 * smooth_error(cells, order) for cells in SMOOTH[order]]
        right.loglog(SMOOTH[order], smooth, "o-", label=f"{name}: order {slope(SMOOTH[order], smooth):.2f}")
        theory = smooth[-1] * (np.array(SMOOTH[order]) / SMOOTH[order][-1]) ** -(order + 1.0)
        right.loglog(SMOOTH[order], theory, "k--", linewidth=0.8, label="2 and 3" if order == 2 else None)
    left.set(xlabel="nodes", ylabel="error of the sag [%]", title="bedded block")
    right.set(xlabel="cells along the edge", ylabel="error of the displacement [%]", title="smooth problem")
    right.set_ylim(top=300)
    for axes, ticks in ((left, (125, 343, 1000, 4096)), (right, (2, 4, 8, 16))):
        axes.legend(loc="upper right")
        axes.xaxis.set_minor_formatter("")
        axes.set_xticks(ticks, map(str, ticks))
    figure.savefig(DOCS / "pictures" / "convergence.png", dpi=110)
    return rows


def slope(cells: tuple[int, ...], errors: list[float]) -> float:
    """Return the order that the last two meshes show."""
    return float(np.log(errors[-2] / errors[-1]) / np.log(cells[-1] / cells[-2]))


def deformed() -> None:
    """Draw the clamped block under its weight."""
    vertices, elements = mesh(9, 0.1, 1)
    solved = clamped(9)
    faces = boundary(elements)
    figure = plt.figure(figsize=(5.2, 3.8))
    axes = figure.add_subplot(projection="3d")
    x, y, z = solved.positions.T * 1e3
    moved = np.linalg.norm(solved.positions - vertices, axis=1)[faces].mean(axis=1) * 1e3
    surface = axes.plot_trisurf(x, y, z, triangles=faces, linewidth=0.2, edgecolor="gray", cmap="viridis")
    surface.set_array(moved)
    surface.autoscale()
    figure.colorbar(surface, shrink=0.6, pad=0.15, label="displacement [mm]")
    for axis in range(3):  # the block at rest: four edges along each axis
        for corner in range(4):
            line = np.zeros((2, 3))
            line[1, axis], line[:, (axis + 1) % 3], line[:, (axis + 2) % 3] = (
                100,
                100 * (corner % 2),
                100 * (corner // 2),
            )
            axes.plot(*line.T, "k--", linewidth=0.8, label="at rest" if not axis + corner else None)
    axes.set(xlabel="x [mm]", ylabel="y [mm]", zlabel="z [mm]", aspect="equal")
    axes.set(xticks=(0, 50, 100), yticks=(0, 50, 100), zticks=(-50, 0, 50, 100))
    axes.set_title("held at x = 0, under its weight along -z", fontsize=10)
    axes.legend(loc="upper right", bbox_to_anchor=(1.4, 0.95), fontsize=8)
    figure.savefig(DOCS / "pictures" / "block.png", dpi=110, bbox_inches="tight", pad_inches=0.15)


def main() -> None:
    """Compute all cases and write the page."""
    begin = time.perf_counter()
    cases, meshes = table(), convergence()
    deformed()
    b, c, h = (REFERENCE[name] for name in ("bedded", "clamped", "clamped_half_gravity"))
    mm = {name: (1e3 * r["sag_m"], 1e3 * r["uncertainty_m"]) for name, r in (("b", b), ("c", c), ("h", h))}
    text = f"""# How the soft body was verified

Written by `python tests/verification/report.py` in {time.perf_counter() - begin:.0f} s; `pytest tests/verification` asserts the same cases.
SI units; E = 5 kPa, nu = 0.45, Neo-Hooke's law where nothing else is said. Errors are relative, but where 0 is expected. Forces are
long soft springs, held faces stiff ones: the springs are what guidance uses, so they are under test too.

{chr(10).join(cases)}

Not covered: contact that is found (Hertz has its area given, because these constraints hold both ways); Treloar's table and the
Truth Cube's beads, because they were not at hand; dynamics, which this solver leaves out.

## The error of the mesh
![errors over the size of the mesh](pictures/convergence.png)

On the right a made-up smooth deformation of a block held all around (`manufactured.py`), strains to 0.16: linear and quadratic
tetrahedra reach their orders, 2 and 3. On the left a body with edges, where they do not yet:

A block of 10 cm on a bed of springs that fades out at the edges, a quarter of gravity, against {mm["b"][0]:.3f} +- {mm["b"][1]:.3f} mm
(`block_reference.py`: triquadratic cubes in scikit-fem, Richardson's limit).

{chr(10).join(meshes)}

Of the cantilever's 2 mm at nu = 0.49 quadratic tetrahedra show {1e3 * cantilever(0.49):.2f} mm, linear ones on the same nodes
{1e3 * cantilever(0.49, 1):.2f} mm: those lock in bending, more so the nearer nu is to 0.5. Guidance takes both: linear ones by default, with
their difference to quadratic ones in the stated error (`bias.py`), as an organ that is held all around hardly bends.

## The clamped block
![the clamped block under its weight](pictures/block.png)

With its face held exactly the block has no limit that is good to 0.2 %: at the clamp's edge this law lets the material be crushed
to nothing (smallest J {c["by_cells"]["8"]["smallest_j"]:.2f}, {c["by_cells"]["12"]["smallest_j"]:.2f}, {c["by_cells"]["16"]["smallest_j"]:.2f} with 8, 12 and 16 cubes along the edge). Even cubes extrapolate to
{mm["c"][0]:.1f} +- {mm["c"][1]:.1f} mm, at half the weight to {mm["h"][0]:.2f} +- {mm["h"][1]:.2f} mm. The sags in the table above are those of their meshes.
"""
    (DOCS / "verification.md").write_text(text)


if __name__ == "__main__":
    main()
