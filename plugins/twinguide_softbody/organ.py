"""An organ that follows its sensors: a soft body between its surroundings, drawn by its target and by measured points.

Arrays in, arrays out, one `step` a frame. What cannot be used lowers the level, with the reason; only arrays of
another shape or of another body raise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp

from twinguide.errors import CaseError

from . import constraints
from .bias import mesh_error
from .body import Array, Body, Indices, Springs, joined, stacked
from .constraints import Points, Surroundings
from .error import CHI_95, ErrorModel, Point
from .layout import layout
from .learning import Learning, Touch
from .materials import Mixture
from .measured import Measured, Steadiness, dispute, heed, slid
from .pursuit import Pursuit
from .quasistatic import Solver
from .response import Response, surface_springs

if TYPE_CHECKING:
    from .reduced import Reduced

UNSURE = 2.0  # of what is unsure of a point's motion before it is known: a block's vertices needed 1.0 to 2.0
REFUSED_M = 1.0  # to which a refused drive's error is stated, or one that is no number: far beyond any tolerance
STIFFER = 1.1  # change of a covariance's size above which the springs follow it


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame: vertices [m], shape (n, 3), and each one's error [m], shape (n,): 2.7955 of it hold 95 %.

    The errors are for the drive as given: its own covariance comes on top, by whoever knows what else it moves.
    """

    vertices: Array
    sigma: Array
    level: str  # full, reduced (by modes), partial (a measured point was left out) or rigid (moved as one)
    reason: str  # why the level is below the best
    residual: float  # [N/N], imbalance over the forces that act
    smallest_j: float


