"""Frames: rigid transforms that know their frames, and poses that know their time, quality and covariance.

A covariance of a pose is 6x6 over (rotation [rad], translation [m]) in the pose's *source* frame: the true transform
is `T exp(delta)`, so an error of a tool's pose is expressed at the tool and does not grow with its distance from the
camera (Barfoot & Furgale 2014, eq. 24, with the perturbation on the right).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import FrameError

Array = NDArray[np.float64]
Quality = Literal["exact", "interpolated", "predicted", "lost"]
QUALITIES: tuple[Quality, ...] = ("exact", "interpolated", "predicted", "lost")  # best first
_set = object.__setattr__
LAST_ROW = np.diag([0.0, 0.0, 0.0, 1.0])
NO_COVARIANCE = np.zeros((6, 6))  # of a pose that is exact
EYE = np.eye(4)  # copied, at a tenth of making it anew
NORMAL_95 = 1.6448536  # standard normal quantile
CHI_95 = 2.7955  # standard deviations that hold 95 % of a normal error in three dimensions
RIGID_TOLERANCE = 1e-6  # float32 matrices from devices pass, a scale of 1.00001 does not


def skew(v: Array) -> Array:
    """Return the matrix of the cross product, shape (3, 3), of a vector, shape (3,)."""
    x, y, z = v.tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotation_from_vector(vector: Array) -> Array:
    """Return the rotation, shape (3, 3), of a rotation vector [rad], shape (3,) (Rodrigues)."""
    x, y, z = vector.tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    a, b = (math.sin(angle) / angle, (1.0 - math.cos(angle)) / angle**2) if angle > 1e-9 else (1.0, 0.0)
    bxy, bxz, byz = b * x * y, b * x * z, b * y * z
    return np.array(
        [
            [1.0 - b * (y * y + z * z), bxy - a * z, bxz + a * y],
            [bxy + a * z, 1.0 - b * (x * x + z * z), byz - a * x],
            [bxz - a * y, byz + a * x, 1.0 - b * (x * x + y * y)],
        ]
    )


def vector_from_rotation(rotation: Array) -> Array:
    """Return the rotation vector [rad], shape (3,), of a rotation, shape (3, 3)."""
    x, y, z, w = quaternion_from_rotation(rotation).tolist()
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < 1e-12 else 2.0 * math.atan2(sine, abs(w)) / sine
    return np.array([x, y, z]) * (-scale if w < 0.0 else scale)


def quaternion_from_rotation(rotation: Array) -> Array:
    """Return the unit quaternion xyzw, shape (4,), of a rotation, shape (3, 3) (Shepperd 1978)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    squares = [1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i]
    largest = max(range(4), key=squares.__getitem__)
    rows = (
        (squares[0], b + d, c + g, h - f),
        (b + d, squares[1], f + h, c - g),
        (c + g, f + h, squares[2], d - b),
        (h - f, c - g, d - b, squares[3]),
    )
    x, y, z, w = rows[largest]
    size = math.sqrt(x * x + y * y + z * z + w * w)
    return np.array([x / size, y / size, z / size, w / size])


def rotation_from_quaternion(quaternion: Any) -> Array:  # noqa: ANN401 - any sequence of four numbers
    """Return the rotation, shape (3, 3), of a quaternion xyzw, shape (4,); it is normalised."""
    x, y, z, w = map(float, quaternion)
    s = x * x + y * y + z * z + w * w
    if not s > 0:
        raise FrameError("a quaternion xyzw that is not zero", str((x, y, z, w)))
    s = 2.0 / s
    return np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )


