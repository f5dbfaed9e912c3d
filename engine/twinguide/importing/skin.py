"""Make a skin where the source has none: the convex hull of everything else, offset by a body wall."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Surface
from twinguide.errors import CaseError
from twinguide.importing.geometry import contour, convex_hull, in_mm, lattice, signed_distance
from twinguide.importing.reading import IN_THE_SAME

WALL_M = 0.025  # between a healthy adult's liver and skin lie about 2 to 3 cm (textbook)
GRID_M = 0.010
OFF_M = 0.030  # of the skin: breath, posture and a pointer's pressure move it by 1 to 2 cm; wrong axes give far more
DOUBTFUL_M = 0.060  # of a made one, no torso but the organ's hull: deeper in it is no skin; further off it is stated
OFF_GENERATED_M = 0.300  # outside it: from a liver to the symphysis, farther than any other landmark of the trunk
NOTE = "generated: convex hull of all structures, 25 mm outwards; not seen in the patient"


def generate_skin(surfaces: Iterable[Surface]) -> Surface:
    """Return a rounded closed skin [m], in image, about the given surfaces."""
    hull = convex_hull(np.concatenate([surface.vertices for surface in surfaces]))
    reach = WALL_M + 2 * GRID_M
    grid, shape = lattice(hull.vertices.min(axis=0) - reach, hull.vertices.max(axis=0) + reach, GRID_M)
    distance = np.round(signed_distance(hull, grid), 7)
    skin = contour(distance, grid, shape, WALL_M)
    return Surface(np.round(skin.vertices, 7), skin.triangles)


def check_on_skin(points: Mapping[str, NDArray[np.float64]], skin: Surface, generated: bool, where: str) -> list[str]:
    """Refuse points [m], (3,), by name, that lie further off the skin than it moves; no triangles refuse none.

    A generated skin is no torso: return a warning for each point far outside it.
    """
    warnings: list[str] = []
    if len(skin.triangles) == 0:
        return warnings
    outside, deep = (OFF_GENERATED_M, DOUBTFUL_M) if generated else (OFF_M, OFF_M)
    kind, add_one = ("generated skin", " Or add the skin's surface.") if generated else ("skin", "")
    for (name, point), off in zip(points.items(), signed_distance(skin, np.array(list(points.values()))), strict=True):
        side, limit = ("outside", outside) if off > 0 else ("inside", deep)
        if abs(off) > limit:
            raise CaseError(
                f"{name} on the {kind}, or within {limit * 1e3:.0f} mm of it",
                f"{in_mm(point)}, {abs(off) * 1e3:.0f} mm {side}", where, IN_THE_SAME + add_one,
            )  # fmt: skip
        if off > DOUBTFUL_M:
            warnings.append(f"WARNING: {name} lies {off * 1e3:.0f} mm outside it; left as it is")
    return warnings
