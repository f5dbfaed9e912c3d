"""Where everything stands: seeded, fixed for the run, the same for the world and the wearer's head."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide import Transform
from twinguide.frames import adjoint, rotation_from_quaternion, rotation_from_vector

from .noise import generator
from .options import PatientOptions
from .tissue import Tissue

if TYPE_CHECKING:
    from twinguide.case import Case

Array = NDArray[np.float64]
TABLE_M = 0.9  # height of the patient's back
# The patient lies supine, feet to the wearer's right: left (+x) away from the wearer, posterior (+y) down.
SUPINE = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
ANTERIOR = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Fixed transforms and places of one run."""

    stage_from_image: Transform
    reference_from_image: Transform  # before any bump
    stage_from_tracker: Transform
    told: Transform  # stage_from_tracker as a calibration states it
    told_covariance: Array  # (6, 6)
    entry_in_stage: Array  # (3,) [m]
    head_in_stage: Array  # (3,) [m], about which the wearer sways
    tips: dict[str, Array]  # tool -> true tip [m], (3,), in tool
    headset_from_body: Transform  # of the body fixed to the headset, the true one
    tissue: Tissue


def furnish(seed: int, options: PatientOptions, case: Case) -> Room:
    """Place patient, camera, reference body and wearer."""
    rng = generator(seed, "room")
    entry, target = case.plan.entry, case.plan.target
    stage_from_image = _lay(rng, entry, _skin(case))
    entry_in_stage = stage_from_image.apply(entry)
    towards_head = _unit(np.array([0.05, 0.75, 0.65]) + rng.normal(size=3) * 0.03)
    head = stage_from_image.apply(target) + options.eye_to_target_mm * 1e-3 * towards_head
    camera = entry_in_stage + rng.uniform(1.3, 1.7) * _unit(np.array([-0.5, 0.8, -0.6]) + rng.normal(size=3) * 0.05)
    stage_from_tracker = look_at("tracker", camera, entry_in_stage, forward=1.0)
    over_pelvis = np.array([-0.05, -0.02, -0.20])  # where nothing breathes
    body = entry + over_pelvis + rng.normal(size=3) * 0.01
    image_from_reference = Transform.of("image", "reference", rotation_from_quaternion(rng.normal(size=4)), body)
    sigma = np.repeat([np.radians(options.calibration_sigma_deg), options.calibration_sigma_mm * 1e-3], 3)
    told, covariance = _miscalibrate(stage_from_tracker, head, sigma, rng.normal(size=6))
    stated = {"needle": options.needle_tip_mm, "pointer": options.pointer_tip_mm}
    tips = {name: (np.array(mm) + rng.normal(size=3) * options.tip_sigma_mm) * 1e-3 for name, mm in stated.items()}
    return Room(
        stage_from_image=stage_from_image, reference_from_image=image_from_reference.inverse(),
        stage_from_tracker=stage_from_tracker, told=told, told_covariance=covariance,
        entry_in_stage=entry_in_stage, head_in_stage=head, tips=tips, headset_from_body=_mounted(seed, options),
        tissue=_tissue(rng, options, entry, target, _skin(case)),
    )  # fmt: skip


def look_at(source: str, eye: Array, at: Array, *, forward: float) -> Transform:
    """Return stage_from_`source` of something at `eye` [m] that looks at `at` [m] along `forward` (+1, -1) times z."""
    zx, zy, zz = (_unit(at - eye) * forward).tolist()
    level = hypot(zx, zz)
    xx, xz = zz / level, -zx / level  # up x z: level
    ex, ey, ez = eye.tolist()
    rows = [[xx, zy * xz, zx, ex], [0.0, zz * xx - zx * xz, zy, ey], [xz, -zy * xx, zz, ez], [0.0, 0.0, 0.0, 1.0]]
    return Transform("stage", source, np.array(rows))


def _lay(rng: np.random.Generator, entry: Array, skin: Array) -> Transform:
    """Lay the patient on the table, the entry 0.4 m before the stage's origin, turned by a few degrees."""
    rotation = rotation_from_vector(rng.normal(size=3) * np.radians([2.0, 5.0, 2.0])) @ SUPINE
    height = TABLE_M + float(skin[:, 1].max() - entry[1])
    place = np.array([0.0, height, -0.4]) + rng.normal(size=3) * [0.03, 0.0, 0.03]
    return Transform.of("stage", "image", rotation, place - rotation @ entry)


def _miscalibrate(true: Transform, about: Array, sigma: Array, draw: Array) -> tuple[Transform, Array]:
    """Return `true` with an error of `sigma` times `draw` about a point [m] of its target frame, and the covariance.

    At the point, the wearer's place where the headset was calibrated, rotation and translation err independently; in
    the source frame, the camera's, they are therefore correlated.
    """
    pivot = Transform.of("tracker", "tracker", None, true.inverse().apply(about))
    delta = sigma * draw
    off = Transform.of("tracker", "tracker", rotation_from_vector(delta[:3]), delta[3:])
    a = adjoint(pivot)
    return true @ pivot @ off @ pivot.inverse(), a @ np.diag(sigma**2) @ a.T


def _mounted(seed: int, options: PatientOptions) -> Transform:
    """Return headset_from_headset_body: as the options state it, off by a seeded error."""
    sigma = np.repeat([np.radians(options.headset_body_sigma_deg), options.headset_body_sigma_mm * 1e-3], 3)
    delta = sigma * generator(seed, "headset_body").normal(size=6)
    turn, shift = rotation_from_vector(delta[:3]), delta[3:]
    rotation = rotation_from_vector(np.radians(options.headset_body_turn_deg))
    stated = Transform.of("headset", "headset_body", rotation, np.array(options.headset_body_at_mm) * 1e-3)
    return stated @ Transform.of("headset_body", "headset_body", turn, shift)


def _tissue(rng: np.random.Generator, options: PatientOptions, entry: Array, target: Array, skin: Array) -> Tissue:
    near = skin[np.argmin(((skin - entry - [0.09, -0.02, -0.05]) ** 2).sum(axis=1))]
    scale, chest_scale = rng.uniform(0.9, 1.1, 2)
    return Tissue(
        target=target,
        chest=near + 0.03 * ANTERIOR,
        motion=np.array(options.motion_mm) * 1e-3 * scale,
        chest_motion=np.array(options.chest_motion_mm) * 1e-3 * chest_scale,
        turn=np.radians(rng.uniform([1.0, -1.0, -1.0], [3.0, 1.0, 1.0])),
    )


def _skin(case: Case) -> Array:
    names = [s.name for s in case.structures.values() if s.role == "skin"]
    return np.vstack([case.plan.entry, *(case.surface(name).vertices for name in names)])


def _unit(v: Array) -> Array:
    return v / np.sqrt(v @ v)
