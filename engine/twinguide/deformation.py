"""The deformed surfaces: a solver's vertices, transferred to every structure embedded in its body, with errors."""

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
from twinguide.wording import text

EYE = np.eye(3)
JUDGED_AT = 64  # points of a structure, spread over its surface, at which its error is judged


class Deformation:
    """The newest solution, and the surfaces that are computed from it on demand."""

    def __init__(self, case: Case, structures: Iterable[str], levels: Mapping[str, float] | None = None) -> None:
        """Embed the structures; `levels` are those of the declared solver's contract: level -> its 95 % error [mm].

        Where one is declared and there is no solution yet, the worst of them is the shape's error.
        """
        self._levels = dict(levels or {})
        self._organ = case.organ
        self._unsolved = (max(self._levels.values(), default=0.0) * 1e-3 / CHI_95) ** 2
        body = case.body()
        names = list(structures)
        self._body = body
        self._rest = body.vertices
        self._embeddings = {name: embed(body, case.surface(name).vertices) for name in names}
        self._target = embed(body, case.plan.target[None, :])
        samples = [case.surface(name).vertices for name in names]
        samples = [vertices[:: max(1, len(vertices) // JUDGED_AT)] for vertices in samples]
        self._samples = embed(body, np.concatenate(samples or [case.plan.target[None, :]]))
        self._owner = np.repeat(np.arange(len(names)), [len(vertices) for vertices in samples])
        self._sample_counts = np.maximum(np.bincount(self._owner, minlength=len(names)), 1)
        self._planned_target = case.plan.target
        self._shape = body.vertices.shape
        self._count = len(names)
        self._vertices: NDArray[Any] | None = None
        self._sigma: NDArray[Any] | None = None
        self._version = 0
        self._surfaces: dict[str, tuple[NDArray[np.float32], int]] = {}  # vertices, and of which version
        self._forget()

    def _forget(self) -> None:
        self.solution: Solution | None = None
        # [m2], the solver's own of each structure, per axis: its points' mean
        self.variances = np.full(self._count, self._unsolved)
        self.target_covariance = np.zeros((3, 3))  # [m2], the solver's own at the planned target, in image
        self._vertices = None
        self._sigma = None
        self._target_shift = np.zeros(3)

    def take(self, solution: Solution, vertices: NDArray[Any], sigma: NDArray[Any] | None = None) -> None:
        """Take a solution, its body vertices [m], shape (n, 3), in image, and their errors [m], shape (n,).

        Without errors all vertices have the solution's own, except the target, whose error is that of the solver's
        input. An older solution is ignored; raise BusError for an unusable one.
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
        usable = sigma is not None and sigma.shape == self._shape[:1] and bool(np.isfinite(sigma).all())
        errors = sigma if sigma is not None and usable else np.full(self._shape[0], solution.sigma_m)
        self.solution = solution
        self._vertices = vertices
        self._sigma = errors
        self._version += 1
        at_target, covariance = self.at(self._target)
        self._target_shift = at_target[0] - self._planned_target
        self.target_covariance = covariance[0] * usable
        squares = self._samples.sigma(errors, vertices, self._rest)[: len(self._owner)] ** 2
        self.variances = np.bincount(self._owner, weights=squares, minlength=self._count) / self._sample_counts

    @property
    def fault(self) -> str:
        """Why the solved shape is not to be trusted; empty where it is, or where no part solves for it."""
        if self.solution is None:
            return text("shape_absent") if self._levels else ""
        best = len(self._levels) == 1  # a solver's only level is its best
        lowered = self.solution.level in ("partial", "rigid") and not best
        return text(f"shape_{self.solution.level}", reason=self.solution.reason) if lowered else ""

    def embed(self, points: NDArray[np.float64]) -> Embedding:
        """Embed points [m], shape (k, 3), in image at rest, in the body: once, so that `at` costs little per frame."""
        return embed(self._body, points)

    def at(self, embedding: Embedding) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return embedded points [m], shape (k, 3), in image, and their covariances [m2], shape (k, 3, 3).

        Without a solution they are where the CT shows them, with the error of the worst level of the solver's contract.
        """
        if self._vertices is None or self._sigma is None:
            return embedding.apply(self._rest), np.tile(self._unsolved * EYE, (len(embedding.offset), 1, 1))
        sigma = embedding.sigma(self._sigma, self._vertices, self._rest)
        return embedding.apply(self._vertices), sigma[:, None, None] ** 2 * EYE

    def forget_before(self, t_ns: int) -> None:
        """Drop a solution that is valid for a time before `t_ns` [ns]: the surfaces follow the target rigidly then."""
        if self.solution is not None and self.solution.t_ns < t_ns:
            self._forget()
            self._surfaces.clear()

    def at_target(self) -> NDArray[np.float64]:
        """Return how far the solution moves the planned target [m], shape (3,), in image."""
        return self._target_shift

    def newest(self, name: str) -> tuple[NDArray[np.float32], int] | None:
        """Return a structure's deformed vertices [m], shape (n, 3), in image, and their version; None before any."""
        if self._vertices is None or name not in self._embeddings:
            return None
        surface = self._surfaces.get(name)
        if surface is None or surface[1] != self._version:
            surface = (self._embeddings[name].apply(self._vertices).astype(np.float32), self._version)
            self._surfaces[name] = surface
        return surface