class SoftBody:
    """A body of m tetrahedra of mixed tissue, whose surface is held softly and whose target is moved.

    Vertices [m], shape (n, 3); tetrahedra, shape (m, 4), or (m, 10) of `quadratic`, which bend without locking;
    `target` [m], shape (3,): the patch of `patch_radius_m` [m] around it is drawn to where the target is. `reduced`
    takes the fast path (`fastpath.py`) where its model is kept, and has it trained for the next start where not. The
    same steps give the same bits; where it does not wait for what a worker is to have found by a step, no frame is late
    for that, and errors stay bounded a little longer. Raises CaseError for a mesh or mixture that cannot be solved on.
    """

    def __init__(
        self,
        vertices: Array,
        tetrahedra: Indices,
        mixture: Mixture,
        target: Array,
        held: Surroundings | None = None,
        *,
        patch_radius_m: float = 0.012,
        material: Literal["neo_hookean", "corotational", "linear"] = "neo_hookean",
        backend: Literal["auto", "cpu", "cuda"] = "auto",
        reduced: Literal["off", "auto"] = "off",
        waits: bool = True,
    ) -> None:
        target = np.asarray(target, dtype=np.float64)
        self.body = _checked(vertices, tetrahedra, mixture, (target, patch_radius_m), reduced)
        vertices, tetrahedra = self.body.vertices, self.body.elements
        held = held or Surroundings()
        around = partial(constraints.surroundings, young_pa=mixture.tissues[0].young_pa, held=held)
        self._held = around(vertices, tetrahedra)
        # As wide as the corners want: so the mesh's error is no other patch's.
        reach_m = constraints.patch_reach(vertices[: self.body.corners], target, patch_radius_m)
        self._patch = constraints.patch_weights(vertices, target, reach_m)
        self._patch_row = sp.csr_matrix(self._patch)
        self._centre = (self._patch @ vertices)[None]
        self._shares = np.concatenate([np.full(len(one.nodes), one.share) for one in self._held] + [np.ones(1)])
        response = Response(layout(self.body, np.zeros(len(vertices), dtype=bool)), self.body, mixture, self._held)
        self._surroundings = surface_springs(self._held, len(vertices))
        columns = response.of_target(), response.of_point(self._patch)
        compliance = np.einsum("n,nxa->xa", self._patch, columns[1].answer)
        self._energy = constraints.energy_scale(compliance)
        self._covariance = np.eye(3) * constraints.LEAST_SIGMA_M**2
        self._points: Points | None = None
        self._disputed: Points | None = None
        self._steady, self._measured = Steadiness(), Measured(vertices)
        self._closed = False
        self.last = np.zeros(3)  # [m], the drive that was last believed
        self._solver = Solver(self.body, self._springs(), material=material, backend=backend, waits=waits)
        patch = target, reach_m
        follows, bias = mesh_error(response, self.body, mixture, around, patch, self.spring, columns)
        self._errors, self._point = (
            ErrorModel(follows, bias, response.answered, held.turn_sigma * response.of_turn(target)),
            Point.of(self._patch_row, columns[1]),
        )
        self._learning = Learning(response, self.body.work, waits=waits)
        self._hold()
        fast: Reduced | None = None
        if reduced == "auto" and material == "neo_hookean":
            from . import fastpath  # what it needs is loaded only where it is asked for

            job = fastpath.Job(self.body, self._solver.springs, fastpath.family(self._rest, self._shares))
            fast = fastpath.ready(self._solver, job)
        self._reduced, self._pursuit = fast, Pursuit(self._solver, self._targets, fast)

    @property
    def spring(self) -> Array:
        """The target's spring [N/m], shape (3, 3)."""
        return self._stiffness[0]

    def _springs(self) -> Springs:
        """Lay all springs: the surroundings', the patch's, and one for each measured point."""
        rows, covariances = [self._patch_row], [self._covariance[None]]
        if self._points is not None:
            rows.append(self._points.weights)
            covariances.append(self._points.covariance)
        self._stiffness = constraints.stiffness(np.concatenate(covariances), self._energy)
        springs = joined(self._surroundings, Springs(stacked(rows), self._stiffness))
        self._rest = springs.weights @ self.body.vertices
        return springs

    def _hold(self) -> None:
        """Let the errors know the springs as they are; points that are still being learnt are bounded (`_bounds`)."""
        found = self._learning.find(self._points)
        self._unsure = sum(one is None or not one.complete for one in found)
        self._found = np.array([True, *(one is not None for one in found)])
        points = [self._point, *(one for one in found if one is not None)]
        covariance = self._covariance[None]
        if self._points is not None:
            covariance = np.concatenate([covariance, self._points.covariance])
        self._errors.hold(points, self._stiffness[self._found], covariance[self._found])

    def step(self, displacement: Array, covariance: Array, measured: Mapping[str, Points] | None = None) -> Frame:
        """Move the target by a displacement [m], shape (3,), of covariance [m2], shape (3, 3); heed measured points.

        A drive that is not finite, that no organ follows or that jumps leaves the body where it was last believed, as
        a rigid one; measured points alike are left out. The same `Points` given again are no new measurement. Raises
        CaseError for arrays of other shapes and for points of another body.
        """
        displacement, covariance = (np.asarray(a, dtype=np.float64) for a in (displacement, covariance))
        if displacement.shape != (3,) or covariance.shape != (3, 3):
            got = f"{displacement.shape}, {covariance.shape}"
            raise CaseError("a displacement (3,) [m] and its covariance (3, 3) [m2]", got, "the drive")
        if self._closed:
            raise CaseError("a soft body that is open", "one that was closed", "a step", "Make a new one.")
        if not (np.isfinite(displacement).all() and np.isfinite(covariance).all()):
            return self.rigid(self.last, "the drive is not finite")
        if not constraints.is_covariance(covariance):
            why = "the drive's covariance has a negative variance or no symmetry"
            return self.rigid(self.last, why, displacement)
        if (length_m := math.hypot(*displacement)) > constraints.FARTHEST_M:
            return self.rigid(self.last, f"a drive of {1e3 * length_m:.5g} mm is no organ's", displacement)
        drive = displacement.copy()[None]
        jumped_m = float(self._steady.jumps(np.zeros((1, 3)), drive, drive)[0])
        if jumped_m > 0:
            return self.rigid(self.last, f"the drive jumped by {1e3 * jumped_m:.0f} mm", displacement)
        self.last = drive[0]
        believed, told = self._measured.believed({} if measured is None else measured, self._pursuit.pose, self.last)
        told += self._take(self.last, covariance, believed)
        solved, why = self._pursuit.follow(self._whole_drive())
        if why:
            return self.rigid(self.last, ", ".join([why, *told]))
        term, bounded = self._bounds(solved.positions)
        sigma = self._errors.sigma(self._drive(), solver_m=solved.solver_error_m, term=term)
        sigma += self._dispute(solved.positions) / CHI_95
        if not np.isfinite(sigma).all():
            return self.rigid(self.last, ", ".join(["the errors are not finite", *told]))
        level = "partial" if told else solved.level
        reason = ", ".join([*told, *([bounded] if bounded else [])])
        return Frame(solved.positions, sigma, level, reason, solved.residual, solved.smallest_j)

    def _bounds(self, positions: Array) -> tuple[Array | None, str]:
        """Bound what points that are still being learnt add to the errors, as one more unknown's effect, (n, 3) [m].

        What they move is known, in the first steps from the solution alone; what is unsure of that is at most a share.
        Their noise is known after the first steps, until then bounded by what their springs' forces move.
        """
        points, drive = self._points, self._drive()
        if points is None or not self._unsure:
            return None, ""
        reason = f"the errors of {self._unsure} new measured points are bounded, not yet found"
        if self._found.all():
            return UNSURE * self._errors.unsure(drive), reason
        field = positions - self.body.vertices - self._errors.moved(drive)
        known = self._errors.unsure(drive)  # of points that are found but for what the unknowns change of them
        moved = np.einsum("nx,nx->n", field, field)
        square = UNSURE**2 * (moved + np.einsum("nx,nx->n", known, known))
        for k in np.flatnonzero(~self._found[1:]):
            ends = points.mean[k] - (points.weights[k] @ positions)[0]
            touch = Touch(points.weights[k], self._stiffness[1 + k] @ ends, points.covariance[k])
            square += touch.noise(field, self._energy) ** 2
        field[moved == 0.0, 0] = moved[moved == 0.0] = 1.0  # along x where nothing tells
        return np.sqrt(square / moved)[:, None] * field, reason

    def rigid(self, displacement: Array, reason: str, asked: Array | None = None) -> Frame:
        """Move the whole body by a displacement [m], shape (3,), undeformed; its error is the missing deformation too.

        That is added to the deformed body's own 95 % radius, never in squares: what the model lacks of a deformation
        and what it has are not independent, and a sum of lengths holds whatever they have in common. `asked` [m],
        shape (3,), is a drive that was refused: whoever carries the body on to there lacks the deformation of there.
        """
        displacement = displacement if np.isfinite(displacement).all() else self.last
        drive, dent_m = self._drive(), 0.0
        drive[0] = at = displacement if asked is None else np.clip(asked, -REFUSED_M, REFUSED_M)
        missing = self._errors.moved(drive) - at
        if self._points is not None:  # of points that nobody has learnt yet: no vertex is dented deeper
            dents = self._points.mean - self._points.rest - at
            dent_m = float(np.linalg.norm(dents[~self._found[1:]]))
        term = UNSURE * self._errors.unsure(drive) if self._unsure else None
        if not self._found.all():
            missing += self._pursuit.pose - self.body.vertices - self._errors.moved(self._drive())
            term = self._bounds(self._pursuit.pose)[0]
        missing_m = np.linalg.norm(missing, axis=1) + self._dispute(self.body.vertices + at)
        sigma = self._errors.sigma(drive, solver_m=dent_m, term=term) + missing_m / CHI_95
        sigma = np.where(np.isfinite(sigma), sigma, REFUSED_M)
        return Frame(self.body.vertices + displacement, sigma, "rigid", reason, 0.0, 1.0)

    def _dispute(self, positions: Array) -> Array:
        """Return how far each vertex [m], (n,), is from where points that surer ones contradict would have it."""
        believed = self._centre if self._points is None else np.vstack([self._centre, self._points.rest])
        return dispute(self.body.vertices, positions, self._disputed, believed)

    def close(self) -> None:
        """Let the workers end; no step may follow."""
        self._closed = True
        self._learning.close()
        self._solver.close()

    def forget(self) -> None:
        """Measure points by where the body has them from now on, not by where they were: they are placed anew."""
        self._measured.forget()

    def effects(self) -> Array:
        """Return what one sigma of each unknown does to the last step [m], shape (unknowns, n, 3).

        The last three are the surroundings' turns about x, y and z.
        """
        return self._errors.effects(self._drive())

    def _whole_drive(self) -> Array:
        """Return the drive [m], shape (k, 3): displacements of the target and of each measured point."""
        points = self._points
        return self.last[None].copy() if points is None else np.vstack([self.last, points.mean - points.rest])

    def _drive(self) -> Array:
        """Return the drive [m], shape (k, 3): of the target and of each measured point of which something is known."""
        return self._whole_drive()[self._found]

    def _take(self, displacement: Array, covariance: Array, measured: Mapping[str, Points]) -> list[str]:
        """Take the frame's springs; return which points were left out, and why."""
        own = Points(self._patch_row, self._centre, self._centre + displacement, covariance[None])
        heeded, self._disputed, told = heed(own, measured)
        learnt = self._learning.tick()
        if self._attach(heeded, covariance) or learnt:
            self._hold()
        return told

    def _attach(self, points: Points | None, covariance: Array) -> bool:
        """Exchange the springs where points came or went, stiffen them where they are sure otherwise than before.

        Return whether either was done.
        """
        if slid(points, self._points) > 0:
            self._points, self._covariance = points, covariance
            springs = self._springs()
            self._solver.attach(springs)
            if self._reduced is not None and points is None:
                self._reduced.stiffen(springs)
            self._pursuit.exchange(points)
            return True
        old, new = np.trace(self._covariance), np.trace(covariance)
        sized = not (1 / STIFFER < (new + 1e-12) / (old + 1e-12) < STIFFER)
        if points is not None and self._points is not None:
            was, now = (np.einsum("kii->k", p.covariance) + 1e-12 for p in (self._points, points))
            sized = sized or bool(np.abs(np.log(now / was)).max() > np.log(STIFFER))
            self._points = points if sized else replace(self._points, mean=points.mean)
        if sized:
            self._covariance = covariance
            springs = self._springs()
            self._solver.stiffen(springs.stiffness)
            if self._reduced is not None and self._points is None:
                self._reduced.stiffen(springs)
        return sized

    def _targets(self, drive: Array) -> Array:
        """Return where the springs' far ends are [m], shape (k, 3), under a drive [m] of the target and each point."""
        ends = self._rest.copy()
        count = len(self._shares)
        ends[:count] += self._shares[:, None] * drive[0]
        ends[count:] += drive[1:]
        return ends


