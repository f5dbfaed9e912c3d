"""Make a seeded patient: liver, tumour, vessels, gallbladder, ribs, pleura and skin; mm, LPS.

Every structure is an implicit shape or a swept tube on one common body plan; nothing is taken from a real patient. The
same seed gives the same files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from . import vessels
from .fields import Grid, common, cone, ellipsoid, point, smooth, tubes, union, waves, without
from .torso import Torso, pleura, ribs

Array = NDArray[np.float64]
Triangles = NDArray[np.int64]
VOLUME_ML = (1300.0, 1750.0)
LIVER_LOW, LIVER_HIGH = np.array([-165.0, -115.0, -125.0]), np.array([125.0, 115.0, 130.0])
VISCERAL = np.array([0.56, 0.30, -0.77])  # the liver's lower face looks left, back and down
HILUM = np.array([-26.0, 4.0, 6.0])
CAVA = np.array([-18.0, 60.0, 0.0])
BLEND = 22.0
EDGE = 9.0  # the lower edge is sharp
HEART = np.array([28.0, -30.0, 168.0])


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One seeded body: the liver's lobes [mm], its torso and what lies within."""

    seed: int
    scale: float
    torso: Torso
    right_centre: Array
    right_radii: Array
    left_tip: Array
    left_radii: tuple[float, float]
    visceral_radius: float

    def dome(self, p: Array) -> Array:
        """Return the distance [mm] to the lobes within the rib cage, before the lower face is cut."""
        left = cone(p, np.array([-34.0, -26.0, 38.0]), self.left_tip, *self.left_radii)
        lobes = union(ellipsoid(p, self.right_centre, self.right_radii), left, 30.0)
        return common(lobes, self.torso.cage(p), BLEND)

    def liver(self, p: Array) -> Array:
        """Return the distance [mm] to the liver without its gallbladder bed."""
        rng = np.random.default_rng([self.seed, 1])
        q = p + waves(p, rng, 3.0)
        normal = VISCERAL / np.linalg.norm(VISCERAL)
        organs_below = np.linalg.norm(q - HILUM - normal * self.visceral_radius, axis=-1) - self.visceral_radius
        liver = without(self.dome(q), organs_below, EDGE)
        liver = without(liver, np.linalg.norm(q - HEART, axis=-1) - 90.0, 16.0)
        fissure = cone(q, np.array([-12.0, -110.0, -25.0]), np.array([-12.0, -10.0, 2.0]), 7.0, 4.0)
        liver = without(liver, fissure, 10.0)
        return without(liver, cone(p, CAVA - point(0, 0, 80), CAVA + point(0, 0, 120), 13.0, 13.0), 8.0)


def generate(folder: Path, seed: int, detail: float = 1.0) -> None:
    """Write a seeded patient's surfaces (PLY, mm, LPS) into a folder.

    Landmarks are left to the importer, which knows where the needle will enter. `detail` scales the triangles' size:
    2 makes them twice as large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body = _draw(seed)
    rng = np.random.default_rng([seed, 2])
    gallbladder = _gallbladder(body, rng)
    grid = Grid.over(LIVER_LOW, LIVER_HIGH, 4.2 * detail)
    bed = tubes(grid, [(a, b, r + 1.5, s + 1.5) for a, b, r, s in gallbladder], 4.0)
    field = without(body.liver(grid.points()), bed, 5.0)
    tumour = _tumour_place(grid, field, rng)
    portal, hepatic = _trees(body, grid, field, tumour, rng)
    surfaces = {
        "liver": grid.contour(field),
        "tumour": _tumour(tumour, detail, rng),
        "portal_vein": _tubes(portal, 2.6 * detail),
        "hepatic_veins": _tubes(hepatic, 2.6 * detail),
        "gallbladder": _tubes(gallbladder, 3.0 * detail),
        "ribs": ribs(body.torso, detail),
        "pleura": pleura(body.torso, body.dome, 5.0),
        "skin": body.torso.skin(13.0 * detail),
    }
    for name, (vertices, triangles) in surfaces.items():
        if name not in ("ribs", "skin"):
            vertices = smooth(vertices, triangles)
        mesh = trimesh.Trimesh((vertices * body.scale).round(4), triangles, process=False)
        mesh.export(folder / f"{name}.ply", encoding="binary")


def _draw(seed: int) -> Anatomy:
    """Draw a body plan: shape in nominal size, then the scale that gives the drawn liver volume."""
    rng = np.random.default_rng([seed, 0])
    torso = Torso(rng.uniform(164, 174), rng.uniform(114, 124), rng.uniform(2.2, 2.6), rng.uniform(0, 14), seed)
    nominal = Anatomy(
        seed,
        1.0,
        torso,
        np.array([-72.0, 4.0, 2.0]) + rng.normal(size=3) * 3.0,
        np.array([72.0, 82.0, 100.0]) * rng.uniform([0.95, 0.92, 0.92], [1.05, 1.06, 1.12]),
        np.array([rng.uniform(52.0, 92.0), -48.0, rng.uniform(38.0, 58.0)]),
        (rng.uniform(46.0, 54.0), rng.uniform(10.0, 17.0)),
        rng.uniform(150.0, 260.0),
    )
    coarse = Grid.over(LIVER_LOW, LIVER_HIGH, 8.0)
    volume_ml = float((nominal.liver(coarse.points()) < 0).sum()) * 8.0**3 / 1e3
    scale = round((rng.uniform(*VOLUME_ML) / volume_ml) ** (1 / 3), 4)
    return replace(nominal, scale=scale)


def _on_lower_face(body: Anatomy, start: Array) -> Array:
    """Return the point of the lower face under a point [mm], by stepping along the face's normal."""
    normal = VISCERAL / np.linalg.norm(VISCERAL)
    steps = np.arange(-60.0, 60.0, 1.0)
    line = start + steps[:, None] * normal
    inside = np.flatnonzero(body.liver(line) < 0)
    return line[inside[-1]] if len(inside) else start


