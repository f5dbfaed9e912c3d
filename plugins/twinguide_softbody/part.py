"""The solver part: one solution for each new displacement, valid for when it will be seen."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide import Boundary, Context, Displacement, Inbox, Message, Registration, Solution, TwinGuideError
from twinguide.clock import MS, SECOND

from .constraints import Points, Surroundings, check_shapes, placed
from .materials import Mixture, mix, tissue_of
from .mesh import quadratic
from .organ import Frame, SoftBody
from .plugin import CONTRACT, SoftbodyOptions

if TYPE_CHECKING:
    from twinguide.case import Body, Case

Array = NDArray[np.float64]
SILENT_NS = SECOND  # a sensor that says nothing for so long no longer holds the body


class Softbody:
    """Deform the case's organ with its target's displacement, and with what else measures it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._of, self._target_of = ctx.case.organ, ctx.case.plan.target_structure
        self._ahead_ns = round(ctx.options.ahead_ms * MS)
        body = ctx.case.body()
        self._body, self._own = load(ctx, body), {self._of, *body.fractions}
        self._published = len(body.vertices)  # the case's: midside nodes come after them
        self._measured: dict[str, Boundary] = {}
        self._points: dict[str, Points] = {}
        self._heard_ns: dict[str, int] = {}
        self._passed_over: set[str] = set()  # names of what measures no part of the body, each told once
        self._left_out: dict[str, str] = {}  # what of the measured cannot be used at all, and why
        self._image_from_reference: tuple[Array, Array] | None = None  # rotation, shape (3, 3), translation [m], (3,)

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Solve for the newest displacement, if one came."""
        begun_ns = time.monotonic_ns() if self._ctx.real_time else 0
        registration = inbox.last(Registration)
        if registration is not None:
            self._register(registration)
        for boundary in inbox.of(Boundary):
            self._measure(boundary, t_ns)
        newest = [d for d in inbox.of(Displacement) if d.of == self._target_of]
        if newest:
            # What was passed over counts as missed. In lockstep no time passes in a step: the same bits every run.
            yield self._solve(newest[-1], begun_ns, kept_up=len(newest) == 1)

    def close(self) -> None:
        """Let the workers end."""
        self._body.close()

    def _register(self, registration: Registration) -> None:
        wire = registration.reference_from_image
        try:
            turned = None if wire is None else wire.pose(registration.t_ns).transform.inverse()
            self._image_from_reference = None if turned is None else (turned.rotation, turned.translation)
        except TwinGuideError as error:
            self._image_from_reference = None
            self._ctx.log.warning("registration %d passed over: %s", registration.version, error)
        self._body.forget()
        for boundary in self._measured.values():
            self._place(boundary)

    def _measure(self, boundary: Boundary, now_ns: int) -> None:
        """Take measured points of the organ or of what it holds; other structures' are passed over, and told once."""
        if boundary.of in self._own:
            self._measured[boundary.name] = boundary
            self._heard_ns[boundary.name] = min(boundary.t_ns or now_ns, now_ns)  # a clock ahead gains nothing
            self._place(boundary)
        elif boundary.name not in self._passed_over:
            self._passed_over.add(boundary.name)
            told = "boundary condition %s passed over: it is of %r, and the body of %s"
            self._ctx.log.warning(told, boundary.name, boundary.of, ", ".join(sorted(self._own)))

    def _place(self, boundary: Boundary) -> None:
        """Turn measured points into the image; what cannot be used is left out."""
        name = boundary.name
        self._points.pop(name, None)
        self._left_out.pop(name, None)
        if self._image_from_reference is None or not boundary.rest.shape[:1] > (0,):
            return
        turn, shift = self._image_from_reference
        try:
            wired = (a.numpy() for a in (boundary.rest, boundary.mean, boundary.covariance))
            rest, mean, covariance = (np.where(np.isfinite(a), a, np.nan) for a in wired)
            check_shapes(rest, mean, covariance)
            moved, body = (mean @ turn.T + shift, turn @ covariance @ turn.T), self._body.body
            self._points[name] = placed(body.vertices, body.elements, rest, *moved, boundary.radius_m)
        except (TwinGuideError, TypeError) as error:
            self._left_out[name] = f"{name} left out: {error}"
            self._ctx.log.warning("boundary condition %s", self._left_out[name])

    def _solve(self, displacement: Displacement, begun_ns: int, *, kept_up: bool) -> Solution:
        valid_ns = displacement.t_ns + self._ahead_ns
        frame = self._deform(displacement, valid_ns)
        ctx, count = self._ctx, self._published
        vertices, sigma = frame.vertices[:count].astype(np.float32), frame.sigma[:count].astype(np.float32)
        shared = ctx.share("vertices", vertices), ctx.share("sigma", sigma)
        spent_ms = (time.monotonic_ns() - begun_ns) / MS if ctx.real_time else 0.0
        return Solution(
            t_ns=valid_ns,
            of=self._of,
            vertices=shared[0],
            level=frame.level,
            residual=frame.residual,
            sigma_m=float(np.sqrt((frame.sigma[:count] ** 2).mean())),
            smallest_j=frame.smallest_j,
            deadline_met=kept_up and spent_ms <= CONTRACT.deadline_ms,
            t_input_ns=displacement.t_ns,
            sigma=shared[1],
            reason=frame.reason,
        )

    def _deform(self, displacement: Displacement, valid_ns: int) -> Frame:
        """Return the deformed body; whatever cannot be used moves the body as one, and says `rigid` and why."""
        wanted = at_time(displacement, valid_ns)
        if wanted is None:
            self._ctx.log.warning("displacement at %d ns is not usable: the last one stands", displacement.t_ns)
            return self._body.rigid(self._body.last, "the displacement is not usable")
        if self._image_from_reference is None:
            return self._body.rigid(self._body.last, "not registered")
        turn = self._image_from_reference[0]
        since = {name: displacement.t_ns - self._heard_ns[name] for name in self._points}
        heard = {name: points for name, points in self._points.items() if since[name] <= SILENT_NS}
        frame = self._body.step(turn @ wanted[0], turn @ wanted[1] @ turn.T, heard)
        silent = [f"{n} left out: silent for {since[n] / SECOND:.1f} s" for n in self._points if n not in heard]
        told = [*self._left_out.values(), *silent]
        if not told:
            return frame
        level = "rigid" if frame.level == "rigid" else "partial"
        return replace(frame, level=level, reason=", ".join(filter(None, (frame.reason, *told))))


