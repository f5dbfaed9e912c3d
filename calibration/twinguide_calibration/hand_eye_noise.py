"""The noise of hand-eye residuals: its shape, estimated with them, and what that costs the estimate.

The residual `(Z B_i)^-1 A_i X` is told at B's source, where noise of B is alike for all samples and noise of A's
turning comes with the lever of X. Four numbers tell it: the turning's size, A's share in it, and the sizes of what the
share leaves of the moving, along the lever and across it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from twinguide_calibration.hand_eye_start import SCALE_FLOOR
from twinguide_calibration.linear import invert, squared_lengths
from twinguide_calibration.rigid import Array, skew
from twinguide_calibration.weights import Biweight, robust_scale

SHARE_KNOWN = 12.0  # the information in that a share lies between 0 and 1
LEAST_FREEDOM = 3.0  # fewer leave the mean of a squared distance without bound


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The noise's shape, by the lever (3, 3) of X: A's share in turning, and the sizes of what is left of it."""

    share: float
    lever: Array
    turning: float  # [rad]
    moving: tuple[tuple[float, Array], ...]  # [m], each within a projection (3, 3)

    @property
    def whitening(self) -> Array:
        """Return the whitening (6, 6) of residuals."""
        out = np.zeros((6, 6))
        out[[0, 1, 2], [0, 1, 2]] = 1.0 / self.turning
        for size, within in self.moving:
            out[3:, 3:] += within / size
        out[3:, :3] = -self.share / self.moving[0][0] * self.lever
        return out

    @property
    def changes(self) -> Array:
        """Return how whitened noise changes (s, 6, 6) with the logarithm of each squared size, and with the share."""
        out = np.zeros((2 + len(self.moving), 6, 6))
        out[0, :3, :3] = np.eye(3)
        for change, (_, within) in zip(out[1:], self.moving, strict=False):
            change[3:, 3:] = within
        out[-1, 3:, :3] = self.lever * (self.turning / self.moving[0][0])
        out[-1, :3, 3:] = out[-1, 3:, :3].T
        return out


def first_moment(residual: Array) -> Array:
    """Return a robust second moment (6, 6) of residuals (n, 6) of which nothing is known yet."""
    turning, moving = (robust_scale(squared_lengths(part), 3) for part in (residual[:, :3], residual[:, 3:]))
    return np.diag(np.repeat([turning**2, moving**2], 3))


def next_moment(residual: Array, weights: Array, kind: Biweight, jacobian: Array, bread: Array) -> Array:
    """Return the noise's second moment (6, 6): that of residuals (n, 6) with Tukey's weights, and what the fit took.

    `E[r r'] = V - J (sum J' V^-1 J)^-1 J'` for residuals r of a fit, so that V is the fixed point of adding the second
    term back (restricted maximum likelihood by expectation and maximisation, Laird & Ware 1982). `jacobian`
    (n, 6, k); `bread` (k, k) is the covariance of the fit.
    """
    used = max(int(np.count_nonzero(weights)), 1)
    left = (weights[:, None] * residual).T @ residual / (kind.square * used)
    by_component = jacobian.transpose(1, 0, 2).reshape(6, -1)
    taken = by_component @ (jacobian @ bread).transpose(1, 0, 2).reshape(6, -1).T / len(residual)
    return left + taken


def shape_of(moment: Array, x: Array) -> Shape:
    """Return the shape that a second moment (6, 6) has by the lever of X."""
    arm = -x[:3, 3] @ x[:3, :3]
    lever, line = skew(arm), np.outer(arm, arm) / max(float(arm @ arm), SCALE_FLOOR**2)
    turning, both, rest = moment[:3, :3], moment[3:, :3], moment[3:, 3:]
    carried, common = lever @ turning @ lever.T, both @ lever.T
    share = min(max(float(common.trace()) / max(float(carried.trace()), 1e-30), 0.0), 1.0)
    rest = rest - share * (common + common.T) + share**2 * carried
    total, along = float(rest.trace()), float((line * rest).sum())
    moving = [((total - along) / 2.0, np.eye(3) - line), (along, line)]
    if along >= moving[0][0]:  # by chance, or without a lever: all directions are alike
        moving = [(total / 3.0, np.eye(3))]
    sizes = tuple((sqrt(max(square, 0.0)) + SCALE_FLOOR, within) for square, within in moving)
    return Shape(share, lever, sqrt(max(float(turning.trace()) / 3.0, 0.0)) + SCALE_FLOOR, sizes)


def small_sample(jacobian: Array, shape: Shape, count: float) -> tuple[Array, float]:
    """Return the covariance (k, k) of a fit whose noise's shape is estimated beside it, and the freedom behind it.

    `jacobian` (n, 6, k) is whitened; `count` samples are worth n. Weights that follow chance widen the covariance, by
    the restricted information on the shape's numbers (Kenward & Roger 1997); the freedom is that of the F with the mean
    which the squared distance of all k values then has.
    """
    n, k, changes = len(jacobian), jacobian.shape[2], shape.changes
    flat = jacobian.reshape(-1, k)
    bread = invert(flat.T @ flat)
    turned = (changes[:, None] @ jacobian).reshape(len(changes), -1, k)
    held = bread @ (flat.T @ turned)
    both = bread @ (turned.swapaxes(1, 2)[:, None] @ turned)
    crossed = held[:, None] @ held
    traces = np.trace(crossed, axis1=2, axis2=3)
    known = n / 2.0 * np.einsum("iab,jba->ij", changes, changes) - np.trace(both, axis1=2, axis2=3) + traces / 2.0
    known *= count / n
    known[-1, -1] += SHARE_KNOWN
    chance = invert(known)
    widened = np.einsum("ij,ijab->ab", chance, both - crossed)
    return bread + 2.0 * widened @ bread, max(2.0 * k / float((chance * traces).sum()), LEAST_FREEDOM)
