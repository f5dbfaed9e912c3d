"""What measures the organ besides its target: points of messages, brought into the image; why some are left out.

A point is known again by where it is at rest, as a message may have other points than the last one of its name. One
that is new is measured against where the body itself has it: a jump does not hide behind a changed count.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from logging import Logger

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import TwinGuideError
from twinguide.messages import Boundary

from .constraints import FARTHEST_M, Points, Steadiness, check_shapes, most_of, points_of
from .organ import SoftBody

Array = NDArray[np.float64]
Placing = tuple[Array, Array]  # image_from_reference: rotation, shape (3, 3), and translation [m], shape (3,)


@dataclass(slots=True, eq=False)
class _Seen:
    """A message: `rest` [m] in image, (k, 3), the others in reference; how far each jumped [m], (k,), once known."""

    rest: Array
    mean: Array
    covariance: Array
    radius_m: float
    jumps: Array | None = None


class Measured:
    """The points in use by the name of what measures, and why others are not; none of other structures."""

    def __init__(self, body: SoftBody, structures: Collection[str], log: Logger) -> None:
        self._body, self._structures, self._log = body, structures, log
        self._seen: dict[str, _Seen] = {}
        self._steady: dict[str, Steadiness] = {}
        self._placing: Placing | None = None
        self.points: dict[str, Points] = {}
        self.left_out: dict[str, str] = {}

    def register(self, placing: Placing | None) -> None:
        """Place all points anew; by None, as nobody is registered, none."""
        self._placing = placing
        for name in self._seen:
            self._place(name)

    def take(self, boundary: Boundary) -> None:
        """Take a message for the older ones of its name; without points it takes them back."""
        name = boundary.name
        if boundary.of not in self._structures:
            return
        for kept in (self._seen, self.points, self.left_out):
            kept.pop(name, None)
        if not boundary.rest.shape[:1] > (0,):
            self._steady.pop(name, None)
            return
        try:
            wired = (a.numpy() for a in (boundary.rest, boundary.mean, boundary.covariance))
            rest, mean, covariance = (np.where(np.isfinite(a), a, np.nan) for a in wired)
            check_shapes(rest, mean, covariance)
        except (TwinGuideError, TypeError) as error:
            self._leave_out(name, name, str(error))
            return
        self._seen[name] = _Seen(rest, mean, covariance, boundary.radius_m)
        self._place(name)

    def _place(self, name: str) -> None:
        """Bring a message's points into the image, but for those that cannot be used."""
        self.left_out.pop(name, None)
        self.points.pop(name, None)
        if self._placing is None:
            return
        seen, (turn, shift) = self._seen[name], self._placing
        mean, covariance = seen.mean @ turn.T + shift, turn @ seen.covariance @ turn.T
        bad = self._faults(name, seen, np.linalg.norm(mean - seen.rest, axis=1))
        use = ~np.any([where for where, _ in bad], axis=0)
        if not use.all():
            which = name if not use.any() else f"{int((~use).sum())} of {len(use)} points of {name}"
            self._leave_out(name, which, ", ".join(why for where, why in bad if where.any()))
        if not use.any():
            return
        body, parts = self._body.body, (seen.rest[use], mean[use], covariance[use])
        try:
            self.points[name] = points_of(body.vertices, body.elements, *parts, seen.radius_m)
        except TwinGuideError as error:
            self._leave_out(name, name, str(error))

    def _faults(self, name: str, seen: _Seen, away: Array) -> list[tuple[NDArray[np.bool_], str]]:
        """Return which points, (k,), cannot be used, and why; `away` [m], (k,), is how far from rest they are."""
        sound = np.isfinite(seen.rest).all(axis=1) & np.isfinite(away) & np.isfinite(seen.covariance).all(axis=(1, 2))
        if seen.jumps is None:
            seen.jumps = np.zeros(len(sound))
            seen.jumps[sound] = self._jumps(name, seen.rest[sound], seen.mean[sound])
        far = sound & (away > FARTHEST_M)
        jumped = sound & ~far & (seen.jumps > 0)
        why = f"jumped by {1e3 * seen.jumps[jumped].max(initial=0):.0f} mm"
        if most_of(jumped):
            why += " together: register anew if the reference or what measures was moved"
        most = 1e3 * away[far].max(initial=0)
        return [(~sound, "not finite"), (far, f"{most:.0f} mm away from where they rest"), (jumped, why)]

    def _jumps(self, name: str, rest: Array, mean: Array) -> Array:
        """Return how far points [m], (k, 3), have jumped since they were last believed, (k,); 0 where not."""
        assert self._placing is not None
        turn, shift = self._placing
        steady = self._steady.setdefault(name, Steadiness())
        own, new = mean.copy(), ~steady.knows(rest)
        own[new] = (self._body.carried(rest[new]) - shift) @ turn
        return steady.jumps(rest, mean, own, (rest + self._body.last - shift) @ turn)

    def _leave_out(self, name: str, which: str, why: str) -> None:
        told = f"{which} left out: {why}"
        self.left_out[name] = ", ".join(filter(None, (self.left_out.get(name), told)))
        self._log.warning("boundary condition %s", told)
