"""A patient's organ under random sensor motion and a probe that comes and goes, at 90 Hz: what goes wrong, how often.

    python benchmarks/softbody_patient.py SURFACES --minutes 10 --out benchmarks/results/softbody_patient.json

The organ on the mesh that the importer makes, and on one of about 20k tetrahedra by the same mesher. The target's
motion is a filtered random walk of some 6 mm with 0.3 mm of jitter; every 4 s a probe presses a random place of the
skin for 1.2 s, to 8 mm. Frames begin at 90 Hz, as in use: what a frame leaves of its time is the solver's workers'.
`--seeds` are runs of their own, added up in the file's totals.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from twinguide.case import Body, Case
from twinguide.importing import import_case
from twinguide.importing.meshing import body_of
from twinguide.registry import Registry
from twinguide_softbody import SoftBody, points_of
from twinguide_softbody.constraints import Points, slippery
from twinguide_softbody.mesh import boundary, face_areas
from twinguide_softbody.part import mixture_of
from twinguide_softbody.plugin import CONTRACT

RATE = 90
FINE_TRIANGLES = 8100  # bound about 20k tetrahedra
WALK_M, JITTER_M, TAU_S = 0.006, 0.0003, 1.5
PRESS_EVERY, PRESS_FRAMES, PRESS_M, PROBE_M = 4 * RATE, 108, 0.008, 0.015


def meshes(case: Case, wanted: list[str]) -> Iterator[Body]:
    """Yield the organ's meshes of `wanted`: the case's own, and a finer one by the importer's mesher."""
    if "own" in wanted:
        yield case.body()
    if "fine" in wanted:
        inner = {name: case.surface(name) for name in case.body().fractions}
        yield body_of(case.surface(case.organ), FINE_TRIANGLES, inner)[0]


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


def six_volumes(vertices: np.ndarray, tetrahedra: np.ndarray) -> np.ndarray:
    """Return six times each tetrahedron's volume [m3], shape (m,): judged here, not by the solver itself."""
    first, *others = (vertices[tetrahedra[:, k]] for k in range(4))
    a, b, c = (other - first for other in others)
    return np.einsum("ij,ij->i", a, np.cross(b, c))


def follow(case: Case, body: Body, minutes: float, seed: int) -> dict[str, Any]:
    """Return what went wrong in so many minutes of motion, and how long the steps took."""
    begin = time.perf_counter()
    mixture, target = mixture_of(case, body), case.plan.target
    soft = SoftBody(body.vertices, body.tetrahedra, mixture, target, backend="cpu", waits=False)
    loaded, rng, frames = time.perf_counter() - begin, np.random.default_rng(seed), round(minutes * 60 * RATE)
    moved, covariance = motion(frames, rng), np.eye(3) * 0.0005**2
    whole, times, came = six_volumes(body.vertices, body.tetrahedra), np.zeros(frames), np.zeros(frames, dtype=bool)
    levels: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    not_finite, least, before, rigid, longest = 0, np.ones(frames), 0, 0, 0
    gc.collect()
    gc.freeze()  # as where parts are born: no collection looks at all that was ever loaded
    first = time.perf_counter()
    for k, measured in enumerate(presses(body, moved, rng)):
        time.sleep(max(0.0, first + k / RATE - time.perf_counter()))
        start = time.perf_counter()
        frame = soft.step(moved[k], covariance, measured)
        times[k] = (time.perf_counter() - start) * 1e3
        came[k], before = len(measured) != before, len(measured)
        not_finite += not (np.isfinite(frame.vertices).all() and np.isfinite(frame.sigma).all())
        least[k] = (six_volumes(frame.vertices, body.tetrahedra) / whole).min()
        levels[frame.level] += 1
        reasons[frame.reason] += bool(frame.reason)
        rigid = rigid + 1 if frame.level == "rigid" else 0
        longest = max(longest, rigid)
    return {
        "tetrahedra": len(body.tetrahedra), "vertices": len(body.vertices), "seed": seed, "frames": frames,
        "load_s": round(loaded, 2), "not_finite": not_finite, "inverted": int((least <= 0).sum()),
        "smallest_volume_ratio": round(float(least.min()), 3), "levels": dict(levels),
        "longest_run_of_rigid": longest, "reasons": dict((+reasons).most_common(5)),
        "over_deadline": int((times > CONTRACT.deadline_ms).sum()), "over_90_hz": int((times > 1e3 / RATE).sum()),
        "over_90_hz_as_a_probe_comes_or_goes": int((times[came] > 1e3 / RATE).sum()),
        "p50_ms": round(float(np.median(times)), 2), "p99_ms": round(float(np.percentile(times, 99)), 2),
        "max_ms": round(float(times.max()), 1),
        "p50_as_a_probe_comes_or_goes_ms": round(float(np.median(times[came])), 2),
    }  # fmt: skip


def totals(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add up the runs of each mesh."""
    out: dict[str, dict[str, Any]] = {}
    for size in sorted({run["tetrahedra"] for run in runs}):
        of = [run for run in runs if run["tetrahedra"] == size]
        frames = sum(run["frames"] for run in of)
        counted = {
            name: sum(run[name] for run in of) for name in ("not_finite", "inverted", "over_deadline", "over_90_hz")
        }
        out[f"{size} tetrahedra"] = {
            "minutes": frames / RATE / 60, "frames": frames, **counted,
            "over_deadline_percent": round(100 * counted["over_deadline"] / frames, 3),
            "over_90_hz_percent": round(100 * counted["over_90_hz"] / frames, 3),
            "p50_ms": max(run["p50_ms"] for run in of),
            "p99_ms": max(run["p99_ms"] for run in of),
            "max_ms": max(run["max_ms"] for run in of),
        }  # fmt: skip
    return out


def main() -> None:
    """Import the surfaces, run each mesh, keep every run as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("surfaces", type=Path, help="a folder of one patient's surfaces, in mm, LPS")
    parser.add_argument("--minutes", type=float, default=10.0, help="of motion, by seed")
    parser.add_argument("--seeds", type=int, nargs="*", default=[20])
    parser.add_argument("--meshes", nargs="*", choices=("own", "fine"), default=["own", "fine"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = json.loads(args.out.read_text())["runs"] if args.out and args.out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        import_case(args.surfaces, Path(folder), units="mm", axes="lps", breathing_phase="end-expiration",
                    organs=Registry.load().organs(), progress=lambda what, share: None)  # fmt: skip
        case = Case.load(folder)
        for body in meshes(case, args.meshes):
            for seed in args.seeds:
                run = follow(case, body, args.minutes, seed)
                same = (run["tetrahedra"], seed)
                runs = [old for old in runs if (old["tetrahedra"], old["seed"]) != same] + [run]
                print(json.dumps(run), flush=True)
                if args.out:
                    args.out.write_text(json.dumps({"totals": totals(runs), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
