"""Poses as others log them, in columns that name no unit because the format states it.

TUM trajectories (`evo`, ROS): `t x y z qx qy qz qw` a line, without a header, in seconds and metres. EuRoC's ground
truth: nanoseconds and metres, its columns told in a comment. Tables of NDI's trackers: `Frame ... State Q0 Qx Qy Qz Tx
Ty Tz Error` for each tool, in millimetres.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.reading.tables import dialect_of, lines_of, text_of, turns_of
from twinguide_calibration.reading.tracks import PoseRecording, Rows, Track, checked
from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
COLUMNS = 8  # of a trajectory: time, place, quaternion; speeds may follow
EUROC = re.compile(r"#\s*timestamp[^\n]*\bp_rs_r_x\b[^\n]*\bq_rs_w\b")  # `#timestamp [ns],` of Vicon and of TUM-VI
NDI = ("q0", "qx", "qy", "qz", "tx", "ty", "tz", "error")
SEEN = ("ok", "enabled")  # as NDI's programs and its sample call one that is tracked
METRE, MILLIMETRE = 1.0, 1e-3


def read_log(path: Path) -> PoseRecording | None:
    """Read tracks of poses, or return None for a file that is no log; raise CalibrationRefused as `tracks.checked`."""
    lines, where = lines_of(path), path.name
    opening = text_of(path).splitlines()[0]
    if EUROC.match(opening.lower()):
        values = _table([line.split(",") for line in lines], where)
        values = np.column_stack([values[:, 0] * 1e-9, values[:, 1:4], values[:, 5:], values[:, 4]])
        return _trajectory(values, where, f"{where}: read as EuRoC's ground truth, ns, m, and quaternions w x y z")
    if len(first := lines[0].split()) == COLUMNS and _floats(first) is not None:
        values = _table([line.split() for line in lines], where)
        note = f"{where} has no header: read as a TUM trajectory, s, m, and quaternions x y z w"
        return _trajectory(values, where, note)
    if opening.lower().startswith("#tools"):  # a header, as NDI's own sample writes it
        lines = [opening, *lines]
    cells = list(csv.reader(lines, dialect=dialect_of(lines[0])))
    header = [word.strip().lower().removesuffix("#") for word in cells[0]]
    starts = [at for at, _ in enumerate(header) if tuple(header[at : at + len(NDI)]) == NDI]
    return _tools(cells[1:], header, starts, where) if starts else None


def _table(cells: list[list[str]], where: str) -> Array:
    """Return the first numbers of each row, shape (n, 8): time, place and quaternion."""
    numbers = [_floats(row[:COLUMNS]) or [] for row in cells]
    short = [row for row, values in enumerate(numbers, start=1) if len(values) != COLUMNS]
    if short:
        got = f"{' '.join(cells[short[0] - 1])[:40]!r} in row {short[0]}"
        raise CalibrationRefused(f"wanted {COLUMNS} numbers a row; got {got}; in {where}", "Was it cut off?")
    return np.array(numbers)


def _trajectory(values: Array, where: str, note: str) -> PoseRecording:
    """Return the one track of rows (n, 8): t [s], place [m], quaternion xyzw."""
    rows = Rows("tracker", "tool", _poses(values[:, 1:4], values[:, 4:], where), np.arange(len(values)), values[:, 0])
    track, told = checked(rows, METRE, where)
    return PoseRecording(where, {track.name: track}, (note, *told))


def _tools(cells: list[list[str]], header: list[str], starts: list[int], where: str) -> PoseRecording:
    tracks: dict[str, Track] = {}
    absent: dict[str, str] = {}
    notes = [f"{where}: a table of NDI's, in millimetres"]
    for number, start in enumerate(starts, start=1):
        name = "tool" if len(starts) == 1 else f"tool{number}"
        told = [_floats(row[start : start + len(NDI)]) if _seen(row, header, start) else None for row in cells]
        lost = [row for row, numbers in enumerate(told, 1) if numbers is None and _seen(cells[row - 1], header, start)]
        if lost:
            got = " ".join(cells[lost[0] - 1][start : start + len(NDI)])
            raise CalibrationRefused(
                f"wanted numbers; got {got!r} in row {lost[0]}; in {where}", "Write decimal points, not commas."
            )
        kept = np.array([row for row, numbers in enumerate(told) if numbers is not None], dtype=np.int64)
        if not len(kept):
            absent[f"tracker_from_{name}"] = f"none of {len(cells)} is told as OK"
            continue
        values = np.array([numbers for numbers in told if numbers is not None])
        poses = _poses(values[:, 4:7], np.roll(values[:, :4], -1, axis=1), where)
        track, repairs = checked(Rows("tracker", name, poses, kept, None, len(cells) - len(kept)), MILLIMETRE, where)
        tracks[track.name] = track
        notes += repairs
    if not tracks:
        remedy = "Record with the tool in view."
        raise CalibrationRefused(f"wanted poses; got none that is told as OK; in {where}", remedy)
    return PoseRecording(where, tracks, tuple(notes), absent)


def _seen(row: list[str], header: list[str], start: int) -> bool:
    """Tell whether a tool, whose numbers begin in a column, was seen: its row is whole and says nothing but that."""
    states = [at for at in range(start) if header[at] in ("state", "transformstatus")]
    return len(row) >= start + len(NDI) and (not states or row[states[-1]].strip().lower() in SEEN)


def _poses(places: Array, quaternions: Array, where: str) -> Array:
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = turns_of(quaternions, where), places
    return poses


def _floats(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None
