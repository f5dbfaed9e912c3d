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
from twinguide_calibration.rigid import Array, inverse, skew
from twinguide_calibration.weights import Biweight, robust_scale

SHARE_KNOWN = 12.0  # the information in that a share lies between 0 and 1
LEAST_FREEDOM = 3.0  # fewer leave the mean of a squared distance without bound


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A whitening (6, 6) of residuals, and how whitened noise changes, (6, 6) each, with each number of the shape.

    The sizes' changes come first, by their logarithms; the last is the share's.
    """

    whitening: Array
    changes: tuple[Array, ...]


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
    arm = inverse(x)[:3, 3]
    lever = skew(arm)
    line = np.outer(arm, arm) / max(float(arm @ arm), SCALE_FLOOR**2)
    turning, both, moving = moment[:3, :3], moment[3:, :3], moment[3:, 3:]
    carried, common = lever @ turning @ lever.T, both @ lever.T
    share = min(max(float(common.trace()) / max(float(carried.trace()), 1e-30), 0.0), 1.0)
    rest = moving - share * (common + common.T) + share**2 * carried
    total, along = float(rest.trace()), float((line * rest).sum())
    across = (total - along) / 2.0
    off, spared = np.eye(3) - line, [line]
    if along >= across:  # by chance, or without a lever: all directions are alike
        along = across = total / 3.0
        off, spared = np.eye(3), []
    turn_m, along_m, across_m = (sqrt(max(part, 0.0)) + SCALE_FLOOR for part in (turning.trace() / 3.0, along, across))
    whitening, mixed = np.zeros((6, 6)), np.zeros((6, 6))
    whitening[:3, :3] = np.eye(3) / turn_m
    whitening[3:, 3:] = off / across_m + (line / along_m if spared else 0.0)
    whitening[3:, :3] = -share / across_m * lever
    mixed[3:, :3] = lever * (turn_m / across_m)
    sizes = [np.zeros((6, 6)) for _ in range(2 + len(spared))]
    sizes[0][:3, :3] = np.eye(3)
    for size, part in zip(sizes[1:], [off, *spared], strict=True):
        size[3:, 3:] = part
    return Shape(whitening, (*sizes, mixed + mixed.T))


def small_sample(jacobian: Array, shape: Shape, count: float) -> tuple[Array, float]:
    """Return the covariance (k, k) of a fit whose noise's shape is estimated beside it, and the freedom behind it.

    `jacobian` (n, 6, k) is whitened; `count` samples are worth n. Weights that follow chance widen the covariance, by
    the restricted information on the shape's numbers (Kenward & Roger 1997); the freedom is that of the F with the mean
    which the squared distance of all k values then has.
    """
    n, k = len(jacobian), jacobian.shape[2]
    flat = jacobian.reshape(-1, k)
    bread = invert(flat.T @ flat)
    turned = [(change @ jacobian).reshape(-1, k) for change in shape.changes]
    held = [bread @ (flat.T @ one) for one in turned]
    both = [[bread @ (one.T @ two) for two in turned] for one in turned]
    number = range(len(turned))
    known = np.array([[np.trace(shape.changes[i] @ shape.changes[j]) * n / 2.0 for j in number] for i in number])
    known -= np.array([[np.trace(both[i][j]) - np.trace(held[i] @ held[j]) / 2.0 for j in number] for i in number])
    known *= count / n
    known[-1, -1] += SHARE_KNOWN
    chance = invert(known)
    widened = [chance[i, j] * (both[i][j] - held[i] @ held[j]) for i in number for j in number]
    apart = sum(chance[i, j] * float(np.trace(held[i] @ held[j])) for i in number for j in number)
    return bread + 2.0 * np.sum(widened, axis=0) @ bread, max(2.0 * k / apart, LEAST_FREEDOM)
