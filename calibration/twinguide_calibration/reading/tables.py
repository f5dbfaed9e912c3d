"""CSV tables whose columns say their unit: `x_mm`, `t_s`; poses and points in documented columns.

Poses: `x_mm, y_mm, z_mm` (or `_m`) with `qx, qy, qz, qw`, or with `r00 ... r22` row by row; optionally `t_s`, `t_ms` or
`t_ns`, `name` (`tracker_from_pointer`; without it `tracker_from_tool`), `valid` (1/0, OK/INVALID) and `frame`.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.poses import FAULTY_SHARE
from twinguide_calibration.reading.tracks import PoseRecording, Rows, Track, checked, told_name
from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
GZIP = b"\x1f\x8b"
UNITS_M = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}
UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
VALID = {"1", "1.0", "ok", "true", "valid", "yes"}
NOT_VALID = {"0", "0.0", "invalid", "missing", "false", "no", "lost", "out_of_view", "out_of_volume", "disabled"}
CSV_RECIPE = (
    "Write a CSV with the columns name (base_from_hand, say), frame or t_s, x_mm, y_mm, z_mm (or _m), and qx, qy, qz, "
    "qw, or r00 to r22 row by row."
)
UNIT_QUATERNION = 1e-3  # how far a quaternion's length may be from 1 to be normalised
TEXT = {"name", "label", "valid", "status"}
QUATERNION = ("qx", "qy", "qz", "qw")
MATRIX = tuple(f"r{row}{column}" for row in range(3) for column in range(3))
KNOWN = re.compile(
    rf"((source_|target_)?[xyz]|sigma)(_({'|'.join(UNITS_M)}))?|(t|device|arrival)(_({'|'.join(UNITS_S)}))?"
    rf"|frame|{'|'.join((*QUATERNION, *MATRIX))}"
)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table's numbers by column, shape (n,) each; an empty cell is NaN."""

    header: tuple[str, ...]
    numbers: dict[str, Array]
    text: dict[str, list[str]]
    notes: tuple[str, ...]

    def has_length(self, name: str) -> bool:
        """Tell whether there is a column `name_<unit>`."""
        return any(f"{name}_{unit}" in self.numbers for unit in UNITS_M)

    def lengths(self, name: str, where: str) -> Array:
        """Return a column in metres, shape (n,); raise CalibrationRefused without unit, or with two."""
        found = [unit for unit in UNITS_M if f"{name}_{unit}" in self.numbers]
        if len(found) == 1:
            return self.numbers[f"{name}_{found[0]}"] * UNITS_M[found[0]]
        remedy = "The unit belongs into the column's name; it is never guessed."
        if {"l", "p", "s"} <= set(self.header) or {"r", "a", "s"} <= set(self.header):
            remedy = "This is a table that 3D Slicer exports: save the list as .mrk.json."
        got = ", ".join(self.header)
        raise CalibrationRefused(f"wanted one column {name}_mm or {name}_m; got {got}; in {where}", remedy)

    def times(self, where: str, name: str = "t") -> Array | None:
        """Return the time stamps [s], shape (n,), of a column `name_<unit>`, or None where there is none."""
        found = [unit for unit in UNITS_S if f"{name}_{unit}" in self.numbers]
        if len(found) > 1:
            columns = ", ".join(f"{name}_{unit}" for unit in found)
            raise CalibrationRefused(f"wanted one column of time; got {columns}; in {where}")
        if not found and name in self.numbers:
            raise CalibrationRefused(f"wanted {name}_s, {name}_ms, {name}_us or {name}_ns; got {name}; in {where}")
        return self.numbers[f"{name}_{found[0]}"] * UNITS_S[found[0]] if found else None


def columns_of(path: Path) -> tuple[str, ...]:
    """Return a CSV's column names, in lower case; `time_` and `timestamp_` are `t_`."""
    lines = lines_of(path)
    words = next(csv.reader(lines[:1], dialect=dialect_of(lines[0])))
    return tuple(re.sub(r"^time(stamp)?(?=_|$)", "t", word.strip().lower()) for word in words)


