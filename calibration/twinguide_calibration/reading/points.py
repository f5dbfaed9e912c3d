"""Named points: 3D Slicer's markups (`.mrk.json`, `.fcsv`) and CSV, in metres, patients in LPS."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.reading.tables import Table, columns_of, read_table, text_of
from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
MARKUP_UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "um": 1e-6}
PLACED = "2"  # of 0 undefined, 1 preview, 2 defined, 3 missing: vtkMRMLMarkupsNode's position status
NOT_PLACED, NOT_SELECTED = "not placed", "not selected"
By = Literal["name", "order"]


@dataclass(frozen=True, slots=True, eq=False)
class NamedPoints:
    """Points [m], shape (n, 3), by name; `covariances` [m2], shape (n, 3, 3), where the file tells them.

    `shared` [m], shape (n, 3, k), are the errors in them that all points have in common, as `register_points` has them.
    `left_out` are the rows of the file's list that are not among them: points not placed, or not selected.
    """

    file: str
    names: tuple[str, ...]
    points: Array
    covariances: Array | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    shared: Array | None = None

    @property
    def length(self) -> int:
        """Return how many rows the file's list has."""
        return len(self.points) + len(self.left_out)

    @property
    def rows(self) -> list[int]:
        """Return the row of each point in the file's list."""
        return [row for row in range(self.length) if row not in self.left_out]


@dataclass(frozen=True, slots=True, eq=False)
class PointPairs:
    """Corresponding points [m], shape (n, 3) each; `covariances` [m2], shape (n, 3, 3), of target minus source.

    `shared` [m], shape (n, 3, k), are the errors in them that all target points have in common.
    """

    names: tuple[str, ...]
    source: Array
    target: Array
    covariances: Array | None
    notes: tuple[str, ...]
    shared: Array | None = None


def read_points(path: Path, by: By = "name") -> NamedPoints:
    """Read named points from `.mrk.json`, `.fcsv` or `.csv`; told by `order`, they need no names of their own.

    Slicer's files say themselves whether they are LPS or RAS, and in which unit; a CSV's columns are `name, x_mm, y_mm,
    z_mm` (or `_m`), optionally `sigma_mm`, and its points stay in the frame that it was written in. Points of Slicer's
    that are not placed are left out, as are those not selected, which it hands to none of its command-line modules
    either. Raises CalibrationRefused for files that are empty or cut off, points that are not finite, and names that
    come twice.
    """
    kinds = {".json": _markups, ".fcsv": _fcsv, ".csv": _csv, ".txt": _csv, ".tsv": _csv}
    reader = kinds.get(path.suffix.lower())
    if reader is None:
        raise CalibrationRefused(
            f"wanted points as .mrk.json, .fcsv or .csv; got {path.suffix or 'no suffix'}; {path}",
            "Save them from 3D Slicer as .mrk.json, or write a CSV with the columns name, x_mm, y_mm, z_mm.",
        )
    points = reader(path)
    refuse_not_finite(points.points, points.names, path.name)
    twice = sorted({name for name in points.names if points.names.count(name) > 1})
    if by == "order" and (twice or not points.names):
        return replace(points, names=tuple(str(row + 1) for row in points.rows))
    if twice or not points.names:
        got = f"{', '.join(map(repr, twice[:5]))} more than once" if twice else "no column `name`"
        raise CalibrationRefused(
            f"wanted a name for each point; got {got}; in {path.name}",
            "Points are paired by name: name them, or pair two lists by their order (--by order).",
        )
    return points


def refuse_not_finite(points: Array, names: Sequence[str], where: str) -> None:
    """Raise CalibrationRefused, naming them, where points (n, 3) are not finite; without names it tells their rows."""
    rows = np.flatnonzero(~np.isfinite(points).all(axis=1)).tolist()
    if rows:
        told = ", ".join(names[row] if names else f"row {row + 1}" for row in rows[:5])
        raise CalibrationRefused(
            f"wanted finite positions; got NaN, infinity or an empty cell at {told}; in {where}", "Remove or mend it."
        )


def read_cloud(path: Path) -> tuple[Array, tuple[str, ...]]:
    """Return the places [m], shape (n, 3), of a file of points whose names do not matter, and what was left out.

    Raises CalibrationRefused as `read_points`.
    """
    if path.suffix.lower() in (".json", ".fcsv"):
        points = (_markups if path.suffix.lower() == ".json" else _fcsv)(path)
        return points.points, points.notes
    table = read_table(path)
    return _columns(table, ["x", "y", "z"], path.name), table.notes


