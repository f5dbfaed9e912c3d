"""The closed form of `A_i X = Z B_i` that starts the refinement: Park & Martin 1994 over congruent pairs of poses."""

from __future__ import annotations

from math import degrees, inf, sqrt

import numpy as np

from twinguide_calibration.latency import LEAST_TURN, draw_pairs
from twinguide_calibration.linear import eigen, solve, squared_lengths
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import (
    Array,
    Ints,
    compose,
    inverse,
    logarithm,
    nearest_rotation,
)
from twinguide_calibration.weights import median, robust_scale, serial_inflation

AXES_PARALLEL = 0.05  # second over first extent of the turning axes
DISAGREE_RAD = np.radians(5.0)  # sigma of turning beyond which the two streams show no common body
SCALE_FLOOR = 1e-12  # data without noise keep a scale to weigh with
PAIRS = 600  # they start the refinement, and decide what is refused
ROUNDS = 4  # of reweighting; in the first all count alike
OTHER_LEFT = 0.1  # of how far a moved: a mirrored b leaves twice that, X taking up what the lever moved
OTHER_GAIN = 0.2  # of the residual: a mirrored or inverted stream that fits so much better is one


def park(a: Array, b: Array) -> tuple[Array, Array, float]:
    """Return X, Z, shape (4, 4), and the spread of the turning axes, from poses a and b, shape (n, 4, 4).

    Only pairs that turned by the same angle in both streams count (screw congruence, Chen 1991). Raises
    CalibrationRefused for too little turning, one axis alone, streams that no rotation aligns, and a mirrored one.
    """
    first, second = draw_pairs(len(a), PAIRS)
    motion_a, motion_b = inverse(a)[first] @ a[second], inverse(b)[first] @ b[second]
    turn_a, turn_b = logarithm(motion_a[:, :3, :3]), logarithm(motion_b[:, :3, :3])
    angle_a, angle_b = np.sqrt(squared_lengths(turn_a)), np.sqrt(squared_lengths(turn_b))
    apart = (angle_a - angle_b) ** 2
    allowed = max(9.0 * median(apart), 1e-12)
    good = (apart <= allowed) & (np.minimum(angle_a, angle_b) > LEAST_TURN) & (np.maximum(angle_a, angle_b) < 3.0)
    if good.sum() < 3:
        raise CalibrationRefused(
            f"{good.sum()} of {len(good)} pairs of poses turned, and by the same angle in both streams",
            "Turn the body by 20 deg or more about two axes; check that the poses are paired at the same instant.",
        )
    turn_a, turn_b, motion_a, motion_b = turn_a[good], turn_b[good], motion_a[good], motion_b[good]
    spread = _axis_spread(turn_b)
    rotation, apart_rad = _align_axes(turn_a, turn_b)
    if apart_rad > min(DISAGREE_RAD, OTHER_LEFT * sqrt(median(squared_lengths(turn_a)))):
        _refuse_turns(turn_a, b, first[good], second[good], apart_rad)
    translation, left = _hand(motion_a, motion_b, rotation)
    if left > OTHER_LEFT * sqrt(median(squared_lengths(motion_a[:, :3, 3]))):
        _refuse_mirror(motion_a, motion_b, rotation, left)
    x = compose(rotation, translation)
    return x, _robust_mean(a @ x @ inverse(b)), spread


def length_ratio(a: Array, b: Array, turn: Array) -> tuple[float, float, float]:
    """Return by how much b's lengths must be taken to agree with a's, its sigma and degrees, from (n, 4, 4) in pairs.

    The s of `R_a t_x + t_a = R_z (s t_b) + t_z` where both t are left open; `turn` (3, 3) is R_z. Noise in b makes the
    regression on b too small, noise in a makes the one on a too large (Frisch 1934): of what lies between, the s
    nearest to 1.
    """
    n = len(a)
    open_ = np.concatenate([a[:, :3, :3], np.broadcast_to(-np.eye(3), (n, 3, 3))], axis=2).reshape(-1, 6)
    both = np.stack([(b[:, :3, 3] @ turn.T).ravel(), a[:, :3, 3].ravel()], axis=1)
    basis = np.linalg.qr(open_)[0]
    told_b, told_a = (both - basis @ (basis.T @ both)).T
    square, shared = max(float(told_b @ told_b), 1e-300), float(told_a @ told_b)
    least, most = shared / square, float(told_a @ told_a) / shared if shared > 0.0 else inf
    ratio, freedom = min(max(1.0, least), most), max(3 * n - 7, 1)
    left = told_a - least * told_b
    widened = serial_inflation(left.reshape(n, 3), np.ones(n, dtype=np.bool_))
    sigma = ratio * sqrt(float(left @ left) / freedom * widened * square) / max(abs(shared), 1e-300)
    return ratio, sigma, float(freedom)


