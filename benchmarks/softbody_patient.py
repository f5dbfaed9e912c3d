"""A patient's organ under random sensor motion and a probe that comes and goes, at 90 Hz: what goes wrong, how often.

The case's own mesh, and one of about 20k tetrahedra by the importer's mesher. The target's motion is a filtered random
walk of some 6 mm with 0.3 mm of jitter; every 4 s a probe presses a random place of the skin for 1.2 s, to 8 mm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from twinguide.case import Body, Case
from twinguide.importing.meshing import body_of
from twinguide_softbody import SoftBody, mix, points_of, tissue_of
from twinguide_softbody.constraints import Points, slippery
from twinguide_softbody.materials import Mixture
from twinguide_softbody.mesh import boundary, face_areas, volumes
from twinguide_softbody.plugin import CONTRACT

RATE, SEED = 90, 20
FINE_TRIANGLES = 8500  # bound about 20k tetrahedra
WALK_M, JITTER_M, TAU_S = 0.006, 0.0003, 1.5
PRESS_EVERY, PRESS_FRAMES, PRESS_M, PROBE_M = 4 * RATE, 108, 0.008, 0.015


def mixture_of(case: Case, body: Body) -> Mixture:
    """Return the tissues of the body's tetrahedra: the case's stiffness, else the literature's."""
    inner = {n: case.structures[n] for n in body.fractions if n in case.structures}
    tissues = {n: tissue_of(s.role, s.young_pa, s.young_sigma_pa, s.poisson) for n, s in inner.items()}
    own = case.structures[case.organ]
    organ = tissue_of("organ", own.young_pa, own.young_sigma_pa, own.poisson)
    return mix(organ, body.fractions, tissues, len(body.tetrahedra))


def finer(case: Case) -> Body:
    """Return the organ meshed anew by the importer's mesher."""
    inner = {name: case.surface(name) for name in case.body().fractions}
    return body_of(case.surface(case.organ), FINE_TRIANGLES, inner)[0]


def motion(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return displacements [m], shape (frames, 3): a random walk that returns, twice filtered, and jitter."""
    keep = math.exp(-1 / (RATE * TAU_S))
    force, rough, out = rng.normal(size=(frames, 3)), np.zeros(3), np.zeros((frames, 3))
    smooth = np.zeros(3)
    for k in range(frames):
        rough = keep * rough + math.sqrt(1 - keep**2) * force[k]
        smooth = smooth + (1 - keep) * 4 * (rough - smooth)
        out[k] = smooth
    return np.clip(WALK_M * out / out.std(), -0.02, 0.02) + JITTER_M * rng.normal(size=(frames, 3))


def presses(body: Body, moved: np.ndarray, rng: np.random.Generator) -> Iterator[dict[str, Points]]:
    """Yield each frame's measured points: none, or a probe's that presses one place of the skin."""
    faces = boundary(body.tetrahedra)
    areas, centres = face_areas(body.vertices, faces), body.vertices[faces].mean(axis=1)
    points, rest, normal = None, np.zeros(3), np.zeros(3)
    for k, drive in enumerate(moved):
        since = k % PRESS_EVERY - (PRESS_EVERY - PRESS_FRAMES)
        if since < 0:
            yield {}
            continue
        depth = PRESS_M * math.sin(math.pi * (since + 0.5) / PRESS_FRAMES)
        if since == 0:
            chosen = int(rng.integers(len(faces)))
            rest, normal = centres[chosen], areas[chosen] / np.linalg.norm(areas[chosen])
            held = slippery(normal, 0.001)[None]
            points = points_of(body.vertices, body.tetrahedra, rest[None], rest[None], held, PROBE_M)
        assert points is not None
        yield {"probe": replace(points, mean=(rest + drive - depth * normal)[None])}


def follow(body: Body, mixture: Mixture, target: np.ndarray, minutes: float) -> dict[str, object]:
    """Return what went wrong in so many minutes of motion, and how long the steps took."""
    begin = time.perf_counter()
    soft = SoftBody(body.vertices, body.tetrahedra, mixture, target, backend="cpu")
    loaded, rng, frames = time.perf_counter() - begin, np.random.default_rng(SEED), round(minutes * 60 * RATE)
    moved, covariance = motion(frames, rng), np.eye(3) * 0.0005**2
    times, nan, inverted, longest, row = np.zeros(frames), 0, 0, 0, 0
    levels: dict[str, int] = {}
    reasons: dict[str, int] = {}
    smallest, came = np.inf, np.zeros(frames, dtype=bool)
    whole, before = volumes(body.vertices, body.tetrahedra), 0
    for k, measured in enumerate(presses(body, moved, rng)):
        start = time.perf_counter()
        frame = soft.step(moved[k], covariance, measured)
        times[k] = (time.perf_counter() - start) * 1e3
        came[k], before = len(measured) != before, len(measured)
        nan += not (np.isfinite(frame.vertices).all() and np.isfinite(frame.sigma).all())
        ratio = float((volumes(frame.vertices, body.tetrahedra) / whole).min())
        inverted += ratio <= 0
        smallest = min(smallest, ratio)
        levels[frame.level] = levels.get(frame.level, 0) + 1
        if frame.reason:
            reasons[frame.reason] = reasons.get(frame.reason, 0) + 1
        row = row + 1 if frame.level == "rigid" else 0
        longest = max(longest, row)
    return {
        "tetrahedra": len(body.tetrahedra),
        "minutes": minutes,
        "frames": frames,
        "load_s": round(loaded, 2),
        "not_finite": int(nan),
        "inverted_shown": int(inverted),
        "smallest_volume_ratio": round(smallest, 3),
        "levels": levels,
        "longest_run_of_rigid": longest,
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])[:5]),
        "over_deadline_percent": round(100 * float((times > CONTRACT.deadline_ms).mean()), 3),
        "over_90_hz_percent": round(100 * float((times > 1e3 / RATE).mean()), 3),
        "p50_ms": round(float(np.median(times)), 2),
        "p99_ms": round(float(np.percentile(times, 99)), 2),
        "max_ms": round(float(times.max()), 1),
        "p50_where_a_probe_comes_or_goes_ms": round(float(np.median(times[came])), 1) if came.any() else None,
        "over_deadline_else_percent": round(100 * float((times[~came] > CONTRACT.deadline_ms).mean()), 3),
    }


def patient(folder: Path, minutes: float) -> dict[str, object]:
    """Run an imported case on its own mesh and on one of about 20k tetrahedra."""
    case = Case.load(folder)
    meshes = {"the case's mesh": case.body(), "finer": finer(case)}
    return {name: follow(body, mixture_of(case, body), case.plan.target, minutes) for name, body in meshes.items()}
