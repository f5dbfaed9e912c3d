"""The robust Gauss-Newton iteration of `A_i X = Z B_i` on the group, with the offset between the clocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from twinguide_calibration.hand_eye_noise import Shape, first_moment, next_moment, shape_of
from twinguide_calibration.interpolation import interpolate_poses, twists
from twinguide_calibration.linear import invert, solve, squared_lengths, whitening_of
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints, adjoint, difference, inverse, perturb, skew
from twinguide_calibration.weights import Biweight, biweight, robust_scale, settle_scale, tukey

ROUNDS = 20
STEP_CONVERGED = 1e-8  # [rad, m]
STEP_NEGLIGIBLE = 1e-2  # of the estimate's own sigma
TURN_MORE = "Turn the body more, and about more axes."


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What is fitted: poses in pairs, noise where it was given, and the stream of A where the offset is unknown."""

    a: Array
    b: Array
    covariance_a: Array | None = None
    covariance_b: Array | None = None
    times_a: Array | None = None  # of the whole stream of A
    stream_a: Array | None = None
    times_b: Array | None = None

    @property
    def given(self) -> bool:
        """Return whether the noise was given."""
        return self.covariance_a is not None or self.covariance_b is not None

    def take(self, rows: Ints) -> Problem:
        """Return the problem of some of its pairs."""
        parts = (self.covariance_a, self.covariance_b, self.times_b)
        covariance_a, covariance_b, times_b = (part if part is None else part[rows] for part in parts)
        return replace(
            self, a=self.a[rows], b=self.b[rows], covariance_a=covariance_a, covariance_b=covariance_b, times_b=times_b
        )

    def at(self, offset: float) -> tuple[Array, Array | None]:
        """Return A at B's times moved by an offset [s], and how fast it moves there."""
        if self.times_a is None or self.stream_a is None or self.times_b is None:
            return self.a, None
        moved, _ = interpolate_poses(self.times_a, self.stream_a, self.times_b + offset)
        half = 2.0 * float(np.median(np.diff(self.times_a)))
        return moved, twists(self.times_a, self.stream_a, self.times_b + offset, half)


@dataclass(frozen=True, slots=True, eq=False)
class Final:
    """The residuals at the end: told in B's source, and whitened, with their Jacobian."""

    residual: Array  # (n, 6)
    whitened: Array  # (n, 6)
    jacobian: Array  # (n, 6, k) whitened, over (X, Z[, offset])
    scale: float
    kind: Biweight
    shape: Shape | None  # of the noise; None where it was given
    b: Array  # (n, 4, 4)


def refine(problem: Problem, x: Array, z: Array, offset: float) -> tuple[Array, Array, float, Final]:
    """Return X, Z and the offset of least Tukey-weighted whitened residual (Gauss-Newton on the group).

    The noise's sizes are estimated beside them. Where that does not settle, as where most samples stand still and leave
    next to nothing, they are held at their robust start (Yohai 1987).
    """
    found = iterate(problem, x, z, offset)
    if found is None:
        held = first_moment(difference(inverse(z) @ problem.at(offset)[0] @ x, problem.b))
        found = iterate(problem, x, z, offset, held)
    if found is None:
        raise CalibrationRefused("no X and Z settle on these pairs", TURN_MORE)
    return found


def iterate(
    problem: Problem, x: Array, z: Array, offset: float, held: Array | None = None, widths: float = 1.0
) -> tuple[Array, Array, float, Final] | None:
    """Return what `refine` does, or None where steps longer than a sigma are left at the end.

    Pairs count as far out as `widths` of the biweight.
    """
    moment, free = held, held is None
    length, scale = 0.0, 0.0
    for _ in range(ROUNDS):
        a, speed = problem.at(offset)
        final, step, length, following = _linear(problem, a, speed, x, z, moment, 0.0 if free else 1.0, widths)
        if length < STEP_NEGLIGIBLE * final.scale or np.abs(step[:12]).max() < STEP_CONVERGED:
            return x, z, offset, final
        moment, scale = following if free else held, final.scale
        x, z = perturb(x, step[:6]), perturb(z, step[6:12])
        if speed is not None:
            offset += float(step[12])
    if length > scale:
        return None
    a, speed = problem.at(offset)
    return x, z, offset, _linear(problem, a, speed, x, z, moment, 0.0 if free else 1.0, widths)[0]


def _linear(
    problem: Problem,
    a: Array,
    speed: Array | None,
    x: Array,
    z: Array,
    moment: Array | None,
    least: float,
    widths: float,
) -> tuple[Final, Array, float, Array | None]:
    """Return the residuals, the step, its length told in noise, and the noise's next second moment."""
    reached = inverse(z) @ a @ x
    residual = difference(reached, problem.b)
    jacobian = np.zeros((len(a), 6, 12 if speed is None else 13))
    jacobian[:, :, :6] = np.eye(6)
    jacobian[:, :3, 6:9] = jacobian[:, 3:, 9:12] = -reached[:, :3, :3].swapaxes(1, 2)  # minus its inverse's adjoint
    jacobian[:, 3:, 6:9] = jacobian[:, :3, 6:9] @ skew(-reached[:, :3, 3])
    if speed is not None:
        jacobian[:, :, 12] = speed @ adjoint(inverse(x)).T
    if problem.given:
        whitening, shape, kind, least = _given_whitening(problem, x), None, biweight(6, times=widths), 1.0
    else:
        shape = shape_of(first_moment(residual) if moment is None else moment, x)
        # two components a size on the average, and of each two numbers' worth are fitted
        whitening, kind = shape.whitening, biweight(6, 2.0 * (len(a) - 2.0), widths)
    whitened = (whitening @ residual[:, :, None])[..., 0]
    white = whitening @ jacobian
    squares = squared_lengths(whitened)
    k = white.shape[2]
    scale = max(settle_scale(squares, kind, robust_scale(squares, 6), k), least)
    weights = tukey(squares, kind, scale)
    flat = white.reshape(-1, k)
    weighted = flat * np.repeat(weights, 6)[:, None]
    information = weighted.T @ flat
    step = -solve(information, weighted.T @ whitened.ravel())
    if not problem.given:
        moment = next_moment(residual + jacobian @ step, weights, kind, jacobian, invert(flat.T @ flat) * scale**2)
    length = sqrt(max(float(step @ information @ step), 0.0))
    return Final(residual, whitened, white, scale, kind, shape, problem.b), step, length, moment


def _given_whitening(problem: Problem, x: Array) -> Array:
    """Return whitening matrices (n, 6, 6) of the stated covariances, A's carried through X to B's source."""
    carried = adjoint(inverse(x))
    total = np.zeros((len(problem.b), 6, 6))
    if problem.covariance_a is not None:
        total = total + carried @ problem.covariance_a @ carried.T
    if problem.covariance_b is not None:
        total = total + problem.covariance_b
    return whitening_of(total)
