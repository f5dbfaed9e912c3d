"""Sequence files of PLUS and 3D Slicer (`.igs.mha`, `.igs.nrrd`, `.seq.mha`, `.seq.nrrd`): the header's frame fields.

Only the header is read: image data, compressed or in another file, is skipped. `Seq_Frame0007_ProbeToTrackerTransform`
is `tracker_from_probe` of frame 7, 4x4 row by row in millimetres; `...TransformStatus` says whether it is valid;
`Timestamp` is in seconds since the acquisition began (PLUS's convention: no Unix time).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from twinguide_calibration.reading.tables import GZIP
from twinguide_calibration.reading.tracks import PoseRecording, Rows, Track, checked, frames_of_name
from twinguide_calibration.refused import CalibrationRefused

HEADER_BYTES = 256 * 1024 * 1024  # of header: five hours at 60 Hz; beyond it the file is no sequence
LINE_BYTES = 1024 * 1024
MILLIMETRE = 1e-3
NOT_SEQUENCE = "Is this a sequence that PLUS or 3D Slicer saved, and whole?"
FRAME_FIELD = re.compile(r"Seq_Frame(\d+)_(\w+)$")


def read_sequence(path: Path) -> PoseRecording:
    """Read the poses of a MetaImage or NRRD sequence file.

    Raises CalibrationRefused for a file that is empty, cut off within its header, of another kind, or without a usable
    pose; see `tracks.checked` for what happens to bad rows.
    """
    fields = _fields(path)
    frames: dict[int, dict[str, str]] = {}
    for name, value in fields.items():
        match = FRAME_FIELD.match(name)
        if match:
            frames.setdefault(int(match[1]), {})[match[2]] = value
    if not frames:
        raise CalibrationRefused(
            f"wanted frame fields (Seq_Frame0000_...); got {len(fields)} header fields and no frame; in {path.name}. "
            "An image without tracking holds nothing to calibrate from."
        )
    notes = _count_notes(fields, frames)
    names = list(dict.fromkeys(key for frame in frames.values() for key in frame if key.endswith("Transform")))
    tracks: dict[str, Track] = {}
    absent: dict[str, str] = {}
    for name in names:
        rows, told = _rows(name, frames)
        notes += told
        key = f"{rows.target}_from_{rows.source}"
        if not len(rows.frames):
            absent[key] = f"all {rows.invalid} are marked as not valid" if rows.invalid else "no frame has a whole one"
            continue
        try:
            tracks[key], told = checked(rows, MILLIMETRE, path.name)
            notes += told
        except CalibrationRefused as error:
            absent[key] = str(error)
    if not tracks:
        why = "; ".join(absent.values()) or "no field ends in Transform"
        remedy = "Record anew with the tracker on and its tools in view."
        raise CalibrationRefused(f"wanted poses; got none that can be used ({why}); in {path.name}", remedy)
    return PoseRecording(path.name, tracks, tuple(notes), absent)


def _rows(name: str, frames: dict[int, dict[str, str]]) -> tuple[Rows, list[str]]:
    """Return one transform's rows over all frames, and what could not be read."""
    target, source = frames_of_name(name.removesuffix("Transform"))
    matrices: list[list[float]] = []
    numbers: list[int] = []
    stamps: list[float] = []
    invalid = lacking = torn = 0
    for number in sorted(frames):
        fields = frames[number]
        if name not in fields:
            lacking += 1
        elif fields.get(f"{name}Status", "OK").upper() != "OK":
            invalid += 1
        elif (values := _numbers(fields[name])) is None or len(values) != 16:
            torn += 1
        else:
            matrices.append(values)
            numbers.append(number)
            stamp = _numbers(fields.get("Timestamp", ""))
            stamps.append(stamp[0] if stamp and len(stamp) == 1 else np.nan)
    key = f"{target}_from_{source}"
    notes = [f"{key}: {lacking} frames without it"] * bool(lacking)
    notes += [f"{key}: {torn} frames in which it is not 16 numbers, left out"] * bool(torn)
    times = np.array(stamps)
    if not np.isfinite(times).any():
        times = None
        notes += [f"{key}: no time stamps"] * bool(numbers)
    shaped = np.array(matrices).reshape(-1, 4, 4)
    return Rows(target, source, shaped, np.array(numbers, dtype=np.int64), times, invalid), notes


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return None


