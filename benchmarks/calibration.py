"""Compare the calibration library with others on the same synthetic data: truth, noise and outliers are known.

    python benchmarks/calibration.py [--mesh liver.ply] [--only points pivot ...] [--out FILE]

Each library is optional: one that is not installed is named with the reason. Times are the fastest of a few calls on an
otherwise idle machine. The surface is a bumpy body of a liver's size unless `--mesh` (metres or millimetres, any format
that trimesh reads) gives one; its patches are sampled from the very mesh they are matched to, without deformation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import calibration_peers as peers
import numpy as np
from calibration_data import NOISE_M, WILD, displaced, hand_eye_poses, load, pairs, patch, swing
from calibration_peers import optional
from scipy.spatial.transform import Rotation

from twinguide_calibration import (
    Link,
    align_points,
    calibrate_pivot,
    chain_budget,
    fitzpatrick_west,
    layout_covariance,
    register_layouts,
    register_points,
    register_robust,
    register_surface,
    solve_hand_eye,
    surface_model,
    tre_covariance,
)
from twinguide_calibration.rigid import adjoint, compose, difference, exponential, inverse, point_jacobian

MM = 1e3
Rows = list[dict]


def fastest(call: Callable[[], object], calls: int = 20) -> float:
    """Return the least time [s] of some calls, after one that warms up."""
    call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def rms(errors) -> float:
    """Return the root mean square length of errors, shape (..., k)."""
    return float(np.sqrt(np.mean(np.sum(np.square(errors), axis=-1))))


def table(title: str, rows: Rows) -> Rows:
    """Print rows under a title, and return them."""
    print(f"\n{title}")
    for row in rows:
        cells = [f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items() if k != "method"]
        print(f"  {row.get('method', ''):38s} {'  '.join(cells)}", flush=True)
    return rows


def points() -> Rows:
    """Six fiducials, 0.2 mm per axis, target 100 mm deep: TRE rms and time."""
    cv2, core, o3d = optional("cv2"), optional("sksurgerycore.algorithms.procrustes"), optional("open3d")
    source = np.array([[60, 0, 0], [-50, 30, 5], [10, 80, -8], [-20, -70, 4], [70, 60, 10], [-65, -30, -12]]) * 1e-3
    target_point = np.array([[0.0, 0.0, -0.1]])
    methods = {
        "twinguide align_points (bare)": align_points,
        "twinguide register_points + TRE": lambda s, t: _with_tre(s, t, target_point),
        "scipy align_vectors": peers.scipy_points,
    }
    if cv2:
        affine = partial(cv2.estimateAffine3D, force_rotation=True)
        methods["cv2 estimateAffine3D(rotation)"] = lambda s, t: peers.affine(affine(s, t))
    if core:
        methods["sksurgerycore procrustes"] = lambda s, t: peers.column(core.orthogonal_procrustes(t, s))
    if o3d:
        methods["open3d point-to-point"] = lambda s, t: peers.open3d_points(o3d, s, t)
    rng = np.random.default_rng(0)
    truth = [(Rotation.random(random_state=k).as_matrix(), rng.normal(size=3) * 0.1) for k in range(300)]
    touched = [source @ r.T + t + rng.normal(size=source.shape) * 2e-4 for r, t in truth]
    rows = []
    for name, method in methods.items():
        errors = []
        for (rotation, shift), seen in zip(truth, touched, strict=True):
            r, t = method(source, seen)
            errors.append(target_point @ (r - rotation).T + t - shift)
        took = fastest(lambda m=method: m(source, touched[0]), 300)
        rows.append({"method": name, "tre_rms_mm": rms(errors) * MM, "us": took * 1e6})
    return table("points: 6 fiducials, 0.2 mm per axis, 300 trials", rows)


def _with_tre(source, target, point):
    fit = register_points(source, target)
    tre_covariance(fit, point)
    return fit.rotation, fit.translation


def tre() -> Rows:
    """Return predicted over Monte Carlo rms TRE for 3 to 20 fiducials, isotropic and anisotropic noise."""
    rows, target = [], np.array([[0.02, 0.03, -0.1]])
    jacobian = point_jacobian(target)[0]
    for n in (3, 4, 6, 10, 20):
        for noise in (np.full(3, 2e-4), np.array([1e-4, 1e-4, 4.5e-4])):
            rng = np.random.default_rng(n)
            source = rng.normal(size=(n, 3)) * [0.05, 0.05, 0.01]
            covariances = np.tile(np.diag(noise**2), (n, 1, 1))
            seen = source + rng.normal(size=(6000, n, 3)) * noise
            given = np.broadcast_to(source, seen.shape)
            plain = [fit.apply(target) - target for fit in register_layouts(given, seen)]
            weighted = register_layouts(given, seen, np.broadcast_to(covariances, (6000, n, 3, 3)), 3)
            errors = [fit.apply(target) - target for fit in weighted]
            measured, measured_plain = rms(errors), rms(plain)
            bound = layout_covariance(source, covariances, np.linalg.inv(covariances))
            sandwich = layout_covariance(source, covariances)
            predict = [float(np.sqrt(np.trace(jacobian @ c @ jacobian.T))) for c in (bound, sandwich)]
            west = float(fitzpatrick_west(source, float(np.sqrt((noise**2).sum())), target)[0])
            rows.append(
                {
                    "method": f"{n} fiducials, {'iso' if noise[0] == noise[2] else 'aniso'}tropic",
                    "weighted_rms_mm": measured * MM,
                    "predicted/measured": predict[0] / measured,
                    "plain_rms_mm": measured_plain * MM,
                    "sandwich/measured": predict[1] / measured_plain,
                    "fitzpatrick_west/measured": west / measured_plain,
                }
            )
    return table("TRE predicted / Monte Carlo (6000 trials)", rows)


def robust() -> Rows:
    """Return the TRE of 100 pairs, 1 mm noise, with wrong ones."""
    o3d, rows = optional("open3d"), []
    for wrong in (0.0, 0.5, 0.9):
        methods = {"twinguide register_robust": lambda s, t: register_robust(s, t, 1e-3).fit.transform}
        if o3d:
            methods["open3d RANSAC correspondences"] = lambda s, t: peers.open3d_ransac(o3d, s, t)
        draws = [pairs(seed, wrong) for seed in range(60)]
        for name, method in methods.items():
            errors = [np.linalg.norm((method(s, t) @ [0, 0, 0.05, 1])[:3] - r[:, 2] * 0.05 - c) for s, t, r, c in draws]
            took = float(np.median([fastest(lambda d=d, m=method: m(d[0], d[1]), 1) for d in draws[:20]]))
            cells = {"median_mm": float(np.median(errors)) * MM, "max_mm": float(np.max(errors)) * MM, "ms": took * 1e3}
            rows.append({"method": f"{name}, {wrong:.0%} wrong", **cells})
    return table("wrong correspondences: 100 pairs, 1 mm noise, 60 trials", rows)


def pivot() -> Rows:
    """Return the tip's error and time against scikit-surgerycalibration."""
    sks, rows = optional("sksurgerycalibration.algorithms.pivot"), []
    methods = {"twinguide calibrate_pivot": lambda p: calibrate_pivot(p, p95_max=1.0).tip}
    if sks:
        methods["sksurgerycalibration AOS"] = lambda p: np.ravel(sks.pivot_calibration(p)[0])
        methods["sksurgerycalibration RANSAC"] = lambda p: peers.quiet(
            lambda: sks.pivot_calibration_with_ransac(p, 10, 0.001, 0.5)[0]
        )
    for half, wild in ((5, 0.0), (20, 0.0), (40, 0.0), (40, 0.1)):
        draws = [swing(np.random.default_rng(seed), half, wild) for seed in range(100)]
        for name, method in methods.items():
            errors = [np.ravel(method(poses))[:3] - tip for poses, tip, _ in draws]
            took = fastest(lambda m=method, d=draws: m(d[0][0]), 40) * 1e3
            rows.append(
                {"method": f"{name}, cone {half} deg, {wild:.0%} wild", "tip_rms_mm": rms(errors) * MM, "ms": took}
            )
    return table("pivot: 200 poses, 0.2 mm and 0.1 deg, 100 trials", rows)


