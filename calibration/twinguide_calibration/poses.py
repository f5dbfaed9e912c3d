"""Look at recorded poses and stamps before they are used: repair what may be repaired and say so, refuse the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats, nearest_rotation

ROTATION_TOLERANCE = 1e-3  # of R'R - I: text with four digits and float32 drift pass, a scale or a shear does not
ROTATION_SILENT = 2e-5  # six printed digits leave this much; nothing worth telling
ROTATION_EXACT = 1e-14  # rounding alone: projected before
FARTHEST_M = 30.0  # no tracked tool is farther from its tracker: the numbers are millimetres
FAULTY_SHARE = 0.05  # of rows beyond which data are taken to be wrong as a whole
UNITS_RATIO = (900.0, 1111.0)  # consecutive distances whose ratio says that the unit changed between two rows
UNITS_DIRECTION = 0.99  # cosine: the same place, told in another unit
NEAR_M = 0.01  # no tracker follows a body that turns within 10 mm of the tracker's own origin
TURNS = 0.1  # of a rotation's entries: it turned
UNLIKE = 2.0  # times as far as the others would near places be in millimetres: they are none, but near
NEAR_GAP = 30.0  # times as far as the near places are the others: one way does not pass such a gap
MIXED_SHARE, MIXED_RATIO = 0.05, (500.0, 2000.0)  # of points; how far apart metres and millimetres of one body lie
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


def check_poses(matrices: Array, what: str = "poses", at_least: int = 1, numbers: Ints | None = None) -> Poses:
    """Return the poses [m], shape (m, 4, 4), that can be used, rotations projected onto SO(3).

    The one rule for poses, from a file or from a caller. Rows with NaN or all zeros (a tool not seen) are left out and
    counted; so are a few (5 %) that are no rigid transform or lie beyond 30 m; rotations off by up to 1e-3 are
    projected. All is told in `notes`. Raises CalibrationRefused for more such rows, left-handed axes, transposed
    matrices, millimetres, mixed units, and fewer than `at_least` poses; `numbers` (n,) is what it calls the rows,
    or they count from 1.
    """
    matrices = as_floats(matrices)
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4):
        raise CalibrationRefused(f"wanted {what} of shape (n, 4, 4); got {matrices.shape}")
    numbers = np.arange(1, len(matrices) + 1) if numbers is None else numbers
    seen = np.isfinite(matrices).all(axis=(1, 2)) & (matrices != 0.0).any(axis=(1, 2))
    kept = np.flatnonzero(seen)
    notes = [f"{what}: {len(matrices) - len(kept)} of {len(matrices)} are missing, left out"] * (not seen.all())
    good = matrices[kept]
    if len(kept):
        _refuse_transposed(good, numbers[kept], what)
        faulty, off, why = _faulty(good, numbers[kept], what)
        notes += [f"{what}: {faulty.sum()} rows {why}, left out"] * bool(faulty.any())
        kept, off, good = kept[~faulty], off[~faulty], good[~faulty]
        _refuse_units(good[:, :3, 3], numbers[kept], what)
        _refuse_near(good, numbers[kept], what)
        if off.max(initial=0.0) > ROTATION_EXACT:
            good[:, :3, :3] = nearest_rotation(good[:, :3, :3])
        if off.max(initial=0.0) > ROTATION_SILENT:
            notes.append(f"{what}: rotations made orthonormal (off by up to {off.max():.1g})")
    if len(kept) < at_least:
        raise CalibrationRefused(
            f"{what}: {len(kept)} that can be used; wanted at least {at_least}", "Record more, with the tool in view."
        )
    return Poses(good, kept, tuple(notes))


def _refuse_transposed(good: Array, numbers: Ints, what: str) -> None:
    below = np.abs(good[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(axis=1)
    worst = int(below.argmax())
    if below[worst] > 1e-6:
        beside = np.abs(good[:, :3, 3]).max() < 1e-6
        raise CalibrationRefused(
            f"{what}: wanted a last row 0 0 0 1; got {good[worst, 3].tolist()} in row {numbers[worst]}",
            "The matrices are written column by column: transpose them." if beside else "Is the file whole?",
        )


def _faulty(good: Array, numbers: Ints, what: str) -> tuple[Bools, Array, str]:
    """Return which rows are no poses, how far each is from a rotation, and what is wrong; refuse where many are."""
    linear, distance = good[:, :3, :3], np.sqrt((good[:, :3, 3] ** 2).sum(axis=1))
    off = np.abs(linear @ np.swapaxes(linear, 1, 2) - np.eye(3)).max(axis=(1, 2))
    bent, far = off > ROTATION_TOLERANCE, distance > FARTHEST_M
    if bent.sum() > FAULTY_SHARE * len(good):
        worst = int(off.argmax())
        scale = float(np.cbrt(np.abs(np.linalg.det(linear[worst]))))
        raise CalibrationRefused(
            f"{what}: wanted rotations, orthonormal to {ROTATION_TOLERANCE:g}; got {bent.sum()} of {len(good)} off, by "
            f"{off[worst]:.2g} in row {numbers[worst]} (scale {scale:.4g})",
            "A matrix with a scale or a shear is no pose: check the file's format and the quaternions' order.",
        )
    left = ~bent & (np.linalg.det(linear) < 0.0)
    if left.any():
        raise CalibrationRefused(
            f"{what}: wanted right-handed axes; got a mirror image (det = -1) in {left.sum()} of {len(left)} rows, "
            f"first in row {numbers[int(left.argmax())]}",
            "Two axes are swapped, or one is flipped: write the file with right-handed axes.",
        )
    if far.sum() > FAULTY_SHARE * len(good):
        raise CalibrationRefused(
            f"{what}: wanted poses within {FARTHEST_M:g} m of their tracker; got {np.median(distance):.0f} m at the "
            f"median, {far.sum()} of {len(good)} farther",
            "The unit is not the one stated: millimetres taken for metres?",
        )
    said = [f"not rigid (worst off by {off.max():.2g})"] * bool(bent.any())
    said += [f"farther than {FARTHEST_M:g} m"] * bool(far.any())
    return bent | far, off, " or ".join(said)


def _refuse_units(places: Array, numbers: Ints, what: str) -> None:
    """Refuse places [m], shape (n, 3), that are told in one unit here and in another there."""
    if len(places) < 2:
        return
    distance = np.sqrt((places**2).sum(axis=1))
    near, far = np.minimum(distance[1:], distance[:-1]), np.maximum(distance[1:], distance[:-1])
    some = near > 0.0
    cosine = np.einsum("ni,ni->n", places[1:], places[:-1]) / np.where(some, near * far, 1.0)
    ratio = far / np.where(some, near, 1.0)
    jumps = some & (ratio > UNITS_RATIO[0]) & (ratio < UNITS_RATIO[1]) & (cosine > UNITS_DIRECTION)
    if jumps.any():
        raise CalibrationRefused(
            f"{what}: wanted one unit of length; got a place told a thousand times larger or smaller in row "
            f"{numbers[1:][int(jumps.argmax())]} than in the row before",
            "Millimetres and metres are mixed: write the file in one unit.",
        )


def refuse_mixed(points: Array, numbers: Ints, what: str) -> None:
    """Refuse points [m], shape (n, 3), of which some are told in metres, some in millimetres; `numbers` (n,) name them.

    Their distances from the origin then fall into two groups, a thousand times apart and with nothing between. Those
    at the origin itself are samples that were lost, and are not looked at.
    """
    distance = np.sqrt((points**2).sum(axis=1))
    order = np.argsort(distance)[int((distance == 0.0).sum()) :]
    ordered, n = distance[order], len(order)
    least = max(3, round(MIXED_SHARE * n))
    steps = ordered[least : n - least + 1] / ordered[least - 1 : n - least]
    if not len(steps) or steps.max() < NEAR_GAP:
        return
    first = least + int(steps.argmax())
    apart = float(np.median(ordered[first:]) / np.median(ordered[:first]))
    if MIXED_RATIO[0] < apart < MIXED_RATIO[1]:
        raise CalibrationRefused(
            f"{what}: wanted one unit of length; got {first} of {n} places about {apart:.0f} times nearer to "
            f"the origin than the others, first in row {numbers[order[:first]].min()}",
            "Millimetres and metres are mixed: write the file in one unit.",
        )


def _refuse_near(poses: Array, numbers: Ints, what: str) -> None:
    """Refuse some poses, as of stations, whose places are told a thousand times smaller than the others'."""
    distance = np.sqrt((poses[:, :3, 3] ** 2).sum(axis=1))
    near = (distance > 0.0) & (distance < NEAR_M)
    if near.sum() < 2 or near.all():
        return
    farthest = float(distance[near].max())
    gap, alike = float(distance[~near].min()) / farthest, 1e3 * farthest < UNLIKE * float(distance[~near].max())
    if gap > NEAR_GAP and alike and float(np.ptp(poses[near, :3, :3], axis=0).max()) > TURNS:
        raise CalibrationRefused(
            f"{what}: wanted one unit of length; got {near.sum()} of {len(near)} places within "
            f"{1e3 * farthest:.2g} mm of the origin, first in row {numbers[int(near.argmax())]}",
            "Millimetres and metres are mixed: write the file in one unit.",
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
            f"{what}: {backward.sum()} of {len(finite)} run backwards, the first is row {int(finite[backward][0]) + 1}",
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