def _count_notes(fields: dict[str, str], frames: dict[int, dict[str, str]]) -> list[str]:
    """Tell where the header promises another number of frames than it describes."""
    sizes = (fields.get("DimSize") or fields.get("sizes") or "").split()
    promised = int(sizes[-1]) if len(sizes) > 2 and sizes[-1].isdecimal() else len(frames)
    if promised == len(frames):
        return []
    return [f"the header promises {promised} frames and describes {len(frames)}"]


def _fields(path: Path) -> dict[str, str]:
    """Return a header's fields; a sequence's data, if any, is not touched."""
    try:
        with path.open("rb") as file:
            first = file.readline(LINE_BYTES)
            if first.startswith(GZIP):
                raise CalibrationRefused(f"wanted a header of text; got a compressed file; {path.name}", "Unpack it.")
            if not first.strip():
                size = path.stat().st_size
                got = f"{size} bytes, the first line blank"
                raise CalibrationRefused(f"wanted a sequence file; got {got}; in {path}", NOT_SEQUENCE)
            if first.startswith(b"NRRD"):
                return dict(_nrrd(_lines(file, first, path), path))
            return dict(_metaimage(_lines(file, first, path), path))
    except OSError as error:
        got, remedy = error.strerror or error, "Name the file itself." if path.is_dir() else "Look at its name."
        raise CalibrationRefused(f"wanted a readable file; got: {got}; {path}", remedy) from error


def _lines(file: BinaryIO, first: bytes, path: Path) -> Iterator[str]:
    """Yield the header's lines; refuse one so long that it must be data."""
    line, total = first, 0
    while line:
        if len(line) >= LINE_BYTES or b"\0" in line:
            raise CalibrationRefused(
                f"wanted a header of text lines; got bytes after {total} of it; in {path.name}", NOT_SEQUENCE
            )
        total += len(line)
        if total > HEADER_BYTES:
            raise CalibrationRefused(f"wanted a header below {HEADER_BYTES // 2**20} MB; got more; in {path.name}")
        yield line.decode("utf-8", "replace").rstrip("\r\n") + ("" if line.endswith(b"\n") else "\0")
        line = file.readline(LINE_BYTES)


def _metaimage(lines: Iterator[str], path: Path) -> Iterator[tuple[str, str]]:
    count = 0
    for count, line in enumerate(lines, start=1):
        name, equals, value = line.rstrip("\0").partition("=")
        detached = path.suffix.lower() == ".mhd" and name.strip() == "ElementDataFile" and value.strip()
        if line.endswith("\0") and not detached:  # data of the same file cannot follow; of another it need not
            break
        if not equals:
            got = f"{line[:40]!r} in line {count}"
            raise CalibrationRefused(f"wanted `name = value`; got {got}; in {path.name}", NOT_SEQUENCE)
        yield name.strip(), value.strip()
        if name.strip() == "ElementDataFile":
            return
    raise _cut_off(path, count, "a line ElementDataFile")


def _nrrd(lines: Iterator[str], path: Path) -> Iterator[tuple[str, str]]:
    count = 1
    next(lines)
    for count, line in enumerate(lines, start=2):
        if not line:
            return
        if line.endswith("\0"):
            break
        if line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon:
            got = f"{line[:40]!r} in line {count}"
            raise CalibrationRefused(f"wanted `name: value`; got {got}; in {path.name}", NOT_SEQUENCE)
        yield name.strip(), value.removeprefix("=").strip()
    raise _cut_off(path, count, "a blank line")


def _cut_off(path: Path, lines: int, end: str) -> CalibrationRefused:
    return CalibrationRefused(
        f"wanted a header that ends with {end}; got the file's end after {lines} lines; in {path.name}. "
        "The file was cut off while it was written or copied: fetch it again, or record anew."
    )