def _rigidity(rows: list[list[float]]) -> tuple[float, float]:
    """Return the largest entry of R R^T - I, and det R; in plain floats, a tenth of NumPy's time for nine numbers."""
    (a, b, c, _), (d, e, f, _), (g, h, i, _) = rows[:3]
    squares = (a * a + b * b + c * c - 1.0, d * d + e * e + f * f - 1.0, g * g + h * h + i * i - 1.0)
    across = (a * d + b * e + c * f, a * g + b * h + c * i, d * g + e * h + f * i)
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return max(*map(abs, squares), *map(abs, across)), determinant


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """A rigid transform `target_from_source`: 4x4 row-major, column vectors, metres; right-handed, checked on entry."""

    target: str
    source: str
    matrix: Array

    def __post_init__(self) -> None:
        m = np.asarray(self.matrix, dtype=np.float64)
        where = f"{self.target}_from_{self.source}"
        rows: list[list[float]] = m.tolist() if m.shape == (4, 4) else []
        if not rows or not math.isfinite(sum(map(sum, rows))):
            raise FrameError("a finite 4x4 matrix", f"shape {m.shape}, finite {bool(np.isfinite(m).all())}", where)
        error, determinant = _rigidity(rows)
        if error > RIGID_TOLERANCE or determinant < 0 or rows[3] != [0.0, 0.0, 0.0, 1.0]:
            got = f"R R^T off by {error:.2g}, det {determinant:+.4f}, last row {rows[3]}"
            raise FrameError("a rigid right-handed transform", got, where, "Check scale, axes and row order.")
        _set(self, "matrix", m)

    @staticmethod
    def of(target: str, source: str, rotation: Array | None = None, translation: Array | None = None) -> Transform:
        """Build from a rotation, shape (3, 3), and a translation [m], shape (3,); each defaults to none."""
        m = EYE.copy()
        if rotation is not None:
            m[:3, :3] = rotation
        if translation is not None:
            m[:3, 3] = translation
        return Transform(target, source, m)

    @property
    def rotation(self) -> Array:
        """Return the rotation, shape (3, 3)."""
        return self.matrix[:3, :3]

    @property
    def translation(self) -> Array:
        """Return the translation [m], shape (3,), in target."""
        return self.matrix[:3, 3]

    @property
    def quaternion(self) -> Array:
        """Return the unit quaternion xyzw, shape (4,)."""
        return quaternion_from_rotation(self.rotation)

    @staticmethod
    def unchecked(target: str, source: str, matrix: Array) -> Transform:
        """Build from a matrix, shape (4, 4), that is rigid by construction, without the cost of checking it."""
        transform = object.__new__(Transform)
        _set(transform, "target", target)
        _set(transform, "source", source)
        _set(transform, "matrix", matrix)
        return transform

    def inverse(self) -> Transform:
        """Return `source_from_target`."""
        m = LAST_ROW.copy()
        turned = m[:3, :3] = self.matrix[:3, :3].T
        m[:3, 3] = -(turned @ self.matrix[:3, 3])
        return Transform.unchecked(self.source, self.target, m)

    def __matmul__(self, other: Transform) -> Transform:
        if self.source != other.target:
            raise FrameError(
                f"frames that meet: {self.target}_from_{self.source} @ {self.source}_from_...",
                f"{self.target}_from_{self.source} @ {other.target}_from_{other.source}",
                next_step="Chain neighbours that cancel, or invert one.",
            )
        return Transform.unchecked(self.target, other.source, self.matrix @ other.matrix)

    def apply(self, points: Array) -> Array:
        """Return points [m], shape (..., 3), mapped from source into target."""
        return points @ self.rotation.T + self.translation


