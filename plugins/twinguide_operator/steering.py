"""Steer a needle by what is shown: to the entry, onto the path, then in, a breath's rest at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinguide import Act, Message, Shown

from .plugin import OperatorOptions

Array = NDArray[np.float64]
GAIN_PER_S = 1.6  # of a hand that follows its eye; stable with a reaction time of 0.25 s (gain * delay < pi/2)
SIDEWAYS = 0.3  # of what it is off: tissue lets a needle be pushed aside only a little
STANDOFF_M = 0.008  # in front of the skin, where the needle is aligned
ALIGNED_M = 0.002
ALIGNED_RAD = np.radians(1.2)
ARRIVED_M = 0.001


class Steering:
    """Return a hand's velocity and turn for each frame seen."""

    def __init__(self, options: OperatorOptions, rng: np.random.Generator) -> None:
        self._options, self._rng = options, rng
        self._aim: Array | None = None  # the target as last seen while the gate was open
        self._inserting = False
        self._arrived = False

    def rest(self) -> list[Message]:
        """Return what stops the hand, and start over with aligning: what was learnt of the way may be void."""
        self._aim, self._inserting, self._arrived = None, False, False
        return [Act(kind="needle")]

    def act(self, shown: Shown | None) -> list[Message]:
        """Return what the hand does now; it rests while needle or target are not shown."""
        if shown is None or shown.step != "guide":
            return []
        if shown.target is None or shown.entry is None:
            return [Act(kind="needle")]  # held still: there is nothing to steer by
        if shown.gate_open:
            self._aim = np.array(shown.target)
        tip, direction = shown.tips.get("needle"), shown.directions.get("needle")
        if tip is None or direction is None or self._aim is None:
            return [Act(kind="needle")]  # picked up and held still
        velocity, turn = self._hand(np.array(tip), np.array(direction), np.array(shown.entry), shown)
        velocity = velocity + self._rng.normal(0.0, self._options.hand_sigma_mm_s * 1e-3, 3)
        return [Act(kind="needle", velocity=_vec(velocity), turn=_vec(turn))]

    def _hand(self, tip: Array, direction: Array, entry: Array, shown: Shown) -> tuple[Array, Array]:
        assert self._aim is not None
        path = self._aim - entry
        path /= np.linalg.norm(path)
        if self._inserting:
            return self._insert(tip, direction, shown), np.zeros(3)
        gap = entry - STANDOFF_M * path - tip
        turn = GAIN_PER_S * np.cross(direction, path)
        off = float(np.arccos(np.clip(direction @ path, -1.0, 1.0)))
        self._inserting = float(np.linalg.norm(gap)) < ALIGNED_M and off < ALIGNED_RAD
        return _limited(GAIN_PER_S * gap, self._options.approach_mm_s * 1e-3), turn

    def _insert(self, tip: Array, direction: Array, shown: Shown) -> Array:
        """Advance along the needle while the gate is open and nothing warns; a warning stops the hand."""
        assert self._aim is not None
        gap = self._aim - tip
        ahead = float(gap @ direction)
        self._arrived = self._arrived or ahead < ARRIVED_M
        warned = any(f.severity == "warning" for f in shown.findings)
        if self._arrived or warned or not shown.gate_open:
            return np.zeros(3)
        across = gap - ahead * direction
        return _limited(GAIN_PER_S * (ahead * direction + SIDEWAYS * across), self._options.insert_mm_s * 1e-3)


def _limited(velocity: Array, limit: float) -> Array:
    speed = float(np.linalg.norm(velocity))
    return velocity if speed <= limit else velocity * (limit / speed)


def _vec(v: Array) -> tuple[float, float, float]:
    return (float(v[0]), float(v[1]), float(v[2]))