def hand_eye() -> Rows:
    """Return X's error and time of 60 poses against OpenCV."""
    cv2, rows = optional("cv2"), []
    methods = {"twinguide solve_hand_eye": lambda a, b: solve_hand_eye(a, b).x}
    if cv2:
        for kind in ("TSAI", "PARK", "HORAUD", "ANDREFF", "DANIILIDIS"):
            flag = getattr(cv2, f"CALIB_HAND_EYE_{kind}")
            methods[f"cv2 calibrateHandEye {kind}"] = lambda a, b, f=flag: peers.cv2_hand_eye(cv2, a, b, f)
        for kind in ("SHAH", "LI"):
            flag = getattr(cv2, f"CALIB_ROBOT_WORLD_HAND_EYE_{kind}")
            methods[f"cv2 RobotWorldHandEye {kind}"] = lambda a, b, f=flag: peers.cv2_robot_world(cv2, a, b, f)
    draws = [hand_eye_poses(seed) for seed in range(40)]
    for name, method in methods.items():
        errors = np.array([difference(x, method(a, b)) for a, b, x, _ in draws])
        turn, move = rms(errors[:, :3]), rms(errors[:, 3:])
        took = fastest(lambda m=method: m(draws[0][0], draws[0][1]), 8) * 1e3
        rows.append({"method": name, "x_rms_mm": move * MM, "x_rms_deg": float(np.degrees(turn)), "ms": took})
    return table("hand-eye: 60 poses, 0.1 deg and 0.2 mm in both streams, 40 trials", rows)


