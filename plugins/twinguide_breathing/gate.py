"""Say when the target stands still enough to advance the needle: near end-expiration, slow, and known well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import p95_from_covariance

from .model import HORIZONS_S, Prediction

Array = NDArray[np.float64]
LOOKS_AHEAD = sum(h <= 0.15 for h in HORIZONS_S)  # knots: a display that keeps its pace is no further behind


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Beyond these the gate closes; it opens again below `reopen` of them."""

    displacement_m: float = 2e-3
    speed_m_s: float = 5e-3
    reopen: float = 0.8


@dataclass(frozen=True, slots=True)
class GateState:
    """Open or closed, why, and for how many seconds it is likely to stay open."""

    open: bool
    reason: str
    seconds_left: float = 0.0


UNKNOWN = GateState(False, "breathing is not learnt yet")


def decide(before: GateState, prediction: Prediction, limits: GateLimits, rest_ends_in_s: float) -> GateState:
    """Decide from a short trajectory: the worst of its first knots counts, displacement as its 95 % bound.

    `rest_ends_in_s` [s] is when the next breath is expected at the soonest; past it the time left is unknown, told
    as 0.
    """
    distance = np.linalg.norm(prediction.displacement[:LOOKS_AHEAD], axis=1)
    knots = zip(distance, prediction.covariance[:LOOKS_AHEAD], strict=True)
    bound = max(float(d) + p95_from_covariance(c) for d, c in knots)
    speed = float(np.linalg.norm(prediction.velocity[:LOOKS_AHEAD], axis=1).max())
    share = 1.0 if before.open else limits.reopen
    if bound > share * limits.displacement_m:
        return GateState(False, f"target up to {bound * 1e3:.1f} mm from rest")
    if speed > share * limits.speed_m_s:
        return GateState(False, f"target moves at {speed * 1e3:.0f} mm/s")
    return GateState(True, "end of expiration", max(rest_ends_in_s, 0.0))
