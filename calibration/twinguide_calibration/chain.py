"""The budget of a chain of transforms: which link costs how many millimetres at a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twinguide_calibration.error import p95_radius
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, adjoint, as_floats, inverse, point_jacobian


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """One transform `a_from_b`, shape (4, 4), with its covariance, shape (6, 6), perturbation on the right."""

    name: str
    transform: Array
    covariance: Array

    def inverse(self, name: str) -> Link:
        """Return `b_from_a` under a name, its covariance told in a."""
        carried = adjoint(self.transform)
        return Link(name, inverse(self.transform), carried @ self.covariance @ carried.T)


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one link adds at the point: covariance (3, 3) [m2] in the first frame, rms and 95 % radius [m].

    `fraction` is its part of the mean square error; fractions sum to 1, radii do not sum.
    """

    name: str
    covariance: Array
    rms: float
    p95: float
    fraction: float


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """The point [m], shape (3,), in the first frame, its covariance (3, 3) [m2], 95 % radius [m], and shares."""

    point: Array
    covariance: Array
    rms: float
    p95: float
    shares: tuple[Share, ...]


def chain_budget(links: Sequence[Link], point: Array, point_covariance: Array | None = None) -> Budget:
    """Return the error at a point [m], shape (3,), in the last frame, carried through independent links.

    `links` chain from left to right as they are multiplied: `a_from_b`, `b_from_c`, ... `point_covariance` [m2], shape
    (3, 3), is that of the point itself; it is shown as the share "point".
    """
    if not links:
        raise CalibrationRefused("a chain without links")
    parts: list[tuple[str, Array]] = []
    here = as_floats(point)
    turned = np.eye(3) * 0.0 if point_covariance is None else as_floats(point_covariance)
    for link in reversed(links):
        rotation = link.transform[:3, :3]
        jacobian = rotation @ point_jacobian(here)
        parts = [(name, rotation @ c @ rotation.T) for name, c in parts]
        turned = rotation @ turned @ rotation.T
        parts.append((link.name, jacobian @ link.covariance @ jacobian.T))
        here = rotation @ here + link.transform[:3, 3]
    parts.reverse()
    if point_covariance is not None:
        parts.append(("point", turned))
    total = sum((c for _, c in parts), np.zeros((3, 3)))
    square = float(np.trace(total))
    shares = tuple(_share(name, c, square) for name, c in parts)
    return Budget(here, total, square**0.5, float(p95_radius(total)), shares)


def _share(name: str, covariance: Array, total: float) -> Share:
    square = float(np.trace(covariance))
    return Share(name, covariance, square**0.5, float(p95_radius(covariance)), square / total if total > 0.0 else 0.0)
