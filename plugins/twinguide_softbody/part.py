"""The solver part: one solution for each new displacement, valid for when it will be seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS
from twinguide.errors import TwinGuideError
from twinguide.messages import Displacement, Inbox, Message, Registration, Solution

from . import elastic
from .plugin import CONTRACT, SoftbodyOptions
from .solver import SoftBody, Solved, Surroundings, surface_springs

if TYPE_CHECKING:
    from twinguide.hookspecs import Context

Array = NDArray[np.float64]

LEAST_J = 0.2  # below, a tetrahedron has lost four fifths of its volume: no tissue does, the step is not to be shown
CHI_95 = 2.7955  # radius of a 3-D normal's 95 % region, in standard deviations


class Softbody:
    """Deform the case's organ with its target's displacement."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._of, self._target_of = ctx.case.organ, ctx.case.plan.target_structure
        self._ahead_ns = round(ctx.options.ahead_ms * MS)
        self._body = load(ctx)
        self._image_from_reference: Array | None = None
        self._last = np.zeros(3)  # [m], in image: what is shown on where a displacement cannot be used

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Solve for the newest displacement, if one came."""
        del t_ns  # a solution is valid for the displacement's own time
        registration = inbox.last(Registration)
        if registration is not None:
            self._register(registration)
        newest = [d for d in inbox.of(Displacement) if d.of == self._target_of]
        if newest:
            # Told by what was passed over, not by the wall clock, so that a run in virtual time has the same bits.
            yield self._solve(newest[-1], kept_up=len(newest) == 1)

    def _register(self, registration: Registration) -> None:
        wire = registration.reference_from_image
        try:
            self._image_from_reference = None if wire is None else wire.pose(registration.t_ns).transform.rotation.T
        except TwinGuideError as error:
            self._image_from_reference = None
            self._ctx.log.warning("registration %d passed over: %s", registration.version, error)

    def _solve(self, displacement: Displacement, *, kept_up: bool) -> Solution:
        valid_ns = displacement.t_ns + self._ahead_ns
        solved, level = self._deform(displacement, valid_ns)
        vertices = self._ctx.share("vertices", solved.vertices)
        return Solution(
            t_ns=valid_ns,
            of=self._of,
            vertices=vertices,
            level=level,
            residual=solved.residual,
            sigma_m=CONTRACT.levels[level] * 1e-3 / CHI_95,
            smallest_j=solved.smallest_j,
            deadline_met=kept_up,
            t_input_ns=displacement.t_ns,
        )

    def _deform(self, displacement: Displacement, valid_ns: int) -> tuple[Solved, str]:
        """Return the deformed body and its level; whatever cannot be used moves the body as one, and says `rigid`."""
        rotation = self._image_from_reference
        wanted = at_time(displacement, valid_ns)
        if wanted is None or rotation is None:
            if wanted is None:
                self._ctx.log.warning("displacement at %d ns is not usable: the last one stands", displacement.t_ns)
            return self._body.translate(self._last), "rigid"
        self._last = rotation @ wanted[0]
        solved = self._body.solve(self._last, rotation @ wanted[1] @ rotation.T)
        if not np.isfinite(solved.vertices).all() or solved.smallest_j < LEAST_J:
            return self._body.translate(self._last), "rigid"
        return solved, "full"


def load(ctx: Context) -> SoftBody:
    """Build the solver from the case; raise CaseError where its mesh cannot be solved on."""
    o: SoftbodyOptions = ctx.options
    case, body = ctx.case, ctx.case.body()
    elastic.check_mesh(body.vertices, body.tetrahedra)
    organ = case.structures[case.organ]
    own_pa = organ.young_pa or o.young_pa
    moduli = {name: case.structures[name].young_pa for name in body.fractions if name in case.structures}
    young = elastic.mixed_young(own_pa, body.fractions, moduli)
    held = Surroundings(o.dome, o.rest, o.dome_share, o.rest_share)
    return SoftBody(
        body.vertices,
        body.tetrahedra,
        young if len(young) == len(body.tetrahedra) else own_pa,
        organ.poisson,
        case.plan.target,
        surface_springs(body.vertices, body.tetrahedra, own_pa, held),
        patch_radius_m=o.patch_mm * 1e-3,
        backend=o.backend,
    )


def at_time(displacement: Displacement, t_ns: int) -> tuple[Array, Array] | None:
    """Return mean [m], shape (3,), and covariance [m2], shape (3, 3), at `t_ns` [ns]; None where they are not usable.

    Between the trajectory's knots both are interpolated; beyond them the nearest stands.
    """
    try:
        mean, covariance = displacement.mean.numpy(), displacement.covariance.numpy()
    except TwinGuideError:
        return None
    count = len(displacement.times_ns)
    if not count or mean.shape != (count, 3) or covariance.shape != (count, 3, 3):
        return None
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        return None
    knots = np.array(displacement.times_ns, dtype=np.float64)
    place = float(np.interp(t_ns, knots, np.arange(count)))
    i = min(int(place), count - 1)
    j, share = min(i + 1, count - 1), place - i
    return (1 - share) * mean[i] + share * mean[j], (1 - share) * covariance[i] + share * covariance[j]
