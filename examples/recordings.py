"""Write simulated recordings to try `twinguide calibrate` on: `python examples/recordings.py FOLDER`.

A stylus swung about its tip in two divots, once too little; fiducials in the image and as touched; a head and the
marker on it, seen by two systems whose clocks differ by 45 ms; a device's stamps and when they arrived; an organ's
surface and a patch of it as touched. Truth: tip (1, -2, -150) mm, drift +20 ppm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
TIP = np.array([1.0, -2.0, -150.0])  # [mm]
FIDUCIALS = {
    "nasion": (0, -95, 20), "left ear": (75, 5, 0), "right ear": (-72, 8, 3),
    "chin": (4, -80, -75), "brow": (-30, -88, 50), "temple": (66, -50, 42),
}  # fmt: skip
REFERENCE_FROM_IMAGE = Rotation.from_euler("xyz", [20, 30, 40], degrees=True), np.array([10.0, 20.0, 900.0])  # [mm]
TARGETS = {"tumour": (20, 10, 30), "far side": (-40, 70, 60)}


def sequence(path: Path, name: str, poses: Array, times_s: Array) -> None:
    """Write poses [mm], shape (n, 4, 4), at `times_s` [s] as PLUS does."""
    lines = ["ObjectType = Image", "NDims = 3", f"DimSize = 0 0 {len(poses)}"]
    for i, (pose, t_s) in enumerate(zip(poses, times_s, strict=True)):
        lines.append(f"Seq_Frame{i:04}_{name}Transform = {' '.join(f'{v:.9g}' for v in pose.ravel())}")
        lines.append(f"Seq_Frame{i:04}_{name}TransformStatus = OK")
        lines.append(f"Seq_Frame{i:04}_Timestamp = {t_s:.6f}")
    path.write_text("\n".join([*lines, "ElementDataFile = LOCAL", ""]))


def poses_of(turns: Rotation, places: Array, rng: np.random.Generator) -> Array:
    """Return noisy poses [mm], shape (n, 4, 4): 0.15 mm and 0.05 deg per axis."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    noise = Rotation.from_rotvec(rng.normal(0.0, np.radians(0.05), places.shape))
    poses[:, :3, :3] = (turns * noise).as_matrix()
    poses[:, :3, 3] = places + rng.normal(0.0, 0.15, places.shape)
    return poses


def swing(path: Path, pivot: Array, cone_deg: float, rng: np.random.Generator) -> None:
    """Write a stylus held in a divot [mm] and swung through a cone; one sample in twenty is wild."""
    i = np.arange(300)
    lean, around = np.radians(cone_deg) * np.abs(np.sin(2 * np.pi * i / 240)), 2 * np.pi * i / 60
    turns = Rotation.from_rotvec(np.stack([lean * np.cos(around), lean * np.sin(around), 0.2 * np.sin(i / 40)], axis=1))
    poses = poses_of(turns, pivot - turns.apply(TIP), rng)
    poses[::20, :3, 3] += rng.normal(0.0, 8.0, (15, 3))
    sequence(path, "StylusToTracker", poses, 100.0 + i / 60.0)