def pair_points(source: NamedPoints, target: NamedPoints, by: By = "name") -> PointPairs:
    """Pair two sets by name, or row by row by `order`, as Slicer's Fiducial Registration Wizard does.

    Raises CalibrationRefused where fewer than three are shared, and by order where the lists are not as long.
    """
    keys: list[Sequence[object]] = [side.rows if by == "order" else side.names for side in (source, target)]
    if by == "order" and source.length != target.length:
        counts = " and ".join(f"{side.length} in {side.file}" for side in (source, target))
        raise CalibrationRefused(
            f"wanted lists of as many points, to pair them by order; got {counts}",
            "Put each point in its partner's row, or give both the same name and pair them by name.",
        )
    shared = [key for key in keys[0] if key in keys[1]]
    if len(shared) < 3:
        raise CalibrationRefused(
            f"wanted at least 3 points in both {source.file} and {target.file}, by {by}; got {len(shared)}: "
            f"{source.file} has {', '.join(source.names[:8])}; {target.file} has {', '.join(target.names[:8])}",
            "Give corresponding points the same name, or pair lists in the same order with --by order."
            if by == "name"
            else "Place and select more of them in both.",
        )
    rows, others = ([side.index(key) for key in shared] for side in keys)
    names = tuple(source.names[row] for row in rows)
    both = zip((*source.names, *target.names), (*keys[0], *keys[1]), strict=True)
    lonely = [name for name, key in both if key not in shared]
    notes = [
        *source.notes,
        *target.notes,
        *(_ordered(names, [target.names[i] for i in others]) if by == "order" else ()),
    ]
    notes += [f"without a partner, left out: {', '.join(lonely)}"] if lonely else []
    if source.shared is not None:
        notes.append(f"what the points of {source.file} share is taken as each one's own: give them as the target")
    parts = [(source.covariances, rows), (target.covariances, others)]
    known = [covariances[picked] for covariances, picked in parts if covariances is not None]
    covariances = np.sum(known, axis=0) if known else None
    common = None if target.shared is None else target.shared[others]
    return PointPairs(names, source.points[rows], target.points[others], covariances, tuple(notes), common)


def _ordered(names: Sequence[str], partners: Sequence[str]) -> tuple[str, ...]:
    """Return which pairs the order makes, and whose names, which both lists have, say otherwise."""
    pairs = [name if name == other else f"{name} with {other}" for name, other in zip(names, partners, strict=True)]
    astray = [name for name, partner in zip(names, partners, strict=True) if name != partner and name in partners]
    doubt = f"the names of {', '.join(astray)} pair them otherwise: is the order right?"
    return (f"paired by order: {', '.join(pairs)}", *((doubt,) if astray else ()))


def read_pairs(path: Path) -> PointPairs:
    """Read pairs from one CSV with the columns `source_x_mm ... target_z_mm`, optionally `name` and `sigma_mm`."""
    table = read_table(path)
    source, target = (_columns(table, [f"{side}_{axis}" for axis in "xyz"], path.name) for side in ("source", "target"))
    names = table.text.get("name") or [str(i + 1) for i in range(len(source))]
    refuse_not_finite(np.concatenate([source, target], axis=1), names, path.name)
    return PointPairs(tuple(names), source, target, _covariances(table, path.name), table.notes)


def has_pairs(path: Path) -> bool:
    """Tell whether a CSV holds pairs (`source_x...` and `target_x...`)."""
    if path.suffix.lower() not in (".csv", ".txt", ".tsv"):
        return False
    columns = columns_of(path)
    return any(c.startswith("source_x") for c in columns) and any(c.startswith("target_x") for c in columns)


def _columns(table: Table, names: list[str], where: str) -> Array:
    return np.stack([table.lengths(name, where) for name in names], axis=1)


def _covariances(table: Table, where: str) -> Array | None:
    if not table.has_length("sigma"):
        return None
    sigma = table.lengths("sigma", where)
    if (sigma <= 0.0).any():
        raise CalibrationRefused(f"wanted a positive sigma; got {sigma.min() * 1e3:g} mm; in {where}")
    return np.eye(3) * sigma[:, None, None] ** 2


def _csv(path: Path) -> NamedPoints:
    table = read_table(path)
    points = _columns(table, ["x", "y", "z"], path.name)
    names = table.text.get("name") or table.text.get("label") or ()
    return NamedPoints(path.name, tuple(names), points, _covariances(table, path.name), table.notes)


def _markups(path: Path) -> NamedPoints:
    try:
        tables: Any = json.loads(text_of(path))
    except (json.JSONDecodeError, RecursionError) as error:
        remedy = "Was the file cut off? Save it anew."
        raise CalibrationRefused(f"wanted JSON; got {error}; in {path.name}", remedy) from error
    try:
        return _markup(tables["markups"][0], path.name)
    except CalibrationRefused:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        got, remedy = f"{type(error).__name__} {error}", "Save the point list anew from 3D Slicer."
        raise CalibrationRefused(f"wanted markups with controlPoints; got {got}; in {path.name}", remedy) from error


def _markup(markup: dict[str, Any], where: str) -> NamedPoints:
    axes = str(markup.get("coordinateSystem", "LPS")).upper()
    flip = _lps_from(axes, where)
    unit = _markup_unit(markup.get("coordinateUnits", "mm"), where)
    marks: list[tuple[str, list[float], str]] = []
    for row, point in enumerate(cast("Iterable[dict[str, Any]]", markup["controlPoints"]), start=1):
        name = str(point.get("label") or point.get("id") or row)
        if point.get("positionStatus", "defined") != "defined" or point.get("position") is None:
            marks.append((name, [], NOT_PLACED))
            continue
        place = cast("list[Any]", point["position"])
        if len(place) != 3 or not all(isinstance(value, int | float) for value in place):
            raise CalibrationRefused(f"wanted three numbers at {name}; got {place}; in {where}")
        marks.append((name, [float(value) for value in place], "" if point.get("selected", True) else NOT_SELECTED))
    return _used(where, marks, flip * unit)