def _checked(vertices: Array, tetrahedra: Indices, mixture: Mixture, patch: tuple[Array, float], reduced: str) -> Body:
    """Return the body; refuse what does not fit a sound one."""
    where, (target, radius_m) = "the soft body", patch
    if not isinstance(mixture, Mixture):
        raise CaseError("a Mixture of tissues", f"{mixture!r}", where, "Make it by `mix`.")
    body = Body(vertices, tetrahedra, mixture.young_pa, mixture.poisson)
    if body.elements[:, 4:].min(initial=body.corners) < body.corners:
        raise CaseError("midside nodes after the corners", "some before", where, "Add them by `quadratic`.")
    if target.shape != (3,) or not np.isfinite(target).all():
        raise CaseError("a finite target of shape (3,)", f"{target.tolist()}", where)
    weights = constraints.point_weights(body.vertices, body.elements, target[None])
    off, size = np.linalg.norm(weights @ body.vertices - target), float(np.ptp(body.vertices, axis=0).max())
    if off > constraints.JUMP_M:
        raise CaseError("a target in the body", f"{off * 1e3:.0f} mm outside", where, "Give it in image, in metres.")
    if not 0.0 < radius_m <= size:
        raise CaseError(f"a patch of 0 to {size:g} m", f"{radius_m:g} m", where, "Give its radius in metres.")
    if reduced not in ("off", "auto"):
        raise CaseError("reduced off or auto", repr(reduced), where)
    return body
