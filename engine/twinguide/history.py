"""Histories of what moves: asked for a pose *at a time*, they answer with how it was made and how sure they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS
from twinguide.errors import BusError
from twinguide.frames import Pose, Transform, rotation_from_vector
from twinguide.messages import Displacement, PoseWire
from twinguide.scene import Point

Array = NDArray[np.float64]
LINE_WINDOW_NS = 250 * MS  # long against the noise, short against the change of a hand's speed
STATIC_WINDOW_NS = 1000 * MS
ACCELERATION = np.array([0.3, 0.3, 0.3, 0.03, 0.03, 0.03])  # 1 sigma of a careful hand [rad/s2, m/s2]


class PoseHistory:
    """The samples of one tool, `target_from_source`, newest last.

    A moving tool between two samples is interpolated; past its newest it is carried on along a line fitted to the last
    250 ms, whose variance grows with the horizon (linear regression: Draper & Smith 1998, eq. 1.4.7) and with the
    acceleration that a line leaves out. A static one is the mean of the last second: its noise falls with the number
    of samples, and a step of it shows in `step_m`.
    """

    def __init__(self, *, static: bool = False, capacity: int = 128) -> None:
        self.static = static
        self._times = np.zeros(capacity, dtype=np.int64)
        self._matrices = np.tile(np.eye(4), (capacity, 1, 1))
        self._covariances = np.zeros((capacity, 6, 6))
        self._count = 0  # of samples since the last `clear`
        self._frames = ("", "")

    def clear(self) -> None:
        """Forget all samples."""
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, len(self._times))

    @property
    def newest_ns(self) -> int:
        """The time of the newest sample [ns]; 0 where there is none."""
        return int(self._times[(self._count - 1) % len(self._times)]) if self._count else 0

    def add(self, t_ns: int, wire: PoseWire) -> None:
        """Take a sample; one that is older than the newest is passed over."""
        if self._count and t_ns <= self.newest_ns:
            return
        pose = wire.pose(t_ns)
        slot = self._count % len(self._times)
        self._times[slot], self._matrices[slot] = t_ns, pose.transform.matrix
        self._covariances[slot] = pose.covariance
        self._frames = (wire.target, wire.source)
        self._count += 1

    def _since(self, t_ns: int) -> NDArray[np.intp]:
        """Return the slots of the samples not older than `t_ns`, oldest first."""
        n = len(self)
        slots = (np.arange(self._count - n, self._count)) % len(self._times)
        return slots[self._times[slots] >= t_ns]

    def at(self, t_ns: int) -> Pose | None:
        """Return the pose at `t_ns` [ns], or None without samples."""
        if not self._count:
            return None
        if self.static:
            return self._mean(t_ns)
        if t_ns < self.newest_ns:
            return self._between(t_ns)
        return self._ahead(t_ns)

    def _deltas(self, slots: NDArray[np.intp], base: Array) -> Array:
        """Return log(base^-1 T), shape (n, 6), for rotations so small that sine and angle agree to 1e-4."""
        r = base[:3, :3].T @ self._matrices[slots, :3, :3]
        v = 0.5 * np.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], axis=1)
        return np.hstack([v, (self._matrices[slots, :3, 3] - base[:3, 3]) @ base[:3, :3]])

    def _moved(self, base: Array, delta: Array) -> Transform:
        m = np.eye(4)
        m[:3, :3] = base[:3, :3] @ rotation_from_vector(delta[:3])
        m[:3, 3] = base[:3, 3] + base[:3, :3] @ delta[3:]
        return Transform.unchecked(*self._frames, m)

    def _mean(self, t_ns: int) -> Pose:
        slots = self._since(self.newest_ns - STATIC_WINDOW_NS)
        base = self._matrices[slots[-1]]
        transform = self._moved(base, self._deltas(slots, base).mean(axis=0))
        return Pose(transform, t_ns, self._covariances[slots].mean(axis=0) / len(slots), "exact")

    def _between(self, t_ns: int) -> Pose:
        slots = self._since(0)
        after = int(np.searchsorted(self._times[slots], t_ns))
        if after == 0:
            first = slots[0]
            return Pose(
                Transform.unchecked(*self._frames, self._matrices[first]), t_ns, self._covariances[first], "lost"
            )
        a, b = slots[after - 1], slots[after]
        share = (t_ns - self._times[a]) / (self._times[b] - self._times[a])
        base = self._matrices[a]
        delta = self._deltas(np.array([b]), base)[0] * share
        covariance = (1 - share) ** 2 * self._covariances[a] + share**2 * self._covariances[b]
        quality = "exact" if share in (0.0, 1.0) else "interpolated"
        return Pose(self._moved(base, delta), t_ns, covariance, quality)

    def _ahead(self, t_ns: int) -> Pose:
        slots = self._since(self.newest_ns - LINE_WINDOW_NS)
        base = self._matrices[slots[-1]]
        covariance = self._covariances[slots].mean(axis=0)
        if len(slots) < 4:
            return Pose(
                Transform.unchecked(*self._frames, base),
                t_ns,
                covariance + _left_out((t_ns - self.newest_ns) * 1e-9),
                "predicted",
            )
        deltas = self._deltas(slots, base)
        times = (self._times[slots] - self.newest_ns) * 1e-9
        centred = times - times.mean()
        ahead = (t_ns - self.newest_ns) * 1e-9 - times.mean()
        spread = float(centred @ centred)
        delta = deltas.mean(axis=0) + ahead * (centred @ deltas) / spread
        gain = 1.0 / len(slots) + ahead**2 / spread
        return Pose(self._moved(base, delta), t_ns, covariance * gain + _left_out(ahead), "predicted")

    def samples(self, since_ns: int) -> tuple[Array, Array]:
        """Return matrices, shape (n, 4, 4), and covariances, shape (n, 6, 6), of the samples since a time [ns]."""
        slots = self._since(since_ns)
        return self._matrices[slots], self._covariances[slots]

    def step_m(self, lever_m: float) -> float:
        """Return how far the last three samples lie from the six before them [m]; 0 while there are fewer.

        The largest of the body's origin and three points at `lever_m` [m] from it, so that a turn counts as well.
        Medians ride over a single outlier; what was bumped stays away.
        """
        if len(self) < 9:
            return 0.0
        m = self._matrices[np.arange(self._count - 9, self._count) % len(self._times)]
        points = m[:, None, :3, 3] + lever_m * np.concatenate(
            [np.zeros((9, 1, 3)), m[:, :3, :3].transpose(0, 2, 1)], axis=1
        )
        steps = np.median(points[6:], axis=0) - np.median(points[:6], axis=0)
        return float(np.linalg.norm(steps, axis=1).max())


def _left_out(ahead_s: float) -> Array:
    """Return the covariance, shape (6, 6), of what a steady acceleration adds after `ahead_s` [s]."""
    return np.diag((0.5 * ACCELERATION * ahead_s**2) ** 2)


class DisplacementHistory:
    """The newest trajectory of how far a structure has moved, interpolated at display time."""

    def __init__(self) -> None:
        self.newest: Displacement | None = None
        self._times = np.zeros(0)
        self._mean = np.zeros((0, 3))
        self._covariance = np.zeros((0, 9))

    def add(self, message: Displacement) -> None:
        """Take a newer trajectory."""
        if self.newest is not None and message.t_ns <= self.newest.t_ns:
            return
        times, mean, covariance = message.times_ns, message.mean.numpy(), message.covariance.numpy()
        n = len(times)
        if n < 2 or list(times) != sorted(set(times)) or mean.shape != (n, 3) or covariance.shape != (n, 3, 3):
            got = f"{n} times, mean {mean.shape}, covariance {covariance.shape}"
            raise BusError(
                "a trajectory: ascending times (n >= 2), (n, 3), (n, 3, 3)", got, f"displacement of {message.of}"
            )
        self.newest = message
        self._times = np.array(times, dtype=np.float64)
        self._mean = mean
        self._covariance = covariance.reshape(-1, 9)

    def at(self, t_ns: int) -> Point | None:
        """Return the displacement [m] with covariance at `t_ns` [ns], or None outside the trajectory."""
        if self.newest is None or not self._times[0] <= t_ns <= self._times[-1]:
            return None
        mean = np.array([np.interp(t_ns, self._times, column) for column in self._mean.T])
        flat = np.array([np.interp(t_ns, self._times, column) for column in self._covariance.T])
        return Point(mean, flat.reshape(3, 3))
