"""Make a skin where the source has none: the convex hull of everything else, offset by a body wall."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from twinguide.case import Surface
from twinguide.importing.geometry import contour, convex_hull, lattice, signed_distance

WALL_M = 0.025  # between a healthy adult's liver and skin lie about 2 to 3 cm (textbook)
GRID_M = 0.010
NOTE = "generated: convex hull of all structures, 25 mm outwards; not seen in the patient"


def generate_skin(surfaces: Iterable[Surface]) -> Surface:
    """Return a rounded closed skin [m], in image, about the given surfaces."""
    hull = convex_hull(np.concatenate([surface.vertices for surface in surfaces]))
    reach = WALL_M + 2 * GRID_M
    grid, shape = lattice(hull.vertices.min(axis=0) - reach, hull.vertices.max(axis=0) + reach, GRID_M)
    distance = np.round(signed_distance(hull, grid), 7)
    skin = contour(distance, grid, shape, WALL_M)
    return Surface(np.round(skin.vertices, 7), skin.triangles)
