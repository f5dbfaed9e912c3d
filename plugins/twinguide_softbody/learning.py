"""Learn how measured points move the body while they already do: on a worker, known from fixed steps on.

A point's columns (`response.py`) cost some thirty solutions, 0.1 s on 20k tetrahedra: no frame's work. Its answer comes
first, a few steps after the point; what each unknown changes of it later: the worker rests after each solution, as the
frames want the memory that it works on. Which steps these are depends on their count alone, never on the clock: a late
worker is waited for, as in `precondition.py`, where bits count more than the frame's time. What was learnt of a place
stays known for a while: a probe comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import numpy as np
import scipy.sparse as sp

from .body import Array
from .constraints import FREE_SIGMA_M, SLID_M, Points
from .error import Point
from .response import Response

FIRST = 8  # steps for the answer of one point
DELAY = 96  # steps for the rest, 1.1 s at 90 Hz: several times what a worker that rests needs for SIZE tetrahedra
REST = 2.0  # as long as it worked
SIZE = 20_000
WITHOUT_COMPILER = 8  # times as long
WIDER = 1.5  # or be as much wider
SPARE = 8  # points kept that are not in use
TELLS_M = 1e-4  # of motion at a point, from which its force tells how soft it is: columns are 0.02 mm off the solution
GIVES = 3.0  # times as soft a place may be across the force as along it
LED, LED_ALL = 3.0, 0.15  # times as far it may lead other places, and that share of its own motion any
SOFTER = 16.0  # than the target's patch is the softest: twice what was seen on the skin of a block


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a point is in the body: the row of its weights, its place at rest [m], how many nodes share it."""

    row: sp.csr_matrix
    rest: Array
    spread: float

    def near(self, other: Place) -> bool:
        """Tell whether the two move the body alike."""
        alike = 1 / WIDER < self.spread / other.spread < WIDER
        return alike and float(np.linalg.norm(self.rest - other.rest)) < SLID_M


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """A point of which nothing is known yet: its weights, its spring's force [N], (3,), its covariance [m2], (3, 3)."""

    row: sp.csr_matrix
    force: Array
    covariance: Array

    def noise(self, field: Array, energy_j: float) -> Array:
        """Bound what the point's noise moves [m, rms], shape (n,), by the `field` [m], (n, 3), that its force does.

        On a spring e/s^2 a noise s moves a point whose compliance is c by s g/(s^2 + g), g = e c. What it leads
        elsewhere, and how soft it is across the force, are measured on a block and on livers, not proven.
        """
        at = (self.row @ field)[0]
        moved, work = float(np.linalg.norm(at)), float(at @ self.force)
        tells = moved > TELLS_M and work > 0.0
        free = GIVES * energy_j * work / float(self.force @ self.force) if tells else SOFTER * FREE_SIGMA_M**2
        variance = np.maximum(np.linalg.eigvalsh(self.covariance), 0.0)
        own = float(np.sqrt((variance * (free / (free + variance)) ** 2).sum()))
        if not tells:
            return np.full(len(field), own)
        return own * np.minimum(LED * np.sqrt(np.einsum("nx,nx->n", field, field)) / moved + LED_ALL, 1.0)


class Learning:
    """The points known so far, and those that are being learnt; `waits` for a worker that is late, or goes on."""

    def __init__(self, response: Response, elements: int, *, waits: bool = True) -> None:
        self._response, self._waits = response, waits
        self._slow = max(1.0, elements / SIZE) * (1 if response.compiled else WITHOUT_COMPILER)
        self._known: list[tuple[Place, Point]] = []
        self._new: list[Place] = []  # of which nothing is known
        self._half: list[Place] = []  # of which the answer is known
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="softbody-learning")
        self._pending: tuple[list[Place], Future[list[Point]]] | None = None
        self._left, self._hurry = 0, Event()

    def find(self, points: Points | None) -> list[Point | None]:
        """Return what is known of measured points, None for each of which nothing is; the next step begins to learn it.

        The frame in which a point comes has work enough.
        """
        places = [] if points is None else [_place(points, k) for k in range(len(points.rest))]
        found = [next((one for one in reversed(self._known) if one[0].near(place)), None) for place in places]
        self._new = [place for place, one in zip(places, found, strict=True) if one is None]
        used = [one for one in found if one is not None]
        self._half = [place for place, point in used if not point.complete]
        spare = [one for one in self._known if not any(one is other for other in used)]
        self._known = spare[-SPARE:] + used
        return [None if one is None else one[1] for one in found]

    def tick(self) -> bool:
        """Count one step; tell whether more is known than before it."""
        if self._pending is None:
            self._begin()
        if self._pending is None:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        places, learnt = self._pending
        self._hurry.set()
        if not (self._waits or learnt.done()):
            return False
        points = learnt.result()
        self._hurry.clear()
        self._known = [one for one in self._known if not any(one[0] is place for place in places)]
        self._known += zip(places, points, strict=True)
        self._pending = None
        return True

    def close(self) -> None:
        """Let the worker end, soon and unheard."""
        self._hurry.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        if self._new:
            self._left = round(FIRST * len(self._new) * self._slow)
            self._pending = self._new, self._worker.submit(self._answers, self._new)
        elif self._half:
            self._left = round(DELAY * self._slow)
            self._pending = self._half[:1], self._worker.submit(self._whole, self._half[:1])

    def _answers(self, places: Sequence[Place]) -> list[Point]:
        return [
            Point.of(place.row, self._response.in_a_hurry(place.row.toarray()[0]), complete=False) for place in places
        ]

    def _whole(self, places: Sequence[Place]) -> list[Point]:
        def rest(worked: float) -> None:
            self._hurry.wait(REST * worked)

        return [Point.of(place.row, self._response.of_point(place.row.toarray()[0], rest)) for place in places]


def _place(points: Points, k: int) -> Place:
    row = sp.csr_matrix(points.weights[k])
    return Place(row, points.rest[k], 1.0 / float((row.data**2).sum()))