def markups(path: Path, names: list[str], places: Array) -> None:
    """Write named points [mm], LPS, as 3D Slicer does."""
    points = [
        {"label": n, "position": p, "positionStatus": "defined"} for n, p in zip(names, places.tolist(), strict=True)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    path.write_text(json.dumps({"markups": [markup]}, indent=1))


def fiducials(folder: Path, rng: np.random.Generator) -> None:
    """Write fiducials in the image, as touched (0.4 mm per axis), and targets."""
    places = np.array([*FIDUCIALS.values()], dtype=float)
    turn, shift = REFERENCE_FROM_IMAGE
    markups(folder / "image.mrk.json", [*FIDUCIALS], places)
    touched = turn.apply(places) + shift + rng.normal(0.0, 0.4, places.shape)
    markups(folder / "touched.mrk.json", [*FIDUCIALS], touched)
    markups(folder / "targets.mrk.json", [*TARGETS], np.array([*TARGETS.values()], dtype=float))


def head(folder: Path, rng: np.random.Generator) -> None:
    """Write a headset's own poses and those of the marker on it; the tracker's clock is 45 ms behind."""
    x = (Rotation.from_rotvec([0.3, -0.5, 0.2]), np.array([40.0, -25.0, 60.0]))  # head_from_marker
    z = (Rotation.from_rotvec([-1.0, 0.4, 0.8]).inv(), np.array([500.0, 200.0, -1200.0]))  # tracker_from_stage
    for name, times, of in (("head", np.arange(900) / 90.0, "HeadToStage"), ("marker", np.arange(480) / 60.0 + 1, "")):
        t = times[:, None]
        turns = Rotation.from_rotvec(0.5 * np.sin(t * [1.3, 1.9, 2.7] + [0.0, 1.0, 2.0]))
        places = 100.0 * np.sin(t * [0.9, 1.1, 1.7] + [0.0, 1.5, 0.0])
        if not of:
            places = z[0].apply(turns.apply(x[1]) + places) + z[1]
            turns = z[0] * turns * x[0]
        stamps = 50.0 + times - (0.0 if of else 0.045)
        sequence(folder / f"{name}.igs.mha", of or "MarkerToTracker", poses_of(turns, places, rng), stamps)


def clock(path: Path, rng: np.random.Generator) -> None:
    """Write a device's stamps [ms] and when they arrived: 20 ppm slow, 2 ms late at the least, 3 ms more by chance."""
    device = np.arange(3000) / 60.0
    arrival = device * (1.0 + 2e-5) + 1000.0 + 0.002 + rng.exponential(0.003, len(device))
    rows = [f"{1e3 * d:.4f},{1e3 * a:.4f}" for d, a in zip(device, arrival, strict=True)]
    path.write_text("\n".join(["device_ms,arrival_ms", *rows, ""]))


def organ(folder: Path, rng: np.random.Generator) -> None:
    """Write an organ's surface in the image, and 400 points touched on one side of it, 0.5 mm per axis."""
    down, around = np.meshgrid(np.linspace(0.0, np.pi, 61), np.linspace(0.0, 2 * np.pi, 121), indexing="ij")
    x, y, z = np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)
    bumps = 1 + 0.25 * np.sin(3 * x + 1) * np.cos(2 * y) + 0.2 * np.sin(4 * z + 2 * x) + 0.1 * np.cos(5 * y - 3 * z)
    grid = np.stack([90.0 * x, 60.0 * y, 50.0 * z], axis=-1) * bumps[..., None]
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    faces = np.concatenate([np.stack(corners, axis=-2).reshape(-1, 3, 3) for corners in ((a, b, c), (a, c, d))])
    records = np.zeros(len(faces), [("normal", "<3f4"), ("corners", "<9f4"), ("colour", "<u2")])
    records["corners"] = faces.reshape(-1, 9)
    (folder / "organ.stl").write_bytes(bytes(80) + np.uint32(len(faces)).tobytes() + records.tobytes())
    near = grid[y > 0.3]
    turn, shift = REFERENCE_FROM_IMAGE
    places = turn.apply(near[rng.permutation(len(near))[:400]]) + shift + rng.normal(0.0, 0.5, (400, 3))
    rows = [f"{n},{p[0]:.3f},{p[1]:.3f},{p[2]:.3f}" for n, p in enumerate(places)]
    (folder / "patch.csv").write_text("\n".join(["name,x_mm,y_mm,z_mm", *rows, ""]))


def main(folder: Path) -> None:
    """Write all recordings into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    swing(folder / "divot1.igs.mha", np.array([50.0, 20.0, -900.0]), 35.0, rng)
    swing(folder / "divot2.igs.mha", np.array([80.0, 0.0, -950.0]), 35.0, rng)
    swing(folder / "timid.igs.mha", np.array([50.0, 20.0, -900.0]), 6.0, rng)
    fiducials(folder, rng)
    head(folder, rng)
    clock(folder / "stamps.csv", rng)
    organ(folder, rng)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
