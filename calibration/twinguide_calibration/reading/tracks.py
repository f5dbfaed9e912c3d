"""Poses as recorded: tracks of rigid bodies, checked on entry, every repair told.

A file's rows become a `Track` here and nowhere else, whatever the format, so that bad input meets one set of rules:
rows that are not finite, not rigid or not valid are left out and counted, a file made of them is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.poses import ROTATION_TOLERANCE, check_stamps
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import nearest_rotation

Array = NDArray[np.float64]
Times = NDArray[np.int64]
RIGID_SILENT = 2e-5  # six printed digits leave this much; nothing worth telling
FAULTY_SHARE = 0.05  # of rows beyond which a file is taken to be wrong as a whole
FAR_M = 30.0  # no tracked tool is farther from its tracker: millimetres taken for metres
UNITS_RATIO = (900.0, 1111.0)  # consecutive distances whose ratio says that the unit changed between two rows
UNITS_DIRECTION = 0.99  # cosine: the same place, told in another unit


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One body's poses `target_from_source`, in the order of their recording.

    `frames` numbers the rows of the file, so that tracks of one file can be paired; `times_ns` is None where the file
    has no time stamps.
    """

    target: str
    source: str
    rotations: Array  # (n, 3, 3)
    translations: Array  # (n, 3) [m]
    frames: Times  # (n,)
    times_ns: Times | None  # (n,), rising

    @property
    def name(self) -> str:
        """Return `target_from_source`."""
        return f"{self.target}_from_{self.source}"

    def __len__(self) -> int:
        """Return how many poses there are."""
        return len(self.frames)

    def take(self, rows: NDArray[Any]) -> Track:
        """Return some of the poses: `rows` are indices or a mask, shape (n,)."""
        times = None if self.times_ns is None else self.times_ns[rows]
        return Track(self.target, self.source, self.rotations[rows], self.translations[rows], self.frames[rows], times)

    def inverse(self) -> Track:
        """Return the poses `source_from_target`."""
        turned = self.rotations.transpose(0, 2, 1)
        moved = -np.einsum("nij,nj->ni", turned, self.translations)
        return Track(self.source, self.target, turned, moved, self.frames, self.times_ns)


@dataclass(frozen=True, slots=True, eq=False)
class PoseRecording:
    """What a file holds: its usable tracks by name, what was repaired or left out, and why a track is absent."""

    file: str
    tracks: Mapping[str, Track]
    notes: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict[str, str])

    def track(self, name: str) -> Track:
        """Return a track by `a_from_b`, by its inverse's name, or by its body's name where only one track has it.

        Raises CalibrationRefused naming what there is.
        """
        wanted = _plain(name)
        for track in self.tracks.values():
            if _plain(track.name) == wanted:
                return track
            if _plain(f"{track.source}_from_{track.target}") == wanted:
                return track.inverse()
        of_body = [track for track in self.tracks.values() if _plain(track.source) == wanted]
        if len(of_body) == 1:
            return of_body[0]
        why = next((reason for key, reason in self.absent.items() if wanted in (_plain(key), _body(key))), "")
        there = ", ".join(f"{key} ({len(track)} poses)" for key, track in self.tracks.items()) or "no usable track"
        got = f"{name} has no valid pose ({why})" if why else f"no track of that name; there is {there}"
        raise CalibrationRefused(f"wanted the poses {name}; got {got}; in {self.file}")

    def only(self) -> Track:
        """Return the file's one track; raise CalibrationRefused where there are several, or none."""
        if len(self.tracks) == 1:
            return next(iter(self.tracks.values()))
        why = "; ".join(f"{key}: {reason}" for key, reason in self.absent.items())
        got = ", ".join(self.tracks) or f"none that is usable{f' ({why})' if why else ''}"
        raise CalibrationRefused(f"wanted one track of poses; got {got}; in {self.file}. Name the one that is meant.")


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(" ", "").lower()


def _body(name: str) -> str:
    return _plain(name.split("_from_")[-1])