def read_table(path: Path) -> Table:
    """Read a CSV with a header; commas, semicolons or tabs; `#` begins a comment.

    Raises CalibrationRefused for a file without rows, a column named twice, rows of another length, and cells that are
    no numbers. A column of words that nobody asks for is left out and told.
    """
    lines = lines_of(path)
    header = columns_of(path)
    if 2 * sum(bool(re.fullmatch(r"[-+.\de]+|nan", name)) for name in header) > len(header):
        raise CalibrationRefused(
            f"wanted a header that names the columns; got numbers; in {path.name}", "Such as t_s,x_mm,y_mm,z_mm,..."
        )
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise CalibrationRefused(f"wanted columns with names of their own; got {sorted(twice)} twice; in {path.name}")
    rows = list(csv.reader(lines[1:], dialect=dialect_of(lines[0])))
    if not rows:
        raise CalibrationRefused(f"wanted rows below the header; got none; in {path.name}", "Was it cut off?")
    short = [i for i, row in enumerate(rows) if len(row) != len(header)]
    notes: tuple[str, ...] = ()
    if short == [len(rows) - 1] and len(rows) > 1:
        rows, notes = rows[:-1], (f"{path.name}: its last row was cut off, left out",)
    elif short:
        got = f"{len(rows[short[0]])} in row {short[0] + 1} of {len(rows)}"
        remedy = "Write decimal points, not commas." if len(rows[short[0]]) > len(header) else "Was it cut off?"
        raise CalibrationRefused(f"wanted {len(header)} cells a row; got {got}; in {path.name}", remedy)
    numbers: dict[str, Array] = {}
    text: dict[str, list[str]] = {}
    foreign: list[str] = []
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        if name in TEXT:
            text[name] = [cell.strip() for cell in cells]
        elif KNOWN.fullmatch(name):
            numbers[name] = _numbers(name, cells, path.name)
        else:
            foreign.append(name)
    if foreign:
        notes = (*notes, f"{path.name}: columns that nothing is known of, left out: {', '.join(foreign)}")
    return Table(header, numbers, text, notes)


def read_stamps(path: Path) -> tuple[Array, Array, tuple[str, ...]] | None:
    """Return a device's stamps [s] and the host's times of their arrival [s], shape (n,) each, and what was left out.

    Of a CSV with the columns `device_<unit>` and `arrival_<unit>` (`_s`, `_ms`, `_us`, `_ns`); None where it has none.
    Raises CalibrationRefused as `read_table`.
    """
    columns = {column.split("_")[0] for column in columns_of(path)}
    if not {"device", "arrival"} <= columns:
        return None
    table = read_table(path)
    device, arrival = table.times(path.name, "device"), table.times(path.name, "arrival")
    if device is None or arrival is None:
        raise CalibrationRefused(f"wanted device_ms and arrival_ms (or _s, _us, _ns); got {', '.join(table.header)}")
    return device, arrival, table.notes


def read_poses_csv(path: Path) -> PoseRecording:
    """Read tracks of poses from a CSV; raise CalibrationRefused as `read_table` and `tracks.checked` do."""
    table = read_table(path)
    places = np.stack([table.lengths(axis, path.name) for axis in "xyz"], axis=1)
    matrices = np.tile(np.eye(4), (len(places), 1, 1))
    matrices[:, :3, :3] = _turns(table, path.name)
    matrices[:, :3, 3] = places
    names = np.array([told_name(name) for name in table.text.get("name") or ["tracker_from_tool"] * len(places)])
    valid = _valid(table, len(places), path.name)
    times = table.times(path.name)
    tracks: dict[str, Track] = {}
    absent: dict[str, str] = {}
    notes = [*table.notes]
    for name in dict.fromkeys(names.tolist()):
        target, source = _frames_of(name, path.name)
        mine = names == name
        rows = mine & valid
        if not rows.any():
            absent[name] = f"all {mine.sum()} are marked as not valid"
            continue
        frames = _frames(table, times, names, rows, path.name)
        stamps = None if times is None else times[rows]
        invalid, numbers = int((mine & ~valid).sum()), np.flatnonzero(rows) + 1
        told_rows = Rows(target, source, matrices[rows], frames, stamps, invalid, numbers)
        track, told = checked(told_rows, 1.0, path.name)
        tracks[name] = track
        notes += told
    if not tracks:
        raise CalibrationRefused(f"wanted poses; got none that is valid ({'; '.join(absent.values())}); in {path.name}")
    return PoseRecording(path.name, tracks, tuple(notes), absent)


def _valid(table: Table, count: int, where: str) -> NDArray[np.bool_]:
    """Return which rows the file marks as valid, shape (n,): all, where it marks none; refuse a word not known."""
    told = table.text.get("valid", table.text.get("status", ["ok"] * count))
    words = [word.lower().replace(" ", "_") for word in told]
    for row, word in enumerate(words):
        if word not in VALID | NOT_VALID:
            wanted = f"{', '.join(sorted(VALID))}, or {', '.join(sorted(NOT_VALID))}"
            raise CalibrationRefused(
                f"wanted rows marked as {wanted}; got {told[row]!r} in row {row + 1}; in {where}", "Write 1 or 0."
            )
    return np.array([word in VALID for word in words], dtype=np.bool_)


