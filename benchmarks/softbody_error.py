"""Is the solver's statement of its own error true? Against finer meshes with other stiffness, and against a patient.

    python benchmarks/softbody_error.py --out benchmarks/results/softbody_error.json

Coverage: a 12 cm block with a tumour and a vessel is driven by its target as in guidance. The truth is the same block
on a mesh of half the spacing, every stiffness, share and turn drawn from its stated spread; counted is the share of
vertices within their 95 % radius. Levels: generated patients' livers at full inspiration against the simulated
patient's tissue as seeded, an analytic field that knows no elasticity: what each level of the contract misses, how much
of it each unknown can explain, and what the stated turn of the surroundings makes of the bound. Meshes: what the mesh
alone is off then (`softbody_meshes.py`). `--only` runs some; the file keeps the rest.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.stats import norm
from scipy.stats.qmc import LatinHypercube
from softbody_meshes import on_block, on_liver
from softbody_subjects import DRIVES, SIZE, SURE, TARGET, mixture, patient

from twinguide_softbody import constraints, mesh
from twinguide_softbody.body import Body, Springs
from twinguide_softbody.error import CHI_95
from twinguide_softbody.organ import Frame, SoftBody
from twinguide_softbody.quasistatic import Solver

RADIUS = 0.03  # of the target's patch [m]: the same on both meshes, so wide that both resolve it
LEARNT_WITHIN = 1000  # steps
TURNS_DEG = (0.0, 0.45, 0.8, 1.25)  # by 10 mm: none, the demonstration's, the simulated patient's rms, patients'
SEEN_SIGMA = 0.001  # [m] of what else is measured


def true_answer(cells: int, draw: np.ndarray, drive: np.ndarray, spring: np.ndarray) -> np.ndarray:
    """Solve a truth, positions [m] of the fine mesh's vertices; `draw`, shape (10,), has an entry for each unknown."""
    vertices, tetrahedra = mesh.block(cells, SIZE)
    _, tissues = mixture(*mesh.block(1, SIZE))
    normal = iter(draw.tolist())
    scale = {name: float(np.exp(tissue.log_sigma * next(normal))) for name, tissue in tissues.items()}
    own = mixture(vertices, tetrahedra, scale)[0]
    held = [
        replace(one, stiffness=one.stiffness * np.exp(one.log_sigma * next(normal)),
                share=one.share + one.share_sigma * next(normal))
        for one in constraints.surroundings(vertices, tetrahedra, tissues["own"].young_pa, constraints.Surroundings())
    ]  # fmt: skip
    rows = [sp.csr_matrix((np.ones(len(h.nodes)), (np.arange(len(h.nodes)), h.nodes)), (len(h.nodes), len(vertices)))
            for h in held]  # fmt: skip
    weights = sp.csr_matrix(sp.vstack([*rows, sp.csr_matrix(constraints.patch_weights(vertices, TARGET, RADIUS))]))
    stiff = np.concatenate([*(h.stiffness[:, None, None] * np.eye(3) for h in held), spring[None]])
    share = np.concatenate([*(np.full(len(h.nodes), h.share) for h in held), [1.0]])
    turn = constraints.Surroundings().turn_sigma * np.linalg.norm(drive) * np.fromiter(normal, float)
    targets = weights @ vertices + share[:, None] * drive
    targets[:-1] += np.cross(turn, (weights @ vertices)[:-1] - TARGET)
    solver = Solver(Body(vertices, tetrahedra, own.young_pa, own.poisson), Springs(weights, stiff), tolerance=1e-5)
    solved = solver.solve(targets)
    assert solved.smallest_j > 0
    return solved.positions


def coverage(cells: int, draws: int, seed: int) -> dict[str, float]:
    """Count how many vertices lie within their 95 % radius over draws of the truth."""
    # Latin hypercube: 200 draws of ten unknowns then fill their distributions evenly, not by luck.
    truths = norm.ppf(LatinHypercube(10, rng=np.random.default_rng(seed)).random(draws))
    vertices, tetrahedra = mesh.block(cells, SIZE)
    body = SoftBody(vertices, tetrahedra, mixture(vertices, tetrahedra)[0], TARGET, patch_radius_m=RADIUS)
    fine = mesh.block(2 * cells, SIZE)[0]
    order = {tuple(v): i for i, v in enumerate((fine * 1e6).round().astype(int).tolist())}
    same = [order[tuple(v)] for v in (vertices * 1e6).round().astype(int).tolist()]
    held, errors, radii = [], [], []
    for k in range(draws):
        drive = np.array(DRIVES[k % len(DRIVES)])
        for share in (0.25, 0.5, 0.75, 1.0):  # as breathing leads it there
            frame = body.step(share * drive, SURE)
        assert frame.level == "full"
        truth = true_answer(2 * cells, truths[k], drive, body.spring)[same]
        error = np.linalg.norm(frame.vertices - truth, axis=1)
        held.append(float((error <= CHI_95 * frame.sigma).mean()))
        errors.append(error)
        radii.append(CHI_95 * frame.sigma)
        body.step(0.5 * drive, SURE)
    error, radius = np.array(errors), np.array(radii)
    return {
        "vertices": len(vertices), "tetrahedra": len(tetrahedra), "draws": draws, "seed": seed,
        "held_percent": 100 * float(np.mean(held)),
        "standard_error_percent": 100 * float(np.std(held) / np.sqrt(draws)),
        "error_rms_mm": 1e3 * float(np.sqrt((error**2).mean())),
        "radius95_mean_mm": 1e3 * float(radius.mean()),
    }  # fmt: skip


