"""Hertz: a rigid sphere without friction on a half space, linear.

These springs hold both ways, so the area of contact is given: Hertz's own. That asks little, as the force is stationary
in it (a sphere that touches where it should is the stiffest fit). What is judged is the force.
"""

from __future__ import annotations

import numpy as np
from problems import POISSON, SHEAR, YOUNG, hold, on, reaction, solve

from twinguide_softbody.body import Body
from twinguide_softbody.mesh import block, quadratic

RADIUS, DEPTH = 12.7e-3, 5e-3  # [m]
AREA_RADIUS = float(np.sqrt(RADIUS * DEPTH))
FORCE = 4 / 3 * YOUNG / (1 - POISSON**2) * RADIUS**0.5 * DEPTH**1.5  # [N]
NEAR, FAR = 6, 4  # cells within 1.25 radii of contact, and beyond, each GROWTH times wider than the last
GROWTH = 2.0


def grid() -> np.ndarray:
    """Return the planes [m] that cut the quarter space: even under the contact, then ever wider."""
    near = np.linspace(0, 1.25 * AREA_RADIUS, NEAR + 1)
    return np.concatenate([near, near[-1] + near[1] * np.cumsum(GROWTH ** np.arange(1, FAR + 1))])


def boussinesq(points: np.ndarray) -> np.ndarray:
    """Return a point load's displacement [m] of the half space z < 0 at points [m], shape (n, 3) (Boussinesq 1885)."""
    x, y, z = points.T * np.array([[1.0], [1.0], [-1.0]])
    r = np.linalg.norm(points, axis=1)
    aside = z / r**3 - (1 - 2 * POISSON) / (r * (r + z))
    down = z * z / r**3 + 2 * (1 - POISSON) / r
    return FORCE / (4 * np.pi * SHEAR) * np.column_stack([x * aside, y * aside, -down])


def hertz() -> float:
    """Return the force [N] that presses the sphere DEPTH deep; a quarter of the half space, Boussinesq's far away."""
    planes = grid()
    raw, tetrahedra = block(len(planes) - 1, float(len(planes) - 1))
    corners = planes[np.rint(raw).astype(int)] * np.array([1.0, 1.0, -1.0])
    vertices, elements = quadratic(corners, tetrahedra[:, [0, 2, 1, 3]])
    touched = on(vertices, 2, 0.0)
    touched = touched[np.linalg.norm(vertices[touched, :2], axis=1) <= AREA_RADIUS]
    depth = DEPTH - (vertices[touched, :2] ** 2).sum(axis=1) / (2 * RADIUS)
    sphere = hold(touched, vertices[touched] - depth[:, None] * np.array([0.0, 0.0, 1.0]), "z")
    end = planes[-1]
    outer = np.flatnonzero((np.abs(vertices) > end - 1e-9).any(axis=1))
    held = sphere + hold(outer, vertices[outer] + boussinesq(vertices[outer]))
    for axis, name in enumerate("xy"):
        plane = on(vertices, axis, 0.0)
        held = held + hold(plane, vertices[plane], name)
    _, solved = solve(Body(vertices, elements, YOUNG, POISSON), held, material="linear")
    return -4 * float(reaction(sphere, solved)[2])