def surface(mesh: Path | None) -> Rows:
    """Return target errors from starts within 10 mm and 10 deg: 50 starts of one patch, and 50 patches."""
    o3d, gicp, pycpd = optional("open3d"), optional("small_gicp"), optional("pycpd")
    vertices, faces = load(mesh)
    model = surface_model(vertices, faces)
    targets = vertices.mean(axis=0) + np.random.default_rng(0).normal(size=(20, 3)) * 0.02
    methods = {"twinguide register_surface": lambda p, s: register_surface(p, model, s).transform}
    if o3d:
        methods["open3d point-to-plane, Tukey 3 mm"] = peers.open3d_surface(o3d, model)
    if gicp:
        matched = {"downsampling_resolution": 1e-4, "max_correspondence_distance": 0.01}
        methods["small_gicp GICP"] = lambda p, s: gicp.align(model.samples, p, s, "GICP", **matched).T_target_source
    if pycpd:
        methods["pycpd rigid (300 points)"] = lambda p, s: peers.pycpd(pycpd, model, p, s)
    one = patch(np.random.default_rng(3), vertices, faces, 0.15)
    cases = {"one patch, 50 starts": [one] * 50}
    cases["50 patches"] = [patch(np.random.default_rng(seed), vertices, faces, 0.15) for seed in range(50)]
    rows = []
    for case, patches in cases.items():
        for name, method in methods.items():
            count = 5 if "pycpd" in name else 50
            errors, times = [], []
            for seed, seen in enumerate(patches[:count]):
                start = displaced(np.random.default_rng(seed), seen.mean(axis=0))
                began = time.perf_counter()
                matrix = method(seen, start)
                times.append(time.perf_counter() - began)
                errors.append(rms(targets @ matrix[:3, :3].T + matrix[:3, 3] - targets) * MM)
            cells = {"median_mm": float(np.median(errors)), "max_mm": float(np.max(errors))}
            rows.append({"method": f"{name}, {case}", "runs": count, **cells, "ms": float(np.median(times)) * 1e3})
    fits = [register_surface(seen, model).covariance for seen in patches]
    rows.append({"method": "expected of 50 patches by their covariances", **expected_errors(fits, targets)})
    bounds = [bound(seen[int(WILD * len(seen)) :], model) for seen in patches]
    rows.append({"method": "expected of 50 patches by the Cramer-Rao bound", **expected_errors(bounds, targets)})
    return table("surface: 15 % patch, 1000 points, 1 mm noise, 10 % wild", rows)