def _frames_of(name: str, where: str) -> tuple[str, str]:
    target, middle, source = name.partition("_from_")
    if not middle or not target or not source:
        raise CalibrationRefused(f"wanted names like tracker_from_pointer; got {name!r}; in {where}")
    return target, source


def _frames(
    table: Table, times: Array | None, names: NDArray[np.str_], rows: NDArray[np.bool_], where: str
) -> NDArray[np.int64]:
    """Return what pairs rows of several tracks: the column `frame`, else equal stamps, else the row's number."""
    if "frame" in table.numbers:
        numbers = table.numbers["frame"][rows]
        if not np.isfinite(numbers).all():
            raise CalibrationRefused(f"wanted a number of the frame in each row; got an empty cell; in {where}")
        return numbers.astype(np.int64)
    if times is not None and np.isfinite(times).all() and len(set(names.tolist())) > 1:
        return np.unique(times, return_inverse=True)[1].astype(np.int64)[rows]
    return np.flatnonzero(rows).astype(np.int64)


def _turns(table: Table, where: str) -> Array:
    """Return rotations, shape (n, 3, 3), NaN where a quaternion has no unit length."""
    if set(QUATERNION) <= table.numbers.keys():
        return turns_of(np.stack([table.numbers[name] for name in QUATERNION], axis=1), where)
    if set(MATRIX) <= table.numbers.keys():
        return np.stack([table.numbers[name] for name in MATRIX], axis=1).reshape(-1, 3, 3)
    raise CalibrationRefused(
        f"wanted the columns qx, qy, qz, qw, or r00 to r22; got {', '.join(table.header)}; in {where}", CSV_RECIPE
    )


def turns_of(quaternions: Array, where: str) -> Array:
    """Return the rotations, shape (n, 3, 3), of quaternions xyzw, shape (n, 4): NaN of one that has no unit length.

    Raises CalibrationRefused for many of those.
    """
    length = np.linalg.norm(quaternions, axis=1)
    off = np.abs(length - 1.0) > UNIT_QUATERNION
    if off.sum() > FAULTY_SHARE * len(off):
        got = f"{off.sum()} of {len(off)} that are off, the first of length {length[off][0]:.4g}"
        raise CalibrationRefused(f"wanted unit quaternions qx, qy, qz, qw; got {got}; in {where}", "Norm them.")
    x, y, z, w = np.where(off[:, None], np.nan, quaternions / np.where(off, 1.0, length)[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def text_of(path: Path) -> str:
    """Return the text of a UTF-8 file, its line ends as they are; raise CalibrationRefused for what is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        got, remedy = error.strerror or str(error), "Name the file itself." if path.is_dir() else "Look at its name."
        raise CalibrationRefused(f"wanted a readable file; got: {got}; {path}", remedy) from error
    if not data.strip():
        raise CalibrationRefused(f"wanted a file of text; got an empty file; {path}", "Save it anew.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = "Unpack it." if data.startswith(GZIP) else "Save it as UTF-8."
        got = "a compressed file" if data.startswith(GZIP) else f"the byte {data[error.start]:#x} at {error.start}"
        raise CalibrationRefused(f"wanted a file of text in UTF-8; got {got}; {path}", remedy) from error


def lines_of(path: Path) -> list[str]:
    """Return a text's lines that are neither blank nor a comment; raise CalibrationRefused where there is none."""
    lines = [line for line in text_of(path).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise CalibrationRefused(f"wanted a header and rows; got comments alone; in {path.name}", "Save it anew.")
    return lines


def dialect_of(header: str) -> type[csv.Dialect]:
    """Return how a table with such a header parts its cells: by commas, semicolons or tabs."""

    class Dialect(csv.excel):
        delimiter = max(",;\t", key=header.count)

    return Dialect


def _numbers(name: str, cells: tuple[str, ...], where: str) -> Array:
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            values[row] = float(cell) if cell.strip() else np.nan
        except ValueError:
            got = f"{cell!r} in column {name}, row {row + 1}"
            remedy = "Write decimal points, not commas." if "," in cell else "Write a number, or leave the cell empty."
            raise CalibrationRefused(f"wanted a number; got {got}; in {where}", remedy) from None
    return values
