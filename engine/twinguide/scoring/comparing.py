"""Compare what was shown with what was true: the error of every guide frame at its display time, by source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide.messages import Array as WireArray
from twinguide.messages import Shown, Vec3
from twinguide.scoring.evidence import Evidence, Times, needle_of, rotations_from_quaternions

Array = NDArray[np.float64]
CHI2_95 = 7.814727903251179  # 95 % quantile of chi-square with 3 degrees of freedom
SMALLEST_VARIANCE = 1e-14  # [m2], (0.1 um)2: keeps a flat covariance invertible, far below any sensor


@dataclass(frozen=True, eq=False)
class ErrorTrack:
    """Shown minus true [m] and the covariance that was shown [m2], per guide frame; NaN where not shown or unknown."""

    error: Array  # (n, 3)
    covariance: Array  # (n, 3, 3)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Return which frames count, shape (n,)."""
        return np.isfinite(self.error.sum(axis=1))

    @property
    def size(self) -> Array:
        """Return the length of the error [m], shape (n,)."""
        return np.linalg.norm(self.error, axis=1)


@dataclass(frozen=True, eq=False)
class Series:
    """The guide frames' errors by source, at the times at which they were first seen [ns], shape (n,)."""

    t_ns: Times
    target: ErrorTrack  # in reference
    breathing: ErrorTrack  # the part of it that motion brings
    registration: ErrorTrack  # the rest; without a covariance of its own
    needle: ErrorTrack
    overlay: ErrorTrack  # in stage, as the wearer perceives it: the headset's own error included


def series_of(evidence: Evidence) -> Series:
    """Compare every guide frame with the truth at the time when it was first seen."""
    frames = evidence.guide()
    t_ns = np.array([f.seen_ns or f.t_ns for f in frames], dtype=np.int64)
    target, moved = _points([f.target for f in frames]), _points([f.target_displacement for f in frames])
    needle = needle_of(frames)
    tip = _points([f.tips.get(needle) for f in frames])
    true_target = evidence.true_point("target").at(t_ns)
    true_moved = evidence.true_point("displacement").at(t_ns)
    target_error, breathing_error = target - true_target, moved - true_moved
    unknown = np.full((len(frames), 3, 3), np.nan)
    return Series(
        t_ns=t_ns,
        target=ErrorTrack(target_error, _covariances([f.target_covariance for f in frames])),
        breathing=ErrorTrack(breathing_error, _covariances([f.target_displacement_covariance for f in frames])),
        registration=ErrorTrack(target_error - breathing_error, unknown),
        needle=ErrorTrack(
            tip - evidence.true_point("needle_tip").at(t_ns),
            _covariances([f.tip_covariances.get(needle) for f in frames]),
        ),
        overlay=ErrorTrack(
            _perceived(evidence, frames, t_ns) - _in_stage(evidence, true_target, t_ns),
            _covariances([f.target_stage_covariance for f in frames]),
        ),
    )


def _perceived(evidence: Evidence, frames: list[Shown], t_ns: Times) -> Array:
    """Return where the wearer sees the target [m], shape (n, 3), in stage.

    The picture is made for the head that was reported and seen from the true one.
    """
    if not frames:
        return np.empty((0, 3))
    reported = rotations_from_quaternions(np.array([f.stage_from_head.quaternion for f in frames]))
    origin = np.array([f.stage_from_head.position for f in frames])
    in_head = np.einsum("nji,nj->ni", reported, _points([f.target_stage for f in frames]) - origin)
    rotation, position = evidence.true_pose("stage_from_head").at(t_ns)
    return np.einsum("nij,nj->ni", rotation, in_head) + position


def _in_stage(evidence: Evidence, in_reference: Array, t_ns: Times) -> Array:
    """Carry true points [m], shape (n, 3), from reference into stage."""
    tracker, at_tracker = evidence.true_pose("tracker_from_reference").at(t_ns)
    stage, at_stage = evidence.true_pose("stage_from_tracker").at(t_ns)
    in_tracker = np.einsum("nij,nj->ni", tracker, in_reference) + at_tracker
    return np.einsum("nij,nj->ni", stage, in_tracker) + at_stage


def _points(values: list[Vec3 | None]) -> Array:
    return np.array([v if v is not None else (np.nan,) * 3 for v in values], dtype=float).reshape(-1, 3)


def _covariances(values: list[WireArray | None]) -> Array:
    unknown = np.full((3, 3), np.nan)
    return np.array([v.numpy() if v is not None else unknown for v in values], dtype=float).reshape(-1, 3, 3)


def inside95(error: Array, covariance: Array) -> NDArray[np.bool_]:
    """Tell which errors [m], shape (n, 3), lie in their 95 % ellipsoid, covariance [m2], shape (n, 3, 3)."""
    solved = np.linalg.solve(covariance + np.eye(3) * SMALLEST_VARIANCE, error[:, :, None])[:, :, 0]
    return np.sum(error * solved, axis=1) < CHI2_95
