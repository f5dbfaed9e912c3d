"""How tissue moves: smooth analytic fields of displacement, no mesh and no elasticity, so no solver's own model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import skew

Array = NDArray[np.float64]
SKIN_REACH_M = 0.15  # how far from the chest marker the skin moves with it
PUSH_REACH_M = 0.02  # how far from the needle's tip tissue is pushed along
PUSH_DECAY_S = 1.0
PUSH_SHARE = 0.1  # of the needle's advance that tissue follows, before it slips back
PUSH_MAX_M = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """Fields over image, in image [m]; `motion` and `chest_motion` at full inspiration, shape (3,)."""

    target: Array
    chest: Array
    motion: Array
    chest_motion: Array
    turn: Array  # (3,) [rad] of the organ about the target at full inspiration

    def organ(self, points: Array, breath: float) -> Array:
        """Return the displacement [m], shape (n, 3), of organ points [m], shape (n, 3): `motion` at the target.

        The dome (superior) moves more than the lower edge, the lateral part a little more than the medial.
        """
        rel = points - self.target
        share = 1.0 + 0.3 * np.tanh(rel[:, 2] / 0.12) - 0.1 * np.tanh(rel[:, 0] / 0.15)
        return breath * (share[:, None] * self.motion + rel @ skew(self.turn).T)

    def skin(self, points: Array, breath: float) -> Array:
        """Return the displacement [m], shape (n, 3), of skin points [m], shape (n, 3)."""
        share = np.exp(-((points - self.chest) ** 2).sum(axis=1) / (2 * SKIN_REACH_M**2))
        return breath * share[:, None] * self.chest_motion

    def material(self, point: Array, breath: float, extra: Array) -> Array:
        """Return the CT's place [m], shape (3,), of the organ tissue that is now at `point` [m].

        `extra` [m] displaces all of it alike. Four fixed-point rounds leave under 1 um: the field's gradient is below
        0.1.
        """
        place = point - extra
        for _ in range(4):
            place = point - extra - self.organ(place[None], breath)[0]
        return place


def pushed(push_m: float, advance_m: float, dt_s: float) -> float:
    """Return the push at the tip [m] after the needle advanced by `advance_m` [m] within `dt_s` [s]; it decays."""
    grown = push_m + PUSH_SHARE * max(advance_m, 0.0)
    return min(grown, PUSH_MAX_M) * float(np.exp(-dt_s / PUSH_DECAY_S))


def push_at(point: Array, tip: Array, direction: Array, push_m: float) -> Array:
    """Return the displacement [m], shape (3,), that a pushing needle's tip causes at a point [m], shape (3,)."""
    return direction * push_m * float(np.exp(-((point - tip) ** 2).sum() / (2 * PUSH_REACH_M**2)))
