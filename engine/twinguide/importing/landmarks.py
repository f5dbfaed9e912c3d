"""Landmarks: read the source's own, or place them on the skin about the planned entry."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from twinguide.case import Landmark, Surface
from twinguide.errors import CaseError
from twinguide.frames import Array
from twinguide.importing.geometry import in_mm, vertex_normals
from twinguide.importing.reading import IN_THE_SAME, Axes, Units, read_text, to_image

COLUMNS = ["name", "kind", "x", "y", "z"]
KINDS = ("fiducial", "verification")
NEXT_STEP = "docs/case.md has an example."
UNVERIFIED = "WARNING: no verification landmark: such a case can be rehearsed, not guided"
FIDUCIALS = 6
VERIFICATIONS = 3
NEAREST_M, FARTHEST_M = 0.025, 0.085  # from the entry: out of the needle's way, yet near what is guided
APART_M = 0.015
POSTERIOR_LIMIT = 0.3  # skin that faces the table cannot be touched


def read_landmarks(path: Path, units: Units, axes: Axes) -> list[Landmark]:
    """Return the landmarks of a CSV file with the columns name, kind, x, y, z; raise CaseError naming the line.

    Semicolons between columns, as a German Excel writes them, let commas be decimal.
    """
    text = read_text(path)
    semicolons = ";" in text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if semicolons else ",")
    out: list[Landmark] = []
    try:
        header = [cell.lower() for cell in _filled(next(rows, list[str]()))]
        if header != COLUMNS:
            raise CaseError(f"the columns {','.join(COLUMNS)}", ",".join(header) or "none", str(path), NEXT_STEP)
        for row in rows:
            if cells := _filled(row):
                mark = _landmark(cells, semicolons, f"{path}, line {rows.line_num}")
                out.append(replace(mark, position=to_image(mark.position, units, axes)))
    except csv.Error as error:
        raise CaseError("rows of a CSV file", str(error), f"{path}, line {rows.line_num}", NEXT_STEP) from error
    if len({landmark.name for landmark in out}) != len(out):
        raise CaseError("names that differ", str([landmark.name for landmark in out]), str(path), "Rename one.")
    check_spread(out, str(path))
    return out


def _filled(row: list[str]) -> list[str]:
    """Return a row's cells without the empty ones at its end, which spreadsheets write."""
    cells = [cell.strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _landmark(cells: list[str], commas: bool, where: str) -> Landmark:
    """Return the landmark of a row, in the file's own units and axes."""
    if len(cells) != len(COLUMNS):
        raise CaseError(f"{len(COLUMNS)} columns", f"{len(cells)}: {cells}", where, NEXT_STEP)
    name, kind, *numbers = cells
    try:
        point = np.array([float(number.replace(",", ".") if commas else number) for number in numbers])
    except ValueError as error:
        raise CaseError("three numbers x, y, z", str(error), where, NEXT_STEP) from error
    if kind.lower() not in KINDS or not name or not name.isprintable() or not np.isfinite(point).all():
        raise CaseError(f"a name, one kind of {KINDS} and three finite numbers", str(cells), where, NEXT_STEP)
    return Landmark(name, point, kind.lower())  # pyright: ignore[reportArgumentType] - one of KINDS


def place_landmarks(skin: Surface, entry: Array) -> list[Landmark]:
    """Return six fiducials and three verification landmarks [m] on the skin, spread about the entry.

    Farthest-point choice, deterministic; raises CaseError where the skin has no room for them.
    """
    normals = vertex_normals(skin)
    distance = np.linalg.norm(skin.vertices - entry, axis=1)
    free = (distance > NEAREST_M) & (distance < FARTHEST_M) & (normals[:, 1] < POSTERIOR_LIMIT)
    candidates = skin.vertices[free]
    if len(candidates) < FIDUCIALS + VERIFICATIONS:
        raise CaseError(
            f"skin in front or at the side, within {FARTHEST_M * 1e3:.0f} mm of the entry, for nine landmarks",
            f"{len(candidates)} points of it", f"the skin about {in_mm(entry)}",
            "Give a landmarks.csv, or an entry that does not face the table.",
        )  # fmt: skip
    chosen = [int(np.linalg.norm(candidates - entry, axis=1).round(7).argmax())]
    while len(chosen) < FIDUCIALS + VERIFICATIONS:
        apart = np.linalg.norm(candidates[:, None] - candidates[chosen][None], axis=2).min(axis=1)
        chosen.append(int(apart.round(7).argmax()))
    points = candidates[chosen].round(6)
    kinds = ["fiducial"] * FIDUCIALS + ["verification"] * VERIFICATIONS
    out = [
        Landmark(f"{'F' if kind == 'fiducial' else 'V'}{k % FIDUCIALS + 1}", point, kind)  # pyright: ignore[reportArgumentType]
        for k, (point, kind) in enumerate(zip(points, kinds, strict=True))
    ]
    check_spread(out, "landmarks placed on the skin")
    return out


def check_spread(landmarks: list[Landmark], where: str) -> None:
    """Refuse fewer than three fiducials, fiducials on a line, and landmarks that coincide."""
    points = np.array([landmark.position for landmark in landmarks if landmark.kind == "fiducial"])
    if len(points) < 3:
        raise CaseError("at least three fiducials", str(len(points)), where, "Add some.")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] < APART_M:
        got = f"{spread[1] * 1e3:.1f} mm off a line"
        raise CaseError(
            "fiducials that do not lie on one line", got, where, f"Spread them over the skin. {IN_THE_SAME}"
        )
    everything = np.array([landmark.position for landmark in landmarks])
    gaps = np.linalg.norm(everything[:, None] - everything[None], axis=2) + np.eye(len(everything))
    if gaps.min() < APART_M / 3:
        raise CaseError("landmarks apart from each other", f"{gaps.min() * 1e3:.1f} mm", where, "Take one away.")
