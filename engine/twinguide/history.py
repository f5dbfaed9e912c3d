"""Histories of moving bodies: where they are *at a time*, how that was obtained, and how certain it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import inf, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS, SECOND
from twinguide.errors import FrameError
from twinguide.frames import EYE, Pose, Quality, Transform, rotation_from_quaternion, rotation_from_vector
from twinguide.messages import PoseWire

Array = NDArray[np.float64]
LINE_WINDOW_NS = 250 * MS  # long against the noise, short against the change of a hand's speed
STATIC_WINDOW_NS = 1000 * MS
BUMP_NS = 50 * MS  # of newest samples, against twice as long before
RECENT = 6  # samples of a static body that tell whether it still rests
MOVING = 60.0  # Mahalanobis distance squared [1] of their mean from a second's; by white noise alone: 5e-11 (chi2, 6)
AWAY = np.array([5e-3, 3e-4])  # [rad, m] of it that are worth following: noise need not be white, nor stated well
TURN_RAD = 0.3  # within a line's samples: up to here sine and angle agree to 2 %
ACCELERATION = np.array([0.3, 0.3, 0.3, 0.03, 0.03, 0.03])  # 1 sigma of a careful hand [rad/s2, m/s2]
SPEED = np.array([1.0, 1.0, 1.0, 0.2, 0.2, 0.2])  # 1 sigma of a hand's speed where it is unknown [rad/s, m/s]
BENDING = np.diag((0.5 * ACCELERATION) ** 2)  # what a steady acceleration adds to the variance in a second, grows ^4


class PoseHistory:
    """The samples of one tool, `target_from_source`, newest last.

    A moving tool is interpolated between two samples, and extrapolated from the newest along a line fitted to the last
    250 ms, whose variance grows with the horizon (linear regression: Draper & Smith 1998, eq. 1.4.7) and with the
    acceleration that a line leaves out. A static one is the mean of the last second: its noise falls with the number
    of samples, and `step_m` shows a step of it. While it moves it is extrapolated like the others.
    """

    def __init__(self, *, static: bool = False, capacity: int = 128) -> None:
        self.static = static
        self._times = np.zeros(capacity, dtype=np.int64)
        self._matrices = np.tile(np.eye(4), (capacity, 1, 1))
        self._covariances = np.zeros((capacity, 6, 6))
        self._count = 0  # of samples since the last `clear`
        self._frames = ("", "")
        self._course: Pose | _Line | None = None  # a static one's mean or a moving one's line, until the next sample

    def clear(self) -> None:
        """Forget all samples."""
        self._count = 0
        self._course = None

    def __len__(self) -> int:
        return min(self._count, len(self._times))

    @property
    def newest_ns(self) -> int:
        """The time of the newest sample [ns]; 0 where there is none."""
        return int(self._times[(self._count - 1) % len(self._times)]) if self._count else 0

    def add(self, t_ns: int, wire: PoseWire) -> None:
        """Take a sample; one that is no newer than the newest is ignored.

        Raise FrameError or BusError where it is not rigid and finite.
        """
        if self._count and t_ns <= self.newest_ns:
            return
        rotation = rotation_from_quaternion(wire.quaternion)
        covariance = wire.covariance_array()
        if not isfinite(sum(wire.position)):
            raise FrameError("a finite position", str(wire.position), f"{wire.target}_from_{wire.source}")
        slot = self._count % len(self._times)
        self._times[slot] = t_ns
        self._covariances[slot] = covariance
        self._matrices[slot, :3, :3] = rotation
        self._matrices[slot, :3, 3] = wire.position
        self._frames = (wire.target, wire.source)
        self._count += 1
        self._course = None

    def _since(self, t_ns: int) -> NDArray[np.intp]:
        """Return the slots of the samples not older than `t_ns`, oldest first."""
        n = len(self)
        slots = (np.arange(self._count - n, self._count)) % len(self._times)
        return slots[self._times[slots] >= t_ns]

    def at(self, t_ns: int, sigma_ns: int = 0) -> Pose | None:
        """Return the pose at a time that is itself known to `sigma_ns` [ns]; None without samples."""
        course = self.settle()
        if course is None or isinstance(course, Pose):
            return course
        return self._between(t_ns) if t_ns < self.newest_ns else course.at(t_ns, self._frames, sigma_ns)

    def settle(self) -> Pose | _Line | None:
        """Return where the body rests, or how it goes on: worked out once for each sample, best before it is asked."""
        if self._course is None and self._count:
            self._course = (self._mean() if self.static else None) or self._fit()
        return self._course

    def _mean(self) -> Pose | None:
        """Return the mean of the last second; None where the newest samples leave it: it would lag behind."""
        slots = self._since(self.newest_ns - STATIC_WINDOW_NS)
        n = len(slots)
        base = self._matrices[slots[-1]]
        mean = _delta(base, self._matrices[slots].sum(axis=0) / n)
        covariance = self._covariances[slots].sum(axis=0) / n
        if n > 2 * RECENT:
            departure = _delta(base, self._matrices[slots[-RECENT:]].sum(axis=0) / RECENT) - mean
            spread = covariance * (1.0 / RECENT - 1.0 / n) + np.diag(np.full(6, 1e-12))
            away = np.abs(departure).reshape(2, 3).max(axis=1) > AWAY
            if away.any() and departure @ np.linalg.solve(spread, departure) > MOVING:
                return None
        return self._pose(_apply_delta(base, mean), self.newest_ns, covariance / n, "exact")

    def _between(self, t_ns: int) -> Pose:
        slots = self._since(0)
        after = int(np.searchsorted(self._times[slots], t_ns))
        if after == 0:
            return self._pose(self._matrices[slots[0]], t_ns, self._covariances[slots[0]], "lost")
        a, b = slots[after - 1], slots[after]
        share = (t_ns - self._times[a]) / (self._times[b] - self._times[a])
        base = self._matrices[a]
        delta = _delta(base, self._matrices[b]) * share
        covariance = (1 - share) ** 2 * self._covariances[a] + share**2 * self._covariances[b]
        quality = "exact" if share in (0.0, 1.0) else "interpolated"
        return self._pose(_apply_delta(base, delta), t_ns, covariance, quality)

    def _pose(self, matrix: Array, t_ns: int, covariance: Array, quality: Quality) -> Pose:
        return Pose(Transform.unchecked(*self._frames, matrix), t_ns, covariance, quality)

    def _fit(self) -> _Line:
        """Fit a line to the last samples, of a third of the time where they turn far."""
        line = self._fit_over(LINE_WINDOW_NS)
        return self._fit_over(LINE_WINDOW_NS // 3) if line.turns_far else line

    def _fit_over(self, window_ns: int) -> _Line:
        """Fit a line to the samples of the last `window_ns` [ns], four at least; fewer tell no speed."""
        slots = self._since(self.newest_ns - window_ns)
        if len(slots) < 4:
            slots = self._since(self.newest_ns - LINE_WINDOW_NS)[-4:]
        n = len(slots)
        base = self._matrices[slots[-1]].copy()
        covariance = self._covariances[slots].sum(axis=0) / n
        if n < 4:
            return _Line(self.newest_ns, 0.0, base, np.zeros(6), None, covariance, 1.0, 0.0)
        matrices = self._matrices[slots]
        times = (self._times[slots] - self.newest_ns) * 1e-9
        centre = float(times.sum()) / n
        centred = times - centre
        spread = float(centred @ centred)
        mean = _delta(base, matrices.sum(axis=0) / n)  # deltas are linear in the samples
        speed = _delta(base, base + np.tensordot(centred, matrices, axes=1) / spread)
        return _Line(self.newest_ns, centre, base, mean, speed, covariance, 1.0 / n, 1.0 / spread)

    def samples(self, since_ns: int) -> tuple[Array, Array]:
        """Return matrices, shape (n, 4, 4), and covariances, shape (n, 6, 6), of the samples since a time [ns]."""
        slots = self._since(since_ns)
        return self._matrices[slots], self._covariances[slots]

    def step_m(self, lever_m: float, within_ns: int = 0) -> float:
        """Return how far the body has stepped between the two places of `places` [m]; 0 while samples are too few.

        The largest step of its origin and of three points at `lever_m` [m] from it, so that a turn counts as well.
        """
        places = self.places(lever_m, within_ns)
        if places is None:
            return 0.0
        steps = places[1] - places[0]
        return sqrt(float((steps * steps).sum(axis=0).max()))

    def places(self, lever_m: float, within_ns: int = 0) -> tuple[Array, Array] | None:
        """Return where the body was before, and where it has been for the last 50 ms; None while samples are too few.

        Each is its origin and a point at `lever_m` on each of its axes [m], as columns, shape (3, 4): the median of the
        last 50 ms, three samples at least, and of twice as many before: those just before, or the oldest of the last
        `within_ns` [ns], where a slow push shows. A single outlier does not move a median; a bumped body stays away.
        """
        slots = self._since(self.newest_ns - within_ns if within_ns else 0)
        new = max(3, int((self._times[slots] > self.newest_ns - BUMP_NS).sum()))
        if len(slots) < 3 * new:
            return None
        old = slots[: 2 * new] if within_ns else slots[-3 * new : -new]
        return _median(self._corners(old, lever_m)), _median(self._corners(slots[-new:], lever_m))

    def _corners(self, slots: NDArray[np.intp], lever_m: float) -> Array:
        """Return the body's origin and a point on each of its axes [m], as columns, shape (n, 3, 4)."""
        return self._matrices[slots][:, :3] @ _origin_and_levers(lever_m)


