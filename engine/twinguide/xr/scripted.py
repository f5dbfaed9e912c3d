"""Where a simulated headset's head and hands come from: a script, or a recording."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter
from typing import Protocol, TypeVar

import numpy as np

from twinguide.clock import SECOND
from twinguide.errors import HeadsetError
from twinguide.frames import Array, Transform, rotation_from_vector, vector_from_rotation
from twinguide.headset import HANDS, Hand, HandName

T = TypeVar("T")


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
class HeadKeyframed:
    """A head that moves through keyframes (time [ns], `stage_from_headset`), ascending: a script or a recording.

    Between them the pose is interpolated, before the first and after the last it holds. `since` turns a time into the
    keyframes' own.
    """

    keyframes: Sequence[tuple[int, Transform]]
    since: Callable[[int], int] = int

    def __post_init__(self) -> None:
        if not self.keyframes or any(t >= later for (t, _), (later, _) in pairwise(self.keyframes)):
            raise HeadsetError("keyframes of a head at ascending times", f"{[t for t, _ in self.keyframes[:9]]}")

    def reported(self, t_ns: int) -> Transform:
        """Return `stage_from_headset` at `t_ns` [ns]."""
        return interpolate(*_around(self.keyframes, self.since(t_ns)))


@dataclass(frozen=True)
class HandsKeyframed:
    """Hands that move through keyframes (time [ns], Hand), ascending: a script or a recording.

    Poses, trigger and squeeze are interpolated; buttons and `active` hold until the next keyframe. `since` turns a time
    into the keyframes' own.
    """

    left: Sequence[tuple[int, Hand]] = ()
    right: Sequence[tuple[int, Hand]] = ()
    since: Callable[[int], int] = int

    def __call__(self, t_ns: int) -> dict[HandName, Hand]:
        """Return both hands at `t_ns` [ns]."""
        own_ns = self.since(t_ns)
        return {name: hand_at(keys, own_ns) for name, keys in zip(HANDS, (self.left, self.right), strict=True)}


def hand_at(keyframes: Sequence[tuple[int, Hand]], t_ns: int) -> Hand:
    """Return the hand at `t_ns` [ns]; inactive before the first keyframe."""
    if not keyframes or t_ns < keyframes[0][0]:
        return Hand()
    hand, following, share = _around(keyframes, t_ns)
    if not hand.active or not following.active:
        return hand
    return replace(
        hand,
        pose_grip=_between(hand.pose_grip, following.pose_grip, share),
        pose_aim=_between(hand.pose_aim, following.pose_aim, share),
        trigger=hand.trigger + share * (following.trigger - hand.trigger),
        squeeze=hand.squeeze + share * (following.squeeze - hand.squeeze),
    )


def _around(keyframes: Sequence[tuple[int, T]], t_ns: int) -> tuple[T, T, float]:
    """Return the keyframes before and after a time [ns] and its share of the way; beyond either end, the same twice."""
    after = bisect_right(keyframes, t_ns, key=itemgetter(0))
    (t0_ns, before), (t1_ns, following) = keyframes[max(after - 1, 0)], keyframes[min(after, len(keyframes) - 1)]
    return before, following, (t_ns - t0_ns) / (t1_ns - t0_ns) if t1_ns > t0_ns else 0.0


def _between(before: Transform | None, after: Transform | None, share: float) -> Transform | None:
    return before if before is None or after is None else interpolate(before, after, share)
