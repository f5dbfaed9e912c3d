"""Write simulated recordings to try `twinguide calibrate` on: `python examples/recordings.py FOLDER`.

A stylus swung about its tip in two divots, once too little; fiducials in the image and as touched; a head and the
marker on it, seen by two systems whose clocks differ by 45 ms. Truth: tip (1, -2, -150) mm.
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
    turn = Rotation.from_euler("xyz", [20, 30, 40], degrees=True)
    markups(folder / "image.mrk.json", [*FIDUCIALS], places)
    touched = turn.apply(places) + np.array([10.0, 20.0, 900.0]) + rng.normal(0.0, 0.4, places.shape)
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


def main(folder: Path) -> None:
    """Write all recordings into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    swing(folder / "divot1.igs.mha", np.array([50.0, 20.0, -900.0]), 35.0, rng)
    swing(folder / "divot2.igs.mha", np.array([80.0, 0.0, -950.0]), 35.0, rng)
    swing(folder / "timid.igs.mha", np.array([50.0, 20.0, -900.0]), 6.0, rng)
    fiducials(folder, rng)
    head(folder, rng)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
