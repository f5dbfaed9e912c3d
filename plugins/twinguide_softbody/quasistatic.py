"""Quasi-static balance of a soft body between its springs: one solution per set of targets, warm from frame to frame.

    minimise  sum of elements' W(F) V - gravity'x + 1/2 sum_j (t_j - w_j x)' S_j (t_j - w_j x)

A step guesses by secants of the last moves (`history.py`), assembles the matrix there, takes a direction by
preconditioned conjugate gradients (`kernels/krylov.c`, `precondition.py`) and follows it as far as the energy falls
and nothing inverts (`newton.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import CaseError

from .arrays import MATERIALS
from .attachment import Attachment, difference, on_lattice
from .backends import Backend, machine_for, newton_on
from .body import Array, Body, Springs, stiffness_of
from .layout import Layout, layout
from .machine import Machine, default_threads
from .newton import Tally

Material = Literal["neo_hookean", "corotational", "linear"]
ITERATIONS = 8  # of conjugate gradients a step: 0.01 mm left by targets that jitter by 0.3 mm, 0.001 by smooth ones
KEPT = 8  # steps that one matrix serves; one more where springs come, which is work enough for a frame
STALE = KEPT + 1  # as old as one that serves no step at all
FEW = 64  # springs whose change the coarse factor follows at once
PROBE = 2  # iterations that look at what a step leaves,
SEEN = 3.0  # and how much more that is than what they move: 0.4 to 0.8 of it with smooth, 0.2 to 0.7 with rough targets
SETTLED = 5e-5  # [m], rms: below, a step has converged; one that leaves more takes a second direction
AT_FIRST = 2e-4  # the same in the frame in which springs come, which has less time for it
QUIET = 1e-7  # [m]: a direction is not refined below
STILL = 1e-4  # of that: nothing moves at all
COLD = 400  # iterations for one direction of a cold start
DIRECTIONS = 40  # at most for one load of a cold start
FIRST_SHARE, LEAST_SHARE = 0.2, 1 / 256  # of the load, of a cold start


@dataclass(slots=True, eq=False)
class Solved:
    """One solution: positions [m], shape (n, 3), and how far it can be believed."""

    positions: Array
    residual: float  # [N/N], imbalance over the forces that act
    smallest_j: float  # of all quadrature points; at or below 0 the body is inverted
    iterations: int  # of conjugate gradients
    converged: bool  # a solution to its tolerance of forces, or to what no longer moves; a step to SETTLED
    level: str  # full or reduced: by all nodes or by modes
    solver_error_m: float  # [m], rms, estimated


class Solver:
    """Keep a body in balance with the targets of its springs.

    `fixed`, shape (n,), are nodes held where they rest. The same arrays in give the same bits out, whatever `threads`,
    where a late worker is waited for; where not (`waits`), its factor is taken over some steps later.
    Raises CaseError for springs that do not fit the body, PluginError where `cuda` cannot be had.
    """

    def __init__(
        self,
        body: Body,
        springs: Springs,
        fixed: NDArray[np.bool_] | None = None,
        *,
        material: Material = "neo_hookean",
        backend: Backend = "auto",
        threads: int | None = None,
        tolerance: float = 1e-8,
        waits: bool = True,
    ) -> None:
        if material not in MATERIALS:
            raise CaseError(f"a material of {', '.join(MATERIALS)}", repr(material), "the solver")
        if backend not in get_args(Backend):
            raise CaseError(f"a backend of {', '.join(get_args(Backend))}", repr(backend), "the solver")
        held = np.zeros(len(body.vertices), dtype=bool) if fixed is None else np.asarray(fixed)
        if held.shape != (len(body.vertices),) or held.dtype != bool:
            wanted, fix = f"fixed of {len(body.vertices)} truth values", "Say True for each node that is held."
            raise CaseError(wanted, f"{held.dtype} of shape {held.shape}", "the solver", fix)
        if threads is not None and threads < 1:
            raise CaseError("threads of 1 or more, or None", f"{threads}", "the solver")
        self.body, self._tolerance = body, tolerance
        self._layout = layout(body, held)
        self._machine = machine_for(backend, self._layout, material, threads or default_threads())
        self._machine.arrays.set("load", body.weight[self._layout.order], np.float64)
        # the energy [sqrt(J)] that moving the body by QUIET stores: where directions need no further refining
        self._quiet = QUIET * float(np.sqrt(np.mean(body.young_pa) * np.cbrt(body.volumes.sum())))
        self._rest = np.ascontiguousarray(body.vertices[self._layout.order])
        self._newton = newton_on(self._machine, self._layout, self._attached(springs))
        self._newton.coarse.waits = waits
        self._closed = False
        self._factored, self._age, self._came = False, STALE, False

    @property
    def layout(self) -> Layout:
        """How the body lies in the kernels' arrays."""
        return self._layout

    @property
    def machine(self) -> Machine:
        """What runs the passes over the body, in the layout's order."""
        return self._machine

    @property
    def springs(self) -> Springs:
        """The springs that act, with their stiffness of now."""
        return self._springs

    def attach(self, springs: Springs) -> None:
        """Exchange the springs; the pose stays, and the factor follows; cheap where most parts stay (`joined`)."""
        old = self._newton.attachment
        new = self._attached(springs, old)
        self._newton.attach(new)
        self._came = len(new.stiffness) > len(old.stiffness)
        if not new.touches_as(old):
            self._age = STALE
        elif self._age < STALE:
            if self._came:
                self._age = min(self._age, KEPT - 1)
            if self._machine.arrays.system.wide:
                self._machine.prepare_wide()
        self._follow(*difference(self._layout, old, new))

    def stiffen(self, stiffness: Array) -> None:
        """Set the springs' stiffness [N/m], shape (k, 3, 3)."""
        checked, attachment = stiffness_of(stiffness, len(self._points)), self._newton.attachment
        changed = np.flatnonzero((checked != attachment.stiffness).any(axis=(1, 2)))
        more = checked[changed] - attachment.stiffness[changed]
        self._springs = Springs(self._springs.weights, checked)
        self._newton.stiffen(checked)
        self._age = STALE
        self._follow(on_lattice(self._layout, attachment.weights[changed]), more)

    def _follow(self, rows: Array, more: Array) -> None:
        """Let the factor know what springs add at rows on the lattice."""
        if len(rows) > FEW:
            self._factored = False
        elif self._factored and len(rows):
            self._newton.coarse.follow(rows, more)

    def close(self) -> None:
        """Let the worker end; no step may follow."""
        self._closed = True
        self._newton.coarse.close()

    def reset(self, positions: Array | None = None) -> None:
        """Start again from positions [m], shape (n, 3), or from rest; raise CaseError where they invert an element."""
        placed = self.body.vertices if positions is None else np.asarray(positions, np.float64)
        if placed.shape != self._rest.shape:
            raise CaseError(f"positions of shape {self._rest.shape}", f"{placed.shape}", "the pose to start from")
        placed = placed[self._layout.order]
        if not self._newton.place(placed - self._rest) > 0:
            self._newton.place(np.zeros_like(self._rest))
            raise CaseError("positions that invert no element", "some do", "the pose to start from")
        self._age = STALE

    @property
    def positions(self) -> Array:
        """Positions [m], shape (n, 3), of the last solution."""
        return np.take(self._newton.displacements() + self._rest, self._layout.place, axis=0)

    def solve(self, targets: Array) -> Solved:
        """Solve to `tolerance` from rest, the loads raised in steps that shrink where they do not settle."""
        moved = self._displaced(targets)
        newton, total, reached, part = self._newton, 0, 0.0, FIRST_SHARE
        self.reset()
        kept = newton.displacements()
        while reached < 1 and part >= LEAST_SHARE:
            share = min(1.0, reached + part)
            newton.load(share * moved, share)
            count, settled = self._settle(self._tolerance if share == 1 else 1e-3)
            total += count
            if settled:
                reached, kept, part = share, newton.displacements(), 1.6 * part
            elif share == 1 and newton.balance.residual < 1e-3:
                break  # stands as close as rounding or the budget let it
            else:
                newton.place(kept)
                part /= 2
        if reached < 1:
            newton.load(moved)
        return self._solved(total, reached == 1, newton.missing(COLD))

    def step(self, targets: Array) -> Solved:
        """Follow the targets by one frame: one direction, a second where the first leaves too much.

        A frame in which springs have come leaves a new matrix to the next one, where it can.
        """
        newton, moved = self._newton, self._displaced(targets)
        if not self._factored:
            newton.assemble()
            newton.coarse.refresh(newton.attachment)
            self._factored, self._age = True, 0
        fresh, guessed, self._came = self._age >= KEPT, not self._came, False
        tally = newton.frame(moved, (fresh, guessed), lambda: self._directions(fresh=fresh, guessed=guessed))
        self._age = 1 if fresh or tally.again else self._age + 1
        newton.coarse.tick(newton.attachment)
        left = SEEN * tally.missing
        return self._solved(tally.iterations, left <= SETTLED, left)

    def _directions(self, *, fresh: bool, guessed: bool) -> Tally:
        """Take a direction of the matrix, a `fresh` one or that of the last steps; a second of its own if need be.

        A matrix that is a few steps old turns a direction by less than the iterations leave. Where springs have come
        nothing is `guessed`: the last moves would bend the whole body for them.
        """
        newton, total, missing, again = self._newton, 0, np.inf, False
        enough = (SETTLED if guessed else AT_FIRST) / SEEN
        if guessed:
            newton.guess()
        for again in (False, True):
            if fresh or again:
                newton.assemble()
            count, _ = newton.iterate(ITERATIONS, 0.0, self._quiet)
            total += count
            missing = newton.missing(PROBE, enough)
            if missing <= enough:
                break
        return Tally(total, missing, again)

    def _attached(self, springs: Springs, old: Attachment | None = None) -> Attachment:
        known = None if old is None else old.rows
        attachment = Attachment(self._layout, springs, self._machine.arrays, known)
        self._springs = springs
        self._points = attachment.weights @ self._rest
        return attachment

    def _settle(self, tolerance: float) -> tuple[int, bool]:
        """Take directions until the residual is below `tolerance`, or to what no longer moves.

        Return iterations and whether it got there.
        """
        newton, total = self._newton, 0
        for _ in range(DIRECTIONS):
            if newton.balance.residual <= tolerance:
                return total, True
            newton.assemble()
            newton.coarse.refresh(newton.attachment)
            self._factored = True
            count, length = newton.iterate(COLD, min(1e-2, newton.balance.residual**0.5), STILL * self._quiet)
            total += count
            if count == 0:  # nothing moves further; where the matrix is not definite, there is no way at all
                return total, newton.balance.left == 0 or 0 < newton.missing(1) <= SETTLED
            if length == 0:
                break
        return total, newton.balance.residual <= tolerance

    def _displaced(self, targets: Array) -> Array:
        """Return targets [m] as displacements from the springs' points at rest; raise CaseError for what is none."""
        if self._closed:
            raise CaseError("a solver that is open", "one that was closed", "a step", "Make a new one.")
        asked = np.asarray(targets, dtype=np.float64)
        if asked.shape != self._points.shape or not np.isfinite(asked).all():
            got = f"{asked.shape}" if asked.shape != self._points.shape else "some that are not finite"
            raise CaseError(f"finite targets of shape {self._points.shape}", got, "the solver", "Keep the last ones.")
        return asked - self._points

    def _solved(self, iterations: int, converged: bool, error_m: float) -> Solved:
        balance = self._newton.balance
        return Solved(
            self.positions, balance.residual, balance.smallest_j, iterations, converged, "full", error_m
        )  # fmt: skip
