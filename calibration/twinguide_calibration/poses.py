"""Look at recorded poses and stamps before they are used: repair what may be repaired and say so, refuse the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, as_floats, nearest_rotation

ROTATION_TOLERANCE = 1e-3  # of R'R - I: text with four digits and float32 drift pass, a scale or a shear does not
FARTHEST_M = 50.0  # beyond it no tracker sees: the numbers are millimetres
BACKWARD_SHARE = 0.05  # a few late packets are sorted out; more, and the clock itself is not one


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Poses fit for use: `matrices` (m, 4, 4), the rows `kept` (m,) of the input, and what was repaired, in words."""

    matrices: Array
    kept: Ints
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """The rows `kept` (m,) of a list of stamps, strictly rising, and what was dropped, in words."""

    kept: Ints
    notes: tuple[str, ...]


def check_poses(matrices: Array, what: str = "poses", at_least: int = 1) -> Poses:
    """Return the poses, shape (m, 4, 4), that can be used, rotations projected onto SO(3).

    Rows with NaN or all zeros (a tool not seen) are dropped and counted in `notes`; rotations off by up to 1e-3 are
    projected, and that is noted. Raises CalibrationRefused for what is no rigid right-handed transform, for
    millimetres, and for fewer than `at_least` poses.
    """
    matrices = as_floats(matrices)
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4):
        raise CalibrationRefused(f"wanted {what} of shape (n, 4, 4); got {matrices.shape}")
    seen = np.isfinite(matrices).all(axis=(1, 2)) & (matrices != 0.0).any(axis=(1, 2))
    kept = np.flatnonzero(seen)
    notes: list[str] = []
    if len(kept) < len(matrices):
        notes.append(f"{len(matrices) - len(kept)} of {len(matrices)} {what} were missing and left out")
    if len(kept) < at_least:
        raise CalibrationRefused(
            f"{what}: {len(kept)} that can be used; wanted at least {at_least}", "Record more, with the tool in view."
        )
    good = matrices[kept]
    rotation = good[:, :3, :3]
    off = np.abs(np.swapaxes(rotation, 1, 2) @ rotation - np.eye(3)).max(axis=(1, 2))
    _refuse_what_is_not_rigid(good, off, kept, what)
    if off.max() > 1e-6:
        good = good.copy()
        good[:, :3, :3] = nearest_rotation(rotation)
        notes.append(f"rotations of {what} were off by up to {off.max():.1g} and were projected onto SO(3)")
    return Poses(good, kept, tuple(notes))


def _refuse_what_is_not_rigid(good: Array, off: Array, kept: Ints, what: str) -> None:
    worst = int(off.argmax())
    if off[worst] > ROTATION_TOLERANCE:
        raise CalibrationRefused(
            f"{what}: rotation {kept[worst]} is none (R'R off by {off[worst]:.2g}, at most {ROTATION_TOLERANCE:g})",
            "Check scale, row order and the file's format.",
        )
    mirrored = np.flatnonzero(np.linalg.det(good[:, :3, :3]) < 0.0)
    if len(mirrored):
        raise CalibrationRefused(
            f"{what}: {len(mirrored)} rotations are reflections (the first is {kept[mirrored[0]]})",
            "Two axes are swapped, or one is mirrored: check the frame's handedness.",
        )
    if not np.allclose(good[:, 3], [0.0, 0.0, 0.0, 1.0], atol=1e-9):
        raise CalibrationRefused(f"{what}: a last row is not (0, 0, 0, 1)", "Are the matrices transposed?")
    farthest = float(np.abs(good[:, :3, 3]).max())
    if farthest > FARTHEST_M:
        raise CalibrationRefused(
            f"{what}: a translation of {farthest:.0f} m", "These look like millimetres: divide by 1000."
        )


def check_stamps(times_s: Array, what: str = "stamps") -> Stamps:
    """Return the rows of time stamps [s], shape (n,), that rise strictly: repeats and a few backward ones are dropped.

    Raises CalibrationRefused where more than 5 % run backwards, where none are finite, and where all are equal.
    """
    times = as_floats(times_s)
    finite = np.flatnonzero(np.isfinite(times))
    if times.ndim != 1 or len(finite) == 0:
        raise CalibrationRefused(f"{what}: wanted finite times, shape (n,); got {len(finite)} of shape {times.shape}")
    before = np.maximum.accumulate(np.concatenate([[-np.inf], times[finite][:-1]]))
    repeated, backward = times[finite] == before, times[finite] < before
    notes = [f"{len(times) - len(finite)} {what} were not finite and left out"] if len(finite) < len(times) else []
    if backward.sum() > max(1.0, BACKWARD_SHARE * len(finite)):
        raise CalibrationRefused(
            f"{what}: {backward.sum()} of {len(finite)} run backwards, the first is {int(finite[backward][0])}",
            "Are two recordings in one, or rows out of order? Sort by the device's own clock, or record anew.",
        )
    if repeated.any():
        notes.append(f"{repeated.sum()} repeated {what} were left out")
    if backward.any():
        notes.append(f"{backward.sum()} {what} that ran backwards were left out")
    kept = finite[~(repeated | backward)]
    if len(kept) < 2 and len(finite) > 1:
        raise CalibrationRefused(f"{what}: all are equal", "Is this column a time?")
    return Stamps(kept, tuple(notes))