def seen(vertices: np.ndarray, tetrahedra: np.ndarray, target: np.ndarray, truth: np.ndarray, seed: int):
    """Measure two places of the surface: farthest from the target, and farthest from both."""
    skin = np.unique(mesh.boundary(tetrahedra))
    first = skin[np.linalg.norm(vertices[skin] - target, axis=1).argmax()]
    away = np.minimum(*(np.linalg.norm(vertices[skin] - place, axis=1) for place in (target, vertices[first])))
    at = [first, skin[away.argmax()]]
    noise = SEEN_SIGMA * np.random.default_rng(seed).normal(size=(2, 3))
    covariance = np.tile(SEEN_SIGMA**2 * np.eye(3), (2, 1, 1))
    return constraints.points_of(vertices, tetrahedra, vertices[at], truth[at] + noise, covariance, 0.015)


def left_after(error: np.ndarray, effects: np.ndarray) -> float:
    """Return what is left [mm, rms] of an error (n, 3) [m] when the effects (p, n, 3) fit it as well as they can."""
    columns = effects.reshape(len(effects), error.size).T
    fitted = columns @ np.linalg.lstsq(columns, error.ravel(), rcond=None)[0]
    return 1e3 * float(np.sqrt(3 * np.mean((error.ravel() - fitted) ** 2)))


def frames_of(soft: SoftBody, motion: np.ndarray, points: constraints.Points) -> dict[str, Frame]:
    """Return a frame of each level at full inspiration."""
    for share in np.linspace(0.1, 0.9, 9):  # as breathing leads it there
        soft.step(share * motion, SURE)
    frames = {"full": soft.step(motion, SURE), "rigid": soft.rigid(motion, "")}
    for _ in range(LEARNT_WITHIN):
        frame = soft.step(motion, SURE, {"seen": points})
        if not frame.reason:
            return {**frames, "full, two more places measured to 1 mm": frame}
    raise RuntimeError(f"points that are learnt within {LEARNT_WITHIN} steps: {frame.reason}")


def levels(seeds: range) -> dict[str, object]:
    """Measure what each level misses of the simulated patient's tissue at full inspiration [mm]."""
    from twinguide_softbody.part import mixture_of

    found: dict[tuple[float, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    explained: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            case, motion, truth = patient(seed, folder)
        body, target = case.body(), case.plan.target
        points = seen(body.vertices, body.tetrahedra, target, truth, seed)
        for turn in TURNS_DEG:
            held = constraints.Surroundings(turn_sigma=np.radians(turn) / 0.01)
            soft = SoftBody(body.vertices, body.tetrahedra, mixture_of(case, body), target, held)
            frames = frames_of(soft, motion, points)
            for name, frame in frames.items():
                error = np.linalg.norm(frame.vertices - truth, axis=1)
                found[turn, name].append((error, CHI_95 * frame.sigma))
            if turn == TURNS_DEG[-1]:
                error = truth - soft.step(motion, SURE).vertices  # without the points again
                effects = soft.effects()
                explained["error_rms_mm"].append(left_after(error, effects[:0]))
                explained["left_after_stiffness_and_shares_mm"].append(left_after(error, effects[:-3]))
                explained["left_after_the_turn_too_mm"].append(left_after(error, effects))
    return {
        "patients": [seeds.start, seeds.stop - 1],
        "explained": {name: float(np.mean(values)) for name, values in explained.items()},
        "by_turn_deg": {f"{turn:g}": {name: summary(found[turn, name]) for t, name in found if t == turn}
                        for turn in TURNS_DEG},
    }  # fmt: skip


def summary(patients: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, object]:
    """Sum up errors and 95 % radii [m] of all patients' vertices."""
    error, radius = (1e3 * np.concatenate(parts) for parts in zip(*patients, strict=True))
    within = [round(100 * float((e <= r).mean()), 1) for e, r in patients]
    return {"mean_mm": float(error.mean()), "p95_mm": float(np.percentile(error, 95)),
            "radius95_mean_mm": float(radius.mean()), "within_radius95_percent": float(np.mean(within)),
            "by_patient_percent": within}  # fmt: skip


def main() -> None:
    """Run what is asked for, print it and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patients", type=int, nargs=2, default=(11, 31), metavar=("FIRST", "END"))
    runs = {
        "coverage": lambda: coverage(args.cells, args.draws, args.seed),
        "levels": lambda: levels(range(*args.patients)),
        "meshes": lambda: {
            "block": [row for poisson in (0.45, 0.49) for row in on_block(poisson)],
            "liver": [row for poisson in (0.45, 0.49) for row in on_liver(args.seed, poisson)],
        },
    }
    parser.add_argument("--only", nargs="*", choices=[*runs], default=[*runs])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    for name in args.only:
        found[name] = runs[name]()
        print(json.dumps({name: found[name]}, indent=2))
        if args.out:
            args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
