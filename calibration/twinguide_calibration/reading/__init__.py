"""Read recordings of other systems into arrays in metres: every repair is told, what cannot be used is refused."""

from __future__ import annotations

from pathlib import Path

from twinguide_calibration.reading.logs import read_log
from twinguide_calibration.reading.points import (
    By,
    NamedPoints,
    PointPairs,
    has_pairs,
    pair_points,
    read_cloud,
    read_pairs,
    read_points,
)
from twinguide_calibration.reading.sequences import read_sequence
from twinguide_calibration.reading.storage import read_storage
from twinguide_calibration.reading.tables import CSV_RECIPE, read_poses_csv, read_stamps
from twinguide_calibration.reading.tracks import PoseRecording, Track, fresh_rows, relative, without_repeats
from twinguide_calibration.reading.transforms import LinearTransform, read_transform
from twinguide_calibration.refused import CalibrationRefused

__all__ = [
    "By",
    "LinearTransform",
    "NamedPoints",
    "PointPairs",
    "PoseRecording",
    "Track",
    "fresh_rows",
    "has_pairs",
    "pair_points",
    "read_cloud",
    "read_pairs",
    "read_points",
    "read_poses",
    "read_sequence",
    "read_stamps",
    "read_storage",
    "read_transform",
    "relative",
    "without_repeats",
]


def read_poses(path: Path) -> PoseRecording:
    """Read tracks of poses from a sequence (`.mha`, `.mhd`, `.nrrd`), a CSV, a log or a `.yml` of OpenCV's.

    Raises CalibrationRefused for what cannot be used.
    """
    kinds = (
        (read_sequence, (".mha", ".mhd", ".nrrd", ".nhdr")),
        (_read_text, (".csv", ".tsv", ".txt", ".tum")),
        (read_storage, (".yml", ".yaml")),
    )
    for reader, suffixes in kinds:
        if path.suffix.lower() in suffixes:
            return reader(path)
    wanted = f"{', '.join(suffix for _, suffixes in kinds for suffix in suffixes)}, or a session's folder"
    raise CalibrationRefused(f"wanted poses as {wanted}; got {path.suffix or 'no suffix'}; {path}", CSV_RECIPE)


def _read_text(path: Path) -> PoseRecording:
    return read_log(path) or read_poses_csv(path)
