"""How a body answers small loads, and how that answer hangs on what is not known: stiffness and surroundings.

About rest, with A0 the stiffness of the body and its surroundings' springs, the answer to springs S at points W is

    u = C z + Y f,     C = A0^-1 L,  Y = A0^-1 W',  f = (1 + S W Y)^-1 S (z_W - W C z),

where z is the target's displacement, which the surroundings follow by L, and z_W the springs' far ends. An unknown p
changes it by du = (1 - Y (1 + S W Y)^-1 S W) (B_p z - G_p f) with B_p = A0^-1 (dL/dp - dA0/dp C) and
G_p = A0^-1 dA0/dp Y: whatever springs come, go or stiffen, what each point needs is found once, alone (Woodbury's
identity). All solutions are by the kernels' conjugate gradients, and products with dA0/dp by passes over the elements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from twinguide.errors import CaseError

from .attachment import Attachment
from .backends import on_cpu
from .body import Array, Body, Springs
from .constraints import Held
from .layout import Layout, part_of
from .machine import Machine, Native
from .materials import Mixture, Tissue
from .precondition import Coarse

RTOL = 1e-4  # of the energy of an answer,
CHANGE_RTOL = 1e-2  # and of a change of it: an error's estimate asks for no more
MOST = 600  # iterations
LEAST_SHARE = 1e-3  # of the body's volume: a tissue of less changes nothing beyond itself


Pause = Callable[[float], object]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Answers [m] in the body's order: `answer` (n, 3, 3), by axis and direction; `unknown` (p, n, 3, 3) to a sigma."""

    answer: Array
    unknown: Array


