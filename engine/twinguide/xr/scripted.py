"""Where a simulated headset's head and hands come from: a script, or a recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import SECOND
from twinguide.errors import HeadsetError
from twinguide.frames import Transform, rotation_from_quaternion, rotation_from_vector, vector_from_rotation
from twinguide.xr.base import HANDS, Hand, HandName

Array = NDArray[np.float64]


class HeadSource(Protocol):
    """Tell where the headset believes that the head is."""

    def reported(self, t_ns: int) -> Transform:
        """Return `stage_from_headset` at `t_ns` [ns]."""
        ...


HandSource = Callable[[int], Mapping[HandName, Hand]]
"""Answer both hands at a time [ns]; a hand that is absent is not active."""


def look_at(eye: Array, point: Array, source: str = "headset") -> Transform:
    """Return `stage_from_<source>` at `eye` [m], shape (3,), whose -Z points at `point` [m], level with the floor."""
    back = eye - point
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 1.0, 0.0), back)
    if np.linalg.norm(right) < 1e-9:
        raise HeadsetError("a line of sight that is not vertical", f"from {eye.tolist()} to {point.tolist()}")
    right = right / np.linalg.norm(right)
    return Transform.of("stage", source, np.column_stack([right, np.cross(back, right), back]), eye)


def interpolate(before: Transform, after: Transform, share: float) -> Transform:
    """Return the pose between two of the same frames: position along the line, rotation along the geodesic."""
    turn = vector_from_rotation(before.rotation.T @ after.rotation)
    rotation = before.rotation @ rotation_from_vector(share * turn)
    return Transform.of(
        before.target, before.source, rotation, before.translation + share * (after.translation - before.translation)
    )


@dataclass(frozen=True)
class HeadSway:
    """A wearer who stands still: the head looks at `field` from `eye` ([m], in stage) and sways by a few millimetres.

    Three incommensurate slow sines of `amplitude` [m], so the picture moves and never repeats within a session.
    """

    eye: Array = field(default_factory=lambda: np.array([0.0, 1.45, 0.35]))
    field: Array = field(default_factory=lambda: np.array([0.0, 1.0, 0.0]))
    amplitude: float = 0.006

    def reported(self, t_ns: int) -> Transform:
        """Return `stage_from_headset` at `t_ns` [ns]."""
        t = t_ns / SECOND
        phase = 2.0 * np.pi * t * np.array([0.31, 0.23, 0.17])
        return look_at(self.eye + self.amplitude * np.sin(phase), self.field)


@dataclass(frozen=True)
class HeadRecorded:
    """A recorded head: times [ns], shape (n,), ascending; positions [m], shape (n, 3); quaternions xyzw, shape (n, 4).

    Between samples the pose is interpolated, outside the first and last hold.
    """

    times_ns: NDArray[np.int64]
    positions: Array
    quaternions: Array
    source: str = "headset"

    def __post_init__(self) -> None:
        n = len(self.times_ns)
        if n == 0 or self.positions.shape != (n, 3) or self.quaternions.shape != (n, 4):
            shapes = f"{self.times_ns.shape}, {self.positions.shape}, {self.quaternions.shape}"
            raise HeadsetError("a recorded head: times (n,), positions (n, 3), quaternions (n, 4)", shapes)
        if bool((np.diff(self.times_ns) <= 0).any()):
            raise HeadsetError("ascending times of a recorded head", "a time that does not come after the one before")

    def reported(self, t_ns: int) -> Transform:
        """Return `stage_from_<source>` at `t_ns` [ns]."""
        after = int(np.searchsorted(self.times_ns, t_ns, side="right"))
        if after == 0 or after == len(self.times_ns):
            return self._sample(max(after - 1, 0))
        span = int(self.times_ns[after] - self.times_ns[after - 1])
        share = (t_ns - int(self.times_ns[after - 1])) / span
        return interpolate(self._sample(after - 1), self._sample(after), share)

    def _sample(self, index: int) -> Transform:
        rotation = rotation_from_quaternion(self.quaternions[index])
        return Transform.of("stage", self.source, rotation, self.positions[index])


@dataclass(frozen=True)
class HandsKeyframed:
    """Hands that move through keyframes (time [ns], Hand), ascending: a script or a recording.

    Poses, trigger and squeeze are interpolated; buttons and `active` hold until the next keyframe.
    """

    left: Sequence[tuple[int, Hand]] = ()
    right: Sequence[tuple[int, Hand]] = ()

    def __call__(self, t_ns: int) -> dict[HandName, Hand]:
        """Return both hands at `t_ns` [ns]."""
        return {name: hand_at(keys, t_ns) for name, keys in zip(HANDS, (self.left, self.right), strict=True)}


def hand_at(keyframes: Sequence[tuple[int, Hand]], t_ns: int) -> Hand:
    """Return the hand at `t_ns` [ns]; inactive before the first keyframe."""
    after = next((i for i, (t, _) in enumerate(keyframes) if t > t_ns), len(keyframes))
    if after == 0:
        return Hand()
    t0, hand = keyframes[after - 1]
    if after == len(keyframes) or not hand.active or not keyframes[after][1].active:
        return hand
    t1, following = keyframes[after]
    share = (t_ns - t0) / (t1 - t0)
    return replace(
        hand,
        pose_grip=_between(hand.pose_grip, following.pose_grip, share),
        pose_aim=_between(hand.pose_aim, following.pose_aim, share),
        trigger=hand.trigger + share * (following.trigger - hand.trigger),
        squeeze=hand.squeeze + share * (following.squeeze - hand.squeeze),
    )


def _between(before: Transform | None, after: Transform | None, share: float) -> Transform | None:
    return before if before is None or after is None else interpolate(before, after, share)
