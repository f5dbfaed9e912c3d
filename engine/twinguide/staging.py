"""Estimate `stage_from_tracker` continuously from a tracked body fixed to the headset.

Every exposure that shows the body is compared with the headset's own pose at that time. The headset's jitter is
correlated, so the exposures within its correlation time are averaged into one sighting that has the whole jitter, while
the tracker's noise falls with their number; the filter is `twinguide_calibration.stage_update`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS, SECOND
from twinguide.frames import Pose, Transform, pose_covariance, rotation_from_vector
from twinguide.messages import Exposure, PoseWire
from twinguide.scenario import Tool
from twinguide.wording import text
from twinguide_calibration import HeadsetSettings, Sighting, StageState, stage_ahead, stage_start, stage_update
from twinguide_calibration.rigid import perturb

Array = NDArray[np.float64]
CORRELATION_NS = 250 * MS  # of a headset's jitter; its slower part is the filter's drift
UNSEEN_NS = SECOND  # without the body in view, after which the wearer is warned
# The room drifts by 0.4 mm and 0.03 deg in a minute, as inside-out tracking does in a known place; two sightings in a
# row that do not fit are a jump; eight, in two seconds, bring the error at the patient below a millimetre.
SETTINGS = HeadsetSettings(drift_rad=7e-5, drift_m=5e-5, outliers_to_jump=2, sightings_to_settle=8, gap_s=60.0)


@dataclass(slots=True, eq=False)
class _Average:
    """The exposures of one sighting: the body's deviations from where a first estimate of the stage places it."""

    since_ns: int
    tracker_from_stage: Transform
    count: int
    deviation: Array  # (6,), summed
    noise: Array  # (6, 6), summed


class Staging:
    """Estimates `stage_from_tracker` of one run from its exposures."""

    def __init__(self, tool: str, mount: Pose, head_covariance: Array) -> None:
        """Take the body's name, `headset_from_<tool>` with its covariance, and the headset's stated jitter (6, 6)."""
        self._tool = tool
        self._mount = mount
        self._head_covariance = head_covariance
        self._state: StageState | None = None
        self._average: _Average | None = None
        self._since_ns = -1  # earlier exposures show a room that has moved since, or were taken already
        self._seen_ns = -1
        self._pose: Pose | None = None
        self.fault = ""
        self.reason = text("stage_unsettled", name=tool)  # why `pose` returns None

    def take(self, exposure: Exposure, head: Callable[[int], Transform | None]) -> str:
        """Take an exposure; `head` gives `stage_from_headset` at a time [ns]. Return what has jumped, or nothing."""
        t_ns = exposure.t_ns
        wire = exposure.tools.get(self._tool)
        jump = ""
        if wire is not None and t_ns > self._since_ns:
            reported = head(t_ns)
            if reported is not None:
                self._since_ns = self._seen_ns = t_ns
                jump = self._add(t_ns, reported, wire)
        unseen = t_ns - self._seen_ns > UNSEEN_NS
        self.fault = text("headset_body_lost", name=self._tool) if unseen and self._state else ""
        return jump

    def restart(self, since_ns: int) -> None:
        """Forget the stage: since `since_ns` [ns] it lies elsewhere."""
        self._state = self._average = self._pose = None
        self._since_ns = max(self._since_ns, since_ns)

    def pose(self, t_ns: int) -> Pose | None:
        """Return `stage_from_tracker` as known at `t_ns` [ns]; None until it has settled.

        The same object until more is known: what depends on it need not be chained anew.
        """
        state = self._state
        if state is None or not state.settled:
            self._pose = None
        elif self._pose is None or t_ns - self._pose.t_ns >= CORRELATION_NS:
            transform = Transform.unchecked("stage", "tracker", state.transform)
            self._pose = Pose(transform, t_ns, stage_ahead(state, t_ns * 1e-9, SETTINGS))
        return self._pose

    def _add(self, t_ns: int, reported: Transform, wire: PoseWire) -> str:
        sight = wire.pose(t_ns)
        expected = reported @ self._mount.transform
        average = self._average
        if average is None:
            tracker_from_stage = sight.transform @ expected.inverse()
            average = self._average = _Average(t_ns, tracker_from_stage, 0, np.zeros(6), np.zeros((6, 6)))
        deviation = sight.transform.inverse() @ (average.tracker_from_stage @ expected)
        average.count += 1
        average.deviation += _twist(deviation)
        average.noise += sight.covariance
        if t_ns - average.since_ns < CORRELATION_NS:
            return ""
        self._average = self._pose = None
        return self._follow(self._sighting(t_ns, average, reported, expected))

    def _follow(self, sighting: Sighting) -> str:
        mount = self._mount.transform.matrix
        covariance = self._mount.covariance
        if self._state is None:
            self._state = stage_start(sighting, mount, covariance)
            return ""
        before = self._state.jumps
        self._state = stage_update(self._state, sighting, mount, covariance, SETTINGS)
        return text("stage_jumped", name=self._tool) if self._state.jumps > before else ""

    def _sighting(self, t_ns: int, average: _Average, reported: Transform, expected: Transform) -> Sighting:
        """Return the exposures as one sighting at the time of the last: the body where their mean places it."""
        body = perturb((average.tracker_from_stage @ expected).matrix, -average.deviation / average.count)
        noise = average.noise / average.count**2
        return Sighting(t_ns * 1e-9, reported.matrix, self._head_covariance, body, noise)


def mount_of(name: str, tool: Tool) -> Pose:
    """Return `headset_from_<name>` of a body fixed to the headset, with its covariance."""
    mount = tool.mount
    assert mount is not None  # checking.check has seen to it
    rotation = rotation_from_vector(np.radians(mount.turn_deg))
    transform = Transform.of("headset", name, rotation, np.array(mount.at_mm) * 1e-3)
    if mount.covariance is not None:
        return Pose(transform, 0, np.array(mount.covariance))
    return Pose(transform, 0, pose_covariance(np.radians(mount.sigma_deg), mount.sigma_mm * 1e-3))


def _twist(transform: Transform) -> Array:
    """Return (rotation vector, translation), shape (6,), of a transform; in plain floats, for every exposure."""
    (a, b, c, x), (d, e, f, y), (g, h, i, z), _ = transform.matrix.tolist()
    u, v, w = 0.5 * (h - f), 0.5 * (c - g), 0.5 * (d - b)
    sine, cosine = sqrt(u * u + v * v + w * w), 0.5 * (a + e + i - 1.0)
    if sine < 1e-9:
        return np.array([0.0 if cosine > 0.0 else pi, 0.0, 0.0, x, y, z])  # half a turn, about whatever axis
    scale = atan2(sine, cosine) / sine
    return np.array([u * scale, v * scale, w * scale, x, y, z])
