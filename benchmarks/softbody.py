"""Measure the soft body on the 10 cm block: `python benchmarks/softbody.py --out benchmarks/results/softbody.json`.

Guidance: a patch of the far face is drawn along a path of +-8, 10 and 15 mm at 90 Hz, gravity on, face x = 0 held,
Neo-Hookean tetrahedra. Errors are against the converged solution on the same mesh. `kernels` holds two passes against
the rate of a copy; `mesh` sets the mesh's own error of the sag (the bedded block of docs/verification.md) beside what
such a mesh costs a frame, linear and quadratic; `peers` are others' solvers (softbody_peers.py). `--only` runs some;
the file keeps the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import softbody_peers as peers

from twinguide_softbody.body import Body, Springs
from twinguide_softbody.mesh import block, quadratic
from twinguide_softbody.quasistatic import Solver
from twinguide_softbody.reduced import Reduced
from twinguide_softbody.reduction import Drive, settled

YOUNG, POISSON, WEIGHT = 5000.0, 0.45, (0.0, 0.0, -9.81)
FRAMES, RATE = 90, 90.0
PARTS = ("guidance", "kernels", "mesh", "peers")
MESHES = {1: (9, 15), 2: (3, 4, 5, 6)}  # cells by order
RANGE = np.diag([0.008, 0.010, 0.015])  # [m]
FLOPS = 112 + 95 + 12  # of a tetrahedron of 4 nodes: products and sums of its forces, and their sums at its nodes


@dataclass(frozen=True)
class Problem:
    """The block, its patch's springs and the family of their targets."""

    body: Body
    springs: Springs
    fixed: np.ndarray
    drive: Drive

    def solver(self, threads: int) -> Solver:
        """Return a fresh solver."""
        return Solver(self.body, self.springs, self.fixed, backend="cpu", threads=threads)


def problem(cells: int, order: int = 1) -> Problem:
    """Return the block of `cells` a side, linear or quadratic; the patch is the middle ninth of the far face."""
    vertices, tetrahedra = block(cells, 0.1)
    if order == 2:
        vertices, tetrahedra = quadratic(vertices, tetrahedra)
    young, poisson = (np.full(len(tetrahedra), value) for value in (YOUNG, POISSON))
    body = Body(vertices, tetrahedra, young, poisson, 1000.0, WEIGHT)
    near = np.abs(vertices[:, 1:] - 0.05).max(axis=1) < 0.1 / 6 + 1e-6
    patch = np.flatnonzero((vertices[:, 0] > 0.1 - 1e-9) & near)
    count = len(patch)
    rows = sp.csr_matrix((np.ones(count), (np.arange(count), patch)), shape=(count, len(vertices)))
    springs = Springs(rows, np.tile(1e4 * np.eye(3), (count, 1, 1)))
    drive = Drive(vertices[patch], np.array([np.tile(d, (count, 1)) for d in RANGE]))
    return Problem(body, springs, vertices[:, 0] < 1e-9, drive)


def path() -> np.ndarray:
    """Return shares of the range, shape (FRAMES, 3): breathing-like, smooth, all of the range."""
    t = np.arange(FRAMES) / RATE
    return np.sin(2 * np.pi * np.outer(t, [0.5, 0.4, 0.6]) + np.array([0.0, 0.7, 1.9]))


def followed(step, solver: Solver, start, targets: list[np.ndarray], truth: dict[int, np.ndarray]) -> dict[str, Any]:
    """Return times and errors of following `targets`, each by one call of `step`."""
    solver.reset(start)
    for k in range(30):  # caches and the threads' team, on a way into the first target
        step(targets[0] + (targets[1] - targets[0]) * (k - 29))
    times, levels, errors, worst = [], [], [], []
    for k, target in enumerate(targets):
        begin = time.perf_counter()
        solved = step(target)
        times.append(time.perf_counter() - begin)
        levels.append(solved.level)
        if k in truth:
            away = np.linalg.norm(solved.positions - truth[k], axis=1)
            errors.append(float(np.sqrt((away**2).mean())))
            worst.append(float(away.max()))
    return {
        "p50_ms": round(float(np.median(times)) * 1e3, 4),
        "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 4),
        "rms_mm": round(max(errors) * 1e3, 5),
        "max_mm": round(max(worst) * 1e3, 5),
        "levels": {name: levels.count(name) for name in sorted(set(levels))},
    }


def guidance(cells: int, threads: int, with_reduced: bool, order: int = 1) -> dict[str, Any]:
    """Return the figures of one mesh: full and reduced."""
    made = problem(cells, order)
    targets = [made.drive.targets(s) for s in path()]
    solver, exact = made.solver(threads), made.solver(2)
    start = settled(solver, targets[0], first=True)
    exact.reset(start)
    truth = {k: settled(exact, targets[k]) for k in range(0, FRAMES, 15)}
    out: dict[str, Any] = {"tetrahedra": len(made.body.elements), "nodes": len(made.body.vertices)}
    out["full"] = followed(solver.step, solver, start, targets, truth)
    if with_reduced:
        begin = time.perf_counter()
        model = Reduced(exact, made.body, made.springs, made.fixed, made.drive, samples=20).model
        out["training"] = {
            "seconds": round(time.perf_counter() - begin, 1),
            "modes": len(model.reduction.modes),
            "points": len(model.reduction.weights),
        }
        for name, team in (("reduced", 1), ("reduced_two_threads", 2)):
            fast = Reduced(solver, made.body, made.springs, made.fixed, made.drive, model=model, threads=team)
            away = fast.step(made.drive.targets(np.array([1.5, 0.0, 0.0])))
            found = followed(fast.step, solver, start, targets, truth)
            out[name] = {**found, "outside_its_range": away.level}
    return out


