"""Silence, horizon, tolerance: how far to trust what is shown of one structure or tool.

Silence is the time since a stream's last sample, in the stream's own periods; three of them change the state. The
horizon is display time minus sample time; prediction bridges it, and its predicted 95 % error is judged in millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from twinguide.clock import SECOND
from twinguide.frames import Array, Transform, vector_from_rotation
from twinguide.history import PoseHistory, step_between
from twinguide.scene import Status

SILENT_PERIODS = 3.0
GONE_NS = SECOND  # of silence, after which a structure's place is no longer claimed
RELEASE = 0.85  # hysteresis: a degraded structure is unmarked again below this share of its tolerance
FRAME_NS = SECOND // 90
JUMP_M = 0.010  # within a frame of 11 ms: 0.9 m/s more than the frame before, 80 m/s2; a head in surgery stays below 10
JUMP_RAD = 0.05  # likewise 4.5 rad/s more than the frame before
SLOW_NS = SECOND  # within which a reference that is pushed slowly is noticed
LEVER_M = 0.15  # from the reference body to what hangs on it: a turn of the body is a step out there
RETURN_SAMPLES = 5  # valid ones in a row before a lost tool is shown again


@dataclass(slots=True)
class Stream:
    """When a stream was last heard, on the run's clock."""

    period_ns: int
    heard_ns: int = -1

    def silence(self, now_ns: int) -> float:
        """Return the silence in the stream's own periods; infinite before the first sample."""
        return float("inf") if self.heard_ns < 0 else max(0, now_ns - self.heard_ns) / self.period_ns


class Trust:
    """The state of one structure, with hysteresis on its tolerance [m]."""

    def __init__(self, tolerance_m: float) -> None:
        self.tolerance_m = tolerance_m
        self._over = False

    def judge(
        self, p95_m: float, silence: float, horizon_ns: int, period_ns: int, fault: str = "", unseen: str = ""
    ) -> Status:
        """Return the status for a predicted 95 % error [m].

        `fault` is why the place is not to be trusted; `unseen` why a tracker that is not silent has no sample.
        """
        limit_m = self.tolerance_m * (RELEASE if self._over else 1.0)
        over = not p95_m <= limit_m  # NaN is over
        if not fault:  # what a fault marks is judged afresh once it is over
            self._over = over
        if silence * period_ns > GONE_NS:
            return Status("hidden", unseen or "tracker silent", silence, horizon_ns, p95_m)
        if unseen or fault:
            return Status("degraded", unseen or fault, silence, horizon_ns, p95_m)
        if over:
            reason = f"error {p95_m * 1e3:.1f} mm > {limit_m * 1e3:.1f} mm"
            return Status("degraded", reason, silence, horizon_ns, p95_m)
        if silence >= SILENT_PERIODS:
            return Status("predicted", "tracker silent", silence, horizon_ns, p95_m)
        return Status("valid", "", silence, horizon_ns, p95_m)


class HeadWatch:
    """Distinguish a jump of the headset's own tracking from a moving head, whose velocity cannot change that fast."""

    def __init__(self) -> None:
        self._last: tuple[int, Transform] | None = None
        self._motion: tuple[int, Array, Array] | None = None  # in the last frame: its time [ns], shift, turn

    def jump(self, t_ns: int, head: Transform) -> str:
        """Return how far the head is from where its last two frames lead, where no head moves like that; or nothing."""
        last = self._last
        motion = self._motion
        self._last = (t_ns, head)
        self._motion = None
        if last is None or last[0] >= t_ns:
            return ""
        span = t_ns - last[0]
        shift = head.translation - last[1].translation
        turn = vector_from_rotation(last[1].rotation.T @ head.rotation)
        self._motion = (span, shift, turn)
        if motion is None:
            return ""
        last_span, last_shift, last_turn = motion
        share = span / last_span
        reach = span * (span + last_span) / FRAME_NS**2 / 2  # of a steady acceleration
        shift_m = math.hypot(*(shift - share * last_shift).tolist())
        turn_rad = math.hypot(*(turn - share * last_turn).tolist())
        if shift_m < JUMP_M * max(1.0, reach) and turn_rad < JUMP_RAD * max(1.0, reach):
            return ""
        self._last = self._motion = None
        return f"the headset's place jumped by {shift_m * 1e3:.0f} mm, {np.degrees(turn_rad):.0f} deg"


class Presence:
    """Whether a tool is there: a lost one is removed, and returns after five valid samples in a row."""

    def __init__(self) -> None:
        self._hits = 0  # in a row
        self._misses = 0
        self.present = False
        self.reason = "not seen yet"

    def hit(self) -> None:
        """Count a valid sample."""
        self._hits += 1
        self._misses = 0
        self.present = self.present or self._hits >= RETURN_SAMPLES

    def miss(self, reason: str) -> None:
        """Count an exposure without the tool; the third removes it."""
        self._hits = 0
        self._misses += 1
        self.reason = reason
        if self._misses >= SILENT_PERIODS:
            self.present = False

    def lose(self, reason: str) -> None:
        """Count the tool as lost at once, though no exposure says so."""
        self._hits = 0
        self.present = False
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Move:
    """A step of the reference, as the tracker sees it."""

    of: Literal["reference", "tracker", "either"]
    reason: str


def move_of(reference: PoseHistory, chest: PoseHistory | None, limit_m: float) -> Move | None:
    """Distinguish a bumped reference from a moved tracker; None where neither has moved by `limit_m` [m].

    A moved tracker leaves the chest marker where the reference sees it: it breathes less within a step's 50 ms.
    """
    if reference.step_m(LEVER_M) >= limit_m:
        if chest is not None and step_between(reference, chest, LEVER_M) < limit_m:
            return Move("tracker", "the tracker was moved")
        return Move("reference", "the reference was bumped")
    if reference.step_m(LEVER_M, SLOW_NS) >= limit_m:
        return Move("either", "the reference or the tracker was moved")
    return None