def load(ctx: Context, body: Body) -> SoftBody:
    """Build the solver of the case's `body`; raise CaseError where its mesh or stiffness cannot be solved on."""
    o: SoftbodyOptions = ctx.options
    case = ctx.case
    held = Surroundings(
        o.dome, o.rest, o.dome_share, o.rest_share, o.share_sigma,
        log_sigma=math.log(o.stiffness_factor), turn_sigma=math.radians(o.turn_deg) / 0.01,
    )  # fmt: skip
    mesh = body.vertices, body.tetrahedra
    return SoftBody(
        *(mesh if o.nodes == 4 else quadratic(*mesh)),
        mixture_of(case, body, o.young_pa),
        case.plan.target,
        held,
        patch_radius_m=o.patch_mm * 1e-3,
        material=o.material,
        backend=o.backend,
        reduced=o.reduced,
        waits=not ctx.real_time,
    )


def mixture_of(case: Case, body: Body, young_pa: float = 0.0) -> Mixture:
    """Return what the organ's tetrahedra in `body` are made of, as its case tells, else as the literature does.

    `young_pa` [Pa] above 0 stands for the organ's own. A structure with no stiffness of its own is the organ.
    """
    organ = case.structures[case.organ]
    own = tissue_of("organ", young_pa or organ.young_pa, 0.0 if young_pa else organ.young_sigma_pa, organ.poisson)
    inner = {name: case.structures[name] for name in body.fractions if name in case.structures}
    tissues = {n: tissue_of(s.role, s.young_pa, s.young_sigma_pa, s.poisson) for n, s in inner.items()}
    return mix(own, {name: body.fractions[name] for name in inner}, tissues, len(body.tetrahedra))


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