def _gallbladder(body: Anatomy, rng: np.random.Generator) -> list[vessels.Segment]:
    """Return a pear under the liver, from the neck near the hilum to the fundus at the front edge."""
    size = rng.uniform(0.85, 1.2)
    neck, fundus = HILUM + point(-14.0, -14.0, 0.0), HILUM + point(-34.0, -74.0, 0.0) + rng.normal(size=3) * 4
    places = [_on_lower_face(body, neck * (1 - t) + fundus * t) for t in (0.0, 0.35, 0.7, 1.0)]
    radii = np.array([3.5, 8.0, 12.5, 11.5]) * size
    normal = VISCERAL / np.linalg.norm(VISCERAL)
    places = [place + normal * (0.55 * r) for place, r in zip(places, radii, strict=True)]
    return [(places[k], places[k + 1], float(radii[k]), float(radii[k + 1])) for k in range(3)]


def _tumour_place(grid: Grid, field: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """Return the centre and radius [mm] of a tumour deep in the right lobe."""
    radius = rng.uniform(7.5, 12.5)
    points = grid.points()
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    right_lobe = (x < -48) & (x > -95) & (y > -35) & (y < 25) & (z > -22) & (z < 30)
    deep = points[(field < -radius - 14.0) & right_lobe]
    return deep[int(rng.integers(len(deep)))], float(radius)


def _tumour(place: tuple[Array, float], detail: float, rng: np.random.Generator) -> tuple[Array, Triangles]:
    centre, radius = place
    grid = Grid.over(centre - radius - 6, centre + radius + 6, 1.6 * detail)
    p = grid.points()
    return grid.contour(ellipsoid(p + 0.5 * waves(p, rng, 2.5), centre, radius * rng.uniform(0.85, 1.15, size=3)))


def _trees(
    body: Anatomy, grid: Grid, field: Array, tumour: tuple[Array, float], rng: np.random.Generator
) -> tuple[list[vessels.Segment], list[vessels.Segment]]:
    """Return the portal and the hepatic tree, kept apart from each other and out of the tumour."""
    points = grid.points()[::2, ::2, ::2]
    tissue = points[field[::2, ::2, ::2] < -11.0]
    tissue = tissue + rng.uniform(-3, 3, size=tissue.shape)
    keep = vessels.Avoid(tumour[0][None], np.array([tumour[1] + 5.0]))
    normal = VISCERAL / np.linalg.norm(VISCERAL)
    gate = _on_lower_face(body, HILUM)
    fork = gate - 14.0 * normal
    trunk_radius = rng.uniform(6.0, 7.5)
    portal: list[vessels.Segment] = [
        (gate + point(24.0, 8.0, -44.0), gate + point(13.0, 6.0, -26.0), trunk_radius, trunk_radius),
        (gate + point(13.0, 6.0, -26.0), gate + normal * 5, trunk_radius, trunk_radius),
        (gate + normal * 5, fork, trunk_radius, trunk_radius * 0.95),
    ]
    portal += vessels.grow(tissue, fork, -normal, trunk_radius, 4, avoid=[vessels.Avoid()], keep=keep)
    top = CAVA + point(0.0, 0.0, 74.0)
    hepatic: list[vessels.Segment] = [
        (CAVA - point(0, 0, 60), top, 10.5, 10.5),
        (top, CAVA + point(4, -4, 112), 10.5, 10.5),
    ]
    sectors = tissue[:, 0] + 0.25 * tissue[:, 1] + rng.uniform(-8, 8)
    away = [vessels.along(portal)]
    for low, high, radius in ((-400.0, -75.0, 5.6), (-75.0, -22.0, 5.0), (-22.0, 400.0, 4.8)):
        sector = tissue[(sectors >= low) & (sectors < high)]
        heading = sector.mean(axis=0) - top
        heading = heading / np.linalg.norm(heading)
        hepatic += vessels.grow(sector, top, heading, radius * 1.2, 3, avoid=away, keep=keep)
    return portal, hepatic


def _tubes(segments: list[vessels.Segment], spacing: float) -> tuple[Array, Triangles]:
    ends = np.array([p for a, b, _, _ in segments for p in (a, b)])
    pad = max(max(r, s) for _, _, r, s in segments) + 3 * spacing
    grid = Grid.over(ends.min(axis=0) - pad, ends.max(axis=0) + pad, spacing)
    return grid.contour(tubes(grid, segments, 2.0))
