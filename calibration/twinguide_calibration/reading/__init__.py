"""Read recordings of other systems into arrays in metres: every repair is told, what cannot be used is refused."""

from __future__ import annotations

from pathlib import Path

from twinguide_calibration.reading.points import (
    NamedPoints,
    PointPairs,
    has_pairs,
    pair_points,
    read_cloud,
    read_pairs,
    read_points,
)
from twinguide_calibration.reading.sequences import read_sequence
from twinguide_calibration.reading.tables import read_poses_csv, read_stamps
from twinguide_calibration.reading.tracks import PoseRecording, Track, fresh_rows, relative, without_repeats
from twinguide_calibration.reading.transforms import LinearTransform, read_transform
from twinguide_calibration.refused import CalibrationRefused

__all__ = [
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
    "read_transform",
    "relative",
    "without_repeats",
]


def read_poses(path: Path) -> PoseRecording:
    """Read tracks of poses from a sequence file (`.mha`, `.mhd`, `.nrrd`) or a CSV; raise CalibrationRefused."""
    readers = {".mha": read_sequence, ".mhd": read_sequence, ".nrrd": read_sequence, ".nhdr": read_sequence}
    reader = readers.get(path.suffix.lower(), read_poses_csv if path.suffix.lower() in (".csv", ".tsv") else None)
    if reader is None:
        wanted = ".igs.mha, .mhd, .nrrd, .nhdr or .csv"
        raise CalibrationRefused(f"wanted poses as {wanted}; got {path.suffix or 'no suffix'}; {path}")
    return reader(path)