class Response:
    """Answer small loads on a body that its surroundings alone hold; columns of what each unknown changes.

    `names` are the unknowns: every tissue's stiffness and every part's of the surroundings, which change the body's
    own stiffness (`answered` of them), then the parts' shares of motion.
    """

    def __init__(self, lay: Layout, body: Body, mixture: Mixture, held: Sequence[Held]) -> None:
        if not held:
            fix = "Let `dome` or `rest` be above 0."
            raise CaseError("surroundings that hold the surface", "none", "the soft body", fix)
        self._lay, self._held = lay, held
        self._vertices = body.vertices[lay.order]
        self._machine = on_cpu(lay, "linear", 1)
        self._direction = np.zeros((len(lay.order), 3))
        springs = surface_springs(held, len(lay.order))
        attachment = Attachment(lay, springs, self._machine.arrays)
        self._machine.tangent(self._direction)
        coarse = Coarse(self._machine)
        coarse.refresh(attachment)
        coarse.close()
        self.names: list[str] = []
        self._changes = []
        for tissue, name, share in zip(mixture.tissues, mixture.names, mixture.shares, strict=True):
            if share @ body.volumes > LEAST_SHARE * body.volumes.sum() and tissue.young_sigma_pa > 0:
                self.names.append(f"stiffness of {name}")
                self._changes.append(partial(_pass, _tissue_pass(lay, body, tissue, share), tissue.log_sigma))
        for one in held:
            self.names.append(f"springs of {one.name}")
            self._changes.append(partial(_multiply, one.log_sigma * self._spring(one)))
        self.answered = len(self.names)
        self.names += [f"share of {one.name}" for one in held]

    @property
    def compiled(self) -> bool:
        """Whether the kernels' text runs compiled, not by Numba."""
        return isinstance(self._machine, Native)

    @property
    def order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The layout's: the body's node at each place, and each node's place."""
        return self._lay.order, self._lay.place

    def solve(self, right: Array, relative: float = RTOL) -> Array:
        """Return A0^-1 of loads [N], shape (n, 3), all in the layout's order, as displacements [m]."""
        self._machine.solve(np.ascontiguousarray(right), self._direction, MOST, relative)
        return self._direction.copy()

    def of_target(self) -> Columns:
        """Return C and every B_p: the answer to unit displacements of the target that the surroundings follow."""
        follows = np.sum([one.share * self._spring(one) for one in self._held], axis=0)
        answers = [self.solve(pull) for pull in _along_axes(follows)]
        unknown = [[self.solve(-change(u), CHANGE_RTOL) for u in answers] for change in self._changes]
        for k, one in enumerate(self._held):
            moved = [self.solve(pull, CHANGE_RTOL) for pull in _along_axes(self._spring(one))]
            springs = unknown[len(self._changes) - len(self._held) + k]
            for axis in range(3):
                springs[axis] += one.log_sigma * one.share * moved[axis]
            unknown.append([one.share_sigma * u for u in moved])
        return self._columns(answers, unknown)

    def of_turn(self, centre: Array) -> Array:
        """Return the answer [m/rad], shape (n, 3, 3), to the surroundings' turning about each axis, at a centre [m]."""
        springs = np.sum([self._spring(one) for one in self._held], axis=0)
        pulls = [np.cross(axis, self._vertices - centre) for axis in np.eye(3)]
        return self._columns([self.solve(_multiply(springs, pull), CHANGE_RTOL) for pull in pulls], []).answer

    def of_point(self, weights: Array, pause: Pause | None = None) -> Columns:
        """Return Y and every G_p of a point, weights (n,) in the body's order: the answer to unit forces on it [m/N].

        `pause` is called after each solution with the time that it took [s].
        """
        loads = [(load, RTOL) for load in _along_axes(weights[self._lay.order])]
        answers = [self._paused(*load, pause) for load in loads]
        unknown = [[self._paused(change(u), CHANGE_RTOL, pause) for u in answers] for change in self._changes]
        return self._columns(answers, unknown)

    def in_a_hurry(self, weights: Array) -> Columns:
        """Return Y of a point, and as the one unknown what all surroundings' springs together change of it."""
        answers = [self.solve(load, CHANGE_RTOL) for load in _along_axes(weights[self._lay.order])]
        springs = np.sum([self._spring(one) for one in self._held], axis=0)
        return self._columns(answers, [[self.solve(_multiply(springs, u), CHANGE_RTOL) for u in answers]])

    def _paused(self, right: Array, relative: float, pause: Pause | None) -> Array:
        begun = time.perf_counter()
        found = self.solve(right, relative)
        if pause is not None:
            pause(time.perf_counter() - begun)
        return found

    def _spring(self, one: Held) -> Array:
        """Return a part's springs [N/m], shape (n,), in the layout's order."""
        out = np.zeros(len(self._lay.order))
        out[self._lay.place[one.nodes]] = one.stiffness
        return out

    def _columns(self, answers: Sequence[Array], unknown: Sequence[Sequence[Array]]) -> Columns:
        place, count = self._lay.place, len(self._lay.order)
        stacked = np.stack([np.stack(u, axis=-1) for u in unknown]) if unknown else np.zeros((0, count, 3, 3))
        return Columns(np.stack(answers, axis=-1)[place], stacked[:, place])


def surface_springs(held: Sequence[Held], count: int) -> Springs:
    """Return all springs of the surroundings, each on its own vertex."""
    nodes = np.concatenate([one.nodes for one in held])
    weights = sp.csr_matrix((np.ones(len(nodes)), (np.arange(len(nodes)), nodes)), shape=(len(nodes), count))
    return Springs(weights, np.concatenate([one.stiffness for one in held])[:, None, None] * np.eye(3))


def _tissue_pass(lay: Layout, body: Body, tissue: Tissue, share: NDArray[np.floating]) -> Machine:
    """Return a machine whose passes see one tissue's part of the stiffness alone."""
    in_order = share[lay.along]
    rows = np.flatnonzero(in_order)
    poisson = body.poisson[lay.along][rows]
    mu = tissue.young_pa * in_order[rows] / (2 * (1 + poisson))
    return on_cpu(part_of(lay, rows, mu, 2 * mu * poisson / (1 - 2 * poisson)), "linear", 1)


def _pass(machine: Machine, factor: float, u: Array) -> Array:
    force = np.zeros_like(u)
    machine.evaluate(u, force)
    return -factor * force


def _multiply(diagonal: Array, u: Array) -> Array:
    return diagonal[:, None] * u


def _along_axes(values: Array) -> list[Array]:
    """Return values, shape (n,), along each of three axes, (n, 3) each."""
    return [values[:, None] * axis for axis in np.eye(3)]
