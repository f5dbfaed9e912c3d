"""The noise of hand-eye residuals: its shape, estimated with them, and what that costs the estimate.

The residual `(Z B_i)^-1 A_i X` is told at B's source, where noise of B is alike for all samples and noise of A's
turning comes with the lever of X. Four numbers tell it: the turning's size, A's share in it, and the sizes of what the
share leaves of the moving, along the lever and across it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twinguide_calibration.hand_eye_start import SCALE_FLOOR
from twinguide_calibration.linear import invert, squared_lengths
from twinguide_calibration.rigid import Array, Ints, inverse, skew
from twinguide_calibration.weights import WEIGHTED_SQUARE, robust_scale


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A whitening (6, 6) of residuals, and by which of up to three sizes each whitened component (6,) was divided."""

    whitening: Array
    sizes: Ints


def first_moment(residual: Array) -> Array:
    """Return a robust second moment (6, 6) of residuals (n, 6) of which nothing is known yet."""
    turning, moving = (robust_scale(squared_lengths(part), 3) for part in (residual[:, :3], residual[:, 3:]))
    return np.diag(np.repeat([turning**2, moving**2], 3))


def next_moment(residual: Array, weights: Array, jacobian: Array, bread: Array) -> Array:
    """Return the noise's second moment (6, 6): that of residuals (n, 6) with Tukey's weights, and what the fit took.

    `E[r r'] = V - J (sum J' V^-1 J)^-1 J'` for residuals r of a fit, so that V is the fixed point of adding the second
    term back (restricted maximum likelihood by expectation and maximisation, Laird & Ware 1982). `jacobian`
    (n, 6, k); `bread` (k, k) is the covariance of the fit.
    """
    used = max(int(np.count_nonzero(weights)), 1)
    left = (weights[:, None] * residual).T @ residual / (WEIGHTED_SQUARE[6] * used)
    by_component = jacobian.transpose(1, 0, 2).reshape(6, -1)
    taken = by_component @ (jacobian @ bread).transpose(1, 0, 2).reshape(6, -1).T / len(residual)
    return left + taken


def shape_of(moment: Array, x: Array) -> Shape:
    """Return the shape that a second moment (6, 6) has by the lever of X."""
    arm = inverse(x)[:3, 3]
    frame = np.linalg.qr(np.column_stack([arm, np.eye(3)]))[0].T  # rows: along the lever, twice across it
    lever = frame @ skew(arm)
    turning, both, moving = moment[:3, :3], frame @ moment[3:, :3], frame @ moment[3:, 3:] @ frame.T
    carried = lever @ turning @ lever.T
    share = float(np.clip(np.trace(both @ lever.T) / max(float(np.trace(carried)), 1e-30), 0.0, 1.0))
    rest = np.diag(moving - share * (both @ lever.T + lever @ both.T) + share**2 * carried)
    along, across = float(rest[0]), float(rest[1] + rest[2]) / 2.0
    sizes = np.array([0, 0, 0, 1, 2, 2])
    if along > across:  # by chance, or without a lever: all directions are alike
        along = across = float(rest.sum()) / 3.0
        sizes[4:] = 1
    scales = np.sqrt(np.maximum([np.trace(turning) / 3.0, along, across], 0.0)) + SCALE_FLOOR
    whitening = np.zeros((6, 6))
    whitening[:3, :3] = np.eye(3)
    whitening[3:, 3:], whitening[3:, :3] = frame, -share * lever
    return Shape(whitening / scales[[0, 0, 0, 1, 2, 2]][:, None], sizes)


def small_sample(jacobian: Array, sizes: Ints, count: float) -> tuple[Array, float]:
    """Return the covariance (k, k) of a fit whose noise has sizes estimated beside it, and the freedom behind it.

    `jacobian` (n, 6, k) is whitened; `count` samples are worth n. Weights that follow chance widen the covariance
    (Kenward & Roger 1997, eq. 3, the sizes being independent); the freedom is that of the sizes, each by its part in
    the estimate (after Satterthwaite 1946, as if each direction hung on one size alone).
    """
    parts = [jacobian[:, sizes == size].reshape(-1, jacobian.shape[2]) for size in np.unique(sizes)]
    held = [part.T @ part for part in parts]
    bread = invert(np.sum(held, axis=0))
    wider, spread = bread.copy(), 0.0
    for part, information in zip(parts, held, strict=True):
        leverage = float(np.trace(bread @ information))
        free = max(count * len(part) / len(jacobian) - leverage, 1.0)
        wider += 4.0 / free * bread @ (information - information @ bread @ information) @ bread
        spread += leverage / len(bread) / free
    return wider, 1.0 / spread
