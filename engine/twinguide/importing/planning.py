"""Plan a straight path: take the source's own, or search the skin for the entry that keeps every margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from twinguide.case import TARGET_OFF_M, Case, Plan, Surface
from twinguide.case_file import PlanRow
from twinguide.distances import DistanceGrid
from twinguide.embedding import LOOSE_M
from twinguide.errors import CaseError
from twinguide.frames import Array
from twinguide.importing.geometry import (
    centroid_of,
    in_mm,
    inside,
    nearest,
    shells,
    signed_distance,
    vertex_normals,
    volume_of,
)
from twinguide.importing.reading import Axes, Units, read_text, to_image

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
        given = msgspec.toml.decode(read_text(path), type=PlanRow)
    except msgspec.DecodeError as error:
        keys = "the keys target_structure, entry, target and, where wanted, note, and no others"
        next_step = "Write anything else into note, or behind a #: docs/case.md has an example."
        raise CaseError(keys, str(error), str(path), next_step) from error
    entry, target = (to_image(np.array(point), units, axes) for point in (given.entry, given.target))
    if given.target_structure not in names or not np.isfinite([entry, target]).all():
        got = f"{given.target_structure!r}, {given.entry}, {given.target}"
        raise CaseError(f"a structure of {names} and two points of three numbers", got, str(path), "See docs/case.md.")
    note = f"given with the source: {given.note}" if given.note else "given with the source"
    return Plan(entry, target, given.target_structure, note)


def check_target(name: str, target: Array, structure: Surface, organ: Surface, where: str) -> None:
    """Refuse a target point [m], (3,), outside the organ: it would not move and yield as the organ does.

    It may lie where the organ's surface leaves its structure out, or where that grows out of the organ: there the shell
    of the structure that holds the point, or is next to it, meets the organ, and the organ still carries the point.
    """
    off = float(signed_distance(organ, target[None])[0])
    if off <= TARGET_OFF_M:
        return
    parts = [
        Surface(structure.vertices, part.astype(np.int32)) for part in shells(structure.triangles.astype(np.int64))
    ]
    shell = min(parts, key=lambda part: float(signed_distance(part, target[None])[0]))
    corners = structure.vertices[np.unique(shell.triangles)]
    gap = float(min(signed_distance(organ, corners).min(), signed_distance(shell, organ.vertices).min()))
    if gap > TARGET_OFF_M or off > LOOSE_M:
        raise CaseError(
            f"the target point of the {name} in the organ, or within {LOOSE_M * 1e3:.0f} mm of it and in a {name} that "
            f"meets it within {TARGET_OFF_M * 1e3:.0f} mm",
            f"it lies {off * 1e3:.0f} mm outside, the surfaces {gap * 1e3:.0f} mm apart", where,
            f"Where the organ's segmentation leaves the {name} out, join it to the organ's; else export both in one "
            "frame and the same units.",
        )  # fmt: skip


def share_outside(target: DistanceGrid, organ: DistanceGrid) -> float:
    """Return the share, 0..1, of a target's volume outside the organ, by the middles of its grid's cells."""
    points = target.origin + target.spacing * (np.argwhere(np.ones(np.array(target.values.shape) - 1)) + 0.5)
    points = points[target.at(points) < 0]
    return float((organ.at(points) > 0).mean()) if len(points) else 0.0


def obstacles_of(case: Case) -> Obstacles:
    """Return what a case's plan must respect, as the case is now; raise CaseError where a grid cannot be read."""
    target = case.plan.target_structure
    critical = {
        name: (case.distance(name), structure.margin_m)
        for name, structure in case.structures.items()
        if structure.risk == "critical" and name != target
    }
    return Obstacles(critical, case.distance(case.organ), case.distance(target))


def told(plan: Plan, obstacles: Obstacles) -> str:
    """Return in words how long a plan is, what it keeps or misses by how much, and what its import has noted."""
    shortfall, _ = _judge(plan.entry[None], plan.target, obstacles)
    short = _short(shortfall, 0)
    kept = f"WARNING: falls short of {short}" if short else "keeps all margins of what is in this case"
    noted = f"; when imported: {plan.note}" if plan.note else ""
    return f"{plan.length_m * 1e3:.0f} mm to {plan.target_structure}; {kept}{noted}"


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
        raise CaseError(
            "a straight path that keeps every margin",
            f"none of {len(reach)} entries; the best, at {in_mm(entries[best])}, falls short of "
            f"{_short(shortfall, best)}", "planning", "Give a plan.toml with the source, or change margins.",
        )  # fmt: skip
    cost = (length[reach] + 0.1 * (1 - cosine[reach]) - 4.0 * np.minimum(slack, SPARE_M)).round(6)
    cost[~good] = np.inf
    best = int(cost.argmin())
    note = f"searched: {int(good.sum())} of {len(reach)} entries keep all margins of what is in this case"
    return Plan(nearest(skin, entries[best][None])[0].round(6), target, target_name, note)


def _short(shortfall: Mapping[str, Array], path: int) -> str:
    """Return in words what a path falls short of, empty where it keeps every rule."""
    missed = {name: float(values[path]) for name, values in shortfall.items() if values[path] > 0}
    return ", ".join(f"{name} by {by * 1e3:.1f} mm" for name, by in missed.items())


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
    if obstacles.target is obstacles.organ:  # there is no organ before itself
        return shortfall, slack
    in_target = np.logical_or.accumulate(obstacles.target.at(flat).reshape(len(entries), STEPS) < 0, axis=1)
    organ = (obstacles.organ.at(flat).reshape(len(entries), STEPS) < 0) & ~in_target
    shortfall["the organ before the target"] = ORGAN_FIRST_M - organ.sum(axis=1) * step
    return shortfall, slack
