"""The deformed surfaces: a solver's body vertices carried to every structure embedded in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Case
from twinguide.embedding import embed
from twinguide.messages import Solution


class Deformation:
    """The newest solution, and the surfaces made from it when they are asked for."""

    def __init__(self, case: Case, structures: Iterable[str]) -> None:
        body = case.body()
        self._embedded = {name: embed(body, case.surface(name).vertices) for name in structures}
        self._target = embed(body, case.plan.target[None, :])
        self._planned, self._shape = case.plan.target, body.vertices.shape
        self._vertices: NDArray[Any] | None = None
        self._version = 0
        self._made: dict[str, tuple[NDArray[np.float32], int]] = {}
        self._moved = np.zeros(3)
        self.solution: Solution | None = None

    @property
    def sigma_m(self) -> float:
        """The solver's own error, 1 sigma per axis [m]; 0 without a solution."""
        return self.solution.sigma_m if self.solution else 0.0

    def take(self, solution: Solution, vertices: NDArray[Any]) -> None:
        """Take a solution and its body vertices [m], shape (n, 3), in image; an unusable or older one is left."""
        if vertices.shape != self._shape or not np.isfinite(vertices).all():
            return
        if self.solution is not None and solution.t_ns < self.solution.t_ns:
            return
        self.solution, self._vertices = solution, vertices
        self._version += 1
        self._moved = self._target.apply(vertices)[0] - self._planned

    def forget_before(self, t_ns: int) -> None:
        """Drop a solution that is valid for a time before `t_ns` [ns]: the surfaces follow the target rigidly then."""
        if self.solution is not None and self.solution.t_ns < t_ns:
            self.solution, self._vertices, self._moved = None, None, np.zeros(3)
            self._made.clear()

    def at_target(self) -> NDArray[np.float64]:
        """Return how far the solution moves the planned target [m], shape (3,), in image."""
        return self._moved

    def newest(self, name: str) -> tuple[NDArray[np.float32], int] | None:
        """Return a structure's deformed vertices [m], shape (n, 3), in image, and their version; None before any."""
        if self._vertices is None or name not in self._embedded:
            return None
        made = self._made.get(name)
        if made is None or made[1] != self._version:
            made = (self._embedded[name].apply(self._vertices).astype(np.float32), self._version)
            self._made[name] = made
        return made
