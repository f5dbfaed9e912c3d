"""Poses as recorded: tracks of rigid bodies, checked on entry, every repair told.

A file's rows become a `Track` here and nowhere else, whatever the format, so that bad input meets one set of rules,
those of `check_poses`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.poses import NEAR_M, TURNS, check_poses, check_stamps
from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
Times = NDArray[np.int64]
NAMED = re.compile(r"(.+?)To([A-Z0-9].*)$")
LATEST_S = 9e9  # that nanoseconds of 64 bits hold; of Unix time the year 2255
MANY = 10  # poses: so many that turn were not all recorded at the tracker's origin


def frames_of_name(name: str) -> tuple[str, str]:
    """Return (target, source) of a transform's name: `ProbeToTracker` is `tracker_from_probe`.

    A name without `To` is a transform to its parent, as 3D Slicer keeps it: `parent_from_name`.
    """
    match = NAMED.match(name)
    source, target = match.groups() if match else (name, "Parent")
    return _snake(target), _snake(source)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One body's poses `target_from_source`, in the order of their recording.

    `frames` numbers the rows of the file, so that tracks of one file can be paired; `times_ns` is None where the file
    has no time stamps; `told` is how many poses the file tells, those left out too.
    """

    target: str
    source: str
    rotations: Array  # (n, 3, 3)
    translations: Array  # (n, 3) [m]
    frames: Times  # (n,)
    times_ns: Times | None  # (n,), rising
    told: int = 0

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
        return replace(
            self,
            rotations=self.rotations[rows],
            translations=self.translations[rows],
            frames=self.frames[rows],
            times_ns=times,
        )

    def inverse(self) -> Track:
        """Return the poses `source_from_target`."""
        turned = self.rotations.transpose(0, 2, 1)
        moved = -np.einsum("nij,nj->ni", turned, self.translations)
        return replace(self, target=self.source, source=self.target, rotations=turned, translations=moved)


@dataclass(frozen=True, slots=True, eq=False)
class PoseRecording:
    """What a file holds: its usable tracks by name, what was repaired or left out, and why a track is absent."""

    file: str
    tracks: Mapping[str, Track]
    notes: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict[str, str])

    def track(self, name: str) -> Track:
        """Return a track by `a_from_b`, by its inverse's name, or by its body's name where only one track has it.

        PLUS's spelling, `BToA` or `BToATransform`, does as well. Raises CalibrationRefused naming what there is.
        """
        wanted = _plain(told_name(name))
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


def told_name(name: str) -> str:
    """Return a track's name as it is told here: of PLUS's `StylusToTrackerTransform`, `tracker_from_stylus`."""
    if "_from_" in name:
        return name
    bare = name.removesuffix("Transform")
    return "_from_".join(frames_of_name(bare)) if NAMED.match(bare) else bare


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


def without_repeats(track: Track, *, returns: bool = False) -> tuple[Track, int]:
    """Return the track without poses that repeat an earlier one to the last digit, and how many those were.

    A tracker that is read faster than it measures, or that has lost its tool, repeats itself, and a recording may be
    pasted twice: such rows are no new samples, and counted as such they would make every covariance too small. With
    `returns` only the pose before counts: a robot comes back to what its encoders round to the same pose, and a stream
    to be interpolated needs the time of each.
    """
    rows = np.concatenate([track.rotations.reshape(-1, 9), track.translations], axis=1)
    fresh = np.append(True, (rows[1:] != rows[:-1]).any(axis=1)) if returns else fresh_rows(rows)
    return track.take(fresh), int((~fresh).sum())


def fresh_rows(rows: Array) -> NDArray[np.bool_]:
    """Return which of the rows (n, k) repeat no earlier one to the last digit."""
    fresh = np.zeros(len(rows), dtype=np.bool_)
    fresh[np.unique(rows, axis=0, return_index=True)[1]] = True
    return fresh


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One track's rows as a file tells them, unchecked."""

    target: str
    source: str
    matrices: Array  # (n, 4, 4), translations in the file's unit
    frames: Times  # (n,)
    times_s: Array | None  # (n,) [s]
    invalid: int = 0  # rows that the file itself marks as not valid
    numbers: Times | None = None  # (n,), what refusals call the rows, where it is not the frames


def checked(rows: Rows, unit_m: float, where: str) -> tuple[Track, list[str]]:
    """Return a track in metres from a file's rows, and what had to be repaired or left out.

    `unit_m` [m] is the file's unit of length. Raises CalibrationRefused as `check_poses` and `check_stamps` do.
    """
    name = f"{rows.target}_from_{rows.source}"
    notes = [f"{name}: {rows.invalid} rows marked as not valid, left out"] if rows.invalid else []
    matrices = rows.matrices.copy()
    matrices[:, :3, 3] *= unit_m
    numbers = rows.frames if rows.numbers is None else rows.numbers
    poses = check_poses(matrices, f"{name} of {where}", 1, numbers)
    notes += poses.notes
    rotations, translations = poses.matrices[:, :3, :3], poses.matrices[:, :3, 3]
    told = len(rows.matrices) + rows.invalid
    farthest, turned = float(np.abs(translations).max()), float(np.ptp(rotations, axis=0).max())
    if farthest < NEAR_M and turned > TURNS and len(rotations) >= MANY:
        raise CalibrationRefused(
            f"{name} of {where}: wanted a body that moves within its tracker's reach; got all places within "
            f"{1e3 * farthest:.2g} mm of its origin",
            "The unit is not the one stated: metres taken for millimetres?",
        )
    track = Track(rows.target, rows.source, rotations, translations, rows.frames[poses.kept], None, told)
    if rows.times_s is None:
        return track, notes
    times_s = rows.times_s[poses.kept]
    order, repairs = _rising(times_s, f"{name} of {where}")
    times_ns = np.round(times_s[order] * 1e9).astype(np.int64)
    return replace(track.take(order), times_ns=times_ns), [*notes, *repairs]


def _rising(times_s: Array, where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the rows with rising stamps [s], and what was left out; refuse a clock that runs backwards or stands."""
    if not len(times_s):
        return np.empty(0, dtype=np.int64), ()
    finite = times_s[np.isfinite(times_s)]
    middle = float(np.median(np.abs(finite))) if len(finite) else 0.0
    if middle > LATEST_S:
        raise CalibrationRefused(
            f"wanted time stamps within {LATEST_S:g} s; got {middle:g} s in the middle; in {where}",
            "The unit is not the one stated: milliseconds or nanoseconds taken for seconds?",
        )
    stamps = check_stamps(np.where(np.abs(times_s) <= LATEST_S, times_s, np.nan), f"time stamps of {where}")
    if len(stamps.kept) < 0.5 * len(times_s):
        raise CalibrationRefused(
            f"wanted time stamps that rise; got {len(stamps.kept)} of {len(times_s)} that do; in {where}",
            "Is this the time of each row? Record anew with the device's own stamps.",
        )
    return stamps.kept, stamps.notes
