"""The deformed surfaces: a solver's body vertices carried to every structure embedded in it, with their errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Case
from twinguide.embedding import Embedding, embed
from twinguide.errors import BusError
from twinguide.frames import CHI_95
from twinguide.messages import Solution
from twinguide.render.catalogue import text

EYE = np.eye(3)
JUDGED_AT = 64  # points of a structure, spread over its surface, at which its error is judged


class Deformation:
    """The newest solution, and the surfaces made from it when they are asked for."""

    def __init__(self, case: Case, structures: Iterable[str], levels: Mapping[str, float] | None = None) -> None:
        """Embed the structures; `levels` are those of the declared solver's contract: level -> its 95 % error [mm].

        Where one is declared and there is no solution, the shape is unsure by the worst of them.
        """
        self._levels, self._organ = dict(levels or {}), case.organ
        self._unsolved = (max(self._levels.values(), default=0.0) * 1e-3 / CHI_95) ** 2
        body, names = case.body(), list(structures)
        self._body, self._rest = body, body.vertices
        self._embedded = {name: embed(body, case.surface(name).vertices) for name in names}
        self._target = embed(body, case.plan.target[None, :])
        judged = [case.surface(name).vertices for name in names]
        judged = [vertices[:: max(1, len(vertices) // JUDGED_AT)] for vertices in judged]
        self._judged = embed(body, np.concatenate(judged or [case.plan.target[None, :]]))
        self._owner = np.repeat(np.arange(len(names)), [len(vertices) for vertices in judged])
        self._judged_points = np.maximum(np.bincount(self._owner, minlength=len(names)), 1)
        self._planned, self._shape, self._count = case.plan.target, body.vertices.shape, len(names)
        self._vertices: NDArray[Any] | None = None
        self._sigma: NDArray[Any] | None = None
        self._version = 0
        self._made: dict[str, tuple[NDArray[np.float32], int]] = {}
        self._forget()

    def _forget(self) -> None:
        self.solution: Solution | None = None
        # [m2], the solver's own of each structure, per axis: its points' mean
        self.variances = np.full(self._count, self._unsolved)
        self.target_covariance = np.zeros((3, 3))  # [m2], the solver's own at the planned target, in image
        self._vertices, self._sigma, self._moved = None, None, np.zeros(3)

    def take(self, solution: Solution, vertices: NDArray[Any], sigma: NDArray[Any] | None = None) -> None:
        """Take a solution, its body vertices [m], shape (n, 3), in image, and their errors [m], shape (n,).

        Without errors all vertices have the solution's own, but for the target: what drives the solver says how sure
        that is. An older solution is left; raise BusError for an unusable one.
        """
        if solution.of != self._organ:
            raise BusError(f"a solution of {self._organ}", f"of {solution.of!r}")
        if self._levels and solution.level not in self._levels:
            raise BusError(f"a level of its contract: {', '.join(self._levels)}", repr(solution.level))
        if vertices.shape != self._shape or not np.isfinite(vertices).all():
            got = "values that are not finite" if vertices.shape == self._shape else f"shape {vertices.shape}"
            raise BusError(f"finite vertices, shape {self._shape}", got, f"solution of {solution.of}")
        if self.solution is not None and solution.t_ns < self.solution.t_ns:
            return
        told = sigma is not None and sigma.shape == self._shape[:1] and bool(np.isfinite(sigma).all())
        errors = sigma if sigma is not None and told else np.full(self._shape[0], solution.sigma_m)
        self.solution, self._vertices, self._sigma = solution, vertices, errors
        self._version += 1
        at_target, covariance = self.at(self._target)
        self._moved, self.target_covariance = at_target[0] - self._planned, covariance[0] * told
        squares = self._judged.sigma(errors, vertices, self._rest)[: len(self._owner)] ** 2
        self.variances = np.bincount(self._owner, weights=squares, minlength=self._count) / self._judged_points

    @property
    def fault(self) -> str:
        """Why the shape is not to be trusted as solved; nothing where it is, or where no part is to solve it."""
        if self.solution is None:
            return text("shape_absent") if self._levels else ""
        best = len(self._levels) == 1  # a solver's only level is its best
        lowered = self.solution.level in ("partial", "rigid") and not best
        return text(f"shape_{self.solution.level}", reason=self.solution.reason) if lowered else ""

    def embed(self, points: NDArray[np.float64]) -> Embedding:
        """Find how points [m], shape (k, 3), in image at rest, ride in the body: once, to ask `at` each frame."""
        return embed(self._body, points)

    def at(self, embedding: Embedding) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return embedded points [m], shape (k, 3), in image, and their covariances [m2], shape (k, 3, 3).

        Without a solution they are where the CT shows them, as unsure as the worst level of the solver's contract.
        """
        if self._vertices is None or self._sigma is None:
            return embedding.apply(self._rest), np.tile(self._unsolved * EYE, (len(embedding.offset), 1, 1))
        sigma = embedding.sigma(self._sigma, self._vertices, self._rest)
        return embedding.apply(self._vertices), sigma[:, None, None] ** 2 * EYE

    def forget_before(self, t_ns: int) -> None:
        """Drop a solution that is valid for a time before `t_ns` [ns]: the surfaces follow the target rigidly then."""
        if self.solution is not None and self.solution.t_ns < t_ns:
            self._forget()
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
