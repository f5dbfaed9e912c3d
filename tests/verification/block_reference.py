"""Make the block's references: `python tests/verification/block_reference.py` (6 minutes; uses `pypardiso` if there).

The block: 10 cm, E 5 kPa, nu 0.45, 1000 kg/m3, Neo-Hookean, weight along -z; half of it, in triquadratic cubes. The
number is the mean sag of the far face x = 10 cm. Two holds of the face x = 0:

`bedded`, a quarter of the weight: springs of up to BED per area that fade out towards the face's edges, so that no edge
is a singularity. Good to 0.2 % (Richardson's limit, give or take its distance from the finest grid).

`clamped`, held: the edge is a singularity that crushes this material (its law lets J reach 0 at finite energy). The
finer the cubes, the smaller J, and meshes graded towards the edge lose equilibrium below full weight. So no number is
good to 0.2 %: the one here is an extrapolation from even cubes, with wide bounds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import skfem
from independent import Bed, Static, neo_hookean

OUT = Path(__file__).with_name("block_reference.json")
SIZE, YOUNG, POISSON, WEIGHT = 0.1, 5000.0, 0.45, 9810.0
BED = 1.0e6  # [N/m3] in the face's middle: 5 mm of the block's own stiffness
BEDDED_GRAVITY = 0.25


def bed_stiffness(x: np.ndarray) -> np.ndarray:
    """Return the bed's stiffness per area [N/m3] at points [m], shape (3, ...): 0 at the face's edges."""
    y, z = x[1] / SIZE, x[2] / SIZE
    return BED * 16 * y * (1 - y) * z * (1 - z)


def half_block(cells: int) -> skfem.MeshHex:
    """Return the half y <= SIZE/2 of the block in `cells` (even) cubes along its edge."""
    whole, half = np.linspace(0, SIZE, cells + 1), np.linspace(0, SIZE / 2, cells // 2 + 1)
    return skfem.MeshHex.init_tensor(whole, half, whole)


def sag(cells: int, gravity: float, bedded: bool) -> tuple[float, float]:
    """Return the mean sag [m] of the far face at a share of gravity, and the smallest J."""
    mesh = half_block(cells)
    face = mesh.facets_satisfying(lambda x: abs(x[0]) < 1e-12)
    force = np.array([0.0, 0.0, -WEIGHT * gravity])
    bed = Bed(face, bed_stiffness) if bedded else None
    problem = Static(mesh, skfem.ElementHex2(), neo_hookean(YOUNG, POISSON), force, bed)
    held = problem.basis.get_dofs(lambda x: abs(x[1] - SIZE / 2) < 1e-12).all("u^2")
    if not bedded:
        held = np.union1d(held, problem.basis.get_dofs(face).all())
    u = problem.solve(held, tolerance=1e-8)
    far = skfem.FacetBasis(mesh, problem.basis.elem, facets=mesh.facets_satisfying(lambda x: abs(x[0] - SIZE) < 1e-12))
    value = -skfem.Functional(lambda w: w["u"][2]).assemble(far, u=far.interpolate(u)) / (SIZE * SIZE / 2)
    print(f"{cells:3d} cells, {gravity:.2f} g, {'bedded' if bedded else 'clamped'}: {value * 1e3:.4f} mm", flush=True)
    return float(value), problem.smallest_j(u)


def limit(cells: list[int], values: list[float]) -> tuple[float, float]:
    """Return Richardson's limit of the last three `values` and the order that they show."""
    orders = np.linspace(0.3, 6.0, 5701)
    h = np.array(cells[-3:], dtype=float)[:, None] ** -orders
    a, b, c = values[-3:]
    order = float(orders[np.argmin(np.abs((h[0] - h[1]) / (h[1] - h[2]) - (b - a) / (c - b)))])
    return c + (c - b) / ((cells[-1] / cells[-2]) ** order - 1), order


def main() -> None:
    """Compute all series and write the file."""
    out: dict[str, object] = {}
    problems = {"bedded": (BEDDED_GRAVITY, True), "clamped": (1.0, False), "clamped_half_gravity": (0.5, False)}
    for name, (gravity, bedded) in problems.items():
        grids = [4, 8, 12, 16] if bedded else [8, 12, 16]
        sags, least = zip(*[sag(n, gravity, bedded) for n in grids], strict=True)
        value, order = limit(grids, list(sags))
        series = {str(n): {"sag_m": s, "smallest_j": j} for n, s, j in zip(grids, sags, least, strict=True)}
        out[name] = {"sag_m": value, "uncertainty_m": abs(value - sags[-1]), "order": order, "by_cells": series}
    OUT.write_text(json.dumps(out, indent=1) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
