"""The chest marker's place in `reference`, from camera exposures, with the reference's pose filtered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide import Pose, Transform
from twinguide.frames import rotation_from_vector, vector_from_rotation

Array = NDArray[np.float64]

MOVED_AFTER = 8  # exposures in a row that disagree with the filtered pose, until it is taken to have moved
DISAGREEMENT = 30.0  # squared Mahalanobis distance, 6 degrees of freedom: once in 25,000 by chance


@dataclass(frozen=True, slots=True, eq=False)
class ChestSample:
    """The chest marker's origin at one exposure, in reference."""

    t_ns: int
    position: Array  # (3,) [m]
    covariance: Array  # (3, 3) [m2], of the exposure alone
    baseline_covariance: Array  # (3, 3) [m2], from the filtered reference: hardly changes from sample to sample


class ReferenceFilter:
    """A pose that stands still in the camera's view, averaged over its last `window_s` seconds.

    The chest marker lies far from the reference body, so that body's noisy rotation would move it by a millimetre;
    averaged it costs a tenth. Where the body or the camera has truly moved, the filter starts anew.
    """

    def __init__(self, window_s: float, rate_hz: float = 60.0) -> None:
        self._longest = max(round(window_s * rate_hz), 1)
        self._count = self._odd = 0
        self._pose: Transform | None = None

    def add(self, seen: Pose) -> Pose:
        """Take a pose `tracker_from_reference` and return the filtered one with its covariance."""
        if self._pose is None or self._odd >= MOVED_AFTER:
            self._pose, self._count, self._odd = seen.transform, 1, 0
            return seen
        step = self._pose.inverse() @ seen.transform
        delta = np.concatenate([vector_from_rotation(step.rotation), step.translation])
        # The innovation's covariance is the sample's own plus the mean's: (1 + 1/n) of it.
        spread = seen.covariance * (1 + 1 / self._count) + 1e-12 * np.eye(6)
        if float(delta @ np.linalg.solve(spread, delta)) > DISAGREEMENT:
            self._odd += 1
        else:
            self._odd = 0
            self._count = min(self._count + 1, self._longest)
            gain = delta / self._count
            correction = Transform.of(
                self._pose.source, seen.transform.source, rotation_from_vector(gain[:3]), gain[3:]
            )
            self._pose = _orthonormal(self._pose @ correction)
        return Pose(self._pose, seen.t_ns, seen.covariance / self._count, seen.quality)


def _orthonormal(transform: Transform) -> Transform:
    """Return the nearest rigid transform: thousands of small corrections would otherwise drift off."""
    u, _, vt = np.linalg.svd(transform.rotation)
    return Transform.of(transform.target, transform.source, u @ vt, transform.translation)


def locate_chest(tracker_from_reference: Pose, tracker_from_chest: Pose) -> ChestSample:
    """Return where the chest marker's origin lies in reference."""
    reference_from_tracker = tracker_from_reference.transform.inverse()
    position = (reference_from_tracker @ tracker_from_chest.transform).translation
    rotation = reference_from_tracker.rotation
    own = rotation @ tracker_from_chest.point_covariance(np.zeros(3)) @ rotation.T
    # Told in the reference's own frame, the filtered pose's error moves the chest as it moves any point there.
    baseline = Pose(
        Transform.of("reference", "reference"), tracker_from_reference.t_ns, tracker_from_reference.covariance
    )
    return ChestSample(tracker_from_chest.t_ns, position, own, baseline.point_covariance(position))
