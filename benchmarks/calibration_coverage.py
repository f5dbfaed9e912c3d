"""Count how often the stated 95 % region holds the truth, over independent trials with noise drawn anew.

    python benchmarks/calibration_coverage.py [--trials 5000] [--only surface ...] [--mesh liver.ply] [--out FILE]

Points: 3 to 20 fiducials with noise of unknown size (plain) and known anisotropic noise (weighted), 6 values. Pivot:
tip and pivot, 6 values. Hand-eye: X and Z, 12 values. Surface: the pose, 6 values, of patches of 15 % (1 mm noise, 10 %
wild) sampled from the very mesh they are matched to; `d2/k` is the mean squared Mahalanobis distance over the number of
values: 1 where the covariance is right. What a real organ deforms is not in these figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from calibration import machine
from calibration_data import displaced, hand_eye_poses, load, patch, swing

from twinguide_calibration import (
    CalibrationRefused,
    calibrate_pivot,
    covers,
    register_points,
    register_surface,
    solve_hand_eye,
    surface_model,
)
from twinguide_calibration.rigid import compose, difference, exponential

Trial = Callable[[int], tuple[np.ndarray, np.ndarray, float]]
NOISE = np.array([1e-4, 1e-4, 4.5e-4])


def points(n: int, weighted: bool) -> Trial:
    """Return a trial of n fiducials."""

    def trial(seed: int):
        rng = np.random.default_rng(seed)
        source = rng.normal(size=(n, 3)) * [0.05, 0.05, 0.02]
        truth = compose(exponential(rng.normal(size=3)), rng.normal(size=3))
        noise = NOISE if weighted else np.full(3, 2e-4)
        target = source @ truth[:3, :3].T + truth[:3, 3] + rng.normal(size=(n, 3)) * noise
        fit = register_points(source, target, np.tile(np.diag(noise**2), (n, 1, 1)) if weighted else None)
        return difference(truth, fit.transform), fit.covariance, fit.freedom

    return trial


def pivot(half_deg: float, wild: float, n: int = 200) -> Trial:
    """Return a trial of n poses."""

    def trial(seed: int):
        poses, tip, held = swing(np.random.default_rng(seed), half_deg, wild, n)
        fit = calibrate_pivot(poses, p95_max=1.0)
        return np.concatenate([fit.tip - tip, fit.pivot - held]), fit.covariance, fit.freedom

    return trial


def hand_eye(n: int, sigma_m: float, mix: tuple[float, float] = (1.0, 1.0)) -> Trial:
    """Return a trial of n poses, 0.1 deg and 0.2 mm times `mix` in a and b, of unknown size, X's place by `sigma_m`."""

    def trial(seed: int):
        a, b, x, z = hand_eye_poses(seed, n, sigma_m, mix)
        fit = solve_hand_eye(a, b, p95_max=1.0)
        return np.concatenate([difference(x, fit.x), difference(z, fit.z)]), fit.covariance, fit.freedom

    return trial


def surface(mesh: Path | None, share: float, n: int) -> Trial:
    """Return a trial of n points of a patch from a start 5 mm and 5 deg away."""
    vertices, faces = load(mesh)
    model = surface_model(vertices, faces)

    def trial(seed: int):
        rng = np.random.default_rng(seed)
        seen = patch(rng, vertices, faces, share, n)
        fit = register_surface(seen, model, displaced(rng, seen.mean(axis=0), 0.005, 5.0))
        return difference(np.eye(4), fit.transform), fit.covariance, fit.freedom

    return trial


def count(name: str, trial: Trial, trials: int) -> dict:
    """Run trials and return the share covered; refusals are counted, not left out of the listing."""
    held, distances, refused = [], [], 0
    for seed in range(trials):
        try:
            error, covariance, freedom = trial(seed)
        except CalibrationRefused:
            refused += 1
            continue
        held.append(bool(covers(error, covariance, freedom)))
        distances.append(float(error @ np.linalg.solve(covariance, error)) / len(error))
    row = {"trials": len(held), "refused": refused, "covered": float(np.mean(held))}
    row["d2/k"] = float(np.mean(distances))
    print(
        f"{name:32s}", "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True
    )
    return row


def main() -> None:
    """Run all cases, print a line each, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--only", nargs="*", default=["points", "pivot", "hand-eye", "surface"])
    parser.add_argument("--mesh", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cases = {f"points, {n} fiducials, plain": points(n, False) for n in (3, 4, 6, 20)}
    cases |= {f"points, {n} fiducials, weighted": points(n, True) for n in (3, 6, 20)}
    cases |= {"pivot, 20 deg": pivot(20, 0.0), "pivot, 40 deg, 10 % wild": pivot(40, 0.1)}
    cases["pivot, 20 deg, 10 poses"] = pivot(20, 0.0, 10)
    for n, m in ((60, 0.08), (60, 1.0), (20, 1.0), (10, 0.08), (8, 0.08), (8, 1.0)):
        cases[f"hand-eye, {n} poses, lever of {m} m per axis"] = hand_eye(n, m)
    cases["hand-eye, 8 poses, lever of 1.0 m per axis, noise in a"] = hand_eye(8, 1.0, (1.0, 0.1))
    cases["hand-eye, 8 poses, lever of 1.0 m per axis, noise in b"] = hand_eye(8, 1.0, (0.1, 1.0))
    cases["surface, 15 % patch"] = surface(args.mesh, 0.15, 1000)
    cases["surface, 30 % patch, 50 points"] = surface(args.mesh, 0.3, 50)
    kept = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    for name, trial in cases.items():
        if name.split(",")[0] in args.only:
            kept[name] = count(name, trial, args.trials)
    if args.out:
        kept["mesh"], kept["machine"] = args.mesh.name if args.mesh else "bumpy body", machine()
        args.out.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
