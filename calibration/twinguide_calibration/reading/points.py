"""Named points: 3D Slicer's markups (`.mrk.json`, `.fcsv`) and CSV, in metres, patients in LPS."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.reading.tables import Table, columns_of, read_table
from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
MARKUP_UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "um": 1e-6}


@dataclass(frozen=True, slots=True, eq=False)
class NamedPoints:
    """Points [m], shape (n, 3), by name; `covariances` [m2], shape (n, 3, 3), where the file tells them."""

    file: str
    names: tuple[str, ...]
    points: Array
    covariances: Array | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PointPairs:
    """Corresponding points [m], shape (n, 3) each; `covariances` [m2], shape (n, 3, 3), of target minus source."""

    names: tuple[str, ...]
    source: Array
    target: Array
    covariances: Array | None
    notes: tuple[str, ...]


def read_points(path: Path) -> NamedPoints:
    """Read named points from `.mrk.json`, `.fcsv` or `.csv`.

    Slicer's files say themselves whether they are LPS or RAS, and in which unit; a CSV's columns are `name, x_mm, y_mm,
    z_mm` (or `_m`), optionally `sigma_mm`, and its points stay in the frame that it was written in. Raises
    CalibrationRefused for files that are empty or cut off, points that are not finite, and names that come twice.
    """
    kinds = {".json": _markups, ".fcsv": _fcsv, ".csv": _csv, ".txt": _csv, ".tsv": _csv}
    reader = kinds.get(path.suffix.lower())
    if reader is None:
        raise CalibrationRefused(f"wanted points as .mrk.json, .fcsv or .csv; got {path.suffix or 'no suffix'}; {path}")
    points = reader(path)
    if not points.names:
        raise CalibrationRefused(f"wanted named points; got none that is placed; in {path.name}")
    if not np.isfinite(points.points).all():
        raise CalibrationRefused(f"wanted finite positions; got NaN or infinity; in {path.name}")
    twice = sorted({name for name in points.names if points.names.count(name) > 1})
    if twice:
        raise CalibrationRefused(
            f"wanted a name for each point; got {', '.join(map(repr, twice[:5]))} more than once; in {path.name}. "
            "Points are paired by name: rename them."
        )
    return points


def read_cloud(path: Path) -> tuple[Array, tuple[str, ...]]:
    """Return the places [m], shape (n, 3), of a file of points whose names do not matter, and what was left out.

    Raises CalibrationRefused as `read_points`.
    """
    if path.suffix.lower() in (".json", ".fcsv"):
        points = (_markups if path.suffix.lower() == ".json" else _fcsv)(path)
        return points.points, points.notes
    table = read_table(path)
    return _columns(table, ["x", "y", "z"], path.name), table.notes


def pair_points(source: NamedPoints, target: NamedPoints) -> PointPairs:
    """Pair two sets by name; raise CalibrationRefused where fewer than three names are shared."""
    shared = [name for name in source.names if name in target.names]
    if len(shared) < 3:
        raise CalibrationRefused(
            f"wanted at least 3 names in both {source.file} and {target.file}; got {len(shared)}: {shared}. "
            f"{source.file} has {', '.join(source.names[:8])}; {target.file} has {', '.join(target.names[:8])}. "
            "Give corresponding points the same name."
        )
    rows = [source.names.index(name) for name in shared]
    others = [target.names.index(name) for name in shared]
    lonely = [name for name in (*source.names, *target.names) if name not in shared]
    notes = [*source.notes, *target.notes]
    notes += [f"without a partner, left out: {', '.join(lonely)}"] if lonely else []
    parts = [(source.covariances, rows), (target.covariances, others)]
    known = [covariances[picked] for covariances, picked in parts if covariances is not None]
    covariances = np.sum(known, axis=0) if known else None
    return PointPairs(tuple(shared), source.points[rows], target.points[others], covariances, tuple(notes))


def read_pairs(path: Path) -> PointPairs:
    """Read pairs from one CSV with the columns `source_x_mm ... target_z_mm`, optionally `name` and `sigma_mm`."""
    table = read_table(path)
    source, target = (_columns(table, [f"{side}_{axis}" for axis in "xyz"], path.name) for side in ("source", "target"))
    names = table.text.get("name") or [str(i + 1) for i in range(len(source))]
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
    names = table.text.get("name") or table.text.get("label")
    if names is None:
        raise CalibrationRefused(f"wanted a column `name`; got {', '.join(table.header)}; in {path.name}")
    return NamedPoints(path.name, tuple(names), points, _covariances(table, path.name), table.notes)


def _markups(path: Path) -> NamedPoints:
    try:
        tables: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise CalibrationRefused(f"wanted a readable markups file; got {error}; in {path}") from error
    except json.JSONDecodeError as error:
        remedy = "The file is empty or was cut off: save it anew."
        raise CalibrationRefused(f"wanted JSON; got {error}; in {path.name}. {remedy}") from error
    try:
        return _markup(tables["markups"][0], path.name)
    except CalibrationRefused:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        got = f"{type(error).__name__} {error}"
        raise CalibrationRefused(f"wanted Slicer's markups with controlPoints; got {got}; in {path.name}") from error


def _markup(markup: dict[str, Any], where: str) -> NamedPoints:
    axes = str(markup.get("coordinateSystem", "LPS")).upper()
    flip = _lps_from(axes, where)
    unit = _markup_unit(markup.get("coordinateUnits", "mm"), where)
    names: list[str] = []
    places: list[list[float]] = []
    unplaced: list[str] = []
    for point in cast("Iterable[dict[str, Any]]", markup["controlPoints"]):
        name = str(point.get("label") or point.get("id") or len(names) + 1)
        if point.get("positionStatus", "defined") != "defined" or point.get("position") is None:
            unplaced.append(name)
            continue
        place = cast("list[Any]", point["position"])
        if len(place) != 3 or not all(isinstance(value, int | float) for value in place):
            raise CalibrationRefused(f"wanted three numbers at {name}; got {place}; in {where}")
        x, y, z = (float(value) for value in place)
        names.append(name)
        places.append([x, y, z])
    notes = (f"not placed, left out: {', '.join(unplaced)}",) if unplaced else ()
    return NamedPoints(where, tuple(names), np.array(places).reshape(-1, 3) * flip * unit, None, notes)


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
    """Read Slicer's older list: RAS where it does not say otherwise (files before 4.11 did not)."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationRefused(f"wanted a readable .fcsv; got {error}; in {path}") from error
    stated = {
        key.strip(): value.strip() for key, _, value in (ln[1:].partition("=") for ln in lines if ln.startswith("#"))
    }
    rows = list(csv.reader(ln for ln in lines if ln.strip() and not ln.startswith("#")))
    columns = [name.strip() for name in stated.get("columns", "").split(",")]
    if not {"x", "y", "z", "label"} <= set(columns):
        raise CalibrationRefused(f"wanted a line `# columns = ...,x,y,z,...,label,...`; got {columns}; in {path.name}")
    axes = stated.get("CoordinateSystem", "RAS").upper()
    notes = (
        () if "CoordinateSystem" in stated else ("no CoordinateSystem stated: taken as RAS, as older Slicers wrote",)
    )
    try:
        places = [[float(row[columns.index(axis)]) for axis in "xyz"] for row in rows]
        names = tuple(row[columns.index("label")] for row in rows)
    except (ValueError, IndexError) as error:
        raise CalibrationRefused(f"wanted rows of {len(columns)} columns; got {error}; in {path.name}") from error
    points = np.array(places).reshape(-1, 3) * _lps_from(axes, path.name) * MARKUP_UNITS["mm"]
    promised = stated.get("numPoints", "")
    if promised.isdecimal() and int(promised) != len(names):
        raise CalibrationRefused(
            f"wanted {promised} points as stated; got {len(names)}; in {path.name}. Was it cut off?"
        )
    return NamedPoints(path.name, names, points, None, notes)