def adjoint(transform: Transform) -> Array:
    """Return the adjoint, shape (6, 6), over (rotation, translation): `T exp(d) = exp(Ad(T) d) T`."""
    out = np.zeros((6, 6))
    rotation = transform.matrix[:3, :3]
    out[:3, :3] = out[3:, 3:] = rotation
    out[3:, :3] = skew(transform.matrix[:3, 3]) @ rotation
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """A transform with the time it is valid for [ns], its quality, and its covariance, shape (6, 6)."""

    transform: Transform
    t_ns: int
    covariance: Array
    quality: Quality = "exact"

    def __matmul__(self, other: Pose) -> Pose:
        """Chain two independent poses; the covariance is carried through the adjoint."""
        transform = self.transform @ other.transform
        a = adjoint(other.transform.inverse())
        quality = QUALITIES[max(QUALITIES.index(self.quality), QUALITIES.index(other.quality))]
        return Pose(transform, min(self.t_ns, other.t_ns), a @ self.covariance @ a.T + other.covariance, quality)

    def inverse(self) -> Pose:
        """Return the inverse, its covariance expressed in the new source frame."""
        a = adjoint(self.transform)
        return Pose(self.transform.inverse(), self.t_ns, a @ self.covariance @ a.T, self.quality)

    def point_covariance(self, point: Array) -> Array:
        """Return the covariance [m2], shape (3, 3), in target, of a point [m], shape (3,), fixed in source."""
        jacobian = self.point_jacobian(point)
        return jacobian @ self.covariance @ jacobian.T

    def point_jacobian(self, point: Array) -> Array:
        """Return how the pose's error moves a point [m], shape (3,), fixed in source: in target, shape (3, 6)."""
        x, y, z = point.tolist()
        jacobian = [[0.0, z, -y, 1.0, 0.0, 0.0], [-z, 0.0, x, 0.0, 1.0, 0.0], [y, -x, 0.0, 0.0, 0.0, 1.0]]
        return self.transform.matrix[:3, :3] @ np.array(jacobian)


def pose_covariance(sigma_rad: float, sigma_m: float) -> Array:
    """Return the covariance, shape (6, 6), of a pose with the same error on all axes, 1 sigma [rad] and [m]."""
    return np.diag(np.repeat([sigma_rad, sigma_m], 3) ** 2)


def points_covariance(pose: Pose, points: Array) -> Array:
    """Return `pose.point_covariance` of many points [m], shape (n, 3), at once: [m2], shape (n, 3, 3)."""
    x, y, z = points.T
    jacobian = np.zeros((len(points), 3, 6))
    jacobian[:, 0, 1], jacobian[:, 0, 2] = z, -y
    jacobian[:, 1, 0], jacobian[:, 1, 2] = -z, x
    jacobian[:, 2, 0], jacobian[:, 2, 1] = y, -x
    jacobian[:, (0, 1, 2), (3, 4, 5)] = 1.0
    turned = pose.transform.rotation @ jacobian
    return turned @ pose.covariance @ turned.transpose(0, 2, 1)


def largest_variance(covariance: Array) -> float:
    """Return the variance along the worst direction [m2] of a covariance [m2], shape (3, 3).

    The largest eigenvalue in closed form (Smith 1961), in plain floats: a tenth of NumPy's time.
    """
    (a, b, c), (_, e, f), (_, _, i) = covariance.tolist()
    mean = (a + e + i) / 3.0
    a, e, i = a - mean, e - mean, i - mean
    size = math.sqrt((a * a + e * e + i * i + 2.0 * (b * b + c * c + f * f)) / 6.0)
    if size <= 1e-12 * abs(mean):
        return mean
    half_determinant = (a * (e * i - f * f) - b * (b * i - c * f) + c * (b * f - c * e)) / 2.0
    return mean + 2.0 * size * math.cos(math.acos(min(1.0, max(-1.0, half_determinant / (size * size * size)))) / 3.0)


def p95_from_covariance(covariance: Array) -> float:
    """Return the radius [m] that holds 95 % of a zero-mean 3-D normal error, covariance [m2], shape (3, 3).

    The sum of weighted chi-squares is matched by a scaled one in its first two moments (Satterthwaite 1946), whose
    quantile is taken by Wilson & Hilferty 1931; within 2 % for any shape of the ellipsoid. Infinite where a number is
    not finite: it exceeds every tolerance. In plain floats, a tenth of NumPy's time for nine numbers.
    """
    (a, b, c), (d, e, f), (g, h, i) = covariance.tolist()
    trace = a + e + i
    if not math.isfinite(trace + b + c + d + f + g + h):
        return math.inf
    square = a * a + e * e + i * i + 2.0 * (b * d + c * g + f * h)
    if trace <= 0.0 or square <= 0.0:
        return 0.0
    k = 2.0 / 9.0 * min(1.0, square / (trace * trace))  # 1: all along one line; more is no covariance
    return math.sqrt(trace * (1.0 - k + NORMAL_95 * math.sqrt(k)) ** 3)