def bound(points, model):
    """Return the least covariance (6, 6) of a pose from points that touch a surface, 1 mm noise, truth known."""
    normals = model.normals[model.nearest(points)]
    across = np.einsum("nk,nki->ni", normals, point_jacobian(points))
    return np.linalg.inv(across.T @ across) * NOISE_M**2


def expected_errors(covariances, targets) -> dict:
    """Return the median rms error at targets [m], and the worst of all poses, that covariances (6, 6) expect."""
    rng, jacobian = np.random.default_rng(0), point_jacobian(targets)
    deltas = np.stack([rng.multivariate_normal(np.zeros(6), c, 2000) for c in covariances])
    errors = np.sqrt(np.square(deltas @ jacobian.reshape(-1, 6).T).sum(axis=2) / len(targets)) * MM
    return {"median_mm": float(np.median(errors)), "max_mm": float(np.median(errors.max(axis=0)))}


def chain() -> Rows:
    """Compare a chain's covariance with pytransform3d's, which perturbs from the left."""
    uncertainty = optional("pytransform3d.uncertainty")
    rng = np.random.default_rng(0)
    links = []
    for name in ("a", "b"):
        root = rng.normal(size=(6, 6)) * np.repeat([1e-3, 3e-4], 3)[:, None]
        links.append(Link(name, compose(exponential(rng.normal(size=3)), rng.normal(size=3)), root @ root.T))
    point = np.array([0.05, 0.02, 0.1])
    budget = chain_budget(links, point)
    took = fastest(lambda: chain_budget(links, point), 100) * 1e6
    rows = [{"method": "twinguide chain_budget", "rms_mm": budget.rms * MM, "us": took}]
    if uncertainty:
        left = [adjoint(link.transform) @ link.covariance @ adjoint(link.transform).T for link in links]
        given = (links[1].transform, left[1], links[0].transform, left[0])  # it takes the transform applied first
        matrix, covariance = uncertainty.concat_globally_uncertain_transforms(*given)
        carried = adjoint(inverse(matrix)) @ covariance @ adjoint(inverse(matrix)).T
        jacobian = matrix[:3, :3] @ point_jacobian(point)
        size = float(np.sqrt(np.trace(jacobian @ carried @ jacobian.T))) * MM
        took = fastest(lambda: uncertainty.concat_globally_uncertain_transforms(*given), 100) * 1e6
        rows.append({"method": "pytransform3d concat_globally_uncertain", "rms_mm": size, "us": took})
    return table("chain of two uncertain transforms at a point", rows)


def machine() -> dict:
    """Return what the figures were measured on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    names = ("numpy", "scipy", "cv2", "open3d", "small_gicp", "pytransform3d", "pycpd", "sksurgerycalibration")
    homes = metadata.packages_distributions()
    versions = {name: metadata.version(homes[name][0]) if name in homes else None for name in names}
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def main() -> None:
    """Run the comparisons asked for, print them, and keep them."""
    cases = {"points": points, "tre": tre, "robust": robust, "pivot": pivot, "hand_eye": hand_eye, "chain": chain}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*cases, "surface"], default=[*cases, "surface"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    kept = {}
    if args.out and args.out.exists():
        kept = json.loads(args.out.read_text())
    for name in args.only:
        kept[name] = surface(args.mesh) if name == "surface" else cases[name]()
        kept["machine"] = machine()
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
