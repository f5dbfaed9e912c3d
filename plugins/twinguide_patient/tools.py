"""What the operator's hands hold: a pointer that touches, and a needle that advances and bends. All in image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import rotation_from_vector

from .faults import smooth
from .noise import Wobble
from .room import ANTERIOR

Array = NDArray[np.float64]
REACH_S = 1.0  # from landmark to landmark
SWING_HZ = (0.47, 0.31)  # across and along: the cone is filled in some ten seconds
PIVOT_SLIP_M = 0.03e-3  # rms per axis, of a tip in a divot
READY_M = 0.025  # above the skin, where the needle is picked up
SPEED_MAX = 0.5  # [m/s], [rad/s x 10]: no hand is faster, whatever it is told
BEND_LENGTH_M = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A tool in the hand: its straight tip [m], shape (3,), and its axes, shape (3, 3); z points from tip to hand."""

    tip: Array
    rotation: Array

    def pose(self, tip_in_tool: Array) -> Array:
        """Return image_from_tool, shape (4, 4), whose tip [m], shape (3,), lies at `tip`."""
        m = np.eye(4)
        m[:3, :3] = self.rotation
        m[:3, 3] = self.tip - self.rotation @ tip_in_tool
        return m


class Pointer:
    """A pointer that glides to a landmark and rests on it with a tremor."""

    def __init__(self, tremor: Wobble, tremor_m: float) -> None:
        self._tremor, self._tremor_m = tremor, tremor_m
        self._rotation = axes_along(ANTERIOR + np.array([-0.3, 0.0, -0.3]))
        self._from: Array | None = None
        self._since_s = 0.0
        self._tip: Array | None = None
        self.landmark = ""
        self.offset = np.zeros(3)  # [m], in reference
        self._divot: tuple[Array, float] | None = None  # place [m], half the cone [rad]

    def swing(self, divot: Array, cone_rad: float, t_s: float) -> None:
        """Set the tip into a divot [m] and swing from `t_s` [s] on, by up to `cone_rad` from the middle."""
        self.lay_down()
        self._divot, self._since_s = (divot, min(max(cone_rad, 0.0), 1.0)), t_s

    def swinging(self, t_s: float) -> Held | None:
        """Return the pointer as it swings; None while it does not."""
        if self._divot is None:
            return None
        place, cone = self._divot
        passed = t_s - self._since_s
        across, along = (np.tan(cone) * np.sin(2 * np.pi * hz * passed) / np.sqrt(2.0) for hz in SWING_HZ)
        axis = self._rotation @ np.array([across, along, 1.0])
        return Held(place + self._tremor.at(t_s) * PIVOT_SLIP_M, axes_along(axis))

    def touch(self, landmark: str, place: Array, offset: Array, t_s: float) -> None:
        """Start towards a landmark that is now at `place` [m]; `offset` [m], in reference, is the hand's error."""
        self._divot = None
        if landmark == self.landmark:
            self.offset = offset
            return
        self._from = place + 0.15 * ANTERIOR if self._tip is None else self._tip
        self._since_s, self.landmark, self.offset = t_s, landmark, offset

    def lay_down(self) -> None:
        """Let go."""
        self.landmark, self._tip, self._from, self._divot = "", None, None, None

    def held(self, t_s: float, goal: Array) -> Held | None:
        """Return the pointer on its way to `goal` [m] or resting there; None where it lies."""
        if self._from is None:
            return None
        self._tip = self._from + (goal - self._from) * smooth((t_s - self._since_s) / REACH_S)
        return Held(self._tip + self._tremor.at(t_s) * self._tremor_m, self._rotation)


class Needle:
    """A needle whose handle follows the hand and whose tip strays sideways with the depth in tissue, squared."""

    def __init__(self, rng: np.random.Generator, entry: Array, target: Array, bend_m: float) -> None:
        self._rng, self._entry, self._bend_m = rng, entry, bend_m
        self._out = (entry - target) / np.sqrt(((entry - target) ** 2).sum())
        angle = rng.uniform(0, 2 * np.pi)
        self._bevel = np.array([np.cos(angle), np.sin(angle), 0.0])  # in tool
        self.hand: Held | None = None
        self._velocity, self._turn = np.zeros(3), np.zeros(3)  # in image

    def move(self, velocity: Array, turn: Array) -> None:
        """Move on with a velocity [m/s] and a turn about the tip [rad/s], both in image; pick the needle up first."""
        if self.hand is None:
            tip = self._entry + READY_M * self._out + self._rng.normal(size=3) * 0.003
            tilt = rotation_from_vector(self._rng.normal(size=3) * np.radians(2.0))
            self.hand = Held(tip, tilt @ axes_along(self._out))
        self._velocity = np.clip(velocity, -SPEED_MAX, SPEED_MAX)
        self._turn = np.clip(turn, -10 * SPEED_MAX, 10 * SPEED_MAX)

    def lay_down(self) -> None:
        """Let go."""
        self.hand = None

    def advance(self, dt_s: float) -> None:
        """Follow the hand for `dt_s` [s]."""
        if self.hand is not None:
            rotation = rotation_from_vector(self._turn * dt_s) @ self.hand.rotation
            self.hand = Held(self.hand.tip + self._velocity * dt_s, rotation)

    @property
    def depth_m(self) -> float:
        """Return how deep the tip is below the planned entry, along the path [m]; negative outside."""
        return -READY_M if self.hand is None else float((self._entry - self.hand.tip) @ self._out)

    @property
    def direction(self) -> Array:
        """Return the unit vector, shape (3,), from hand to tip."""
        return -self._out if self.hand is None else -self.hand.rotation[:, 2]

    def true_tip(self) -> Array | None:
        """Return where the bent tip is [m], shape (3,); None where the needle lies."""
        if self.hand is None:
            return None
        stray = self._bend_m * (max(self.depth_m, 0.0) / BEND_LENGTH_M) ** 2
        return self.hand.tip + self.hand.rotation @ self._bevel * stray


def axes_along(z: Array) -> Array:
    """Return a rotation, shape (3, 3), whose third axis points along `z`, shape (3,)."""
    z = z / np.sqrt(z @ z)
    x = np.cross(np.array([0.0, 0.0, 1.0]) if abs(z[2]) < 0.9 else np.array([1.0, 0.0, 0.0]), z)
    x = x / np.sqrt(x @ x)
    return np.column_stack([x, np.cross(z, x), z])