def mesh_error(threads: int) -> list[dict[str, Any]]:
    """Return the sag's error [%] of the mesh and the step's time and error, by order and size of the mesh."""
    from problems import BEDDED, bedded_sag

    rows = []
    for order, sizes in MESHES.items():
        for cells in sizes:
            row = guidance(cells, threads, with_reduced=False, order=order)
            found = 100 * abs(bedded_sag(cells, order) / BEDDED - 1)
            rows.append({"nodes_each": {1: 4, 2: 10}[order], "sag_error_percent": round(found, 2), **row})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def roof(size: float) -> float:
    """Return the rate [GB/s] at which one core copies, between arrays that take `size` bytes together."""
    a, b = (np.ones(int(size / 16)) for _ in range(2))
    times = []
    for _ in range(12):
        begin = time.perf_counter()
        for _ in range(max(1, int(1e7 / size))):
            np.copyto(b, a)
        times.append((time.perf_counter() - begin) / max(1, int(1e7 / size)))
    return round(size / min(times) / 1e9, 1)


def product_roof() -> float:
    """Return the rate [GFLOP/s] of one core at a float64 matrix product, so small that BLAS shares it with no other."""
    a, b, out = (np.ones((64, 64)) for _ in range(3))
    return round(2 * 64**3 / min(_timed(lambda: np.matmul(a, b, out=out)) for _ in range(300)) / 1e9, 1)


def kernels(cells: int) -> dict[str, float]:
    """Return rates of one core: element forces and a conjugate gradient iteration, beside a copy of as many bytes.

    So a body that fits a cache is held against that cache, and a larger one against memory. Bytes are those that a pass
    must move once: of an element, connectivity, data, its forces written and read, and where they go; of an iteration,
    the matrix, the nodes' inverses and shares, the vectors, and the coarse lattice's dense inverse. Forces are also
    held against the arithmetic of a matrix product, which has nothing but fused products to do.
    """
    solver = problem(cells).solver(1)
    machine, lay = solver.machine, solver.layout
    u, force = np.zeros((len(lay.order), 3)), np.zeros((len(lay.order), 3))
    m, n, blocks = len(lay.connectivity), len(lay.order), len(lay.pattern.column)
    machine.tangent(u)
    right = np.random.default_rng(0).normal(size=(n, 3)) * ~lay.held.astype(bool)[:, None]
    forces = min(_timed(lambda: machine.evaluate(u, force)) for _ in range(20))
    few = min(_timed(lambda: machine.solve(right, force, 2, 0.0)) for _ in range(10))
    many = min(_timed(lambda: machine.solve(right, force, 22, 0.0)) for _ in range(10))
    out = {"element_force_mtet_s": round(m / forces / 1e6, 1), "iteration_us": round((many - few) / 20 * 1e6, 1)}
    arithmetic, most = FLOPS * m / forces / 1e9, product_roof()
    out |= {"element_force_gflop_s": round(arithmetic, 1), "element_force_roof_gflop_s": most}
    out["element_force_share_of_product"] = round(arithmetic / most, 2)
    passes = (
        ("element_force", forces, m * (16 + 96 + 96 + 96 + 16)),
        ("iteration", (many - few) / 20, blocks * 40 + n * (36 + 16 * 12 + 32) + 4 * (3 * lay.lattice.count) ** 2),
    )
    for name, seconds, size in passes:
        rate = size / seconds / 1e9
        out |= {f"{name}_gb_s": round(rate, 1), f"{name}_roof_gb_s": (most := roof(size))}
        out[f"{name}_share_of_roof"] = round(rate / most, 2)
    return out


def _timed(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def machine() -> dict[str, object]:
    """Return what the figures were taken on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    name = names[0] if names else platform.processor()
    return {"processor": name, "cores": os.cpu_count(), "cache_gb_s": roof(4e6), "memory_gb_s": roof(3.2e8)}


def main() -> None:
    """Run what is asked for, merge it into the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    told = "along the block's edge, for guidance and kernels"
    parser.add_argument("--cells", type=int, nargs="*", default=[9, 15, 26], help=told)
    parser.add_argument("--threads", type=int, default=1, help="of the full solver")
    parser.add_argument("--no-reduced", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}

    def keep(name: str, found: object) -> None:
        out[name] = found
        if args.out:
            args.out.write_text(json.dumps(out, indent=1) + "\n")

    keep("machine", machine())
    for cells in args.cells if "guidance" in args.only else ():
        row = {**guidance(cells, args.threads, not args.no_reduced), "threads": args.threads}
        print(json.dumps(row), flush=True)
        keep("guidance", {**out.get("guidance", {}), str(row["tetrahedra"]): row})
    for cells in args.cells if "kernels" in args.only else ():
        rates = kernels(cells)
        print(json.dumps(rates), flush=True)
        keep("kernels", {**out.get("kernels", {}), str(6 * cells**3): rates})
    if "mesh" in args.only:
        keep("mesh", mesh_error(args.threads))
    if "peers" in args.only:
        keep("peers", peers.compare())


if __name__ == "__main__":
    main()
