"""Plan a straight path: take the source's own, or search the skin for the entry that keeps every margin."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Plan, Surface
from twinguide.distances import DistanceGrid
from twinguide.errors import CaseError
from twinguide.importing.geometry import centroid_of, in_mm, inside, nearest, shells, vertex_normals, volume_of
from twinguide.importing.reading import Axes, Units, to_image

Array = NDArray[np.float64]
LENGTH_M = 0.150  # a usual ablation needle
ORGAN_FIRST_M = 0.010  # of organ before the tumour: against bleeding and seeding (textbook)
ANGLE_COS = 0.5  # at most 60 deg off the skin's normal
POSTERIOR_LIMIT = 0.3  # the patient lies on the back: skin that faces further down than this is out of reach
CRANIAL_LIMIT = 0.35  # about 20 deg: a needle from further above would come through lung or heart
STEPS = 120
SPARE_M = 0.005  # clearance beyond the margins is worth something up to here


@dataclass(frozen=True)
class Obstacles:
    """What a path must respect: distance grids and margins [m] of critical structures, the organ and the target."""

    critical: Mapping[str, tuple[DistanceGrid, float]]
    organ: DistanceGrid
    target: DistanceGrid


def read_plan(path: Path, units: Units, axes: Axes, names: list[str]) -> Plan | None:
    """Return the source's own plan (plan.toml: target_structure, entry, target), or None where it has none."""
    if not path.is_file():
        return None
    try:
        given = tomllib.loads(path.read_text())
        entry, target = (to_image(np.array(given[key], dtype=np.float64), units, axes) for key in ("entry", "target"))
        name = str(given["target_structure"])
    except (tomllib.TOMLDecodeError, KeyError, ValueError, TypeError) as error:
        raise CaseError("target_structure, entry and target", f"{type(error).__name__}: {error}", str(path)) from error
    if name not in names or entry.shape != (3,) or target.shape != (3,) or not np.isfinite([*entry, *target]).all():
        got = f"{name!r}, {entry.shape}, {target.shape}"
        raise CaseError(f"a structure of {names} and two points of three numbers", got, str(path))
    return Plan(entry, target, name, "given with the source")


def target_of(surface: Surface, grid: DistanceGrid) -> Array:
    """Return a point [m], (3,), in the largest shell of a tumour: its centroid, or its deepest point if that is out."""
    parts = shells(surface.triangles.astype(np.int64))
    largest = max(parts, key=lambda part: volume_of(surface.vertices, part))
    centre = centroid_of(surface.vertices, largest)
    shell = Surface(surface.vertices, largest.astype(np.int32))
    if inside(shell, centre[None])[0]:
        return centre.round(6)
    corners = surface.vertices[np.unique(largest)]
    depth = grid.values[grid.values < 0]
    points = grid.origin + grid.spacing * np.argwhere(grid.values < 0)
    near = ((points >= corners.min(axis=0)) & (points <= corners.max(axis=0))).all(axis=1)
    return points[near][int(depth[near].argmin())].round(6)


def search_entry(skin: Surface, target: Array, target_name: str, obstacles: Obstacles) -> Plan:
    """Return the best straight path from the skin to the target [m]; raise CaseError telling why none will do.

    Every skin point within reach is tried. A path must keep the margins, pass 10 mm of organ before the target and
    meet the skin at 60 deg or less; of those that do, the shortest, steepest and clearest is taken.
    """
    normals = vertex_normals(skin)
    to_target = target - skin.vertices
    length = np.linalg.norm(to_target, axis=1)
    cosine = -np.einsum("ij,ij->i", normals, to_target) / np.maximum(length, 1e-9)
    from_above = -to_target[:, 2] > CRANIAL_LIMIT * length
    reach = np.flatnonzero((length < LENGTH_M) & (cosine > ANGLE_COS) & (normals[:, 1] < POSTERIOR_LIMIT) & ~from_above)
    if len(reach) == 0:
        raise CaseError(
            f"skin within {LENGTH_M * 1e3:.0f} mm of the target, in front or at the side, not from above",
            f"the nearest point is {length.min() * 1e3:.0f} mm away", "planning", "Give a plan.toml with the source.",
        )  # fmt: skip
    entries = skin.vertices[reach]
    shortfall, slack = _judge(entries, target, obstacles)
    worst = np.max(np.stack(list(shortfall.values())), axis=0)
    good = worst <= 0
    if not good.any():
        best = int(worst.round(6).argmin())
        fails = [f"{name} by {values[best] * 1e3:.1f} mm" for name, values in shortfall.items() if values[best] > 0]
        raise CaseError(
            "a straight path that keeps every margin",
            f"none of {len(reach)} entries; the best, at {in_mm(entries[best])}, "
            f"falls short of {', '.join(fails)}", "planning", "Give a plan.toml with the source, or change margins.",
        )  # fmt: skip
    cost = (length[reach] + 0.1 * (1 - cosine[reach]) - 4.0 * np.minimum(slack, SPARE_M)).round(6)
    cost[~good] = np.inf
    best = int(cost.argmin())
    kept = f"{int(good.sum())} of {len(reach)} entries keep all margins of what is in this case"
    note = f"searched: {kept}; {length[reach][best] * 1e3:.0f} mm long"
    return Plan(nearest(skin, entries[best][None])[0].round(6), target, target_name, note)


def _judge(entries: Array, target: Array, obstacles: Obstacles) -> tuple[dict[str, Array], Array]:
    """Return by how much [m] each path misses each rule, (n,) each, and its spare clearance [m], (n,)."""
    along = np.linspace(0.0, 1.0, STEPS)
    points = entries[:, None] * (1 - along[:, None]) + target * along[:, None]
    flat = points.reshape(-1, 3)
    step = np.linalg.norm(target - entries, axis=1) / (STEPS - 1)
    shortfall: dict[str, Array] = {}
    slack = np.full(len(entries), np.inf)
    for name, (grid, margin) in obstacles.critical.items():
        clearance = grid.at(flat).reshape(len(entries), STEPS).min(axis=1) - margin
        shortfall[f"the margin of {name}"] = -clearance
        slack = np.minimum(slack, clearance)
    in_target = np.logical_or.accumulate(obstacles.target.at(flat).reshape(len(entries), STEPS) < 0, axis=1)
    organ = (obstacles.organ.at(flat).reshape(len(entries), STEPS) < 0) & ~in_target
    shortfall["the organ before the target"] = ORGAN_FIRST_M - organ.sum(axis=1) * step
    return shortfall, slack
