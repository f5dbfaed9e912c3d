"""Vessel trees: each branch splits the tissue that it feeds in two, and thins by Murray's law (Murray 1926)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Segment = tuple[Array, Array, float, float]  # from, to [mm], radius there [mm]
BENDS = 6  # pieces of one curved branch
APART_MM = 5.0  # sought between the walls of two trees
REACH, LAST_REACH = 0.62, 0.85  # of the way to the middle of what it feeds: of a branch that splits again, and the last
THINNED = 0.88  # radius at a branch's end, of that at its start


@dataclass(frozen=True, eq=False)
class Avoid:
    """What a branch keeps away from: points [mm], (n, 3), and the radii about them [mm], (n,)."""

    points: Array = field(default_factory=lambda: np.zeros((0, 3)))
    radii: Array = field(default_factory=lambda: np.zeros(0))

    def clearance(self, line: Array, radius: float) -> float:
        """Return the smallest gap [mm] between a line's points, (n, 3), with a radius, and what is avoided."""
        if len(self.points) == 0:
            return np.inf
        gaps = np.linalg.norm(line[:, None] - self.points[None], axis=2) - self.radii
        return float(gaps.min()) - radius


def along(segments: list[Segment]) -> Avoid:
    """Return what to avoid so as to keep away from a tree."""
    points = [a * (1 - t) + b * t for a, b, _, _ in segments for t in (0.0, 0.5)]
    return Avoid(np.array(points), np.array([r for _, _, r, _ in segments for _ in (0, 1)]))


def grow(
    tissue: Array, start: Array, direction: Array, radius: float, depth: int, *, avoid: list[Avoid], keep: Avoid
) -> list[Segment]:
    """Return the tree that feeds tissue points [mm], (n, 3), from a start, as round cones.

    `avoid` is kept away from where possible; a branch that would touch `keep` (a tumour) is not grown.
    """
    if depth == 0 or len(tissue) < 4:
        return []
    out: list[Segment] = []
    for part in _halves(tissue):
        share = (len(part) / len(tissue)) ** (1 / 3)
        centre = part.mean(axis=0)
        end = start + (LAST_REACH if depth == 1 else REACH) * (centre - start)
        line = _curve(start, end, direction, radius * share, [*avoid, keep])
        if keep.clearance(line, radius * share) < 0:
            continue
        radii = np.linspace(radius * share, radius * share * THINNED, len(line))
        out += [(line[k], line[k + 1], float(radii[k]), float(radii[k + 1])) for k in range(len(line) - 1)]
        heading = line[-1] - line[-2]
        heading = heading / np.linalg.norm(heading)
        out += grow(part, line[-1], heading, float(radii[-1]), depth - 1, avoid=avoid, keep=keep)
    return out


def _halves(tissue: Array) -> tuple[Array, Array]:
    """Split points at the median of their longest axis."""
    offset = tissue - tissue.mean(axis=0)
    axis = np.linalg.eigh(offset.T @ offset)[1][:, 2]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # an eigenvector's sign is arbitrary
    far = (offset @ axis).round(6)
    upper = far > np.median(far)
    return tissue[upper], tissue[~upper]


def _curve(start: Array, end: Array, direction: Array, radius: float, avoid: list[Avoid]) -> Array:
    """Return a bent line, (BENDS + 1, 3), that leaves along `direction`; of five bends the one that keeps clear."""
    span = float(np.linalg.norm(end - start))
    ahead = (end - start) / max(span, 1e-9)
    side = np.asarray(np.cross(ahead, np.eye(3)[np.abs(ahead).argmin()]), dtype=np.float64)
    side = side / np.linalg.norm(side)
    other = np.asarray(np.cross(ahead, side), dtype=np.float64)
    t = np.linspace(0, 1, BENDS + 1)[:, None]
    best, best_gap = start * (1 - t) + end * t, -np.inf
    for shift in (0 * side, side, -side, other, -other):
        control = start + 0.25 * span * (direction + ahead) + 0.3 * span * shift
        line = start * (1 - t) * (1 - t) + 2 * control * t * (1 - t) + end * t * t
        gap = min(a.clearance(line[1:], radius) for a in avoid)
        if min(gap, APART_MM) > best_gap + 1e-6:
            best, best_gap = line, min(gap, APART_MM)
    return best