def relative(tool: Track, reference: Track) -> Track:
    """Return `reference_from_tool` from two tracks of one file told in the same target, frame by frame.

    Raises CalibrationRefused where the tracks do not share their target, or no frame.
    """
    if tool.target != reference.target:
        raise CalibrationRefused(f"wanted two tracks in one frame; got {tool.name} and {reference.name}")
    _, rows, others = np.intersect1d(tool.frames, reference.frames, return_indices=True)
    if not len(rows):
        raise CalibrationRefused(f"wanted frames in which {tool.source} and {reference.source} are both seen; got none")
    turned = reference.rotations[others].transpose(0, 2, 1)
    moved = np.einsum("nij,nj->ni", turned, tool.translations[rows] - reference.translations[others])
    times = None if tool.times_ns is None else tool.times_ns[rows]
    return Track(reference.source, tool.source, turned @ tool.rotations[rows], moved, tool.frames[rows], times)


def without_repeats(track: Track) -> tuple[Track, int]:
    """Return the track without poses that repeat their predecessor to the last digit, and how many those were.

    A tracker that is read faster than it measures, or that has lost its tool, repeats itself: such rows are no new
    samples, and counted as such they would make every covariance too small.
    """
    if len(track) < 2:
        return track, 0
    flat = np.concatenate([track.rotations.reshape(-1, 9), track.translations], axis=1)
    fresh = np.concatenate([[True], (flat[1:] != flat[:-1]).any(axis=1)])
    return track.take(fresh), int((~fresh).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One track's rows as a file tells them, unchecked."""

    target: str
    source: str
    matrices: Array  # (n, 4, 4), translations in the file's unit
    frames: Times  # (n,)
    times_s: Array | None  # (n,) [s]
    invalid: int = 0  # rows that the file itself marks as not valid


def checked(rows: Rows, unit_m: float, where: str) -> tuple[Track, list[str]]:
    """Return a track in metres from a file's rows, and what had to be repaired or left out.

    `unit_m` [m] is the file's unit of length. Raises CalibrationRefused for left-handed or scaled axes, transposed
    matrices, mixed units, and a file in which more than one row in twenty is faulty.
    """
    name = f"{rows.target}_from_{rows.source}"
    notes = [f"{name}: {rows.invalid} rows marked as not valid, left out"] if rows.invalid else []
    keep = np.asarray(np.isfinite(rows.matrices).all(axis=(1, 2)))
    notes += _left_out(name, "with a number that is not finite", keep)
    matrices, frames = rows.matrices[keep], rows.frames[keep]
    times_s = None if rows.times_s is None else rows.times_s[keep]
    rotations, rigid, told = _rotations(matrices, frames, f"{name} of {where}")
    notes += [f"{name}: {text}" for text in told]
    translations = matrices[rigid, :3, 3] * unit_m
    frames = frames[rigid]
    _check_places(translations, frames, f"{name} of {where}")
    track = Track(rows.target, rows.source, rotations, translations, frames, None)
    if times_s is None:
        return track, notes
    order, told = _rising(times_s[rigid], f"{name} of {where}")
    stamped = track.take(order)
    times_ns = np.round(times_s[rigid][order] * 1e9).astype(np.int64)
    notes += told
    return Track(track.target, track.source, stamped.rotations, stamped.translations, stamped.frames, times_ns), notes


def _left_out(name: str, what: str, keep: NDArray[np.bool_]) -> list[str]:
    count = int((~keep).sum())
    if count and count > FAULTY_SHARE * len(keep):
        raise CalibrationRefused(f"wanted whole rows; got {count} of {len(keep)} {what}; in {name}")
    return [f"{name}: {count} rows {what}, left out"] if count else []


def _rotations(matrices: Array, frames: Times, where: str) -> tuple[Array, NDArray[np.bool_], list[str]]:
    """Return the nearest rotations of the rows that are rigid, which rows those are, and what was repaired."""
    if not len(matrices):
        return np.empty((0, 3, 3)), np.empty(0, dtype=bool), []
    below = np.abs(matrices[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(axis=1)
    if below.max() > 1e-6:
        row = int(frames[int(below.argmax())])
        beside = np.abs(matrices[:, :3, 3]).max() < 1e-6
        remedy = "The matrices are written column by column: transpose them." if beside else "Is the file whole?"
        got = matrices[int(below.argmax()), 3].tolist()
        raise CalibrationRefused(f"wanted a last row 0 0 0 1; got {got} in row {row}; in {where}. {remedy}")
    linear = matrices[:, :3, :3]
    off = np.abs(linear @ linear.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    rigid = off <= ROTATION_TOLERANCE
    if (~rigid).sum() > FAULTY_SHARE * len(rigid):
        worst = int(off.argmax())
        scale = np.cbrt(np.abs(np.linalg.det(linear[worst])))
        raise CalibrationRefused(
            f"wanted rotations, orthonormal to {ROTATION_TOLERANCE:g}; got {(~rigid).sum()} of {len(rigid)} off, "
            f"by {off[worst]:.2g} in row {int(frames[worst])} (scale {scale:.4g}); in {where}. A matrix with a scale "
            "or a shear is no pose."
        )
    left = np.linalg.det(linear[rigid]) < 0.0
    if left.any():
        row = int(frames[rigid][int(left.argmax())])
        raise CalibrationRefused(
            f"wanted right-handed axes; got a mirror image (det = -1) in {left.sum()} of {len(left)} rows, first in "
            f"row {row}; in {where}. Two axes are swapped, or one is flipped: write the file with right-handed axes."
        )
    notes = [f"{(~rigid).sum()} rows that are not rigid (worst off by {off.max():.2g}), left out"] * bool(
        (~rigid).any()
    )
    repaired = float(off[rigid].max(initial=0.0))
    if repaired > RIGID_SILENT:
        notes.append(f"rotations made orthonormal (off by up to {repaired:.1g})")
    return nearest_rotation(linear[rigid]), rigid, notes


def _check_places(translations: Array, frames: Times, where: str) -> None:
    """Refuse places [m] that tell of a wrong or a changing unit."""
    distance = np.linalg.norm(translations, axis=1)
    if len(distance) and float(np.median(distance)) > FAR_M:
        raise CalibrationRefused(
            f"wanted poses within {FAR_M:g} m of their tracker; got {np.median(distance):.0f} m at the median; in "
            f"{where}. The file's unit is not the one stated: millimetres taken for metres?"
        )
    if len(distance) < 2:
        return
    near, far = np.minimum(distance[1:], distance[:-1]), np.maximum(distance[1:], distance[:-1])
    some = near > 0.0
    cosine = np.einsum("ni,ni->n", translations[1:], translations[:-1]) / np.where(some, near * far, 1.0)
    ratio = far / np.where(some, near, 1.0)
    jumps = some & (ratio > UNITS_RATIO[0]) & (ratio < UNITS_RATIO[1]) & (cosine > UNITS_DIRECTION)
    if jumps.any():
        row = int(frames[1:][int(jumps.argmax())])
        raise CalibrationRefused(
            f"wanted one unit of length; got a place told a thousand times larger or smaller in row {row} than in the "
            f"row before; in {where}. Millimetres and metres are mixed: write the file in one unit."
        )


def _rising(times_s: Array, where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the rows with rising stamps [s], and what was left out; refuse a clock that runs backwards or stands."""
    if not len(times_s):
        return np.empty(0, dtype=np.int64), ()
    stamps = check_stamps(times_s, f"time stamps of {where}")
    if len(stamps.kept) < 0.5 * len(times_s):
        raise CalibrationRefused(
            f"wanted time stamps that rise; got {len(stamps.kept)} of {len(times_s)} that do; in {where}",
            "Is this the time of each row? Record anew with the device's own stamps.",
        )
    return stamps.kept, stamps.notes