def _used(
    where: str, marks: list[tuple[str, list[float], str]], scale: Array, notes: tuple[str, ...] = ()
) -> NamedPoints:
    """Return the points of Slicer's list that can be used; `marks` are name, place, and why not, where it cannot.

    `scale` [m], shape (3,), is the file's unit along each axis.
    """
    used = [(name, place) for name, place, why in marks if not why]
    for reason in (NOT_PLACED, NOT_SELECTED):
        names = ", ".join(name for name, _, why in marks if why == reason)
        notes += (f"{reason}, left out: {names}",) if names else ()
    if not used:
        got = f"none ({'; '.join(notes)})" if marks else "none"
        raise CalibrationRefused(
            f"wanted points; got {got}; in {where}", "Place and select them in 3D Slicer, and save the list anew."
        )
    points = np.array([place for _, place in used]) * scale
    left_out = tuple(row for row, (_, _, why) in enumerate(marks) if why)
    return NamedPoints(where, tuple(name for name, _ in used), points, None, notes, left_out)


def _markup_unit(stated: object, where: str) -> float:
    """Return the unit [m]: newer files state a coded entry, `[mm]` or a list of its three words."""
    words = (
        [str(word).strip("[]") for word in cast("list[object]", stated)] if isinstance(stated, list) else [str(stated)]
    )
    for word in words:
        if word in MARKUP_UNITS:
            return MARKUP_UNITS[word]
    raise CalibrationRefused(f"wanted coordinateUnits of {', '.join(MARKUP_UNITS)}; got {stated!r}; in {where}")


def _lps_from(axes: str, where: str) -> Array:
    if axes in ("LPS", "1"):
        return np.ones(3)
    if axes in ("RAS", "0"):
        return LPS_FROM_RAS
    raise CalibrationRefused(f"wanted the coordinate system LPS or RAS; got {axes!r}; in {where}")


def _fcsv(path: Path) -> NamedPoints:
    """Read Slicer's older list: RAS where it does not say otherwise (files before 4.11 did not).

    From 5.2 on each row has two values more than the header names: the position status, and whether the point was made
    by itself; a carriage return may stand before them.
    """
    lines = text_of(path).replace("\r,", ",").splitlines()
    stated = {
        key.strip().lower(): value.strip()
        for key, _, value in (ln[1:].partition("=") for ln in lines if ln.startswith("#"))
    }
    rows = list(csv.reader(ln for ln in lines if ln.strip() and not ln.startswith("#")))
    columns = [name.strip().lower() for name in stated.get("columns", "").split(",")]
    if not {"x", "y", "z", "label"} <= set(columns):
        raise CalibrationRefused(
            f"wanted a line `# columns = ...,x,y,z,...,label,...`; got {', '.join(columns) or 'none'}; in {path.name}",
            "Is this a list of 3D Slicer's, and whole? Save it anew, or as .mrk.json.",
        )
    axes = stated.get("coordinatesystem", "").upper()
    notes = () if axes else ("no CoordinateSystem stated: taken as RAS, as older Slicers wrote",)
    try:
        marks = [_mark(number, row, columns) for number, row in enumerate(rows, start=1)]
    except (ValueError, IndexError) as error:
        wanted, remedy = f"rows of {len(columns)} columns", "Was it cut off, or edited by hand?"
        raise CalibrationRefused(f"wanted {wanted}; got {error}; in {path.name}", remedy) from error
    if (promised := stated.get("numpoints", "")).isdecimal() and int(promised) != len(marks):
        raise CalibrationRefused(f"wanted {promised} points as stated; got {len(marks)}; in {path.name}. Was it cut?")
    return _used(path.name, marks, _lps_from(axes or "RAS", path.name) * MARKUP_UNITS["mm"], notes)


def _mark(number: int, row: list[str], columns: list[str]) -> tuple[str, list[float], str]:
    """Return a row's name, place and why it is not used; raise ValueError or IndexError where it is torn."""
    cells = dict(zip(columns, row, strict=False))
    name = row[columns.index("label")] or cells.get("id") or str(number)
    status, *others = [cell.strip() for cell in row[len(columns) :]] or [PLACED]
    if len(others) > 1 or status not in ("", *"0123"):
        raise ValueError(f"{row[len(columns) :]} of {name} beyond them, of which the first is a status, 0 to 3")
    if status not in ("", PLACED):
        return name, [], NOT_PLACED
    place = [float(row[columns.index(axis)]) for axis in "xyz"]
    return name, place, NOT_SELECTED if cells.get("sel", "").strip() == "0" else ""