def _refuse_mirror(motion_a: Array, motion_b: Array, rotation: Array, left: float) -> None:
    """Refuse motions that fit far better with the shifts reversed: a mirror turns axes and shifts oppositely."""
    flipped = motion_b.copy()
    flipped[:, :3, 3] *= -1.0
    if _hand(motion_a, flipped, rotation)[1] < OTHER_GAIN * left:
        raise CalibrationRefused(
            f"the streams turn alike but move oppositely ({left * 1e3:.0f} mm apart)",
            "One stream is mirrored or has swapped axes (left-handed?): check its frame.",
        )


def _refuse_turns(turn_a: Array, b: Array, first: Ints, second: Ints, apart_rad: float) -> None:
    other = logarithm((b[first] @ inverse(b[second]))[:, :3, :3])
    wrong_way = _align_axes(turn_a, other)[1] < OTHER_GAIN * apart_rad
    if apart_rad <= DISAGREE_RAD and not wrong_way:
        return
    raise CalibrationRefused(
        f"no rotation aligns the two streams' turns (they differ by {degrees(apart_rad):.0f} deg)",
        "One of the streams is inverted (a_from_b given as b_from_a), or has its rotations transposed, or its "
        "quaternions in the order w, x, y, z."
        if wrong_way
        else "Are they paired at the same instants, of one rigid body, and is none inverted?",
    )


def _axis_spread(turns: Array) -> float:
    axes = turns / np.sqrt((turns**2).sum(axis=1, keepdims=True))
    values, vectors = eigen(axes.T @ axes / len(axes))
    spread = sqrt(max(float(values[1]), 0.0) / float(values[2]))
    if spread < AXES_PARALLEL:
        axis = ", ".join(f"{v:.2f}" for v in vectors[:, 2])
        raise CalibrationRefused(
            f"the body turned about one axis alone, ({axis}) in b's source: the place along it is unknown",
            "Turn it about a second axis too, by 20 deg or more.",
        )
    return spread


def _align_axes(turn_a: Array, turn_b: Array) -> tuple[Array, float]:
    """Return R with `turn_a = R turn_b`, reweighted, and the robust sigma [rad] left."""
    rotation, squares = np.eye(3), np.ones(len(turn_a))
    for _ in range(ROUNDS):
        rotation = nearest_rotation((_least_absolute(squares)[:, None] * turn_a).T @ turn_b)
        squares = squared_lengths(turn_a - turn_b @ rotation.T)
    return rotation, robust_scale(squares, 3)


def _hand(motion_a: Array, motion_b: Array, rotation: Array) -> tuple[Array, float]:
    """Return X's translation [m] from `(R_a - I) t = R t_b - t_a` over pairs, reweighted, and the robust sigma [m]."""
    left = (motion_a[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (motion_b[:, :3, 3] @ rotation.T - motion_a[:, :3, 3]).ravel()
    translation, squares = np.zeros(3), np.ones(len(motion_a))
    for _ in range(ROUNDS):
        weighted = left * np.repeat(_least_absolute(squares), 3)[:, None]
        translation = solve(weighted.T @ left, weighted.T @ right)
        squares = squared_lengths((left @ translation - right).reshape(-1, 3))
    return translation, robust_scale(squares, 3)


def _least_absolute(squares: Array) -> Array:
    """Return the weights that make least squares one of least lengths (Weiszfeld), bounded near zero."""
    return 1.0 / np.sqrt(squares + 0.01 * median(squares) + SCALE_FLOOR)


def _robust_mean(transforms: Array) -> Array:
    """Return the mean of transforms, shape (n, 4, 4), of least distances (rotations' entries and metres alike)."""
    flat = transforms.reshape(-1, 16)
    mean, squares = flat[0], np.ones(len(flat))
    for _ in range(ROUNDS):
        weights = _least_absolute(squares)
        mean = weights @ flat / weights.sum()
        squares = squared_lengths(flat - mean)
    return compose(nearest_rotation(mean.reshape(4, 4)[:3, :3]), mean.reshape(4, 4)[:3, 3])
