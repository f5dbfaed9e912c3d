"""Rigid transforms as stacks of 4x4 matrices: `a_from_b`, column vectors, metres, perturbed on the right.

A perturbation delta = (rotation vector [rad], translation [m]) of T is told in T's source: `R exp(w), t + R v`, which
is `T exp(delta)` to first order (Barfoot & Furgale 2014, eq. 24).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def skew(vectors: Array) -> Array:
    """Return the matrices of the cross product, shape (..., 3, 3), of vectors, shape (..., 3)."""
    out = np.zeros((*vectors.shape, 3))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    out[..., 0, 1], out[..., 0, 2] = -z, y
    out[..., 1, 0], out[..., 1, 2] = z, -x
    out[..., 2, 0], out[..., 2, 1] = -y, x
    return out


def exponential(vectors: Array) -> Array:
    """Return the rotations, shape (..., 3, 3), of rotation vectors [rad], shape (..., 3) (Rodrigues)."""
    safe = np.maximum(np.sqrt((vectors**2).sum(axis=-1))[..., None, None], 1e-12)
    k = skew(vectors)
    return np.eye(3) + np.sin(safe) / safe * k + (1.0 - np.cos(safe)) / safe**2 * (k @ k)


def logarithm(rotations: Array) -> Array:
    """Return the rotation vectors [rad], shape (..., 3), angles up to pi, of rotations, shape (..., 3, 3)."""
    axes = (rotations[..., (2, 0, 1), (1, 2, 0)] - rotations[..., (1, 2, 0), (2, 0, 1)]) / 2.0  # times the sine
    sine = np.sqrt((axes * axes).sum(axis=-1, keepdims=True))
    cosine = (rotations[..., (0,), (0,)] + rotations[..., (1,), (1,)] + rotations[..., (2,), (2,)] - 1.0) / 2.0
    if cosine.size and cosine.min() < -0.9:  # towards half a turn the sine carries no axis
        return _logarithm_of_quaternions(_quaternion(rotations))
    return axes * np.where(sine < 1e-9, 1.0, np.arctan2(sine, cosine) / np.maximum(sine, 1e-9))


def _logarithm_of_quaternions(quaternion: Array) -> Array:
    quaternion = np.where(quaternion[..., 3:] < 0.0, -quaternion, quaternion)
    sine = np.sqrt((quaternion[..., :3] ** 2).sum(axis=-1))
    factor = np.where(sine < 1e-9, 2.0, 2.0 * np.arctan2(sine, quaternion[..., 3]) / np.where(sine < 1e-9, 1.0, sine))
    return factor[..., None] * quaternion[..., :3]


def _quaternion(rotations: Array) -> Array:
    """Return unit quaternions xyzw by the largest of the four squares (Shepperd 1978)."""
    m = rotations
    a, e, i = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = np.stack([1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i], axis=-1)
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    rows = np.stack(
        [
            np.stack([squares[..., 0], xy, xz, wx], axis=-1),
            np.stack([xy, squares[..., 1], yz, wy], axis=-1),
            np.stack([xz, yz, squares[..., 2], wz], axis=-1),
            np.stack([wx, wy, wz, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    largest = np.argmax(squares, axis=-1)[..., None, None]
    chosen = np.take_along_axis(rows, largest, axis=-2)[..., 0, :]
    return chosen / np.sqrt((chosen**2).sum(axis=-1, keepdims=True))


def compose(rotation: Array, translation: Array) -> Array:
    """Return transforms, shape (..., 4, 4), of rotations, shape (..., 3, 3), and translations [m], shape (..., 3)."""
    out = np.zeros((*translation.shape[:-1], 4, 4))
    out[..., :3, :3], out[..., :3, 3], out[..., 3, 3] = rotation, translation, 1.0
    return out


def inverse(transforms: Array) -> Array:
    """Return `b_from_a`, shape (..., 4, 4), of `a_from_b`, shape (..., 4, 4)."""
    back = np.swapaxes(transforms[..., :3, :3], -1, -2)
    return compose(back, -(back @ transforms[..., :3, 3:])[..., 0])


def perturb(transforms: Array, delta: Array) -> Array:
    """Return the transforms, shape (..., 4, 4), moved by delta (..., 6), told in their source."""
    rotation = transforms[..., :3, :3]
    shift = (rotation @ delta[..., 3:, None])[..., 0]
    return compose(rotation @ exponential(delta[..., :3]), transforms[..., :3, 3] + shift)


def difference(transforms: Array, reference: Array) -> Array:
    """Return delta, shape (..., 6), with `perturb(reference, delta) = transforms`."""
    back = np.swapaxes(reference[..., :3, :3], -1, -2)
    shift = (back @ (transforms[..., :3, 3:] - reference[..., :3, 3:]))[..., 0]
    return np.concatenate([logarithm(back @ transforms[..., :3, :3]), shift], axis=-1)


def adjoint(transforms: Array) -> Array:
    """Return adjoints, shape (..., 6, 6), over (rotation, translation): `T exp(d) = exp(Ad(T) d) T`."""
    rotation = transforms[..., :3, :3]
    out = np.zeros((*transforms.shape[:-2], 6, 6))
    out[..., :3, :3] = out[..., 3:, 3:] = rotation
    out[..., 3:, :3] = skew(transforms[..., :3, 3]) @ rotation
    return out


def nearest_rotation(matrices: Array) -> Array:
    """Return the rotations, shape (..., 3, 3), nearest to matrices in the Frobenius norm; never a reflection."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def mean_transform(transforms: Array, weights: Array | None = None) -> Array:
    """Return the weighted mean, shape (4, 4), of transforms that lie near one another, shape (n, 4, 4)."""
    w = np.ones(len(transforms)) if weights is None else weights
    w = w / w.sum()
    mean = np.tensordot(w, transforms, axes=1)
    return compose(nearest_rotation(mean[:3, :3]), mean[:3, 3])


def point_jacobian(points: Array) -> Array:
    """Return d(point)/d(delta) in source, shape (..., 3, 6): `[-skew(p) | I]`, of points, shape (..., 3)."""
    jacobian = np.zeros((*points.shape, 6))
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    jacobian[..., 0, 1], jacobian[..., 0, 2] = z, -y
    jacobian[..., 1, 0], jacobian[..., 1, 2] = -z, x
    jacobian[..., 2, 0], jacobian[..., 2, 1] = y, -x
    jacobian[..., 0, 3] = jacobian[..., 1, 4] = jacobian[..., 2, 5] = 1.0
    return jacobian


def as_floats(values: Any) -> Array:  # noqa: ANN401 - any array-like
    """Return values as float64."""
    return np.asarray(values, dtype=np.float64)


def no_rows() -> Ints:
    """Return an empty list of row indices: nothing was rejected."""
    return np.zeros(0, dtype=np.int64)