def step_between(body: PoseHistory, other: PoseHistory, lever_m: float) -> float:
    """Return how far another body has stepped as seen from a body [m]; infinite while samples are too few.

    A motion of both as one, or of the camera, does not count. The largest step of the other's origin and of three
    points at `lever_m` [m] from it: a body that is twisted about the line to the other leaves its origin in place.
    """
    bodies, others = body.places(lever_m), other.places(lever_m)
    if bodies is None or others is None:
        return inf
    was, now = (
        (corners[:, 1:] - corners[:, :1]).T @ (places - corners[:, :1]) / lever_m
        for corners, places in zip(bodies, others, strict=True)
    )
    return float(np.linalg.norm(now - was, axis=0).max())


def _median(values: Array) -> Array:
    """Return the median along the first axis, at a fifth of np.median's time."""
    n = len(values)
    ordered = np.sort(values, axis=0)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2.0


@cache
def _origin_and_levers(lever_m: float) -> Array:
    """Return the origin and a point on each axis, homogeneous, as columns, shape (4, 4)."""
    corners = np.zeros((4, 4))
    corners[:3, 1:] = lever_m * np.eye(3)
    corners[3] = 1.0
    return corners


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """How a moving body goes on from its last samples: a line over (rotation, translation) about the newest."""

    newest_ns: int
    centre_s: float  # of the samples' times, from the newest
    base: Array  # (4, 4), the newest sample
    mean: Array  # (6,), of the samples about the base
    speed: Array | None  # (6,) [rad/s, m/s]; None: unknown
    covariance: Array  # (6, 6), of one sample
    gain: float  # the line's variance at the centre, in samples
    growth: float  # and what it gains with the square of the time from there [1/s2]

    @property
    def turns_far(self) -> bool:
        """Whether the body turns further within the window than a line over small rotations can follow."""
        if self.speed is None:
            return False
        rate = sqrt(float(self.speed[:3] @ self.speed[:3]))  # [rad/s]
        return rate * LINE_WINDOW_NS > TURN_RAD * SECOND

    def at(self, t_ns: int, frames: tuple[str, str], sigma_ns: int) -> Pose:
        """Return the pose at `t_ns`, known to `sigma_ns` [ns], not before the newest sample."""
        ahead = (t_ns - self.newest_ns) * 1e-9 - self.centre_s
        matrix = self.base if self.speed is None else _apply_delta(self.base, self.mean + ahead * self.speed)
        covariance = self.covariance * (self.gain + ahead**2 * self.growth) + BENDING * ahead**4
        if self.speed is None:
            covariance += np.diag((SPEED * ahead) ** 2)
        elif sigma_ns:
            covariance += np.outer(self.speed, self.speed) * (sigma_ns * 1e-9) ** 2
        return Pose(Transform.unchecked(*frames, matrix), t_ns, covariance, "predicted")


def _delta(base: Array, other: Array) -> Array:
    """Return log(base^-1 other), shape (6,), for rotations so small that sine and angle agree to 1e-4.

    Linear in `other`, so that a weighted sum of matrices gives that of their deltas.
    """
    m = base[:3, :3].T @ (other[:3] - base[:3])
    (_, xy, xz, x), (yx, _, yz, y), (zx, zy, _, z) = m.tolist()
    return np.array([0.5 * (zy - yz), 0.5 * (xz - zx), 0.5 * (yx - xy), x, y, z])


def _apply_delta(base: Array, delta: Array) -> Array:
    """Return `base exp(delta)`, shape (4, 4), for a small delta (rotation, translation), shape (6,)."""
    m = EYE.copy()
    m[:3, :3] = base[:3, :3] @ rotation_from_vector(delta[:3])
    m[:3, 3] = base[:3, 3] + base[:3, :3] @ delta[3:]
    return m
