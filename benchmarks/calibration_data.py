"""Simulated recordings with known truth, noise and outliers, that the calibration library is measured on."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from twinguide_calibration.rigid import compose, exponential, inverse, perturb

NOISE_M, WILD = 1e-3, 0.1  # of a patch's points: noise per axis, the share that comes first and is wild


def pairs(seed, wrong):
    """Return 100 points in source and in target [m], shape (100, 3), 1 mm noise, a share wrong, and the truth."""
    rng = np.random.default_rng(seed)
    rotation, shift = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3) * 0.2
    source = rng.uniform(-0.1, 0.1, (100, 3))
    target = source @ rotation.T + shift + rng.normal(size=(100, 3)) * 1e-3
    count = int(wrong * 100)
    target[:count] = shift + rng.uniform(-0.17, 0.17, (count, 3))
    return source, target, rotation, shift


def swing(rng, half_deg, wild, n=200):
    """Return poses (n, 4, 4) of a tool swung about a point, 0.2 mm and 0.1 deg noise, its tip and pivot [m]."""
    tip = np.array([0.01, 0.02, -0.15])
    lean, side = np.radians(half_deg) * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * np.pi, n)
    twist = rng.uniform(-1, 1, n) * np.radians(half_deg)
    turns = exponential(rng.normal(size=3)) @ exponential(
        np.stack([lean * np.cos(side), lean * np.sin(side), twist], 1)
    )
    held = rng.normal(size=3) * 0.3
    exact = compose(turns, held - turns @ tip)
    poses = perturb(exact, rng.normal(size=(n, 6)) * np.repeat([np.radians(0.1), 2e-4], 3))
    poses[: int(wild * n), :3, 3] += rng.normal(size=(int(wild * n), 3)) * 0.03
    return poses[rng.permutation(n)], tip, held


def hand_eye_poses(seed, n=60, sigma_m=0.08, mix=(1.0, 1.0)):
    """Return n poses a and b with 0.1 deg and 0.2 mm of noise, times the mix, and the true X and Z between them.

    X's place is drawn with `sigma_m` per axis.
    """
    rng = np.random.default_rng(seed)
    x = compose(exponential(rng.normal(size=3)), rng.normal(size=3) * sigma_m)
    z = compose(exponential(rng.normal(size=3)), rng.normal(size=3))
    a = compose(exponential(rng.normal(size=(n, 3)) * 0.5), rng.normal(size=(n, 3)) * 0.3)
    noise = np.repeat([np.radians(0.1), 2e-4], 3)
    b = perturb(inverse(z) @ a @ x, rng.normal(size=(n, 6)) * noise * mix[1])
    return perturb(a, rng.normal(size=(n, 6)) * noise * mix[0]), b, x, z


def body():
    """Return a smooth bumpy body of a liver's size: vertices [m], faces."""
    trimesh = importlib.import_module("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=5)
    unit = ball.vertices / np.linalg.norm(ball.vertices, axis=1, keepdims=True)
    x, y, z = unit.T
    bumps = 1 + 0.25 * np.sin(3 * x + 1) * np.cos(2 * y) + 0.2 * np.sin(4 * z + 2 * x) + 0.12 * np.cos(5 * y - 3 * z)
    return unit * bumps[:, None] * [0.09, 0.06, 0.05], np.asarray(ball.faces)


def load(path: Path | None):
    """Return vertices [m] and faces of a mesh file, or of the bumpy body."""
    if path is None:
        return body()
    mesh = importlib.import_module("trimesh").load(path, process=True)
    vertices = np.asarray(mesh.vertices, dtype=float)
    return vertices * (1e-3 if np.ptp(vertices) > 5 else 1.0), np.asarray(mesh.faces)


def patch(rng, vertices, faces, share, n=1000):
    """Return n points [m] of the side that faces a random viewer: the nearest `share` of the area, noisy, 10 % wild."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area, middle = np.linalg.norm(across, axis=1) / 2, corners.mean(axis=1)
    viewer = rng.normal(size=3)
    viewer /= np.linalg.norm(viewer)
    depth = np.where(across @ viewer > 0, -(middle @ viewer), np.inf)
    first = middle[np.argmin(depth)]
    apart = np.where(across @ viewer > 0, np.linalg.norm(middle - first, axis=1), np.inf)
    order = np.argsort(apart)
    near = order[: np.searchsorted(np.cumsum(area[order]), share * area.sum())]
    near = near[np.isfinite(apart[near])]
    chosen = rng.choice(near, n, p=area[near] / area[near].sum())
    seen = np.einsum("nk,nki->ni", rng.dirichlet([1, 1, 1], n), corners[chosen]) + rng.normal(size=(n, 3)) * NOISE_M
    wild = int(WILD * n)
    seen[:wild] += rng.uniform(-0.02, 0.02, (wild, 3))
    return seen


def displaced(rng, centre, metres=0.01, degrees=10.0):
    """Return a start this far from the truth, turned about a centre [m]."""
    axis, shift = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    rotation = exponential(axis * np.radians(degrees))
    return compose(rotation, centre - rotation @ centre + shift * metres)
